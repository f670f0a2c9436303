"""Samples of a large domain from denoisers of tiles.

At every noise level the denoisers of windows are fused into one of the whole domain,

    D_loc(x_t) = sum over windows w of  weight_w * D_w(x_t on w)        weights sum to 1 in a cell

and what a sampler does with it is the same as on one tile. The weights are one row of FUSIONS:

    crop      one window a tile, tile + 2 halo; the owner's cells count, the halo does not
    average   windows of a tile, overlapping; all count alike
              (Bar-Tal et al. 2023, MultiDiffusion, arXiv 2302.08113)
    window    the same, weighted by the square of the distance to the window's edge
    collage   the windows less their overlaps: the scores of a chain of conditionally independent
              pieces add up so (Zhang et al. 2023, DiffCollage, arXiv 2303.17076)

No fusion of windows knows what is further away than a window. The coarse score correction does.
R are the means of blocks of B cells an axis, P their constant continuation (R P = 1). D_c denoises
the small field R x, whose noise is sigma / B^(axes / 2):

    D(x_t) = D_loc(x_t) + P G (D_c(R x_t) - R D_loc(x_t))

It is the coarse space of domain decomposition, for scores. Blocks must resolve what they correct:
at most a quarter of the correlation length, for P is constant in a block. G is the identity, which
is right where D_c knows more of R x than D_loc. Where fields are not Gaussian, details carry the
means too, and G weighs the two by wavenumber (`gains.py`). Every rank holds the coarse field and
nothing else that is global. The noise is keyed by the global cell. Overlapping windows therefore
see the same field, and any number of ranks yields the same sample.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.learning.samplers import Denoise
from scaled_mpi.parallel.blocks import Blocks, behind
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.halo import Halo

Fusion = Literal["crop", "average", "window", "collage"]


@dataclass(frozen=True)
class Piece:
    """A kind of window on one axis: it begins `offset` cells after its tile and counts so much."""

    offset: int
    weight: np.ndarray  # (extent,)

    @property
    def extent(self) -> int:
        return len(self.weight)


def _crop(tile: int, halo: int, overlap: int) -> list[Piece]:
    weight = np.zeros(tile + 2 * halo)
    weight[halo : halo + tile] = 1.0
    return [Piece(-halo, weight)]


def _overlapping(tile: int, overlap: int, shape: np.ndarray) -> list[Piece]:
    """Windows of a tile every tile - overlap cells; `shape` (tile,) is divided by its sum."""
    stride = tile - overlap
    starts = range(0, tile, stride)
    total = sum(np.roll(shape, start) for start in starts)
    return [Piece(start, shape / np.roll(total, -start)) for start in starts]


def _average(tile: int, halo: int, overlap: int) -> list[Piece]:
    return _overlapping(tile, overlap, np.ones(tile))


def _window(tile: int, halo: int, overlap: int) -> list[Piece]:
    place = np.arange(tile) + 0.5
    return _overlapping(tile, overlap, np.minimum(place, tile - place) ** 2)


def _collage(tile: int, halo: int, overlap: int) -> list[Piece]:
    starts = range(0, tile, tile - overlap)
    return [Piece(start, np.ones(tile)) for start in starts] + [
        Piece(start, -np.ones(overlap)) for start in starts if overlap
    ]


FUSIONS: dict[str, Callable[[int, int, int], list[Piece]]] = {
    "crop": _crop,
    "average": _average,
    "window": _window,
    "collage": _collage,
}


def check_fusion(name: str, tile: Sequence[int], halo: int, overlap: int) -> None:
    """Errors: `InputError` for a row that does not exist or windows that do not fit the tiles."""
    if name not in FUSIONS:
        raise InputError(
            f"generation.fusion: {name!r} is not allowed: unknown. Allowed: {', '.join(FUSIONS)}"
        )
    if halo > min(tile):
        raise InputError(
            f"generation.halo: {halo} is not allowed: wider than a tile. Allowed: 0 to {min(tile)}"
        )
    for cells in tile:
        if 2 * overlap > cells or cells % (cells - overlap):
            raise InputError(
                f"generation.overlap: {overlap} is not allowed: windows of {cells} cells would "
                f"not cover a tile evenly. Allowed: 0, or half a tile"
            )


def window_extents(
    name: str, tile: Sequence[int], halo: int, overlap: int
) -> set[tuple[int, ...]]:
    """Cells an axis of the windows that a fusion asks for."""
    pieces = (FUSIONS[name](cells, halo, overlap) for cells in tile)
    return {_extent(kind) for kind in itertools.product(*pieces)}


class TiledDenoiser:
    """The fused denoiser of one rank's block: (..., *block.size) and t to the same; collective.

    `window(extent)` gives the denoiser of a window of so many cells an axis: (..., *extent) and t
    to the same. Tiles are done one after another, so that the bits of `crop` do not depend on how
    they are dealt to ranks.
    """

    def __init__(
        self,
        blocks: Blocks,
        comm: Comm,
        fusion: str,
        window: Callable[[tuple[int, ...]], Denoise],
        *,
        halo: int = 0,
        overlap: int = 0,
    ) -> None:
        check_fusion(fusion, blocks.tile, halo, overlap)
        pieces = [FUSIONS[fusion](tile, halo, overlap) for tile in blocks.tile]
        self.pieces = list(itertools.product(*pieces))
        self.denoisers = {
            extent: window(extent) for extent in {_extent(kind) for kind in self.pieces}
        }
        reach = [
            max(max(-p.offset, p.offset + p.extent - tile) for p in row)
            for row, tile in zip(pieces, blocks.tile, strict=True)
        ]
        self.blocks, self.comm, self.reach = blocks, comm, tuple(reach)
        # Only the owner's cells count: nothing has to go back to the neighbours.
        self.alone = fusion == "crop"
        self.halos: dict[np.dtype, Halo] = {}

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        halo = self.halos.setdefault(x.dtype, Halo(self.blocks, self.comm, self.reach, x.dtype))
        padded = halo(x)
        made = np.zeros_like(padded)
        for index in self.blocks.tiles(self.comm.rank):
            core = self.blocks.local_slices(self.comm.rank, index, 0, self.reach)
            for kind in self.pieces:
                place = behind(
                    slice(c.start + p.offset, c.start + p.offset + p.extent)
                    for c, p in zip(core, kind, strict=True)
                )
                answer = self.denoisers[_extent(kind)](padded[place], t)
                for axis, piece in enumerate(kind):
                    answer = answer * piece.weight.reshape(
                        [-1 if a == axis else 1 for a in range(len(kind))]
                    )
                made[place] += answer
        return made[halo.interior].copy() if self.alone else halo.add_back(made).copy()


def _extent(kind: Sequence[Piece]) -> tuple[int, ...]:
    return tuple(piece.extent for piece in kind)


class CoarseCorrection:
    """A tiled denoiser corrected on blocks of `block` cells an axis; collective.

    `coarse` denoises the means of blocks of the whole domain, (..., *(shape / block)), whose noise
    has the spread sigma(t) / block^(axes / 2). `gain(missing, t)` weighs what it would change,
    the same shape. Errors: `InputError` where blocks do not fill a tile.
    """

    def __init__(
        self, local: TiledDenoiser, coarse: Denoise, block: int, gain: Denoise | None = None
    ) -> None:
        if any(tile % block for tile in local.blocks.tile):
            raise InputError(
                f"generation.block: {block} is not allowed: blocks would cross tiles. "
                f"Allowed: divisors of the tile {list(local.blocks.tile)}"
            )
        self.local, self.coarse, self.block, self.gain = local, coarse, block, gain
        self.blocks, self.comm = local.blocks.coarsen(block), local.comm
        self.own = (..., *self.blocks.block(self.comm.rank).slices)

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        made, axes = self.local(x, t), self.blocks.grid.axes
        wanted = self.coarse(self._everywhere(block_means(x, axes, self.block)), t)
        own = block_means(made, axes, self.block)
        if self.gain is None:
            missing = wanted[self.own] - own
        else:
            missing = self.gain(wanted - self._everywhere(own), t)[self.own]
        for axis in range(-axes, 0):
            missing = np.repeat(missing, self.block, axis)
        return made + missing

    def _everywhere(self, own: np.ndarray) -> np.ndarray:
        """The coarse field of the whole domain, on every rank."""
        if self.comm.size == 1:
            return own
        lead = own.shape[: own.ndim - self.blocks.grid.axes]
        counts = [
            math.prod(lead) * math.prod(self.blocks.block(rank).size)
            for rank in range(self.comm.size)
        ]
        flat = np.empty(sum(counts), own.dtype)
        self.comm.Allgatherv(np.ascontiguousarray(own), [flat, counts])
        whole = np.empty((*lead, *self.blocks.grid.shape), own.dtype)
        ends = itertools.accumulate(counts)
        for rank, (count, end) in enumerate(zip(counts, ends, strict=True)):
            block = self.blocks.block(rank)
            whole[behind(block.slices)] = flat[end - count : end].reshape(*lead, *block.size)
        return whole


def block_means(x: np.ndarray, axes: int, block: int) -> np.ndarray:
    """R: (..., *cells) -> (..., *(cells / block)), the means of blocks on the last `axes` axes."""
    lead = x.shape[: x.ndim - axes]
    split = [size for cells in x.shape[x.ndim - axes :] for size in (cells // block, block)]
    return x.reshape(*lead, *split).mean(tuple(range(len(lead) + 1, len(lead) + 2 * axes, 2)))
