"""Coefficient fields k(x) > 0 of Darcy's law, keyed by place: the same on any number of ranks.

The random ones start from g, a Gaussian field of mean 0 and variance 1. It is white noise smoothed
by a Gaussian of standard deviation `length`; its correlation is exp(-d^2 / (4 length^2)). The
noise of a cell depends on the seed and on the cell's place alone, so a box needs no neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveFloat

from scaled_mpi.config import Spec
from scaled_mpi.parallel.blocks import Grid
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import normal

Box = Sequence[tuple[int, int]]  # (start, stop) in cells, one an axis; may pass the domain's edge


class Constant(Spec):
    """k = value everywhere."""

    kind: Literal["constant"] = "constant"
    value: float = 1.0

    def values(self, grid: Grid, box: Box, seed: int, comm: Comm) -> np.ndarray:
        """k on the box, float64 (*box); collective."""
        return np.full([stop - start for start, stop in box], self.value)


class LogNormal(Spec):
    """k = contrast^h, h = g scaled to [0, 1] on the domain: largest over smallest is contrast."""

    kind: Literal["log_normal"] = "log_normal"
    contrast: float = Field(default=1e3, ge=1)
    length: PositiveFloat = 8.0

    def values(self, grid: Grid, box: Box, seed: int, comm: Comm) -> np.ndarray:
        """k on the box, float64 (*box); collective."""
        g = gaussian_field(grid, box, seed, (self.length,) * grid.axes)
        inner = g[(slice(1, -1),) * grid.axes]
        ends = comm.allgather((float(inner.min()), float(inner.max())))
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        # The ring beyond the domain is never used, but must not overflow.
        return self.contrast ** np.clip((g - low) / max(high - low, 1e-300), 0.0, 1.0)


class TwoPhase(Spec):
    """k = contrast where g is in its highest `fraction`, 1 elsewhere."""

    kind: Literal["two_phase"] = "two_phase"
    contrast: float = Field(default=1e3, ge=1)
    length: PositiveFloat = 8.0
    fraction: float = Field(default=0.5, gt=0, lt=1)

    def values(self, grid: Grid, box: Box, seed: int, comm: Comm) -> np.ndarray:
        """k on the box, float64 (*box); collective."""
        g = gaussian_field(grid, box, seed, (self.length,) * grid.axes)
        return np.where(g > _quantile(1 - self.fraction), float(self.contrast), 1.0)


class Channels(Spec):
    """Well-conducting channels along the last axis, `stretch` times as long as they are wide."""

    kind: Literal["channels"] = "channels"
    contrast: float = Field(default=1e3, ge=1)
    length: PositiveFloat = 6.0
    stretch: float = Field(default=8.0, ge=1)
    fraction: float = Field(default=0.3, gt=0, lt=1)

    def values(self, grid: Grid, box: Box, seed: int, comm: Comm) -> np.ndarray:
        """k on the box, float64 (*box); collective."""
        lengths = (self.length,) * (grid.axes - 1) + (self.length * self.stretch,)
        g = gaussian_field(grid, box, seed, lengths)
        return np.where(g > _quantile(1 - self.fraction), float(self.contrast), 1.0)


# A member's `values` gives k on a box, which is a rank's block and one cell around it; collective.
Coefficient = Annotated[Constant | LogNormal | TwoPhase | Channels, Field(discriminator="kind")]


def _quantile(probability: float) -> float:
    """Of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def gaussian_field(grid: Grid, box: Box, seed: int, lengths: Sequence[float]) -> np.ndarray:
    """g on a box, float64 (*box): unit variance, correlation lengths in cells, one an axis."""
    from scipy.ndimage import correlate1d

    kernels = [_kernel(length) for length in lengths]
    margins = [len(kernel) // 2 for kernel in kernels]
    index = np.zeros((), np.int64)
    axes = zip(grid.shape, grid.boundary, box, margins, strict=True)
    for n, boundary, (start, stop), margin in axes:
        places = np.arange(start - margin, stop + margin)
        # Beyond an edge that does not wrap the noise goes on, in a larger imagined grid.
        extent = n if boundary.periodic else n + 2 * margin + 2
        places = places % n if boundary.periodic else (places + margin + 1) % extent
        index = index[..., None] * extent + places
    g = normal(seed, 0, index, stream=Stream.COEFFICIENT)
    for axis, (kernel, margin) in enumerate(zip(kernels, margins, strict=True)):
        inside = slice(margin, g.shape[axis] - margin)
        g = correlate1d(g, kernel, axis)[(slice(None),) * axis + (inside,)]
    return g


def _kernel(length: float) -> np.ndarray:
    """Smoothing weights whose squares sum to 1, so that the variance stays 1."""
    reach = math.ceil(4 * length)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / length) ** 2)
    return weights / np.linalg.norm(weights)
