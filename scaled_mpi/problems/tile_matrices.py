"""The operator of every tile of a rank, in one batch: A_i = R_i A R_i^T on tile + overlap.

It is cut out of the global rows with the overlap's halo. A local problem has exactly the global
coefficients and the value 0 beyond its edge. Cells beyond the domain are coupled to nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.problems.stencil_rows import Stencil

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix


class TileOperators:
    """All my tiles' local operators; n tiles in lexicographic order, `window` = tile + 2 overlap.

    `diagonal` and `excess` (n, *window), `high[axis]` (n, *window): the coupling of a cell with
    the next one along an axis, 0 at the window's end. `excess` is what a row of A has beyond its
    couplings (Dirichlet faces and reaction). `inside` is False beyond the domain.
    """

    def __init__(self, stencil: Stencil, blocks: Blocks, comm: Comm, overlap: int) -> None:
        if not 0 < overlap <= min(blocks.tile):
            raise InputError(
                f"overlap: {overlap} is not allowed: no part of a neighbouring tile. "
                f"Allowed: 1 to {min(blocks.tile)}, the cells of a tile"
            )
        self.blocks, self.comm, self.overlap = blocks, comm, overlap
        self.halo = Halo(blocks, comm, overlap, np.float64)
        self.window = tuple(t + 2 * overlap for t in blocks.tile)
        self.tiles = blocks.tiles(comm.rank)
        self.inside = np.stack([self._inside(index) for index in self.tiles])
        fields = [
            stencil.diagonal,
            stencil.diagonal - sum(stencil.low) - sum(stencil.high),
            *stencil.high,
        ]
        cut = self._windows(self.halo(np.stack(fields)))
        cut = np.where(self.inside, cut, 0.0)
        self.diagonal = np.where(self.inside, cut[0], self._typical(cut[0]))
        self.excess = cut[1]
        self.high = tuple(cut[2:])
        for axis, high in enumerate(self.high):
            high[(slice(None),) * (axis + 1) + (-1,)] = 0.0

    def _typical(self, diagonal: np.ndarray) -> np.ndarray:
        """Geometric mean of each tile's diagonal, (n, 1, ...): what rows beyond the domain get."""
        axes = tuple(range(1, diagonal.ndim))
        logs = np.log(np.where(self.inside, diagonal, 1.0)).sum(axes, keepdims=True)
        return np.exp(logs / self.inside.sum(axes, keepdims=True))

    def __len__(self) -> int:
        return len(self.tiles)

    def _inside(self, index: tuple[int, ...]) -> np.ndarray:
        """Which cells of a tile's window belong to the domain, bool (*window)."""
        result = np.ones((), bool)
        axes = zip(
            index, self.blocks.tile, self.blocks.grid.shape, self.blocks.grid.boundary, strict=True
        )
        for i, t, n, boundary in axes:
            cells = np.arange(i * t - self.overlap, (i + 1) * t + self.overlap)
            known = boundary.periodic | ((cells >= 0) & (cells < n))
            result = result[..., None] & known
        return result

    def _windows(self, padded: np.ndarray) -> np.ndarray:
        """(..., *(block + 2 overlap)) -> (..., n, *window), a copy."""
        axes = len(self.window)
        lead = padded.ndim - axes
        view = np.lib.stride_tricks.sliding_window_view(
            padded, self.window, axis=tuple(range(lead, padded.ndim))
        )
        every = tuple(slice(None, None, t) for t in self.blocks.tile)
        view = view[(slice(None),) * lead + every]
        return view.reshape(*padded.shape[:lead], len(self), *self.window).copy()

    def cut(self, field: np.ndarray) -> np.ndarray:
        """A field (*block) on all windows, float64 (n, *window), 0 beyond the domain; one
        exchange."""
        return np.where(self.inside, self._windows(self.halo(field)), 0.0)

    def owned(self, local: np.ndarray) -> np.ndarray:
        """What the tiles themselves (without overlap) hold of (n, *window) -> (*block)."""
        core = (slice(None),) + (slice(self.overlap, -self.overlap),) * len(self.window)
        counts = self.blocks.block(self.comm.rank).tile_count
        axes = len(counts)
        field = local[core].reshape(*counts, *self.blocks.tile)
        order = [a for pair in zip(range(axes), range(axes, 2 * axes), strict=True) for a in pair]
        size = [c * t for c, t in zip(counts, self.blocks.tile, strict=True)]
        return np.ascontiguousarray(field.transpose(order)).reshape(size)

    def blended(self, local: np.ndarray) -> np.ndarray:
        """The weighted sum of overlapping windows (n, *window) -> (*block); one exchange back."""
        return self.summed(local * self.partition())

    def summed(self, local: np.ndarray) -> np.ndarray:
        """sum R_i^T local_i: overlaps are added; (n, *window) -> (*block), one exchange back."""
        block = self.blocks.block(self.comm.rank)
        padded = np.zeros([n + 2 * self.overlap for n in block.size])
        for index, part, inside in zip(self.tiles, local, self.inside, strict=True):
            box = self.blocks.local_slices(self.comm.rank, index, self.overlap)
            padded[box] += np.where(inside, part, 0.0)
        return self.halo.add_back(padded).copy()

    def partition(self) -> np.ndarray:
        """Weights of a partition of unity, linear over the overlaps, float64 (n, *window)."""
        width, ramps = 2 * self.overlap, []
        rise = (np.arange(width) + 0.5) / width
        for t in self.blocks.tile:
            if t < width:
                raise InputError(
                    f"overlap: {self.overlap} is not allowed: overlaps of a tile must not meet. "
                    f"Allowed: at most {t // 2}"
                )
            ramps.append(np.concatenate([rise, np.ones(t - width), rise[::-1]]))
        return np.stack([self._weights(index, ramps) for index in self.tiles])

    def _weights(self, index: tuple[int, ...], ramps: list[np.ndarray]) -> np.ndarray:
        result = np.ones(())
        axes = zip(index, ramps, self.blocks.counts, self.blocks.grid.boundary, strict=True)
        for i, ramp, count, boundary in axes:
            ramp = ramp.copy()
            if not boundary.periodic and i == 0:
                ramp[: 2 * self.overlap] = 1.0
            if not boundary.periodic and i == count - 1:
                ramp[-2 * self.overlap :] = 1.0
            result = np.multiply.outer(result, ramp)
        return result

    def apply(self, local: np.ndarray) -> np.ndarray:
        """A_i z_i of all tiles, (n, *window)."""
        result = self.diagonal * local
        for axis, high in enumerate(self.high):
            front = (slice(None),) * (axis + 1)
            low, up = (*front, slice(0, -1)), (*front, slice(1, None))
            result[low] -= high[low] * local[up]
            result[up] -= high[low] * local[low]
        return result

    def matrix(self, tile: int, neumann: bool = False) -> csc_matrix:
        """A_i of one tile as a scipy CSC matrix; `neumann` leaves out what the cut took away."""
        from scipy import sparse

        cells = math.prod(self.window)
        strides = [math.prod(self.window[axis + 1 :]) for axis in range(len(self.window))]
        if neumann:
            main = np.where(self.inside[tile], self.excess[tile], self.diagonal[tile])
            for axis, high in enumerate(self.high):
                part = high[tile]
                main = main + part
                main += np.roll(part, 1, axis=axis)  # the last entry along the axis is 0
        else:
            main = self.diagonal[tile]
        bands = [main.ravel()]
        offsets = [0]
        for stride, high in zip(strides, self.high, strict=True):
            band = -high[tile].ravel()[: cells - stride]
            bands += [band, band]
            offsets += [stride, -stride]
        return sparse.diags(bands, offsets, shape=(cells, cells), format="csc")
