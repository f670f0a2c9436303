"""The random forcing of a simulator: normal numbers keyed by seed, run, member, time and cell.

A number depends on these keys alone. A noisy run has the same bits for any split, and members of
an ensemble differ in their number alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scaled_mpi.parallel.blocks import Block
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import cell_indices, normal


class Kicks:
    """Standard normal fields (*block.size), or (members, *block.size), one at each call.

    seed: (seed, run), both below 2^32. `members` are the numbers of an ensemble's members; None
    is member 0 alone, without an axis of its own. `taken`: fields that were taken before.
    """

    def __init__(
        self,
        block: Block,
        shape: Sequence[int],
        seed: tuple[int, int],
        members: Sequence[int] | None = None,
        taken: int = 0,
    ) -> None:
        cells = cell_indices(block, shape)
        if members is not None:
            numbers = np.asarray(members, np.int64).reshape(-1, *[1] * cells.ndim)
            cells = cells + numbers * math.prod(shape)
        self._cells, self._key, self.taken = cells, seed[0] + (seed[1] << 32), taken
        self._pair: tuple[int, np.ndarray] | None = None

    def __call__(self) -> np.ndarray:
        """The next field, float64."""
        pair, half = divmod(self.taken, 2)
        if self._pair is None or self._pair[0] != pair:  # two draws cost as much as one
            made = normal(self._key, pair, self._cells, draws=2, stream=Stream.KICKS)
            self._pair = pair, made
        self.taken += 1
        return self._pair[1][half]
