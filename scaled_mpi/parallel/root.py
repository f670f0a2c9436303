"""Work that one rank does for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from scaled_mpi.parallel.comm import Comm, quiet_barrier, raise_together

Result = TypeVar("Result")


def on_root(comm: Comm, action: Callable[[], Result]) -> Result:
    """Run `action` on rank 0; every rank gets its result, or raises its error. Collective.

    The others sleep meanwhile. The result must be small: it is broadcast.
    """
    result, error = None, None
    if comm.rank == 0:
        try:
            result = action()
        except Exception as caught:
            error = caught
    quiet_barrier(comm)
    raise_together(comm, error)
    return comm.bcast(result)
