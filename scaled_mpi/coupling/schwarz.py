"""Schwarz coupling of frozen local surrogates in time: march from jump to jump.

One jump advances every tile by the same local operator G. With w the halo and r the reach of G:

* w >= r: the cells that decide a tile's future are all known. One exchange a jump, no iteration.
* w < r: what enters through the tile's edge during the jump is unknown. Schwarz waveform
  relaxation (Gander, Halpern, Nataf 1999) finds it: in sweep n each tile is advanced with the
  *future* halo, at t + jump, taken from its neighbours' sweep n - 1,

      u_i^n(t+1) = G(u(t) on tile i and halo; u_j^(n-1)(t+1) on the halo of i),

  the first sweep with the future unknown. The iteration ends on the interface mismatch, the
  future halo that a tile assumed less its neighbours' new values. It is a root mean square
  in units of each channel's standard deviation.

A stochastic operator reads noise besides (`chance.py`), the same in every sweep of a jump: the
sweeps then make neighbours agree on one sample.

All tiles are updated from the same old iterate (additive, Jacobi order). The answer depends on the
tiles and never on the ranks that own them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scaled_mpi.coupling.chance import Chance
from scaled_mpi.coupling.tile_windows import TileWindows
from scaled_mpi.parallel.blocks import behind
from scaled_mpi.parallel.comm import exact_sum
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.surrogates.operators import Operator


@dataclass(frozen=True)
class Jump:
    """One finished jump: its number (from 1), my block of the field (C, *block), what it took."""

    number: int
    field: np.ndarray
    sweeps: int
    mismatches: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Sweeping:
    """Stop below `tolerance`, or after `most` sweeps; `fixed` takes all of them regardless."""

    most: int = 8
    tolerance: float = 0.01
    fixed: bool = False


class March:
    """Couples one operator over the tiles of a domain; iterate it with `jumps`.

    `operator` is a loaded surrogate (`reach`, `memory`, `advance`), `condition` its 1-D array of
    parameters, `scale` (C,) the standard deviation of each channel. `exchange` fills the halo, in
    cells of the surrogate's grid; `chance` is the noise of a stochastic operator.
    """

    def __init__(
        self,
        operator: Operator,
        exchange: Halo,
        *,
        condition: np.ndarray,
        scale: np.ndarray,
        sweeping: Sweeping | None = None,
        chance: Chance | None = None,
    ) -> None:
        self.operator, self.exchange = operator, exchange
        self.blocks, self.comm = exchange.blocks, exchange.comm
        self.condition, self.sweeping = condition, sweeping or Sweeping()
        self.chance = chance
        self.scale = np.asarray(scale, np.float64).reshape(-1, *[1] * len(self.blocks.tile))
        self.windows = TileWindows(self.blocks, self.comm.rank, exchange.width, operator.reach)
        self.exchanges = 0

    def jumps(self, frames: Sequence[np.ndarray], count: int, first: int = 1) -> Iterator[Jump]:
        """Yield jumps `first` ... `count`; `frames` are the last `memory` fields, newest last."""
        if len(frames) != self.operator.memory:
            raise ValueError(f"{len(frames)} frames given, {self.operator.memory} are read")
        past = [self._spread(frame) for frame in frames]
        for number in range(first, count + 1):
            begun = time.perf_counter()
            padded, sweeps, mismatches = self._jump(np.stack(past), number)
            past = [*past[1:], padded]
            field = np.ascontiguousarray(padded[self.exchange.interior])
            self._check_finite(field, number)
            yield Jump(number, field, sweeps, mismatches, time.perf_counter() - begun)

    def _jump(self, window: np.ndarray, number: int) -> tuple[np.ndarray, int, tuple[float, ...]]:
        """Sweep until the tiles agree; every sweep ends with one exchange of what it made."""
        noise = None if self.chance is None else self.chance.draw(number)
        padded = self._spread(self._sweep(window, None, noise))
        sweeps, mismatches = 1, []
        while not self.windows.sufficient and sweeps < self.sweeping.most:
            newer = self._spread(self._sweep(window, padded, noise))
            mismatches.append(self._mismatch(padded, newer))
            padded, sweeps = newer, sweeps + 1
            if not self.sweeping.fixed and mismatches[-1] < self.sweeping.tolerance:
                break
        return padded, sweeps, tuple(mismatches)

    def _spread(self, field: np.ndarray) -> np.ndarray:
        """A field with its halo, counted; a copy, since the exchange uses its buffer again."""
        self.exchanges += 1
        return self.exchange(field).copy()

    def _sweep(
        self, window: np.ndarray, future: np.ndarray | None, noise: np.ndarray | None
    ) -> np.ndarray:
        """One application of the operator on all my tiles; `future` is padded, or unknown."""
        size = self.blocks.block(self.comm.rank).size
        field = np.empty((window.shape[1], *size), window.dtype)
        for view in self.windows.views:
            known = None
            if future is not None:
                known = (self.windows.cut_ring(view, future), self.windows.ring)
            drawn = None
            if self.chance is not None and noise is not None:
                drawn = self.chance.cut(view.index, noise)
            field[behind(view.core)] = self.operator.advance(
                self.windows.cut(view, window),
                self.windows.mask,
                self.condition,
                future=known,
                noise=drawn,
            )
        return field

    def _mismatch(self, assumed: np.ndarray, found: np.ndarray) -> float:
        squares = []
        for view in self.windows.views:
            change = self.windows.cut_ring(view, found) - self.windows.cut_ring(view, assumed)
            squares.append(np.sum((change / self.scale) ** 2, dtype=np.float64))
        total = exact_sum(self.comm, squares)
        cells = math.prod(self.blocks.counts) * self.windows.ring_cells * len(self.scale)
        return math.sqrt(total / cells)

    def _check_finite(self, field: np.ndarray, number: int) -> None:
        for view in self.windows.views:
            if not np.isfinite(field[behind(view.core)]).all():
                raise FloatingPointError(
                    f"jump {number}: the surrogate made a value that is not finite on tile "
                    f"{view.index}"
                )
