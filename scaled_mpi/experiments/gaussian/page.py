"""Sections for generated Gaussian fields: covariance of each fusion of tiles, and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi.engine.artefacts import stage_facts
from scaled_mpi.engine.kind import Found
from scaled_mpi.experiments.gaussian.generate import ARRAYS
from scaled_mpi.experiments.gaussian.settings import GaussianExperiment
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.report import figures, images, tables
from scaled_mpi.report.page import Page, Panel
from scaled_mpi.report.palette import FUSED, INK
from scaled_mpi.report.pictures import field_limits, row
from scaled_mpi.report.sections import facts, origin, panels, spent
from scaled_mpi.report.series import Numbers

if TYPE_CHECKING:
    from scaled_mpi.report.figures import Figure


CASE = ("axes", "kernel", "length")  # places of a case


@dataclass(frozen=True)
class TablePanel:
    """Covariance error and variance of every case, a column a method."""

    facts: Sequence[Mapping[str, Any]]
    heading: str = "Does the whole keep the statistics?"
    sentence: str = (
        "The table shows the relative error of the covariance of all pairs of cells (Frobenius "
        "norm) and, in brackets, the variance over the true variance. Both are exact, without "
        "sampling. The correlation length l is in cells."
    )

    def content(self) -> str:
        """Return a table: a row a domain, kernel and length."""
        numbers = Numbers(self.facts)
        cases = {
            case: [
                numbers.by("method", name, **dict(zip(CASE, case, strict=True)))
                for name in ("cov.error.tiled", "variance.ratio")
            ]
            for case in numbers.among("cov.error.tiled", *CASE)
        }
        used = [m for m in FUSED if any(m in errors for errors, _ in cases.values())]
        rows = [
            [
                escape(_label(*case)),
                *(f"{errors[m]:.3f} ({ratios[m]:.3f})" if m in errors else "" for m in used),
            ]
            for case, (errors, ratios) in cases.items()
        ]
        head = ("case", *(FUSED[m][0] for m in used))
        return tables.table(head, rows, [False] + [True] * len(used))


def _label(axes: int, kernel: str, length: float) -> str:
    return f"{axes}d, {kernel.replace('_', ' ')}, l{length:g}"


@dataclass(frozen=True)
class FieldPanel:
    """One case: covariance by distance and, if stored, samples from the same noise."""

    label: str
    tile: Sequence[int]
    arrays: Mapping[str, np.ndarray]

    @property
    def heading(self) -> str:
        """The number of axes, kernel and correlation length."""
        return self.label.replace("_", " ").replace(".", ", ")

    @property
    def sentence(self) -> str:
        """The description of the figures."""
        tile = " × ".join(map(str, self.tile))
        return (
            f"The curves show the covariance by distance along an axis; a tile has {tile} cells. "
            "One sample of each method, all from the same noise, stands below."
        )

    def content(self) -> str:
        """Return curves and samples."""
        drawn = figures.draw(self._curves, f"covariance {self.label}")
        planes = self._by_method("sample")
        if not planes:
            return drawn
        if all(plane.ndim == 1 for plane in planes.values()):
            return drawn + figures.draw(self._lines, f"samples {self.label}")
        low, high = field_limits(list(planes.values()))
        return drawn + row(
            [(FUSED[name][0], plane, low, high, images.FIELD) for name, plane in planes.items()]
        )

    def _by_method(self, kind: str) -> dict[str, np.ndarray]:
        prefix = f"{self.label}.{kind}."
        return {m: self.arrays[prefix + m] for m in FUSED if prefix + m in self.arrays}

    def _curves(self, figure: Figure) -> None:
        axes = figure.add_subplot()
        for name, curve in self._by_method("curve").items():
            label, colour, dash = FUSED[name]
            axes.plot(curve, color=colour, linestyle=dash, label=label)
        for edge in range(self.tile[0], len(curve), self.tile[0]):
            axes.axvline(edge, color=INK, linewidth=0.5, alpha=0.5)
        axes.set_xlabel("distance in cells (thin lines: tiles)")
        axes.set_ylabel("covariance")
        axes.legend()

    def _lines(self, figure: Figure) -> None:
        axes = figure.add_subplot()
        for name, line in self._by_method("sample").items():
            label, colour, dash = FUSED[name]
            axes.plot(line, color=colour, linestyle=dash, linewidth=1.0, label=label)
        axes.set_xlabel("cell")
        axes.set_ylabel("sample")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def page(experiment: GaussianExperiment, done: Found) -> Page:
    """Return the page of a generation of Gaussian fields."""
    shown = _panels(done["generate"].path) if "generate" in done else []
    return Page((panels, spent, facts, origin), panels=shown)


def _panels(folder: Path) -> list[Panel]:
    """A table of all cases, and the fields of each, of a finished generation."""
    arrays, tiles = load_arrays(folder / ARRAYS)
    labels = [name.removesuffix(".curve.truth") for name in arrays if name.endswith("curve.truth")]
    return [
        TablePanel(stage_facts(folder)),
        *(FieldPanel(label, tiles[label.split(".")[0]], arrays) for label in labels),
    ]
