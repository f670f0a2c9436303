"""What a compressor keeps and what it costs: one row of the rate-distortion table.

    compression.factor          numbers of the field for one of the latent
    compression.bits            bits of the field for one bit of the latent
    vrmse.reconstruction        error of the decoded field
    mass.error.reconstruction   |integral decoded - integral| / integral, the worst channel
    spectrum.error.reconstruction     of the bands of large and middle scales, their mean (at the
                                small ones smooth fields have nothing but rounding)
    residual.error              VRMSE of the rates of change that the equation gives to the field
    seam.reconstruction         seam index of the decoded field over that of the field

Fields are coded tile by tile with the halos that the coder asks for, on frames of the test run.
Means over frames; sums are joined exactly, so nothing depends on the ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaled_mpi import metrics
from scaled_mpi.coupling.latent import Coding
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.simulators.contract import Simulator
from scaled_mpi.simulators.running import rate_of_change

Gather = Callable[[list[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Rates:
    """The blocks of one rank, and how arrays, one a tile, are gathered in tile order."""

    blocks: Blocks
    comm: Any
    gather: Gather

    def __call__(
        self, coder: Any, truth: Trajectory, frames: list[int], simulator: Simulator | None = None
    ) -> dict[str, float]:
        """All numbers of one coder; collective. `simulator` None: without the residual."""
        coding = Coding(coder, self.blocks, self.comm)
        rows = [self._frame(coding, truth, frame, simulator) for frame in frames]
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        return {**sizes(coder, truth), **means}

    def _frame(
        self, coding: Coding, truth: Trajectory, frame: int, simulator: Simulator | None
    ) -> dict[str, float]:
        true = truth.read_block(frame, self.blocks.block(self.comm.rank))
        made = np.ascontiguousarray(coding.decode(coding.encode(truth, frame)))
        pairs = [(self._tile(made, i), self._tile(true, i)) for i in self._tiles()]
        scores = self._scores(pairs)
        spectra = [
            metrics.spectrum_from_tiles(self.gather([metrics.tile_spectrum(one) for one in part]))
            for part in zip(*pairs, strict=True)
        ]
        found = {
            "vrmse.reconstruction": float(scores.vrmse.mean()),
            "mass.error.reconstruction": self._mass(pairs),
            "spectrum.error.reconstruction": float(
                np.nanmean(metrics.spectrum_error(*spectra)[:, :2])
            ),
        }
        if any(count > 1 for count in self.blocks.counts):
            found["seam.reconstruction"] = self._seam(made) / self._seam(true)
        rates = [self._rate(simulator, field) for field in (made, true)]
        if rates[0] is not None:
            pairs = [tuple(self._tile(rate, i) for rate in rates) for i in self._tiles()]
            found["residual.error"] = float(self._scores(pairs).vrmse.mean())
        return found

    def _tiles(self) -> list[tuple[int, ...]]:
        return self.blocks.tiles(self.comm.rank)

    def _tile(self, field: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
        return field[(..., *self.blocks.local_slices(self.comm.rank, index))]

    def _scores(self, pairs: list[Any]) -> metrics.Scores:
        return metrics.scores_from_sums(self.gather([metrics.pair_sums(*one) for one in pairs]))

    def _mass(self, pairs: list[Any]) -> float:
        sums = [
            np.stack(
                [
                    np.ascontiguousarray(one, np.float64).reshape(len(one), -1).sum(1)
                    for one in pair
                ]
            )
            for pair in pairs
        ]
        made, true = metrics.joined(self.gather(sums))
        return float((np.abs(made - true) / np.maximum(np.abs(true), 1e-30)).max())

    def _seam(self, field: np.ndarray) -> float:
        padded = Halo(self.blocks, self.comm, 1, field.dtype)(field)
        rank, grid = self.comm.rank, self.blocks.grid
        sums = []
        for index in self._tiles():
            tile = padded[(..., *self.blocks.local_slices(rank, index, 1))]
            known = [
                (boundary.periodic or i > 0, boundary.periodic or i + 1 < count)
                for i, count, boundary in zip(
                    index, self.blocks.counts, grid.boundary, strict=True
                )
            ]
            sums.append(metrics.seam_sums(tile, known))
        return float(metrics.seam_from_sums(self.gather(sums)).mean())

    def _rate(self, simulator: Simulator | None, field: np.ndarray) -> np.ndarray | None:
        if simulator is None:
            return None
        return rate_of_change(simulator, field, self.blocks, self.comm)


def sizes(coder: Any, truth: Trajectory) -> dict[str, float]:
    """Compression in numbers and in bits; a coder without `bits` keeps its numbers as they are."""
    fields, cells = truth.shape[1], float(np.prod(coder.factor))
    latents = coder.channels(fields)
    width = 8.0 * truth.dtype.itemsize
    bits = getattr(coder, "bits", width * latents)
    return {
        "compression.factor": fields * cells / latents,
        "compression.bits": width * fields * cells / bits,
    }
