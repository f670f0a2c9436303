"""Sums of large arrays whose bits do not depend on the ranks: fixed parts, added in their order.

The work is cut into PARTS parts. Each rank computes a run of consecutive parts and sends one
partial result at a time to rank 0. Rank 0 adds them in the order of the parts. So at most two
partial results wait in memory, and 1, 2 or 16 ranks make the same rounding errors. More ranks than
PARTS have nothing to do here.

A communicator may bring its own methods `in_order` and `dealt`, and then does the work elsewhere,
as the tasks of `engine/launch.py` do. The callable must not hold the communicator itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scaled_mpi.parallel.comm import Comm, quiet_barrier, shares

PARTS = 16
TAG = 483


def parts_of(items: int) -> list[range]:
    """Return the parts of `items`, in order: at most PARTS, none of them empty."""
    return shares(items, max(1, min(PARTS, items)))


def my_parts(count: int, comm: Comm) -> range:
    """Return the numbers of the parts, of `count`, that this rank computes."""
    return shares(count, comm.size)[comm.rank]


def in_order(comm: Comm, count: int, make: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
    """Yield on rank 0 the results of parts 0, 1, ...; yield nothing elsewhere.

    `make(part)` returns a float64 array of any shape. Exhaust it on every rank: collective.
    """
    if hasattr(comm, "in_order"):
        yield from comm.in_order(count, make)
        return
    owners = shares(count, comm.size)
    if comm.rank != 0:
        for part in owners[comm.rank]:
            made = np.ascontiguousarray(make(part), np.float64)
            comm.send(made.shape, 0, TAG)
            comm.Send(made, 0, TAG)
        return
    for rank, parts in enumerate(owners):
        for part in parts:
            if rank == 0:
                yield np.asarray(make(part), np.float64)
            else:
                received = np.empty(comm.recv(source=rank, tag=TAG), np.float64)
                comm.Recv(received, rank, TAG)
                yield received


def dealt(comm: Comm, count: int, make: Callable[[int], Any]) -> list[Any]:
    """Return `make(i)` of every i below `count` on every rank, each computed once. Collective.

    The results must be small: all ranks hold all of them.
    """
    if hasattr(comm, "dealt"):
        return comm.dealt(count, make)
    mine = [make(number) for number in shares(count, comm.size)[comm.rank]]
    return [made for part in comm.allgather(mine) for made in part]


def ordered_sum(comm: Comm, count: int, make: Callable[[int], np.ndarray]) -> np.ndarray:
    """Return the sum of `make(part)` over all parts, of the same shape, on every rank.

    Equal bits on any number of ranks. Collective.
    """
    total: np.ndarray | None = None
    for value in in_order(comm, count, make):
        if total is None:
            total = value.copy()
        else:
            total += value
    return share(comm, total)


def stacked(comm: Comm, count: int, make: Callable[[int], np.ndarray]) -> np.ndarray | None:
    """Return the rows (n, ...) of all parts one below the other on rank 0, None elsewhere.

    Collective.
    """
    rows = list(in_order(comm, count, make))
    return np.concatenate(rows) if comm.rank == 0 else None


def share(comm: Comm, array: np.ndarray | None) -> np.ndarray:
    """Return rank 0's float64 array, of any shape, on every rank; the others sleep. Collective."""
    if comm.size == 1:
        assert array is not None
        return array
    quiet_barrier(comm)
    shape = comm.bcast(None if array is None else array.shape)
    if array is None:
        array = np.empty(shape, np.float64)
    comm.Bcast(np.ascontiguousarray(array) if comm.rank == 0 else array)
    return array
