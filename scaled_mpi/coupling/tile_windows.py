"""What one tile sees: its core, the halo its rank could fill, and nothing beyond.

A local operator reads `tile + 2 * reach` cells an axis. When the halo is narrower than the reach,
the cells beyond it are 0 and a mask marks them. So every call has one shape. In float32 on one
thread it also has one sequence of roundings: the bits do not depend on the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaled_mpi.parallel.blocks import Blocks, behind


@dataclass(frozen=True)
class TileView:
    """Where one tile lies in its rank's block: `core` without halo, `seen` with it (padded)."""

    index: tuple[int, ...]
    core: tuple[slice, ...]
    seen: tuple[slice, ...]


class TileWindows:
    """Cuts the windows of a rank's tiles out of padded block arrays.

    `halo` and `reach` are in cells, one entry an axis; the halo of the padded arrays is `halo`.
    """

    def __init__(
        self, blocks: Blocks, rank: int, halo: Sequence[int], reach: Sequence[int]
    ) -> None:
        self.halo, self.reach = tuple(halo), tuple(reach)
        self.known = tuple(min(h, r) for h, r in zip(self.halo, self.reach, strict=True))
        self.tile = tuple(blocks.tile)
        self.shape = tuple(t + 2 * r for t, r in zip(self.tile, self.reach, strict=True))
        self.views = [self._view(blocks, rank, index) for index in blocks.tiles(rank)]
        self._inside = tuple(
            slice(r - k, r + t + k)
            for r, k, t in zip(self.reach, self.known, self.tile, strict=True)
        )
        self._core = tuple(slice(r, r + t) for r, t in zip(self.reach, self.tile, strict=True))
        self.mask = np.zeros(self.shape, np.float32)
        self.mask[self._inside] = 1.0
        self.ring = self.mask.copy()
        self.ring[self._core] = 0.0
        self.ring_cells = int(self.ring.sum())

    @property
    def sufficient(self) -> bool:
        """Whether the halo covers the reach, so that one exchange a jump is exact."""
        return self.known == self.reach

    def _view(self, blocks: Blocks, rank: int, index: tuple[int, ...]) -> TileView:
        core = blocks.local_slices(rank, index)
        return TileView(index, core, blocks.local_slices(rank, index, self.known, self.halo))

    def cut(self, view: TileView, padded: np.ndarray) -> np.ndarray:
        """One tile with its reach, (..., *window), out of a block with its halo (..., *size)."""
        window = np.zeros((*padded.shape[: -len(self.tile)], *self.shape), padded.dtype)
        window[behind(self._inside)] = padded[behind(view.seen)]
        return window

    def cut_ring(self, view: TileView, padded: np.ndarray) -> np.ndarray:
        """As `cut`, (..., *window) of (..., *size), with the tile's own cells set to 0."""
        window = self.cut(view, padded)
        window[behind(self._core)] = 0.0
        return window
