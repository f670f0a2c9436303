"""Sections for implicit steps in time: what they took, how they converged, what they are worth."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from scaled_mpi.experiments.elliptic.settings import EllipticExperiment
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.report import figures, tables
from scaled_mpi.report.palette import INK
from scaled_mpi.report.pictures import Pictures
from scaled_mpi.report.series import Numbers, quantity

Values = dict[str, dict[float, Any]]  # method and tiles, or a kind -> length of the step -> value
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", INK)


def steps(numbers: Numbers) -> str:
    """A line a method, tiles and length of the step; "" without facts."""
    iterations = _by_length(numbers, "iterations")
    if not iterations:
        return ""
    keys = ("linear", "pseudo", "root", "residual", "fallback", "error", "time")
    others = {key: _by_length(numbers, key) for key in keys}
    rows = []
    for dt in sorted({dt for found in iterations.values() for dt in found}):
        for name in iterations:
            if dt in iterations[name]:
                cells = (others[key].get(name, {}).get(dt) for key in keys)
                rows.append(
                    [
                        f"{dt:g}",
                        escape(name.replace(".", ", ")),
                        _said(iterations[name][dt]),
                        *(_said(cell) for cell in cells),
                    ]
                )
        for kind in ("persistence", "surrogate"):
            error = others["error"].get(kind, {}).get(dt)
            if error is not None:
                took = others["time"].get(kind, {}).get(dt)
                rows.append([f"{dt:g}", kind, *[""] * 6, _said(error), _said(took)])
        rows.append(
            [
                f"{dt:g}",
                "simulator",
                *[""] * 6,
                "0",
                _said(others["time"].get("explicit", {}).get(dt)),
            ]
        )
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


def guesses(numbers: Numbers) -> str:
    """||F|| at the guesses; "" without facts."""
    found = _by_length(numbers, "guess")
    if not found:
        return ""
    lengths = sorted({dt for line in found.values() for dt in line})
    labels = {
        "none": "no change",
        "simulator": "the simulator's forecast",
        "surrogate": "the surrogate's forecast",
    }
    rows = [
        [labels.get(kind, escape(kind)), *(_said(line.get(dt)) for dt in lengths)]
        for kind, line in found.items()
    ]
    return tables.table(
        ("||F|| at the guess", *(f"dt {dt:g}" for dt in lengths)),
        rows,
        [False] + [True] * len(lengths),
    )


def convergence(numbers: Numbers) -> str:
    """||F|| by iteration, a panel a length of the step; "" without facts."""
    names = {
        fact["name"] for fact in numbers.facts if fact["name"].startswith("implicit.convergence.")
    }
    lines: dict[float, dict[str, Any]] = {}
    for name in sorted(names):
        method, _, dt = name.removeprefix("implicit.convergence.").rpartition(".dt")
        lines.setdefault(float(dt), {})[method] = numbers.series(name, "iteration", by=None)[""]
    if not lines:
        return ""
    methods = sorted({method for found in lines.values() for method in found})

    def paint(figure: Any) -> None:
        panels = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
        for axes, (dt, found) in zip(panels, sorted(lines.items()), strict=True):
            for method, (x, y) in found.items():
                colour = COLOURS[methods.index(method) % len(COLOURS)]
                axes.plot(
                    x, y, color=colour, marker="o", markersize=3, label=method.replace(".", ", ")
                )
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
    """What stands in the middle of implicit.KEY.*.dtX -> X -> value."""
    found: Values = {}
    for fact in numbers.facts:
        match = re.fullmatch(rf"implicit\.{key}\.(.+?)\.dt([^a-z]+(?:e[+-]?\d+)?)", fact["name"])
        if match and "iteration" not in fact:
            found.setdefault(match[1], {})[float(match[2])] = fact["value"]
    return found


def _said(value: Any) -> str:
    if value is None:
        return ""
    return escape(value) if isinstance(value, str) else quantity(value)


SECTIONS: Sequence[tuple[str, str, Any]] = (
    (
        "How the steps converge",
        "||F|| is recomputed; what one iteration costs differs: a linear "
        "solve for Newton, one sweep for the others. A step of two stages starts twice.",
        convergence,
    ),
    (
        "What a long step takes",
        "Iterations until ||F|| is under the tolerance, beside the error "
        "against the explicit simulator and its time for the same span.",
        steps,
    ),
    ("Where the steps begin", "||F|| at each guess over that of no change.", guesses),
)


def pictures(experiment: EllipticExperiment, folder: Path) -> list[Pictures]:
    """The state after each step beside the explicit simulator's; exact tiles, and learned ones."""
    names, told, found = trajectory_names(folder), experiment.implicit, []
    for dt in told.dts:
        tiles = [t for t in ("learned", "exact") if f"{t}_dt{dt:g}" in names]
        if tiles:
            found.append(
                Pictures(
                    Trajectory(folder, f"explicit_dt{dt:g}"),
                    Trajectory(folder, f"{tiles[0]}_dt{dt:g}"),
                    tile=experiment.domain.tile,
                    truth_label=f"explicit, {told.steps(dt)} steps",
                    predicted_label=f"one implicit step, {told.methods[0]}, {tiles[0]} tiles",
                    heading=f"A step of dt = {dt:g}",
                )
            )
    return found
