"""Sections for implicit steps in time: convergence, cost and error of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from scaled_mpi.experiments.elliptic.settings import EllipticExperiment
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.report import figures, tables
from scaled_mpi.report.palette import INK
from scaled_mpi.report.pictures import Pictures
from scaled_mpi.report.series import Numbers, quantity

if TYPE_CHECKING:
    from scaled_mpi.report.figures import Figure

Value = str | float | None
Values = dict[str, dict[float, Value]]  # method and tiles, or a kind -> length -> value
Lines = dict[str, tuple[list[float], list[float]]]  # method and tiles -> iterations, ||F||
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", INK)


def steps(numbers: Numbers) -> str:
    """Return a table: a row a method, tiles and length of the step; "" without facts."""
    iterations = _by_length(numbers, "iterations")
    if not iterations:
        return ""
    keys = ("linear", "pseudo", "root", "residual", "fallback", "error", "time")
    columns = {"iterations": iterations, **{key: _by_length(numbers, key) for key in keys}}
    rows = []
    for dt in sorted({dt for lengths in iterations.values() for dt in lengths}):
        rows += _rows(columns, dt)
    head = (
        "dt",
        "method, tiles",
        "iterations",
        "linear",
        "pseudo steps",
        "begun",
        "residual",
        "exact tiles",
        "error",
        "seconds",
    )
    return tables.table(head, rows, [True, False, True, True, True, False, *[True] * 4])


def _rows(columns: Mapping[str, Values], dt: float) -> list[list[str]]:
    """Rows of one length: a row a method and tiles, then the baselines and the simulator."""
    rows = []
    for name, lengths in columns["iterations"].items():
        if dt in lengths:
            cells = (column.get(name, {}).get(dt) for column in columns.values())
            rows.append([f"{dt:g}", escape(name), *map(_cell, cells)])
    for kind in ("persistence", "surrogate"):
        error = columns["error"].get(kind, {}).get(dt)
        if error is not None:
            seconds = columns["time"].get(kind, {}).get(dt)
            rows.append([f"{dt:g}", kind, *[""] * 6, _cell(error), _cell(seconds)])
    seconds = columns["time"].get("explicit", {}).get(dt)
    rows.append([f"{dt:g}", "simulator", *[""] * 6, "0", _cell(seconds)])
    return rows


def guesses(numbers: Numbers) -> str:
    """Return ||F|| at the guesses; "" without facts."""
    residuals = _by_length(numbers, "guess")
    if not residuals:
        return ""
    lengths = sorted({dt for line in residuals.values() for dt in line})
    labels = {
        "none": "no change",
        "simulator": "the simulator's forecast",
        "surrogate": "the surrogate's forecast",
    }
    rows = [
        [labels.get(kind, escape(kind)), *(_cell(line.get(dt)) for dt in lengths)]
        for kind, line in residuals.items()
    ]
    return tables.table(
        ("||F|| at the guess", *(f"dt {dt:g}" for dt in lengths)),
        rows,
        [False] + [True] * len(lengths),
    )


def convergence(numbers: Numbers) -> str:
    """Return ||F|| by iteration, a panel a length of the step; "" without facts."""
    name, lines = "implicit.convergence", dict[float, Lines]()
    for method, solver, dt in sorted(numbers.among(name, "method", "solver", "dt")):
        where = {"method": method, "solver": solver, "dt": dt}
        line = numbers.series(name, "iteration", by=None, **where)[""]
        lines.setdefault(dt, {})[f"{method}, {solver}"] = line
    if not lines:
        return ""
    methods = sorted({method for by_method in lines.values() for method in by_method})

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
        for axes, (dt, by_method) in zip(panels, sorted(lines.items()), strict=True):
            for method, (x, y) in by_method.items():
                colour = COLOURS[methods.index(method) % len(COLOURS)]
                axes.plot(x, y, color=colour, marker="o", markersize=3, label=method)
            axes.set_title(f"dt {dt:g}")
            axes.set_yscale("log")
            axes.set_xlabel("iteration")
        panels[0].set_ylabel("||F|| / ||F|| of no change")
        seen = {
            text: handle
            for axes in panels
            for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=3)

    return figures.draw(paint, "convergence of implicit steps")


def _by_length(numbers: Numbers, key: str) -> Values:
    """Values of `implicit.KEY` by method (and tiles, where it has any), then by length."""
    name, values = f"implicit.{key}", dict[str, dict[float, Value]]()
    for (method,) in numbers.among(name, "method"):
        values[method] = numbers.by("dt", name, method=method)
    for method, solver in numbers.among(name, "method", "solver"):
        lengths = numbers.by("dt", name, method=method, solver=solver)
        values[f"{method}, {solver}"] = lengths
    return {line: lengths for line, lengths in values.items() if lengths}


def _cell(value: Value) -> str:
    if value is None:
        return ""
    return escape(value) if isinstance(value, str) else quantity(value)


SECTIONS: Sequence[tuple[str, str, Callable[[Numbers], str]]] = (
    (
        "How the steps converge",
        "The figure shows the recomputed ||F||. An iteration of Newton is a linear solve; an "
        "iteration of the other methods is one sweep. A step of two stages starts twice.",
        convergence,
    ),
    (
        "What a long step takes",
        "The table shows iterations until ||F|| is under the tolerance. Beside them stand the "
        "error against the explicit simulator and its time for the same span.",
        steps,
    ),
    (
        "Where the steps begin",
        "The table shows ||F|| at each guess over ||F|| of no change.",
        guesses,
    ),
)


def pictures(experiment: EllipticExperiment, folder: Path) -> list[Pictures]:
    """Return the state after each step beside the explicit simulator's.

    Learned tiles are shown if there are any, else exact ones.
    """
    names, implicit = trajectory_names(folder), experiment.implicit
    shown: list[Pictures] = []
    if implicit is None:
        return shown
    for dt in implicit.dts:
        tiles = [t for t in ("learned", "exact") if f"{t}_dt{dt:g}" in names]
        if tiles:
            shown.append(
                Pictures(
                    Trajectory(folder, f"explicit_dt{dt:g}"),
                    Trajectory(folder, f"{tiles[0]}_dt{dt:g}"),
                    tile=experiment.domain.tile,
                    truth_label=f"explicit, {implicit.steps(dt)} steps",
                    predicted_label=f"one implicit step, {implicit.methods[0]}, {tiles[0]} tiles",
                    heading=f"A step of dt = {dt:g}",
                )
            )
    return shown
