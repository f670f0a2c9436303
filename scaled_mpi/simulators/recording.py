"""Runs of a simulator into the store: one run on a decomposed domain, or many small ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaled_mpi.config import InputError, Spec, plain
from scaled_mpi.parallel.blocks import Blocks, Grid, handy_tile, make_blocks
from scaled_mpi.parallel.comm import Comm, first_ranks, largest, member_groups
from scaled_mpi.parallel.store import TrajectoryWriter
from scaled_mpi.progress import Progress
from scaled_mpi.simulators.contract import Simulator
from scaled_mpi.simulators.running import advancing, condition_of


@dataclass(frozen=True)
class Recording:
    """The frames of a run: `frames` of them, `every` steps apart, the first after `burn_in`."""

    frames: int
    every: int = 1
    burn_in: int = 0

    def __post_init__(self) -> None:
        for key, least in (("frames", 1), ("every", 1), ("burn_in", 0)):
            if getattr(self, key) < least:
                raise InputError(
                    f"{key}: {getattr(self, key)} is not allowed: too small. Allowed: {least} or "
                    "more."
                )


def record_run(
    folder: Path,
    name: str,
    simulator: Simulator,
    where: tuple[Blocks, Comm],
    seed: tuple[int, int],
    recording: Recording,
    shows: bool = False,
) -> None:
    """Advance one run on the ranks of `where` and store its frames as trajectory `name`.

    `seed` is (seed, run). `shows`: print progress on rank 0. Collective. Errors:
    `FloatingPointError` for a frame that is not finite.
    """
    blocks, comm = where
    state = simulator.initial(blocks.block(comm.rank), blocks.grid, seed)
    advance = advancing(simulator, blocks, comm, seed)
    state = advance(state, recording.burn_in)
    writer = TrajectoryWriter(
        folder,
        name,
        blocks,
        comm,
        simulator.channels,
        dtype=state.dtype,
        attributes={
            "condition": condition_of(simulator),
            "jump": recording.every,
            "equation": plain(simulator) if isinstance(simulator, Spec) else {},
        },
    )
    frames, every = recording.frames, recording.every
    with writer, Progress(name, frames, comm.rank if shows else 1) as progress:
        for frame in range(frames):
            if frame:
                state = advance(state, every)
            fields = simulator.fields(state)
            if largest(comm, not np.isfinite(fields).all()):
                raise FloatingPointError(f"{name}: frame {frame} of the simulator is not finite")
            writer.append((recording.burn_in + frame * every) * simulator.time_step, fields)
            progress.step()


def record_runs(
    folder: Path,
    name_of: Callable[[int], str],
    simulators: Sequence[Simulator],
    grid: Grid,
    seed: tuple[int, int],
    recording: Recording,
    comm: Comm,
) -> None:
    """Store run i of `simulators[i]` on `grid` as trajectory `name_of(i)`; collective.

    Groups of ranks share the runs. `seed` is (seed, number of the first run).
    """
    group, members = member_groups(len(simulators), comm)
    blocks = make_blocks(grid, handy_tile(grid.shape), group.size)
    owners = first_ranks(group, blocks.ranks)
    if owners is None:
        return
    with Progress("simulate", len(members), comm.rank) as progress:
        for run in members:
            place = (seed[0], seed[1] + run)
            record_run(folder, name_of(run), simulators[run], (blocks, owners), place, recording)
            progress.step()
