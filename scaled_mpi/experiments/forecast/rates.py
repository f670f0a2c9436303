"""Rate and distortion of a compressor: one row of the rate-distortion table.

    compression.factor          numbers of the field for one of the latent
    compression.bits            bits of the field for one bit of the latent
    vrmse.reconstruction        error of the decoded field
    mass.error.reconstruction   |integral decoded - integral| / integral, the worst channel
    spectrum.error.reconstruction     of the bands of large and middle scales, their mean (at the
                                small ones smooth fields have nothing but rounding)
    residual.error              VRMSE of the rates of change that the equation gives to the field
    seam.reconstruction         seam index of the decoded field over that of the field

Fields of the test run are coded tile by tile, with the halos of the coder. Numbers are means over
frames; sums are joined exactly, so no number depends on the ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scaled_mpi import metrics
from scaled_mpi.compressors.coders import Coder
from scaled_mpi.coupling.latent import Coding
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.simulators.contract import Simulator
from scaled_mpi.simulators.running import rate_of_change

Gather = Callable[[list[np.ndarray]], list[np.ndarray]]
Pair = tuple[np.ndarray, np.ndarray]  # a tile (C, *tile), decoded and true


@dataclass(frozen=True)
class CodingRates:
    """The blocks of one rank; `gather` collects arrays, one a tile, in tile order."""

    blocks: Blocks
    comm: Comm
    gather: Gather

    def __call__(
        self,
        coder: Coder,
        truth: Trajectory,
        frames: list[int],
        simulator: Simulator | None = None,
    ) -> dict[str, float]:
        """Return all numbers of one coder; `simulator` None: without the residual. Collective."""
        coding = Coding(coder, self.blocks, self.comm)
        rows = [self._frame(coding, truth, frame, simulator) for frame in frames]
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        return {**sizes(coder, truth), **means}

    def _frame(
        self, coding: Coding, truth: Trajectory, frame: int, simulator: Simulator | None
    ) -> dict[str, float]:
        true = truth.read_block(frame, self.blocks.block(self.comm.rank))
        decoded = np.ascontiguousarray(coding.decode(coding.encode(truth, frame)))
        pairs = self._pairs(decoded, true)
        scores = self._scores(pairs)
        numbers = {
            "vrmse.reconstruction": float(scores.vrmse.mean()),
            "mass.error.reconstruction": self._mass(pairs),
            "spectrum.error.reconstruction": float(
                np.nanmean(
                    metrics.spectrum_error(
                        self._spectrum([tile for tile, _ in pairs]),
                        self._spectrum([tile for _, tile in pairs]),
                    )[:, :2]
                )
            ),
        }
        if any(count > 1 for count in self.blocks.counts):
            numbers["seam.reconstruction"] = self._seam(decoded) / self._seam(true)
        rate, true_rate = (self._rate(simulator, field) for field in (decoded, true))
        if rate is not None and true_rate is not None:
            scores = self._scores(self._pairs(rate, true_rate))
            numbers["residual.error"] = float(scores.vrmse.mean())
        return numbers

    def _pairs(self, decoded: np.ndarray, true: np.ndarray) -> list[Pair]:
        return [(self._tile(decoded, i), self._tile(true, i)) for i in self._tiles()]

    def _spectrum(self, tiles: list[np.ndarray]) -> np.ndarray:
        spectra = [metrics.tile_spectrum(tile) for tile in tiles]
        return metrics.spectrum_from_tiles(self.gather(spectra))

    def _tiles(self) -> list[tuple[int, ...]]:
        return self.blocks.tiles(self.comm.rank)

    def _tile(self, field: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
        return field[(slice(None), *self.blocks.local_slices(self.comm.rank, index))]

    def _scores(self, pairs: list[Pair]) -> metrics.Scores:
        sums = [metrics.pair_sums(decoded, true) for decoded, true in pairs]
        return metrics.scores_from_sums(self.gather(sums))

    def _mass(self, pairs: list[Pair]) -> float:
        sums = [
            np.stack(
                [
                    np.ascontiguousarray(tile, np.float64).reshape(len(tile), -1).sum(1)
                    for tile in pair
                ]
            )
            for pair in pairs
        ]
        decoded, true = metrics.joined(self.gather(sums))
        return float((np.abs(decoded - true) / np.maximum(np.abs(true), 1e-30)).max())

    def _seam(self, field: np.ndarray) -> float:
        padded = Halo(self.blocks, self.comm, 1, field.dtype)(field)
        rank, grid = self.comm.rank, self.blocks.grid
        sums = []
        for index in self._tiles():
            tile = padded[(slice(None), *self.blocks.local_slices(rank, index, 1))]
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


def sizes(coder: Coder, truth: Trajectory) -> dict[str, float]:
    """Return the compression in numbers and in bits; a coder without `bits` stores floats."""
    fields, cells = truth.shape[1], float(np.prod(coder.factor))
    latents = coder.channels(fields)
    width = 8.0 * truth.dtype.itemsize
    bits = getattr(coder, "bits", None) or width * latents
    return {
        "compression.factor": fields * cells / latents,
        "compression.bits": width * fields * cells / bits,
    }
