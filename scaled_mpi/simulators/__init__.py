"""Simulators: states that advance. To add one: one file, one line in `MEMBERS`."""

from __future__ import annotations

from typing import Any

from scaled_mpi.simulators.gray_scott import GrayScott

MEMBERS = {"gray_scott": GrayScott}


def warm(simulator: Any, comm: Any, axes: int) -> None:
    """Compile what `simulator` needs on `axes` axes, or load it from the cache; collective.

    Rank 0 goes first and the others load what it wrote: the cache of compiled kernels must not be
    written by two processes at once.
    """
    if comm.rank == 0:
        simulator.warm(axes)
    comm.Barrier()
    if comm.rank != 0:
        simulator.warm(axes)
