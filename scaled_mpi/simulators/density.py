"""From particles to fields and numbers: density, polarization, nematic order, speeds.

The density is a histogram over the grid, in particles an area, smoothed by a Gaussian. The width
is in cells, and the Gaussian ends at 4 widths, as in scipy.ndimage.gaussian_filter. Beyond a wall
the field is mirrored, beyond a periodic face it wraps around. Either way its integral over the
domain is the number of particles.

Particles are summed in whole numbers of a fixed point. Such sums have the same bits on any ranks.
"""

from __future__ import annotations

import math

import numpy as np

from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.particles import Particles

CUT = 4.0  # widths of the Gaussian
_POINT = 2.0**40


def filter_radius(width: float) -> int:
    """Cells that the filter reaches to each side."""
    return int(CUT * width + 0.5)


def filter_weights(width: float) -> np.ndarray:
    """The weights (n,) of one axis, n = 2 radius + 1; their sum is 1. `width` in cells."""
    radius = filter_radius(width)
    if radius == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    return weights / weights.sum()


class Density:
    """Density (1, *block.size), float64, of the particles of this rank's block; collective.

    `width` is the standard deviation of the Gaussian in cells; it reaches 4 widths, which may not
    be more than a tile.
    """

    def __init__(self, blocks: Blocks, comm: Comm, width: float) -> None:
        self.blocks, self.block = blocks, blocks.block(comm.rank)
        self.weights = filter_weights(width)
        self.exchange = Halo(blocks, comm, filter_radius(width), np.float64)

    def __call__(self, particles: Particles) -> np.ndarray:
        return self.smoothed(self.counts(particles))

    def smoothed(self, counts: np.ndarray) -> np.ndarray:
        """The density (1, *block.size), particles an area, of counts (*block.size); collective."""
        cell = math.prod(self.blocks.grid.spacing)
        if len(self.weights) == 1:
            return counts[None] / cell
        smooth = self.exchange(counts[None] / cell)
        for axis, cells in enumerate(self.block.size, 1):
            parts = (
                weight * smooth[(slice(None),) * axis + (slice(k, k + cells),)]
                for k, weight in enumerate(self.weights)
            )
            smooth = sum(parts)
        return np.ascontiguousarray(smooth)

    def counts(self, particles: Particles) -> np.ndarray:
        """Particles of this rank in each cell of its block, float64 (*block.size)."""
        position = particles.position
        index = np.zeros(len(position), np.int64)
        spacing = self.blocks.grid.spacing
        for axis, (start, cells) in enumerate(zip(self.block.start, self.block.size, strict=True)):
            # Faces as ownership knows them: a quotient could round to the neighbouring cell.
            faces = np.arange(start + 1, start + cells) * spacing[axis]
            index = index * cells + np.searchsorted(faces, position[:, axis], side="right")
        total = math.prod(self.block.size)
        return np.bincount(index, minlength=total).astype(np.float64).reshape(self.block.size)


def order_parameters(particles: Particles, comm: Comm) -> dict[str, float]:
    """polarization and nematic order in [0, 1], mean and standard deviation of the speed.

    polarization = |mean n|, nematic = 2 lambda_max(mean(n n) - I/2) for unit headings n of the
    payload "velocity" (particles at rest count as 0). Collective.
    """
    velocity = particles.payload["velocity"]
    speed = np.sqrt(velocity[:, 0] ** 2 + velocity[:, 1] ** 2)
    moving = np.where(speed > 0, speed, 1.0)
    y, x = velocity[:, 0] / moving, velocity[:, 1] / moving
    terms = (y, x, x * x - y * y, 2 * x * y, speed)
    n = float(sum(comm.allgather(len(particles))))
    mean = [_sum(comm, term) / n for term in terms]
    spread = _sum(comm, (speed - mean[4]) ** 2) / n
    return {
        "polarization": math.hypot(mean[0], mean[1]),
        "mean_speed": mean[4],
        "nematic": math.hypot(mean[2], mean[3]),
        "speed_std": math.sqrt(spread),
    }


def _sum(comm: Comm, values: np.ndarray) -> float:
    """The sum over all ranks in fixed point, about 12 digits, the same in any order."""
    mine = int(np.rint(values * _POINT).astype(np.int64).sum())
    return sum(comm.allgather(mine)) / _POINT
