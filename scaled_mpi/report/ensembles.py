"""Sections for ensembles: who forecasts how well, the error in time, and what the modes hold."""

from __future__ import annotations

from html import escape
from typing import Any

from scaled_mpi.report import figures, tables
from scaled_mpi.report.palette import INK, method
from scaled_mpi.report.series import Numbers, quantity

COLUMNS = (
    ("r2", "R\N{SUPERSCRIPT TWO} about the training mean"),
    ("r2_spatial", "R\N{SUPERSCRIPT TWO} about each frame's mean"),
    ("median_e2", "error, median"), ("p10_e2", "10 %"), ("p90_e2", "90 %"),
    ("tau_tol", "frames under tolerance"), ("max_mass_error", "mass error"),
)


def table(numbers: Numbers, labels: dict[str, str]) -> str:
    """One row a method, the best first; "" without facts."""
    found = {name: numbers.by_method(f"score.{name}") for name, _ in COLUMNS}
    if not found["r2"]:
        return ""
    rows = [
        [escape(method(key, labels).label), *(_said(name, found[name][key])
                                              for name, _ in COLUMNS)]
        for key in sorted(found["r2"], key=found["r2"].__getitem__, reverse=True)
    ]
    head = ("method", *(title for _, title in COLUMNS))
    return tables.table(head, rows, [False] + [True] * len(COLUMNS), sortable=True)


def _said(name: str, value: float) -> str:
    if name.startswith("r2"):
        return f"{value:.3f}"
    return quantity(value)


def errors(numbers: Numbers, labels: dict[str, str]) -> str:
    """Relative error by frame ahead, a line a method."""
    series = numbers.series("e2.lead", "lead")
    if not series:
        return ""
    return figures.by_lead(series, "relative error", "relative error", labels, log=False)


def spectrum(numbers: Numbers, labels: dict[str, str]) -> str:
    """Singular values of the POD and the energy they leave."""
    values = numbers.series("pod.spectrum", "k", by=None).get("")
    held = numbers.series("pod.energy.held", "k", by=None).get("")
    if not values or not held:
        return ""

    def paint(figure: Any) -> None:
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
    ("Who forecasts how well", "Means over the test runs, on forecast frames only. The limit is "
     "what nobody can beat: the simulator itself, started from the true particles.", table),
    ("Error in time", "Relative error of the density by frames after the last known one.", errors),
    ("What the modes hold", "The orange line is the rank chosen on held-out training runs, the "
     "purple one that of the energy asked for.", spectrum),
)
