"""The blocks of a split domain as threads of one process, whose exchanges wait for each other.

A split is checked without MPI. Each thread calls the simulator on its own block, and an exchange
assembles the whole domain from the parts of all threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scaled_mpi.parallel.blocks import Blocks, behind, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.halo import Halo, check_width

SECONDS = 120.0  # that one block waits for the others


class _Meeting:
    """Parts of a field, one a block, and the barrier at which all blocks meet."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.barrier = blocks, threading.Barrier(blocks.ranks)
        self.parts: dict[int, np.ndarray] = {}

    def whole(self, rank: int, part: np.ndarray) -> np.ndarray:
        """The field of the whole domain, from the parts of all blocks."""
        self.parts[rank] = part
        self.barrier.wait(SECONDS)
        lead = part.shape[: part.ndim - self.blocks.grid.axes]
        whole = np.empty((*lead, *self.blocks.grid.shape), part.dtype)
        for other, values in self.parts.items():
            whole[behind(self.blocks.block(other).slices)] = values
        self.barrier.wait(SECONDS)
        return whole


class ThreadExchange:
    """The exchange of one block; as `parallel.halo.Halo`, of threads in place of ranks."""

    def __init__(self, meeting: _Meeting, rank: int, width: Sequence[int]) -> None:
        self._meeting, self._rank = meeting, rank
        self._block = meeting.blocks.block(rank)
        self.width = check_width(meeting.blocks, width)

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """(..., *size) -> (..., *(size + 2 width))."""
        grid = self._meeting.blocks.grid
        whole = self._meeting.whole(self._rank, field.copy())
        halo = Halo(make_blocks(grid, grid.shape, 1), SerialComm(), self.width, field.dtype)
        places = zip(self._block.start, self._block.size, self.width, strict=True)
        return halo(whole)[behind(slice(a, a + n + 2 * w) for a, n, w in places)].copy()

    def fill(self, padded: np.ndarray) -> np.ndarray:
        """Fill the ring of width cells of an array (..., *size) in place and return the array."""
        places = zip(self._block.size, self.width, strict=True)
        padded[...] = self(padded[behind(slice(w, w + n) for n, w in places)])
        return padded


def on_threads(
    blocks: Blocks, width: Sequence[int], work: Callable[[int, ThreadExchange], np.ndarray]
) -> np.ndarray:
    """`work(rank, exchange)`, the fields (..., *size) of each block, as one (..., *grid.shape).

    Errors: those of `work`; RuntimeError where some blocks exchange more often than others.
    """
    meeting = _Meeting(blocks)
    results: dict[int, np.ndarray] = {}
    errors: list[Exception] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(rank, ThreadExchange(meeting, rank, width))
            meeting.barrier.wait(SECONDS)
        except threading.BrokenBarrierError:
            errors.append(RuntimeError("some blocks exchange more often than others"))
        except Exception as error:  # of a user's class, so of any kind; raised again below
            errors.insert(0, error)
            meeting.barrier.abort()

    threads: list[Any] = [
        threading.Thread(target=run, args=(rank,)) for rank in range(blocks.ranks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    first = results[0]
    whole = np.empty(
        (*first.shape[: first.ndim - blocks.grid.axes], *blocks.grid.shape), first.dtype
    )
    for rank, values in results.items():
        whole[behind(blocks.block(rank).slices)] = values
    return whole
