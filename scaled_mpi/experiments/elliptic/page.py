"""Sections for problems without time: iterations, convergence, floors without certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from scaled_mpi.engine.kind import Found
from scaled_mpi.experiments.elliptic import steps_page
from scaled_mpi.experiments.elliptic.settings import EllipticExperiment
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.report import figures, tables
from scaled_mpi.report.page import Contents, Page
from scaled_mpi.report.palette import INK
from scaled_mpi.report.pictures import Pictures
from scaled_mpi.report.sections import domain, facts, listed, origin, section, spent, training
from scaled_mpi.report.series import Numbers, quantity

if TYPE_CHECKING:
    from scaled_mpi.report.figures import Axes, Figure

Value = str | float | None
ByTiles = dict[int, Value]  # number of tiles -> value

METHODS = (
    ("certified", "learned, two levels", "#d55e00", "-"),
    ("exact", "exact, two levels", INK, "-"),
    ("onelevel", "exact, one level", "#0072b2", (0, (5, 2))),
)
OTHERS = (("asm", "PETSc ASM, one level"), ("gamg", "PETSc GAMG"))
STROKES = {name: stroke for name, *stroke in METHODS}


def iterations(numbers: Numbers) -> str:
    """Return iterations by number of tiles, a figure and its table; "" without facts."""
    counted = {kind: numbers.by("tiles", "iterations", method=kind) for kind, *_ in METHODS}
    if not counted["certified"]:
        return ""
    counts = sorted(counted["certified"])

    def paint(figure: Figure) -> None:
        _paint_iterations(figure.add_subplot(), counted, counts)

    rows = _rows(
        [
            *((label, counted[kind]) for kind, label, *_ in METHODS),
            *((label, numbers.by("tiles", "iterations", method=kind)) for kind, label in OTHERS),
            ("coarse vectors a tile", numbers.by("tiles", "coarse.vectors")),
            ("tiles with exact factors", numbers.by("tiles", "fallback.tiles")),
        ],
        counts,
    )
    shown = figures.draw(paint, "iterations") + _table("iterations", rows, counts)
    times = [
        (label, numbers.by("tiles", "time", method=kind))
        for kind, label in (*((kind, label) for kind, label, *_ in METHODS), *OTHERS)
    ]
    return shown + _table("seconds", _rows(times, counts), counts)


def _paint_iterations(axes: Axes, counted: Mapping[str, ByTiles], counts: Sequence[int]) -> None:
    """A line a method; a text, such as "not converged", stands as a mark at the top."""
    for kind, label, colour, dash in METHODS:
        points = [
            (n, value) for n, value in sorted(counted[kind].items()) if not isinstance(value, str)
        ]
        if points:
            across, up = zip(*points, strict=True)
            axes.plot(across, up, color=colour, linestyle=dash, marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    top = 1.12 * axes.get_ylim()[1]
    axes.set_ylim(0, top)
    for kind, _, colour, _ in METHODS:
        for n, text in counted[kind].items():
            if not isinstance(text, str):
                continue
            axes.plot(n, top, "^", color=colour, clip_on=False)
            axes.annotate(
                text,
                (n, top),
                xytext=(-8, -4),
                fontsize=9,
                ha="right",
                va="top",
                textcoords="offset points",
            )
    axes.set_xlabel("tiles")
    axes.set_ylabel("iterations")
    axes.legend()


def _rows(lines: Sequence[tuple[str, ByTiles]], counts: Sequence[int]) -> list[list[str]]:
    """Label and values by number of tiles, of the lines with values."""
    return [
        [escape(label), *(_cell(values.get(n)) for n in counts)]
        for label, values in lines
        if values
    ]


def _table(name: str, rows: list[list[str]], counts: Sequence[int]) -> str:
    head = (name, *(f"{n} tiles" for n in counts))
    return tables.table(head, rows, [False] + [True] * len(counts)) if rows else ""


def convergence(numbers: Numbers) -> str:
    """Return the relative residual by iteration of all methods; "" without facts."""
    counts = sorted({int(fact["N"]) for fact in numbers.facts if fact["name"] == "convergence"})
    if not counts:
        return ""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, n in enumerate(counts):
            lines = numbers.series("convergence", "iteration", N=n)
            for name, (x, y) in lines.items():
                label, colour, dash = STROKES[name]
                axes.plot(
                    x,
                    y,
                    color=colour,
                    linestyle=dash,
                    linewidth=0.8 + 0.5 * place,
                    label=label if n == counts[0] else None,
                )
        axes.set_yscale("log")
        axes.set_xlabel("iteration (thicker: more tiles)")
        axes.set_ylabel("residual")
        tolerance = numbers.value("residual.tolerance")
        if tolerance is not None:
            axes.axhline(tolerance, color=INK, linewidth=0.7)
        axes.legend()

    return figures.draw(paint, "convergence histories")


def certificate(numbers: Numbers) -> str:
    """Return a sentence: the largest true residual, and the number of fallbacks."""
    residual, tiles = numbers.value("residual.true"), numbers.value("fallback.tiles")
    if residual is None:
        return ""
    fallbacks = "no tile" if not tiles else f"{quantity(tiles)} tiles"
    return (
        f"The largest true residual, recomputed from the solution, is {residual:.1e}. Exact "
        f"factors replaced the network in {fallbacks}."
    )


def floors(numbers: Numbers) -> str:
    """Return errors of solution-form coupling over the surrogate's own; "" without facts."""
    rows = []
    for name, label in (
        ("onelevel", "one level"),
        ("hats", "two levels, hats"),
        ("twolevel", "two levels, eigenvectors"),
    ):
        cells = [
            numbers.value(f"floor.{key}", space=name)
            for key in ("vectors", "coupled", "residual", "sweeps", "ratio")
        ]
        if cells[1] is not None:
            rows.append([label, *(f"{c:.3g}" if c is not None else "" for c in cells)])
    if not rows:
        return ""
    head = (
        "solutions coupled",
        "vectors a tile",
        "error",
        "true residual",
        "sweeps",
        "error / surrogate's own",
    )
    return tables.table(head, rows, [False, *[True] * 5])


def _cell(value: Value) -> str:
    if value is None:
        return ""
    return escape(value) if isinstance(value, str) else f"{value:.3g}"


SECTIONS: Sequence[tuple[str, str, Callable[[Numbers], str]]] = (
    (
        "Does it stay flat?",
        "The figure shows iterations to the tolerance by the number of tiles, with one trained "
        "network. Without a coarse level the number grows.",
        iterations,
    ),
    (
        "How it converges",
        "The lines show the true residual norm, as the flexible Krylov method computes it.",
        convergence,
    ),
    (
        "What only a certificate removes",
        "The table couples the same local solver by its solutions, as is usual. No iteration "
        "detects or removes the solver's own error.",
        floors,
    ),
)


def solves(contents: Contents) -> str:
    """Return iterations with their certificate, convergence, floors."""
    parts = []
    for heading, sentence, content in SECTIONS:
        if shown := content(contents.numbers):
            note = certificate(contents.numbers) if content is iterations else ""
            parts.append(section(heading, sentence, shown, note))
    return "".join(parts)


def page(experiment: EllipticExperiment, done: Found) -> Page:
    """Return the page of certified solves, or of implicit steps."""
    fit = done["fit"].path if "fit" in done else None
    return Page(
        (solves, listed(steps_page.SECTIONS), domain, training, spent, facts, origin),
        trainings={"surrogate": fit} if fit and (fit / "events.jsonl").exists() else {},
        course=[fit] if fit is not None else [],
        pictures=_pictures(experiment, done["solve"].path) if "solve" in done else [],
    )


def _pictures(experiment: EllipticExperiment, folder: Path) -> list[Pictures]:
    """Pictures of a finished solve: the solution, and the floors of solution-form coupling."""
    if experiment.implicit is not None:
        return steps_page.pictures(experiment, folder)
    names, tile = trajectory_names(folder), experiment.domain.tile
    shown = []
    if "reference" in names:
        shown.append(
            Pictures(
                Trajectory(folder, "reference"),
                Trajectory(folder, "solution"),
                tile=tile,
                truth_label="another method",
                predicted_label="certified",
                heading="Medium, answer, error",
                steady=True,
                beside=(("coefficient", Trajectory(folder, "coefficient")),),
            )
        )
    for name, label in (
        ("floor_onelevel", "solutions coupled, one level"),
        ("floor_twolevel", "solutions coupled, two levels"),
    ):
        if name in names and "floor_exact" in names:
            shown.append(
                Pictures(
                    Trajectory(folder, "floor_exact"),
                    Trajectory(folder, name),
                    tile=tile,
                    truth_label="certified",
                    predicted_label=label,
                    heading="Without a certificate: " + label,
                    steady=True,
                )
            )
    return shown
