"""Sections for ensembles: scores of the forecasts, errors in time, energy of the modes.

They read `score.NAME` (by method), `e2.lead`, `e2.p10`, `e2.p90`, `e2.spread`, `e2.inside` (by
method and lead), `pod.spectrum`, `pod.energy.held` (k), `order` (parameter, start, time),
`transition.order` and `transition.deviation` (N, noise).
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from scaled_mpi.engine.kind import Found
from scaled_mpi.experiments.ensemble.settings import EnsembleExperiment
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.report import figures, tables
from scaled_mpi.report.page import Page
from scaled_mpi.report.palette import INK, in_order, method
from scaled_mpi.report.pictures import Pictures
from scaled_mpi.report.sections import domain, facts, listed, motion, origin, spent, training
from scaled_mpi.report.series import Numbers, quantity

if TYPE_CHECKING:
    from scaled_mpi.report.figures import Figure

BANDED = ("surrogate", "rival")
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")  # Okabe and Ito (2008)
WORTHLESS = 1.5  # errors above this multiple of the mean field's are not drawn
COLUMNS = (
    ("r2", "R\N{SUPERSCRIPT TWO}"),
    ("r2_spatial", "spatial R\N{SUPERSCRIPT TWO}"),
    ("r2_aligned", "aligned R\N{SUPERSCRIPT TWO}"),
    ("median_e2", "error"),
    ("p10_e2", "10 %"),
    ("p90_e2", "90 %"),
    ("tau_tol", "horizon"),
    ("max_mass_error", "mass error"),
)


def table(numbers: Numbers, labels: Mapping[str, str]) -> str:
    """Return a table of scores: a row a method, the best first; "" without facts."""
    values = {name: numbers.by_method(f"score.{name}") for name, _ in COLUMNS}
    if not values["r2"]:
        return ""
    rows = [
        [
            escape(method(key, labels).label),
            *(_cell(name, values[name][key]) for name, _ in COLUMNS),
        ]
        for key in sorted(values["r2"], key=values["r2"].__getitem__, reverse=True)
    ]
    head = ("method", *(title for _, title in COLUMNS))
    return tables.table(head, rows, [False] + [True] * len(COLUMNS), sortable=True)


def _cell(name: str, value: float) -> str:
    if name.startswith("r2"):
        return f"{value:.3f}"
    return quantity(value)


def errors(numbers: Numbers, labels: Mapping[str, str]) -> str:
    """Return relative errors by frame ahead, a line a method; bands hold 80 % of the runs."""
    series = numbers.series("e2.lead", "lead")
    if "mean" not in series:
        return ""
    low, high = numbers.series("e2.p10", "lead"), numbers.series("e2.p90", "lead")
    worst = WORTHLESS * max(series["mean"][1])

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for key in in_order(list(series))[::-1]:
            style, (x, y) = method(key, labels), series[key]
            axes.plot(
                x,
                y,
                color=style.colour,
                linestyle=style.dash,
                linewidth=style.width,
                label=style.label,
            )
            if key in BANDED and key in low:
                axes.fill_between(
                    x, low[key][1], high[key][1], color=style.colour, alpha=0.15, linewidth=0
                )
        axes.set_ylim(0, min(axes.get_ylim()[1], worst))
        axes.set_xlabel("frames ahead")
        axes.set_ylabel("relative error")
        figure.legend(loc="outside right upper")

    return figures.draw(paint, "relative error by frame", 3.8)


def band(numbers: Numbers, labels: Mapping[str, str]) -> str:
    """Return the standard deviation of the drawn forecasts beside their error."""
    spread = numbers.series("e2.spread", "lead").get("surrogate")
    error = numbers.series("e2.lead", "lead").get("surrogate")
    inside = numbers.series("e2.inside", "lead").get("surrogate")
    if not spread or not error or not inside:
        return ""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        style = method("surrogate", labels)
        axes.plot(*error, color=style.colour, linewidth=style.width, label="error")
        axes.plot(
            *inside,
            color=style.colour,
            linewidth=1.6,
            linestyle=(0, (5, 2)),
            label="error within its modes",
        )
        axes.fill_between(
            spread[0],
            0,
            spread[1],
            color=style.colour,
            alpha=0.2,
            linewidth=0,
            label="standard deviation of the ensemble",
        )
        axes.set_ylim(0, None)
        axes.set_xlabel("frames ahead")
        axes.set_ylabel("relative to the density")
        figure.legend(loc="outside right upper")

    return figures.draw(paint, "spread of the ensemble", 3.0)


def orders(numbers: Numbers, labels: Mapping[str, str]) -> str:
    """Return polarization and nematic order in time, a line an initial condition."""
    shown = {
        name: numbers.series("order", "time", by="start", parameter=name)
        for name in ("polarization", "nematic")
    }
    if not shown["polarization"]:
        return ""

    def paint(figure: Figure) -> None:
        for axes, (name, series) in zip(
            figure.subplots(1, 2, sharey=True), shown.items(), strict=True
        ):
            for (start, line), colour in zip(sorted(series.items()), COLOURS, strict=False):
                axes.plot(*line, color=colour, linewidth=1.6, label=start.replace("_", " "))
            axes.set_title(name)
            axes.set_xlabel("time")
            axes.set_ylim(0, 1)
        axes.legend()

    return figures.draw(paint, "order parameters in time", 3.0)


def transition(numbers: Numbers, labels: Mapping[str, str]) -> str:
    """Return polarization against noise, a line a number of particles."""
    series = numbers.series("transition.order", "noise", by="N")
    deviation = numbers.series("transition.deviation", "noise", by="N")
    if not series:
        return ""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for size, colour in zip(sorted(series, key=float), COLOURS, strict=False):
            axes.errorbar(
                *series[size],
                yerr=deviation[size][1],
                color=colour,
                marker="o",
                markersize=4,
                linewidth=1.6,
                elinewidth=0.8,
                capsize=2,
                label=f"{size} particles",
            )
        axes.set_ylim(0, 1.05)
        axes.set_xlabel("width of the noise, radians")
        axes.set_ylabel("polarization")
        axes.legend()

    return figures.draw(paint, "order against noise", 3.2)


def spectrum(numbers: Numbers, labels: Mapping[str, str]) -> str:
    """Return the singular values of the POD and the energy that they leave out."""
    values = numbers.series("pod.spectrum", "k", by=None).get("")
    held = numbers.series("pod.energy.held", "k", by=None).get("")
    if not values or not held:
        return ""

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        left.semilogy(values[0], values[1], color=INK, linewidth=1.6)
        left.set_xlabel("mode")
        left.set_ylabel("singular value")
        right.semilogy(held[0], [max(1 - h, 1e-12) for h in held[1]], color=INK, linewidth=1.6)
        for name, colour in (("mvar.rank", "#d55e00"), ("pod.rank", "#cc79a7")):
            rank = numbers.value(name)
            if rank is not None:
                right.axvline(rank, color=colour, linewidth=1.6)
        right.set_xlabel("modes kept")
        right.set_ylabel("energy left out")

    return figures.draw(paint, "spectrum of the POD", 3.0)


SECTIONS = (
    (
        "Who forecasts how well",
        "The table shows means over the test runs, on forecast frames only. "
        "R\N{SUPERSCRIPT TWO} is about the training mean, the spatial R\N{SUPERSCRIPT TWO} about "
        "the mean of each frame. The aligned one is the same after each frame was moved onto the "
        "true frame. The relative error is the median over frames; the horizon counts the frames "
        "before it passes the tolerance. The simulator itself, started from the true particles, "
        "is the upper bound of all methods.",
        table,
    ),
    (
        "Error in time",
        "The lines show the relative error of the density by frames after the last known frame, "
        "as means over the test runs. The shaded band holds the middle 80 % of the runs.",
        errors,
    ),
    (
        "Does the autoregression know what it does not know?",
        "The ensemble draws residuals from their covariance. A calibrated ensemble has a standard "
        "deviation as large as the error within its modes.",
        band,
    ),
    (
        "Order of the flocks",
        "The lines show order parameters of the test runs' particles, as means by initial "
        "condition. 0 means random headings, 1 equal headings (nematic: equal up to their sign).",
        orders,
    ),
    (
        "From order to disorder",
        "The lines show the polarization of Vicsek's particles at one density, with its standard "
        "deviation in time. Order decreases as the noise grows.",
        transition,
    ),
    (
        "What the modes hold",
        "The left figure shows the singular values, the right one the energy left out. The orange "
        "line is the rank chosen on held-out training runs, the purple line the rank of the "
        "configured energy.",
        spectrum,
    ),
)


def page(experiment: EnsembleExperiment, done: Found) -> Page:
    """Return the page of an ensemble and its forecasts."""
    chosen = experiment.surrogate.selection is not None
    labels = {
        "surrogate": "MVAR, " + ("rank chosen on held-out runs" if chosen else "all modes"),
        "energy": "MVAR, all modes"
        if experiment.compressor.rank is not None
        else f"MVAR, {100 * experiment.compressor.energy:g} % energy",
        "ceiling": "POD ceiling, same rank",
        "rival": "network on the density",
        "limit": "simulator from the true particles",
        "mean": "mean field",
    }
    names = {"compress": "compressor", "fit": "surrogate", "rival": "network"}
    trainings = {
        name: done[stage].path
        for stage, name in names.items()
        if stage in done and (done[stage].path / "events.jsonl").exists()
    }
    return Page(
        (listed(SECTIONS, "labels"), domain, motion, training, spent, facts, origin),
        labels=labels,
        trainings=trainings,
        course=[done[stage].path for stage in ("compress", "rival", "fit") if stage in done],
        pictures=_flocks(experiment, done),
    )


def _flocks(experiment: EnsembleExperiment, done: Found) -> list[Pictures]:
    """The first test run of every initial condition."""
    if "forecast" not in done:
        return []
    count = min(experiment.ensemble.test, len(experiment.ensemble.starts))
    return [
        Pictures(
            Trajectory(done["simulate"].path, f"test-{number:04d}"),
            Trajectory(done["forecast"].path, f"test-{number:04d}"),
            truth_label="simulator",
            predicted_label="POD and MVAR",
            heading=f"From {experiment.ensemble.starts[number].replace('_', ' ')}",
        )
        for number in range(count)
    ]
