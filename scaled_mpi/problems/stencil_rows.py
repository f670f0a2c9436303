"""Five-point finite volumes for -div(k grad u) + s u = f, cell-centred (7 points in 3-D).

Between two cells flows T (u_i - u_j) with the harmonic average of k,

    T = 2 k_i k_j / (k_i + k_j) / h^2,

which is exact for a layered medium. A Dirichlet value sits on the face, half a cell away: there
T = 2 k_i / h^2, the value goes to the right-hand side. Through a Neumann face nothing flows. The
matrix is symmetric; it is singular, with the constants as null space, when no axis is Dirichlet
and s = 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Blocks


@dataclass(frozen=True)
class Stencil:
    """One rank's rows: A u = diagonal u - sum over axes of low u(-1) + high u(+1).

    `diagonal`, `low[axis]`, `high[axis]` and `lifted` are float64 (*block.size). `low` and `high`
    are 0 where there is no neighbour; `lifted` is what the Dirichlet values add to the right-hand
    side. `singular` holds for the whole matrix, on every rank.
    """

    diagonal: np.ndarray
    low: tuple[np.ndarray, ...]
    high: tuple[np.ndarray, ...]
    lifted: np.ndarray
    singular: bool

    def apply(self, padded: np.ndarray) -> np.ndarray:
        """A u, (*block.size), of u (*size) with a ring of one cell; its corners are unread."""
        core = tuple(slice(1, -1) for _ in self.low)
        result = self.diagonal * padded[core]
        for axis, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            result -= low * padded[_shifted(core, axis, slice(0, -2))]
            result -= high * padded[_shifted(core, axis, slice(2, None))]
        return result


def diffusion_stencil(
    coefficient: np.ndarray, blocks: Blocks, rank: int, reaction: float | np.ndarray = 0.0
) -> Stencil:
    """The rows of `rank` from k on its block and one cell around it, float64 (*size).

    `reaction` is s >= 0, a number or an array (*block.size). Values of k beyond a face that is not
    periodic are not used. InputError where k on the block is not positive and finite.
    """
    check_positive(coefficient[(slice(1, -1),) * coefficient.ndim], blocks, rank)
    grid, places = blocks.grid, blocks.coordinates(rank)
    core = (slice(1, -1),) * grid.axes
    k = coefficient[core]
    diagonal = np.zeros(k.shape) + reaction
    lifted = np.zeros(k.shape)
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for axis, side in itertools.product(range(grid.axes), (0, 1)):
        boundary, h = grid.boundary[axis], grid.spacing[axis]
        beside = coefficient[_shifted(core, axis, slice(2, None) if side else slice(0, -2))]
        flow = harmonic(k, beside) / h**2
        outermost = places[axis] == (blocks.split[axis] - 1 if side else 0)
        diagonal += flow
        if outermost and not boundary.periodic:
            face = _shifted(
                (slice(None),) * grid.axes, axis, slice(-1, None) if side else slice(0, 1)
            )
            half = 2 * k[face] / h**2 if boundary.kind == "dirichlet" else 0.0 * k[face]
            diagonal[face] += half - flow[face]
            lifted[face] += half * boundary.value
            flow[face] = 0.0
        sides[side].append(flow)
    fixed = any(boundary.kind == "dirichlet" for boundary in grid.boundary)
    singular = not fixed and not np.any(reaction)
    return Stencil(diagonal, tuple(sides[0]), tuple(sides[1]), lifted, singular)


def harmonic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Harmonic average of two arrays (*size) -> (*size); 0 where both are 0."""
    total = a + b
    return np.divide(2 * a * b, total, out=np.zeros(np.shape(total)), where=total > 0)


def check_positive(coefficient: np.ndarray, blocks: Blocks, rank: int) -> None:
    """InputError that names the tile where k (*block.size) is not positive and finite."""
    good = (coefficient > 0) & np.isfinite(coefficient)
    if good.all():
        return
    for index in blocks.tiles(rank):
        part = blocks.local_slices(rank, index)
        if not good[part].all():
            worst = coefficient[part][~good[part]].flat[0]
            raise InputError(
                f"coefficient: {float(worst)} in tile {index} is not allowed: not positive and "
                "finite. Allowed: numbers > 0"
            )


def _shifted(core: Iterable[slice], axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if a == axis else s for a, s in enumerate(core))
