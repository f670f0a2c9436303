"""White noise for stochastic operators: a number a cell of the domain, whoever asks.

A local operator reads noise on its tile and on its whole reach. A number depends on seed, jump,
member, channel and global cell alone. Tiles that overlap read the same noise without a message, in
every sweep, on any number of ranks. Beyond a boundary that is not periodic the noise
is mirrored, as a halo is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaled_mpi.coupling.tile_windows import TileWindows
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import normal
from scaled_mpi.surrogates.operators import Operator


class Chance:
    """The noise of one member of a forecast, for the tiles of one rank.

    `channels` numbers a cell and jump; `reach` in cells, one entry an axis.
    """

    def __init__(
        self,
        blocks: Blocks,
        rank: int,
        reach: Sequence[int],
        channels: int,
        seed: int,
        member: int = 0,
    ) -> None:
        self.channels, self.seed = channels, seed
        self.windows = TileWindows(blocks, rank, reach, reach)
        self._views = {view.index: view for view in self.windows.views}
        block, grid = blocks.block(rank), blocks.grid
        index = np.full((), member, np.int64)
        for start, stop, r, n, boundary in zip(
            block.start, block.stop, reach, grid.shape, grid.boundary, strict=True
        ):
            cells = np.arange(start - r, stop + r)
            if boundary.periodic:
                cells = cells % n
            else:
                cells = np.where(cells < 0, -1 - cells, cells)
                cells = np.where(cells >= n, 2 * n - 1 - cells, cells)
            index = index[..., None] * n + cells
        self.cells = index

    def draw(self, jump: int) -> np.ndarray:
        """Standard normals of one jump, float32 (channels, *block), the ring of reach included."""
        made = normal(self.seed, jump, self.cells, draws=self.channels, stream=Stream.JUMPS)
        return made.astype(np.float32)

    def cut(self, tile: tuple[int, ...], drawn: np.ndarray) -> np.ndarray:
        """The noise (channels, *tile) of one tile, by its index, its ring of reach included.

        drawn (channels, *block): from `draw`.
        """
        return self.windows.cut(self._views[tile], drawn)


def chance_of(
    operator: Operator, blocks: Blocks, rank: int, seed: int, member: int = 0
) -> Chance | None:
    """The noise that a loaded surrogate needs; None for one that needs none."""
    if not operator.stochastic:
        return None
    return Chance(blocks, rank, operator.reach, operator.noises, seed, member)
