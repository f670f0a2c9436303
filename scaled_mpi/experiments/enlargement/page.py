"""Sections for generated patterns on large domains: pictures, curves, scores, gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi.engine.artefacts import stage_facts
from scaled_mpi.engine.kind import Found
from scaled_mpi.experiments.enlargement.enlarge import SCALES
from scaled_mpi.experiments.enlargement.resemblance import ARRAYS
from scaled_mpi.experiments.enlargement.settings import EnlargementExperiment
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.report import figures, images, tables
from scaled_mpi.report.page import Page, Panel
from scaled_mpi.report.palette import FUSED, INK
from scaled_mpi.report.pictures import field_limits, row
from scaled_mpi.report.sections import facts, origin, panels, spent, training
from scaled_mpi.report.series import Numbers

if TYPE_CHECKING:
    from scaled_mpi.report.figures import Figure

METHODS = {
    "truth": ("simulator (truth)", INK, "-"),
    "weighed": ("crop and coarse correction, weighed", "#d55e00", "-"),
    "coarse": ("crop and coarse correction", "#e69f00", "-"),
    **{name: FUSED[name] for name in ("crop", "collage", "window", "average")},
    "untiled": ("the same network untiled", "#56b4e9", "-"),
    "pasted": ("tiles alone, pasted", "#8a8a8a", (0, (6, 2, 1, 2))),
    "gaussian": ("Gaussian field of the true covariance", "#8a8a8a", (0, (1, 1))),
    "again": ("simulator again, as many", INK, (0, (2, 2))),
}
ACROSS = 5  # pictures in a row
COLUMNS: dict[str, tuple[str, dict[str, str]]] = {  # heading -> name and places
    "covariance": ("cov.error.tiled", {}),
    "beyond a tile": ("cov.error.beyond", {}),
    "variance": ("variance.ratio", {}),
    "of tiles": ("variance.ratio.tiles", {}),
    "long waves": ("spectrum.error", {"band": "large"}),
    "seam": ("seam.index", {}),
    "histogram": ("histogram.distance", {}),
    "rate": ("dynamics.rate.ratio", {}),
    "seconds": ("time.method", {}),
}


@dataclass(frozen=True)
class PicturePanel:
    """One sample of every method, all from the same noise, beside the truth."""

    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]
    heading: str = "Patterns larger than the tile"

    @property
    def sentence(self) -> str:
        """The description of the pictures."""
        shape = self.arrays["truth.sample"].shape
        return (
            f"The pictures show species v of {escape(self.meta['system'])} on {shape[0]} × "
            f"{shape[1]} cells. The networks were trained on boxes of "
            f"{_times(self.meta['boxes'])} cells; a tile has {_times(self.meta['tile'])} cells."
        )

    def content(self) -> str:
        """Return rows of pictures in one colour scale."""
        planes = {
            name: self.arrays[f"{name}.sample"]
            for name in METHODS
            if f"{name}.sample" in self.arrays and name != "again"
        }
        low, high = field_limits([planes["truth"]])
        shown = [
            (METHODS[name][0], plane, low, high, images.FIELD) for name, plane in planes.items()
        ]
        return "".join(
            row(shown[start : start + ACROSS], ACROSS) for start in range(0, len(shown), ACROSS)
        )


@dataclass(frozen=True)
class CurvePanel:
    """Covariance by distance and power by wavenumber of all methods."""

    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]
    heading: str = "What is kept at a distance"
    sentence: str = (
        "The left figure shows the covariance of two cells by their distance, over the true "
        "variance; thin lines mark tiles. The right figure shows the power by wavelength, over "
        "the true power."
    )

    def content(self) -> str:
        """Return two figures side by side."""
        return figures.draw(self._paint, "covariance and spectrum", 4.6)

    def _paint(self, figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        variance, power = self.arrays["truth.curve"][0], self.arrays["truth.spectrum"]
        cells = min(self.arrays["truth.sample"].shape)
        for name, (label, colour, dash) in METHODS.items():
            if f"{name}.curve" not in self.arrays:
                continue
            drawn = {"color": colour, "linestyle": dash, "label": label}
            left.plot(self.arrays[f"{name}.curve"] / variance, **drawn)
            waves = np.arange(1, cells // 4)
            if name != "truth":
                ratio = self.arrays[f"{name}.spectrum"] / power
                right.plot(cells / waves, ratio[waves], **drawn)
        tile = self.meta["tile"][0]
        for edge in range(tile, len(self.arrays["truth.curve"]), tile):
            left.axvline(edge, color=INK, linewidth=0.5, alpha=0.5)
        left.set_xlabel("distance in cells")
        left.set_ylabel("covariance / variance")
        right.set_xscale("log")
        right.set_yscale("log")
        right.axhline(1.0, color=INK, linewidth=0.8)
        right.set_xlabel("wavelength in cells")
        right.set_ylabel("power / true power")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)


@dataclass(frozen=True)
class ScorePanel:
    """Every method's differences from the truth, a row each."""

    facts: Sequence[Mapping[str, Any]]
    meta: Mapping[str, Any]
    heading: str = "How like the simulator's they are"

    @property
    def sentence(self) -> str:
        """The definition of each column."""
        return (
            f"All scores use species v of {self.meta['samples']} samples a method. "
            "<b>Covariance</b> and <b>beyond a tile</b> are relative errors of the covariance of "
            "all pairs of cells up to half the domain apart, and at least a tile apart. "
            "<b>Variance</b> of a cell and <b>of tiles</b> (of the mean of a tile) are ratios to "
            "the true variance. <b>Long waves</b> is the relative error of the power of the "
            "longest waves. <b>Seam</b> divides the jumps across tile edges by the jumps inside. "
            "<b>Histogram</b> is the distance of the histograms in standard deviations. "
            "<b>Rate</b> divides the simulator's rate of change there by its rate from a true "
            "state. The last row shows the sampling error of so few samples."
        )

    def content(self) -> str:
        """Return the table."""
        numbers = Numbers(self.facts)
        rows = []
        for method, (label, _, _) in METHODS.items():
            if numbers.by_method("cov.error.tiled").get(method) is not None:
                cells = [
                    numbers.remark(name, "value", method=method, **where)
                    for name, where in COLUMNS.values()
                ]
                rows.append([escape(label), *("" if v is None else f"{v:.3g}" for v in cells)])
        return tables.table(("", *COLUMNS), rows, [False] + [True] * len(COLUMNS))


@dataclass(frozen=True)
class GainPanel:
    """Gains of the coarse correction, `gains` (times, rings) at noise levels `times`."""

    times: np.ndarray
    gains: np.ndarray
    meta: Mapping[str, Any]
    heading: str = "How far the coarse denoiser is believed"
    sentence: str = (
        "The lines show the weight of the coarse correction in the least squares mixture with "
        "the windows' estimate, by wavelength and noise level t (1: noise alone). The weights are "
        "fitted on held-out boxes."
    )

    def content(self) -> str:
        """Return a figure: a line a noise level."""
        return figures.draw(self._paint, "gains of the coarse correction")

    def _paint(self, figure: Figure) -> None:
        axes, waves = figure.add_subplot(), np.arange(1, self.gains.shape[1])
        for t, line in zip(self.times, self.gains, strict=True):
            axes.plot(
                min(self.meta["boxes"]) / waves,
                line[1:],
                "-o",
                markersize=3,
                color=figures.shade(0.9 * t),
                label=f"t = {t:.2f}",
            )
        axes.set_xscale("log")
        axes.set_xlabel("wavelength in cells")
        axes.set_ylabel("weight")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _times(cells: Sequence[int]) -> str:
    return " × ".join(map(str, cells))


def page(experiment: EnlargementExperiment, done: Found) -> Page:
    """Return the page of patterns larger than the boxes of the training."""
    trainings = {}
    if "fit" in done:
        trainings = {
            f"denoiser, {name}": done["fit"].path / name for name in ("windows", "coarse")
        }
    shown = _panels(done["evaluate"].path, done["fit"].path) if "evaluate" in done else []
    sections = (panels, training, spent, facts, origin)
    return Page(sections, trainings=trainings, panels=shown)


def _panels(evaluated: Path, fitted: Path) -> list[Panel]:
    """Pictures, curves, scores and gains of a finished evaluation."""
    arrays, about = load_arrays(evaluated / ARRAYS)
    learned, _ = load_arrays(fitted / SCALES)
    return [
        PicturePanel(arrays, about),
        CurvePanel(arrays, about),
        ScorePanel(stage_facts(evaluated), about),
        GainPanel(learned["times"], learned["gains"], about),
    ]
