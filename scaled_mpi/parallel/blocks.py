"""Who owns what: tiles, blocks and ranks as plain arithmetic, without MPI.

The experiment fixes the tiles; a rank owns a rectangle of them, its block. One process computes
the block of any rank of a job of any size, and so tests them all. The idea is mpi4py-fft's
(Mortensen, Dalcin and Keyes 2019, https://doi.org/10.21105/joss.01340). Axes are in the order Z,
Y, X, whichever exist. Ranks are numbered like C arrays, the last axis fastest, as in PETSc's DMDA.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import EllipsisType
from typing import Any

import numpy as np

from scaled_mpi.config import InputError

BOUNDARY_KINDS = ("periodic", "dirichlet", "neumann")
MAX_AXES = 3

_LARGEST_TILE, _SMALLEST_TILE = 64, 8  # cells an axis of an imported run's chunks


@dataclass(frozen=True)
class Boundary:
    """Both ends of one axis: periodic, dirichlet (`value` on the face) or neumann (zero flux)."""

    kind: str = "periodic"
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in BOUNDARY_KINDS:
            raise InputError(
                f"boundary: {self.kind!r} is not allowed: unknown kind. Allowed: "
                f"{', '.join(BOUNDARY_KINDS)}"
            )
        if not math.isfinite(self.value):
            raise InputError(
                f"boundary value: {self.value!r} is not allowed: not finite. Allowed: a "
                "finite number"
            )

    @property
    def periodic(self) -> bool:
        return self.kind == "periodic"


def behind(box: Iterable[slice]) -> tuple[EllipsisType | slice, ...]:
    """The index of the cells `box` in an array (..., *cells): `...`, then one slice an axis."""
    return (..., *box)


def per_axis(name: str, value: object, axes: int) -> tuple[Any, ...]:
    """One entry an axis: a single value counts for all; InputError where the number is wrong."""
    entries = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value,) * axes
    if len(entries) != axes:
        raise InputError(
            f"{name}: {list(entries)} is not allowed: the grid has {axes} axes. "
            "Allowed: one entry for each axis"
        )
    return entries


def whole_per_axis(name: str, value: object, axes: int, least: int) -> tuple[int, ...]:
    """As `per_axis`, and every entry a whole number >= `least`."""
    entries = per_axis(name, value, axes)
    for entry in entries:
        if isinstance(entry, bool) or int(entry) != entry or entry < least:
            raise InputError(
                f"{name}: {list(entries)} is not allowed: out of range. Allowed: whole "
                f"numbers >= {least}"
            )
    return tuple(int(entry) for entry in entries)


@dataclass(frozen=True)
class Grid:
    """A cell-centred global grid: cells, spacing and boundary of each of 1 to 3 axes.

    Cell i of an axis covers [i, i + 1] * spacing, its centre is (i + 1/2) * spacing, and a
    Dirichlet value sits on the outermost face. A single spacing or boundary counts for all axes.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] = 1.0  # type: ignore[assignment]
    boundary: tuple[Boundary, ...] = Boundary()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        axes = len(tuple(self.shape))
        if not 1 <= axes <= MAX_AXES:
            raise InputError(
                f"shape: {list(self.shape)} is not allowed: too many or too few axes. "
                f"Allowed: 1 to {MAX_AXES} axes"
            )
        object.__setattr__(self, "shape", whole_per_axis("shape", self.shape, axes, 1))
        spacing = tuple(float(h) for h in per_axis("spacing", self.spacing, axes))
        if not all(h > 0 and math.isfinite(h) for h in spacing):
            raise InputError(
                f"spacing: {list(spacing)} is not allowed: out of range. Allowed: numbers > 0"
            )
        object.__setattr__(self, "spacing", spacing)
        boundary = per_axis("boundary", self.boundary, axes)
        if not all(isinstance(condition, Boundary) for condition in boundary):
            raise InputError(
                f"boundary: {list(boundary)} is not allowed: wrong type or count. Allowed: "
                "a Boundary for each axis"
            )
        object.__setattr__(self, "boundary", boundary)

    @property
    def axes(self) -> int:
        return len(self.shape)

    @property
    def extent(self) -> tuple[float, ...]:
        """Length of the domain on each axis."""
        return tuple(n * h for n, h in zip(self.shape, self.spacing, strict=True))

    def centres(self, axis: int) -> np.ndarray:
        """Coordinates of the cell centres of one axis, float64 (shape[axis],)."""
        return (np.arange(self.shape[axis]) + 0.5) * self.spacing[axis]

    def coarsen(self, factor: int | Sequence[int]) -> Grid:
        """The grid of `factor` times fewer cells an axis over the same domain."""
        factor = whole_per_axis("factor", factor, self.axes, 1)
        if any(n % f for n, f in zip(self.shape, factor, strict=True)):
            raise InputError(
                f"factor: {list(factor)} is not allowed: it must divide the grid. Allowed: "
                f"divisors of {list(self.shape)}"
            )
        shape = tuple(n // f for n, f in zip(self.shape, factor, strict=True))
        spacing = tuple(h * f for h, f in zip(self.spacing, factor, strict=True))
        return replace(self, shape=shape, spacing=spacing)


@dataclass(frozen=True)
class Block:
    """The rectangle of one rank: `start`, `size` in cells, `tile_start`, `tile_count` in tiles."""

    rank: int
    start: tuple[int, ...]
    size: tuple[int, ...]
    tile_start: tuple[int, ...]
    tile_count: tuple[int, ...]

    @property
    def stop(self) -> tuple[int, ...]:
        return tuple(a + n for a, n in zip(self.start, self.size, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where the block lies in a global array (put `...` before it for leading axes)."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True)
class Blocks:
    """The whole split: tiles of `tile` cells, `split` ranks an axis; ask it about any rank.

    Where `split` does not divide the tiles, the first ranks of an axis own one tile more.
    Raises InputError where tiles do not divide the grid or an axis has more ranks than tiles.
    """

    grid: Grid
    tile: tuple[int, ...]
    split: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = self.grid.shape
        object.__setattr__(self, "tile", whole_per_axis("tile", self.tile, self.grid.axes, 1))
        object.__setattr__(self, "split", whole_per_axis("split", self.split, self.grid.axes, 1))
        if any(n % t for n, t in zip(shape, self.tile, strict=True)):
            raise InputError(
                f"tile: {list(self.tile)} is not allowed: it must divide the grid. Allowed: "
                f"divisors of {list(shape)}"
            )
        if any(p > c for p, c in zip(self.split, self.counts, strict=True)):
            raise InputError(
                f"split: {list(self.split)} is not allowed: more blocks than tiles. "
                f"Allowed: at most {list(self.counts)}"
            )

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Tiles an axis."""
        return tuple(n // t for n, t in zip(self.grid.shape, self.tile, strict=True))

    @property
    def ranks(self) -> int:
        """How many ranks own a block; ranks from this number on have nothing to do."""
        return math.prod(self.split)

    @cached_property
    def _tile_edges(self) -> tuple[tuple[int, ...], ...]:
        """For each axis the first tile of every rank coordinate, then the number of tiles."""
        edges = []
        for count, parts in zip(self.counts, self.split, strict=True):
            small, extra = divmod(count, parts)
            edges.append(tuple(p * small + min(p, extra) for p in range(parts + 1)))
        return tuple(edges)

    def coordinates(self, rank: int) -> tuple[int, ...]:
        """The place of a rank in the lattice of ranks."""
        if not 0 <= rank < self.ranks:
            raise IndexError(
                f"rank: {rank} is not allowed: it owns no block. Allowed: 0 to {self.ranks - 1}"
            )
        return tuple(int(c) for c in np.unravel_index(rank, self.split))

    def rank_at(self, coordinates: Sequence[int]) -> int:
        """The rank at a place in the lattice of ranks; the inverse of `coordinates`."""
        rank = 0
        for place, parts in zip(coordinates, self.split, strict=True):
            rank = rank * parts + place
        return rank

    def block(self, rank: int) -> Block:
        """What `rank` owns; IndexError for a rank without a block."""
        places = self.coordinates(rank)
        first = tuple(e[p] for e, p in zip(self._tile_edges, places, strict=True))
        count = tuple(e[p + 1] - e[p] for e, p in zip(self._tile_edges, places, strict=True))
        start = tuple(a * t for a, t in zip(first, self.tile, strict=True))
        size = tuple(n * t for n, t in zip(count, self.tile, strict=True))
        return Block(rank, start, size, first, count)

    def owner(self, tile_index: Sequence[int]) -> int:
        """The rank that owns a tile (multi-index in the lattice of tiles)."""
        places = []
        for index, edges in zip(tile_index, self._tile_edges, strict=True):
            if not 0 <= index < edges[-1]:
                raise IndexError(
                    f"tile: {tuple(tile_index)} is not allowed: outside the lattice. Allowed: "
                    f"inside {self.counts}"
                )
            places.append(int(np.searchsorted(edges, index, side="right")) - 1)
        return self.rank_at(places)

    def tiles(self, rank: int | None = None) -> list[tuple[int, ...]]:
        """Tile multi-indices of a rank (None: of all) in lexicographic order."""
        if rank is None:
            return list(itertools.product(*(range(c) for c in self.counts)))
        block = self.block(rank)
        spans = (range(a, a + n) for a, n in zip(block.tile_start, block.tile_count, strict=True))
        return list(itertools.product(*spans))

    def tile_slices(self, tile_index: Sequence[int]) -> tuple[slice, ...]:
        """Where a tile lies in a global array."""
        return tuple(slice(i * t, (i + 1) * t) for i, t in zip(tile_index, self.tile, strict=True))

    def local_slices(
        self,
        rank: int,
        tile_index: Sequence[int],
        halo: int | Sequence[int] = 0,
        width: int | Sequence[int] | None = None,
    ) -> tuple[slice, ...]:
        """Where a tile and `halo` cells around it lie in the array of its rank's block.

        `width` is the ring that the array carries (default: `halo`); halo <= width.
        """
        axes = self.grid.axes
        halo = whole_per_axis("halo", halo, axes, 0)
        width = halo if width is None else whole_per_axis("width", width, axes, 0)
        if any(h > w for h, w in zip(halo, width, strict=True)):
            raise InputError(
                f"halo: {list(halo)} is not allowed: wider than the ring. Allowed: at most "
                f"{list(width)}"
            )
        first = self.block(rank).tile_start
        lows = [
            (i - a) * t + w - h
            for i, a, t, w, h in zip(tile_index, first, self.tile, width, halo, strict=True)
        ]
        return tuple(
            slice(a, a + t + 2 * h) for a, t, h in zip(lows, self.tile, halo, strict=True)
        )

    def ownership(self) -> tuple[tuple[int, ...], ...]:
        """Cells of every rank coordinate, one tuple an axis (DMDA wants them last axis first)."""
        return tuple(
            tuple((b - a) * t for a, b in itertools.pairwise(edges))
            for edges, t in zip(self._tile_edges, self.tile, strict=True)
        )

    def coarsen(self, factor: int | Sequence[int]) -> Blocks:
        """The same tiles and ranks on a grid of `factor` times fewer cells an axis."""
        factor = whole_per_axis("factor", factor, self.grid.axes, 1)
        if any(t % f for t, f in zip(self.tile, factor, strict=True)):
            raise InputError(
                f"factor: {list(factor)} is not allowed: it must divide the tile. Allowed: "
                f"divisors of {list(self.tile)}"
            )
        tile = tuple(t // f for t, f in zip(self.tile, factor, strict=True))
        return Blocks(self.grid.coarsen(factor), tile, self.split)


def choose_split(
    counts: Sequence[int],
    ranks: int,
    tile: Sequence[int] | None = None,
    periodic: Sequence[bool] | None = None,
) -> tuple[int, ...]:
    """Ranks an axis for a lattice of `counts` tiles: the most ranks that fit, then the smallest
    halo.

    Any `ranks` >= 1 will do; the product of the result is the largest possible <= `ranks` with at
    most one rank a tile on every axis. Ties go to the least area of cuts, in cells, with `tile`
    cells a tile; a periodic axis has one cut more. Further ties go to the smallest largest block,
    then to cuts of the first axis, which leave rows whole.

    Errors: `InputError` for `ranks` < 1.
    """
    if ranks < 1:
        raise InputError(f"ranks: {ranks} is not allowed: no rank is left. Allowed: at least 1")
    counts = tuple(int(c) for c in counts)
    tile = (1,) * len(counts) if tile is None else tuple(tile)
    wraps = (True,) * len(counts) if periodic is None else tuple(periodic)
    cells = [c * t for c, t in zip(counts, tile, strict=True)]

    def cost(split: tuple[int, ...]) -> tuple[Any, ...]:
        cuts = [
            0 if p == 1 else p if wrap else p - 1 for p, wrap in zip(split, wraps, strict=True)
        ]
        area = sum(cut * math.prod(cells) // n for cut, n in zip(cuts, cells, strict=True))
        load = math.prod(-(-c // p) for c, p in zip(counts, split, strict=True))
        return -math.prod(split), area, load, tuple(-p for p in split)

    return min(_splits(counts, ranks), key=cost)


def _splits(counts: Sequence[int], ranks: int) -> list[tuple[int, ...]]:
    """All ranks-an-axis with a product <= `ranks` and at most one rank a tile."""
    if not counts:
        return [()]
    return [
        (first, *rest)
        for first in range(1, min(counts[0], ranks) + 1)
        for rest in _splits(counts[1:], ranks // first)
    ]


def make_blocks(grid: Grid, tile: int | Sequence[int], comm_size: int) -> Blocks:
    """The split of `grid` into tiles and blocks for at most `comm_size` ranks."""
    alone = Blocks(grid, whole_per_axis("tile", tile, grid.axes, 1), (1,) * grid.axes)
    periodic = [boundary.periodic for boundary in grid.boundary]
    return replace(alone, split=choose_split(alone.counts, comm_size, alone.tile, periodic))


def handy_tile(shape: Sequence[int]) -> tuple[int, ...]:
    """For each axis the largest divisor from 8 to 64 cells, or the whole axis if it has none."""
    return tuple(
        next((d for d in range(min(n, _LARGEST_TILE), _SMALLEST_TILE - 1, -1) if n % d == 0), n)
        for n in shape
    )
