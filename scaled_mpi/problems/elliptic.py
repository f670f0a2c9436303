"""What Poisson and Darcy share: grid, boundary, right-hand side, and the rows of one rank."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat

from scaled_mpi.config import Spec
from scaled_mpi.parallel.blocks import Blocks, Boundary, Grid, per_axis
from scaled_mpi.parallel.comm import Comm, exact_sum, raise_together
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import cell_indices, normal
from scaled_mpi.problems.coefficients import Coefficient, Constant
from scaled_mpi.problems.stencil_rows import Stencil, diffusion_stencil

Kind = Literal["dirichlet", "neumann", "periodic"]
WAVES = 4  # largest wave number of the smooth part of a right-hand side, in half waves


class LoadSource(Spec):
    """Right-hand side: a smooth field of root mean square about `smooth`, plus white noise."""

    smooth: float = Field(default=1.0, ge=0)
    noise: float = Field(default=1.0, ge=0)

    def values(self, grid: Grid, blocks: Blocks, rank: int, seed: int) -> np.ndarray:
        """f on a rank's block, float64 (*block.size), the same on any number of ranks."""
        block = blocks.block(rank)
        waves = [
            _waves(grid, axis, slice(a, b))
            for axis, (a, b) in enumerate(zip(block.start, block.stop, strict=True))
        ]
        weights = normal(seed, 0, np.arange(WAVES**grid.axes), stream=Stream.LOAD_SMOOTH)
        smooth = weights.reshape((WAVES,) * grid.axes)
        for wave in waves:  # contracts the first axis, appends the grid's
            smooth = np.tensordot(smooth, wave, axes=(0, 0))
        noise = normal(seed, 0, cell_indices(block, grid.shape), stream=Stream.LOAD_NOISE)
        return self.smooth * smooth / WAVES ** (grid.axes / 2) + self.noise * noise


def _waves(grid: Grid, axis: int, part: slice) -> np.ndarray:
    """(WAVES, cells) of unit mean square along an axis, alike at the ends of a periodic one."""
    x = (np.arange(part.start, part.stop) + 0.5) / grid.shape[axis]
    numbers = np.arange(1, WAVES + 1)[:, None] * (2 if grid.boundary[axis].periodic else 1)
    shape = np.cos if grid.boundary[axis].kind == "neumann" else np.sin
    return np.sqrt(2) * shape(np.pi * numbers * x)


class Elliptic(Spec):
    """-div(k grad u) + reaction u = f; `boundary` for all axes or one an axis, values 0."""

    boundary: Kind | tuple[Kind, ...] = "dirichlet"
    dx: PositiveFloat = 1.0
    reaction: float = Field(default=0.0, ge=0)
    source: LoadSource = LoadSource()

    @property
    def medium(self) -> Coefficient:
        """The coefficient k; 1 where a problem has no key `coefficient`."""
        return getattr(self, "coefficient", Constant())

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """The cell-centred grid of this problem. InputError where axes do not agree."""
        kinds = per_axis("problem.boundary", self.boundary, len(shape))
        return Grid(shape, (self.dx,) * len(shape), tuple(Boundary(kind) for kind in kinds))

    def coefficient_values(self, blocks: Blocks, comm: Comm, seed: int) -> np.ndarray:
        """k on the block and one cell around it, float64 (*size); collective."""
        block = blocks.block(comm.rank)
        box = [(a - 1, b + 1) for a, b in zip(block.start, block.stop, strict=True)]
        return self.medium.values(blocks.grid, box, seed, comm)

    def stencil(self, blocks: Blocks, comm: Comm, seed: int) -> Stencil:
        """The rows of this rank. InputError on all ranks where k is not positive; collective."""
        k = self.coefficient_values(blocks, comm, seed)
        return shared_stencil(k, blocks, comm, self.reaction)

    def load(self, blocks: Blocks, comm: Comm, seed: int) -> np.ndarray:
        """f, float64 (*block.size); of mean 0 where the matrix is singular. Collective."""
        f = self.source.values(blocks.grid, blocks, comm.rank, seed)
        fixed = any(boundary.kind == "dirichlet" for boundary in blocks.grid.boundary)
        return f if fixed or self.reaction else f - mean(f, blocks, comm)


def shared_stencil(
    coefficient: np.ndarray, blocks: Blocks, comm: Comm, reaction: float | np.ndarray = 0.0
) -> Stencil:
    """`diffusion_stencil` of k (*size), size = block.size + 2, on all ranks. Collective.

    `reaction`: a number or (*block.size). Errors: `InputError` on all ranks where one refuses k.
    """
    error = stencil = None
    try:
        stencil = diffusion_stencil(coefficient, blocks, comm.rank, reaction)
    except ValueError as refused:
        error = refused
    raise_together(comm, error)
    assert stencil is not None
    return stencil


def mean(field: np.ndarray, blocks: Blocks, comm: Comm) -> float:
    """Mean over the whole domain of a field (*block.size), the same for any split; collective."""
    sums = [
        float(field[blocks.local_slices(comm.rank, index)].sum())
        for index in blocks.tiles(comm.rank)
    ]
    return exact_sum(comm, sums) / np.prod(blocks.grid.shape)


def norm(field: np.ndarray, blocks: Blocks, comm: Comm) -> float:
    """Euclidean norm of a field (*block.size) over the whole domain; collective."""
    return float(np.sqrt(mean(field**2, blocks, comm) * np.prod(blocks.grid.shape)))
