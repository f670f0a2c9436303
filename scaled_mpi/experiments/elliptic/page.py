"""Sections for problems without time: iterations, convergence, what only a certificate removes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

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

METHODS = (
    ("", "learned, two levels", "#d55e00", "-"),
    ("exact.", "exact, two levels", INK, "-"),
    ("onelevel.", "exact, one level", "#0072b2", (0, (5, 2))),
)
OTHERS = (("asm.", "PETSc ASM, one level"), ("gamg.", "PETSc GAMG"))
STROKES = {"certified": METHODS[0], "exact": METHODS[1], "onelevel": METHODS[2]}


def iterations(numbers: Numbers) -> str:
    """Iterations over the number of tiles: a figure and the table behind it; "" without facts."""
    found = {kind: _by_tiles(numbers, f"iterations.{kind}") for kind, *_ in METHODS}
    if not found[""]:
        return ""

    counts = sorted(found[""])

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for kind, label, colour, dash in METHODS:
            points = [
                (n, value)
                for n, value in sorted(found[kind].items())
                if not isinstance(value, str)
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    linestyle=dash,
                    marker="o",
                    label=label,
                )
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(n) for n in counts])
        top = 1.12 * axes.get_ylim()[1]
        axes.set_ylim(0, top)
        for kind, _, colour, _ in METHODS:
            for n in (n for n, value in found[kind].items() if isinstance(value, str)):
                axes.plot(n, top, "^", color=colour, clip_on=False)
                axes.annotate(
                    found[kind][n],
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

    others = [(kind, label, _by_tiles(numbers, f"iterations.{kind}")) for kind, label in OTHERS]
    known = [(label, found[kind]) for kind, label, *_ in METHODS]
    rows = _rows(
        [
            *known,
            *((label, one) for _, label, one in others),
            ("coarse vectors a tile", _by_tiles(numbers, "coarse.vectors.")),
            ("tiles made exact", _by_tiles(numbers, "fallback.tiles.")),
        ],
        counts,
    )
    shown = figures.draw(paint, "iterations") + _table("iterations", rows, counts)
    times = [
        (label, _by_tiles(numbers, f"time.{kind or 'certified.'}"))
        for kind, label in (*((kind, label) for kind, label, *_ in METHODS), *OTHERS)
    ]
    return shown + _table("seconds", _rows(times, counts), counts)


def _rows(lines: Sequence[tuple[str, dict[int, Any]]], counts: Sequence[int]) -> list[list[str]]:
    """Label and values by number of tiles, of the lines that have any."""
    return [
        [escape(label), *(_said(values.get(n)) for n in counts)]
        for label, values in lines
        if values
    ]


def _table(name: str, rows: list[list[str]], counts: Sequence[int]) -> str:
    head = (name, *(f"{n} tiles" for n in counts))
    return tables.table(head, rows, [False] + [True] * len(counts)) if rows else ""


def convergence(numbers: Numbers) -> str:
    """Relative residual by iteration of all methods and numbers of tiles; "" without facts."""
    counts = sorted({int(fact["N"]) for fact in numbers.facts if fact["name"] == "convergence"})
    if not counts:
        return ""

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, n in enumerate(counts):
            lines = numbers.series("convergence", "iteration", N=n)
            for name, (x, y) in lines.items():
                _, label, colour, dash = STROKES[name]
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
    """One sentence: how far the answers were checked, and how often the network was not used."""
    residual, tiles = numbers.value("residual.true"), numbers.value("fallback.tiles")
    if residual is None:
        return ""
    used = "in no tile" if not tiles else f"in {quantity(tiles)} tiles"
    return (
        f"The largest true residual, recomputed from the answer, is {residual:.1e}; an exact "
        f"factor took the network's place {used}."
    )


def floors(numbers: Numbers) -> str:
    """Solution-form coupling against the surrogate's own error; "" without facts."""
    rows = []
    for name, label in (
        ("onelevel", "one level"),
        ("hats", "two levels, hats"),
        ("twolevel", "two levels, eigenvectors"),
    ):
        cells = [
            numbers.value(f"floor.{key}.{name}")
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


def _by_tiles(numbers: Numbers, prefix: str) -> dict[int, Any]:
    """N -> value of the facts called prefix + N...; text where it is text."""
    found = {}
    for fact in numbers.facts:
        match = re.fullmatch(re.escape(prefix) + r"N(\d+)", fact["name"])
        if match:
            found[int(match[1])] = fact["value"]
    return found


def _said(value: Any) -> str:
    if value is None:
        return ""
    return escape(value) if isinstance(value, str) else f"{value:.3g}"


SECTIONS: Sequence[tuple[str, str, Any]] = (
    (
        "Does it stay flat?",
        "Iterations to the tolerance by the number of tiles, the network "
        "frozen; without a coarse level they grow.",
        iterations,
    ),
    ("How it converges", "The true residual, as the flexible Krylov method sees it.", convergence),
    (
        "What only a certificate removes",
        "The same local solver, coupled by its solutions as is "
        "usual: what it gets wrong no iteration can see.",
        floors,
    ),
)


def solves(contents: Contents) -> str:
    """Iterations with their certificate, convergence, floors."""
    parts = []
    for heading, sentence, content in SECTIONS:
        if shown := content(contents.numbers):
            note = certificate(contents.numbers) if content is iterations else ""
            parts.append(section(heading, sentence, shown, note))
    return "".join(parts)


def page(experiment: EllipticExperiment, done: Found) -> Page:
    """The page of certified solves, or of implicit steps."""
    fit = done["fit"].path if "fit" in done else None
    learned = fit is not None and (fit / "events.jsonl").exists()
    return Page(
        (solves, listed(steps_page.SECTIONS), domain, training, spent, facts, origin),
        trainings={"surrogate": fit} if learned else {},
        course=[fit] if fit is not None else [],
        pictures=_pictures(experiment, done["solve"].path) if "solve" in done else [],
    )


def _pictures(experiment: EllipticExperiment, folder: Path) -> list[Pictures]:
    """What the page shows of a finished solve: the answer, and the floor of the other way."""
    if experiment.implicit is not None:
        return steps_page.pictures(experiment, folder)
    names, tile = trajectory_names(folder), experiment.domain.tile
    found = []
    if "reference" in names:
        found.append(
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
            found.append(
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
    return found
