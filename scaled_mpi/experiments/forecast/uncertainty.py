"""Sections on ensembles: calibration of the spread, rank of the truth, maps of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from scaled_mpi.report import figures, images
from scaled_mpi.report.palette import INK, in_order, method
from scaled_mpi.report.pictures import Frames, field_limits, image, scale
from scaled_mpi.report.series import Numbers

if TYPE_CHECKING:
    from scaled_mpi.report.figures import Figure

SPREAD = "magma"
QUANTILES = (0.1, 0.9)


def calibration(numbers: Numbers, labels: Mapping[str, str]) -> str:
    """Return spread over skill by lead, and rank histograms at the first and the last lead."""
    ratios = numbers.series("spread.skill.lead", "lead")
    if not ratios:
        return ""
    leads = numbers.leads("rank.histogram")
    ranks = {
        lead: numbers.series("rank.histogram", "bin", lead=lead)
        for lead in sorted({leads[0], leads[-1]})
    }

    def paint(figure: Figure) -> None:
        first, *panels = figure.subplots(1, 1 + len(ranks), width_ratios=[1.5, *[1] * len(ranks)])
        first.axhspan(0.9, 1.1, color="#8a8a8a", alpha=0.18, linewidth=0)
        first.axhline(1.0, color=INK, linewidth=0.8)
        for key in in_order(list(ratios)):
            figures.line(first, *ratios[key], method(key, labels))
        first.set_xlabel("jumps ahead")
        first.set_ylabel("spread over skill")
        first.set_ylim(0, max(1.5, min(first.get_ylim()[1], 3)))
        for axes, (lead, series) in zip(panels, ranks.items(), strict=True):
            axes.axhline(1.0, color=INK, linewidth=0.8)
            for key in in_order(list(series)):
                style, (x, y) = method(key, labels), series[key]
                axes.step(
                    np.array(x) / max(x),
                    y,
                    where="mid",
                    color=style.colour,
                    linestyle=style.dash,
                    linewidth=style.width,
                )
            axes.set_title(f"rank of the truth, jump {lead}")
            axes.set_ylim(0, max(2.0, min(axes.get_ylim()[1], 6)))
        figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return figures.draw(paint, "calibration", 3.8)


def scores(numbers: Numbers, labels: Mapping[str, str]) -> str:
    """Return the fair CRPS of ensembles and the error of single forecasts, by lead."""
    fair = numbers.series("crps.lead", "lead")
    if not fair:
        return ""
    single = numbers.series("mae.lead", "lead")
    kept = {
        key: line
        for key, line in single.items()
        if key not in fair and key not in ("wide_halo", "nosweep", "linear", "quadratic")
    }
    return figures.by_lead({**kept, **fair}, "scores", "fair CRPS, or error", labels)


def summary(numbers: Numbers) -> str:
    """Return a sentence with the fair CRPS and the energy scores."""
    own, single = numbers.value("crps"), numbers.value("mae", method="deterministic")
    best = numbers.by_method("crps.mean").get("reference")
    parts = []
    if own is not None and single:
        parts.append(
            f"Over all leads the fair CRPS is {own:.4f}, {100 * own / single:.0f} % of "
            f"the deterministic network's error ({single:.4f})"
        )
    if best is not None:
        parts.append(f"the simulator's own ensemble has {best:.4f}")
    borders, inside = (
        numbers.series("energy.score", "lead", patches=place).get("surrogate")
        for place in ("borders", "inside")
    )
    if borders and inside:
        parts.append(
            "at the last lead the energy score of patches across tile borders is "
            f"{borders[1][-1] / inside[1][-1]:.2f} times the score inside tiles"
        )
    return "; ".join(parts) + "." if parts else ""


@dataclass(frozen=True)
class MapsPanel:
    """Truth, ensemble mean, quantiles, error and spread of the last channel at one lead.

    `frame` is the truth's frame of that lead; the first frame of every member is lead 1.
    """

    truth: Frames
    frame: int
    members: Sequence[Frames]
    lead: int

    @property
    def heading(self) -> str:
        return "Where it is uncertain"

    @property
    def sentence(self) -> str:
        return (
            f"The maps show {len(self.members)} members after {self.lead} jumps. In a calibrated "
            "ensemble the error of the mean is large only where the spread is large."
        )

    def content(self) -> str:
        """Return a strip of six pictures; "" unless the grid has two axes."""
        fields = np.stack([np.asarray(run.read(self.lead - 1))[-1] for run in self.members])
        if fields.ndim != 3:
            return ""
        true = np.asarray(self.truth.read(self.frame))[-1]
        low, high = field_limits([true])
        mean, spread = fields.mean(axis=0), fields.std(axis=0, ddof=1)
        error = np.abs(mean - true)
        limit = field_limits([spread, error])[1]
        shown = [
            ("truth", true),
            ("mean", mean),
            *(
                (f"{100 * level:.0f} % quantile", np.quantile(fields, level, axis=0))
                for level in QUANTILES
            ),
        ]
        panels = [(label, plane, low, high, images.FIELD) for label, plane in shown]
        panels += [
            (label, plane, 0.0, limit, SPREAD)
            for label, plane in (("|error of the mean|", error), ("spread", spread))
        ]
        name = escape(str(self.truth.channels[-1]))
        cells = "".join(
            f'<div class="panel"><h4>{escape(label)}</h4><div class="image">'
            f"{image(plane, lower, upper, colour, label)}</div>"
            f"{scale(lower, upper, colour, name)}</div>"
            for label, plane, lower, upper, colour in panels
        )
        return f'<figure><div class="strip" style="--panels: 3">{cells}</div></figure>'
