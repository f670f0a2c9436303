"""Runs of a simulator on the blocks of a domain: its halo, its noise, several runs at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scaled_mpi.parallel.blocks import Blocks, make_blocks
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.simulators.gray_scott import advance_batch

DEEPEST_HALO = 8  # simulator steps between two exchanges


def advancing(
    simulator: Any,
    blocks: Blocks,
    comm: Any,
    seed: tuple[int, int],
    steps: int = 0,
    dtype: Any = np.float32,
) -> Callable[[np.ndarray, int], np.ndarray]:
    """(state, steps) -> state, with the halo of one run and its noise, from step `steps` on."""
    exchange = Halo(blocks, comm, halo_width(simulator, blocks), dtype)
    if not getattr(simulator, "noise", 0.0):
        return lambda state, count: simulator.advance(state, count, exchange)
    kicks = simulator.kicks(blocks.block(comm.rank), blocks.grid, seed, steps=steps)
    return lambda state, count: simulator.advance(state, count, exchange, kicks)


def halo_width(simulator: Any, blocks: Blocks) -> tuple[int, ...]:
    """As deep a halo as pays: several steps an exchange, never wider than a tile."""
    reach = simulator.reach_per_step
    return tuple(min(t, DEEPEST_HALO * reach) // reach * reach for t in blocks.tile)


def final_states(
    system: Any,
    shape: tuple[int, int],
    runs: Sequence[tuple[int, int]],
    steps: int,
    device: str = "cpu",
) -> np.ndarray:
    """States (n, 2, *shape) of `runs`, a (seed, run) each, after `steps`; float32."""
    grid = system.grid(shape)
    block = make_blocks(grid, shape, 1).block(0)
    states = np.stack([system.initial(block, grid, run) for run in runs])
    return advance_on(device, system, states, steps)


def advance_on(device: str, system: Any, states: np.ndarray, steps: int) -> np.ndarray:
    """`advance_batch` by compiled code, or on a GPU. Errors: `InputError` where there is none."""
    if device == "cpu":
        return advance_batch(system, states, steps)
    from scaled_mpi.simulators.torch_stencil import on_device

    return on_device(states, device, lambda there: advance_batch(system, there, steps))
