"""To the latent field and back, tile by tile, on a decomposed domain.

A latent field is again a field, `factor` times coarser. Encoders and decoders are local operators
with a known reach. A tile with that many cells of halo is coded as in the whole domain: there are
no seams.
"""

from __future__ import annotations

import numpy as np

from scaled_mpi.compressors.coders import Coder
from scaled_mpi.coupling.chance import Chance
from scaled_mpi.coupling.tile_windows import TileWindows
from scaled_mpi.parallel.blocks import Blocks, behind
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.store import Trajectory


class Coding:
    """Encodes stored frames to, and decodes from, this rank's block of the latent field."""

    def __init__(self, coder: Coder, blocks: Blocks, comm: Comm) -> None:
        self.coder, self.blocks, self.rank = coder, blocks, comm.rank
        self.latent = blocks.coarsen(coder.factor)
        reach = tuple(coder.decode_reach)
        self.exchange = Halo(self.latent, comm, reach)
        self.windows = TileWindows(self.latent, comm.rank, reach, reach)
        self._chance: tuple[Chance, np.ndarray] | None = None

    def encode(self, trajectory: Trajectory, frame: int) -> np.ndarray:
        """The latent (c, *size) of one stored frame, `size` that of this rank's latent block."""
        size = self.latent.block(self.rank).size
        latent: np.ndarray | None = None
        for view in self.windows.views:
            box = self.blocks.tile_slices(view.index)
            code = self.coder.encode(trajectory.read(frame, box, self.coder.encode_reach))
            if latent is None:
                latent = np.empty((code.shape[0], *size), code.dtype)
            latent[behind(view.core)] = code
        assert latent is not None, "every rank owns a tile"
        return latent

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """(C, *block) from (c, *latent block); one halo exchange, of the decoder's reach.

        A decoder that draws reads the noise of each cell's place, the same in every frame.
        """
        padded = self.exchange(latent)
        field: np.ndarray | None = None
        for view in self.windows.views:
            part = self.coder.decode(self.windows.cut(view, padded), *self._noise(view.index))
            if field is None:
                field = np.empty((part.shape[0], *self.blocks.block(self.rank).size), part.dtype)
            field[behind(self.blocks.local_slices(self.rank, view.index))] = part
        assert field is not None, "every rank owns a tile"
        return field

    def _noise(self, tile: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """White noise (channels, *(tile and what its latents reach)), for coders that draw."""
        channels = getattr(self.coder, "noises", 0)
        if not channels:
            return ()
        if self._chance is None:
            reach = [f * r for f, r in zip(self.coder.factor, self.windows.reach, strict=True)]
            chance = Chance(self.blocks, self.rank, reach, channels, self.coder.seed)
            self._chance = chance, chance.draw(0)
        chance, drawn = self._chance
        return (chance.cut(tile, drawn),)
