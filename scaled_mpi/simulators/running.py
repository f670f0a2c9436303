"""Running any simulator: loops, halos and the defaults of all optional members.

A simulator with the three methods and three properties of `contract.Simulator` suffices. These
free functions ask it for its optional members and fall back on a default where one is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Block, Blocks, Grid, make_blocks
from scaled_mpi.parallel.comm import Comm, SerialComm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.simulators.contract import Array, Cheaper, Exchange, Simulator

Advance = Callable[[np.ndarray, int], np.ndarray]  # (state, steps) -> new state


def warm(simulator: Simulator, comm: Comm, axes: int) -> None:
    """Compile the kernels of `simulator` on `axes` axes, or load them from the cache; collective.

    Rank 0 goes first and the others load what it wrote: the cache of compiled kernels must not be
    written by two processes at once.
    """
    own = getattr(simulator, "warm", None)
    if own is None:
        return
    if comm.rank == 0:
        own(axes)
    comm.Barrier()
    if comm.rank != 0:
        own(axes)


def grid_of(simulator: Simulator, shape: Sequence[int]) -> Grid:
    """The grid of `shape` cells with the simulator's spacing and boundary."""
    own = getattr(simulator, "grid", None)
    return Grid(tuple(shape)) if own is None else own(shape)


def condition_of(simulator: Simulator) -> dict[str, float]:
    """The parameters, by name, in which runs of one system differ."""
    return dict(getattr(simulator, "condition", {}))


def noisy(simulator: Simulator) -> bool:
    """Whether a random forcing acts, so that runs from one state differ."""
    return bool(getattr(simulator, "noise", 0.0))


def check_steps(simulator: Simulator, key: str, steps: int) -> None:
    """Errors: `InputError` naming `key` where noise does not fall into `steps` steps evenly."""
    own = getattr(simulator, "check_steps", None)
    if own is not None:
        own(key, steps)


def halo_width(simulator: Simulator, blocks: Blocks) -> tuple[int, ...]:
    """As deep a halo as pays, one entry an axis: several steps an exchange, at most a tile wide.

    Errors: `InputError` where a tile is narrower than one step's reach.
    """
    reach = simulator.reach_per_step
    if any(t < reach for t in blocks.tile):
        raise InputError(
            f"domain.tile: {list(blocks.tile)} is not allowed: a step of the simulator reaches "
            f"{reach} cells. Allowed: at least {reach} cells an axis"
        )
    if reach == 0:
        return (0,) * len(blocks.tile)
    deepest = getattr(simulator, "steps_per_exchange", 1)
    return tuple(min(t, deepest * reach) // reach * reach for t in blocks.tile)


def advancing(
    simulator: Simulator,
    blocks: Blocks,
    comm: Comm,
    seed: tuple[int, int],
    steps: int = 0,
    dtype: DTypeLike = np.float32,
) -> Advance:
    """(state, steps) -> state, with the halo of one run and its noise, from step `steps` on."""
    exchange = Halo(blocks, comm, halo_width(simulator, blocks), dtype)
    if not noisy(simulator):
        return lambda state, count: simulator.advance(state, count, exchange)
    noisily: Any = simulator
    kicks = noisily.kicks(blocks.block(comm.rank), blocks.grid, seed, steps=steps)
    return lambda state, count: noisily.advance(state, count, exchange, kicks)


def kicks_of(
    simulator: Simulator,
    block: Block,
    grid: Grid,
    seed: tuple[int, int],
    members: Sequence[int],
    steps: int,
) -> Callable[[], np.ndarray] | None:
    """Return the noise of `members` from step `steps` on, for `advance_members`.

    A call returns normal numbers (N, *size) of the N members. None without noise.
    """
    own = getattr(simulator, "kicks", None)
    return None if own is None else own(block, grid, seed, members, steps)


def advance_members(
    simulator: Simulator,
    states: np.ndarray,
    steps: int,
    exchange: Exchange,
    kicks: Callable[[], np.ndarray] | None = None,
) -> np.ndarray:
    """`steps` steps of an ensemble (N, C, *size) -> new states.

    With noise `kicks()` returns normal numbers (N, *size), and the simulator must have
    `advance_members`. Errors: `InputError`.
    """
    own = getattr(simulator, "advance_members", None)
    if own is not None:
        return own(states, steps, exchange, kicks)
    if kicks is not None:
        raise InputError(
            f"simulator.kind: {type(simulator).__name__} is not allowed: it has no "
            "advance_members, which an ensemble with noise needs. Allowed: simulators that have it"
        )
    return np.stack([simulator.advance(state, steps, exchange) for state in states])


def advance_batch(simulator: Simulator, states: Array, steps: int) -> Array:
    """`steps` steps of many whole grids (N, C, *shape) -> new states."""
    own = getattr(simulator, "advance_batch", None)
    if own is not None:
        return own(states, steps)
    shape = tuple(states.shape[2:])
    blocks = make_blocks(grid_of(simulator, shape), shape, 1)
    exchange = Halo(blocks, SerialComm(), halo_width(simulator, blocks), states.dtype)
    return np.stack([simulator.advance(state, steps, exchange) for state in states])


def advance_on(device: str, simulator: Simulator, states: np.ndarray, steps: int) -> np.ndarray:
    """`advance_batch` of whole grids (N, C, *shape) by compiled code, or on a GPU.

    Errors: `InputError` where this machine has no such device.
    """
    if device == "cpu":
        return advance_batch(simulator, states, steps)
    from scaled_mpi.simulators.torch_stencil import on_device

    return on_device(states, device, lambda there: advance_batch(simulator, there, steps))


def final_states(
    simulator: Simulator,
    shape: Sequence[int],
    runs: Sequence[tuple[int, int]],
    steps: int,
    device: str = "cpu",
) -> np.ndarray:
    """States (N, C, *shape) of N `runs`, a (seed, run) each, after `steps` steps."""
    grid = grid_of(simulator, shape)
    block = make_blocks(grid, grid.shape, 1).block(0)
    states = np.stack([simulator.initial(block, grid, run) for run in runs])
    return advance_on(device, simulator, states, steps)


def cheaper(simulator: Simulator, span: float, axes: int) -> dict[str, Cheaper]:
    """The cheaper selves of a simulator over a time `span`, by name; none by default."""
    own = getattr(simulator, "cheaper", None)
    return {} if own is None else own(span, axes)


def rate_of_change(
    simulator: Simulator, field: np.ndarray, blocks: Blocks, comm: Comm
) -> np.ndarray | None:
    """(field a step later - field) / step without noise, float64 (C, *size), 1/time; collective.

    None where a simulator with noise has no self without it.
    """
    quiet = [
        one
        for one in cheaper(simulator, simulator.time_step, blocks.grid.axes).values()
        if one.coarsening == 1
    ]
    if not quiet and noisy(simulator):
        return None
    steps, system = quiet[0][:2] if quiet else (1, simulator)
    wide = field.astype(np.float64)
    exchange = Halo(blocks, comm, system.reach_per_step, np.float64)
    return (system.advance(wide, steps, exchange) - wide) / simulator.time_step
