"""Simulate, or import from files: the runs to learn from, and the run on the large domain."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from scaled_mpi.config import InputError, plain
from scaled_mpi.datasets.runs import handy_tile
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.forecast.settings import check_tiles
from scaled_mpi.parallel.blocks import Blocks, make_blocks
from scaled_mpi.parallel.comm import first_ranks, largest, member_groups, quiet_barrier
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.keys import FirstRun
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.progress import Progress
from scaled_mpi.simulators.contract import Simulator
from scaled_mpi.simulators.running import advance_members, advancing, condition_of, halo_width

TOGETHER = 8  # members of the reference that share messages and are held in memory


def work(context: Context) -> None:
    """Write `train-0000` ..., where anything is learned, and `test-0000` into the folder."""
    experiment = context.experiment
    if experiment.dataset is not None:
        experiment.dataset.import_into(context.folder, context.comm)
        _check_imported(context)
        return
    from scaled_mpi.simulators import warm

    warm(experiment.simulator, context.comm, experiment.axes)
    if experiment.learns:
        begun = time.perf_counter()
        _training_runs(context)
        quiet_barrier(context.comm)
        context.facts.record("time.simulate.training", time.perf_counter() - begun, "s")
    begun = time.perf_counter()
    _test_run(context)
    quiet_barrier(context.comm)
    context.facts.record("time.simulate.test", time.perf_counter() - begun, "s")
    if context.experiment.test.members:
        begun = time.perf_counter()
        reference_members(context)
        quiet_barrier(context.comm)
        context.facts.record("time.simulate.reference", time.perf_counter() - begun, "s")


def _check_imported(context: Context) -> None:
    truth = Trajectory(context.folder, "test-0000")
    check_tiles(context.experiment, truth.grid.shape)
    frames, history = truth.shape[0], context.experiment.history
    if frames <= history:
        raise InputError(f"dataset: {frames} test frames given; more than {history} are needed")


def _training_runs(context: Context) -> None:
    experiment = context.experiment
    runs, grid, data = experiment.runs(), experiment.training_grid(), experiment.data
    group, members = member_groups(len(runs), context.comm)
    blocks = make_blocks(grid, handy_tile(grid.shape), group.size)
    comm = first_ranks(group, blocks.ranks)
    if comm is None:
        return
    with Progress("simulate", len(members), context.comm.rank) as progress:
        for run in members:
            write_run(
                context,
                f"train-{run:04d}",
                runs[run],
                blocks,
                comm,
                seed=(experiment.seed, run),
                burn_in=data.burn_in,
                frames=data.frames,
            )
            progress.step()


def _test_run(context: Context) -> None:
    experiment = context.experiment
    blocks, comm = context.blocks(experiment.test_grid(), experiment.domain.tile)
    if comm is None:
        return
    write_run(
        context,
        "test-0000",
        experiment.simulator,
        blocks,
        comm,
        seed=(experiment.seed, FirstRun.TEST),
        burn_in=experiment.test.burn_in,
        frames=experiment.history + experiment.coupling.jumps,
        shows=True,
    )


def reference_members(context: Context) -> None:
    """`reference-0001` ...: what else might have come of the test run's last known frame."""
    experiment, simulator = context.experiment, context.experiment.simulator
    truth = Trajectory(context.folder, "test-0000")
    blocks, comm = context.blocks(truth.grid, experiment.domain.tile)
    if comm is None:
        return
    block, start = blocks.block(comm.rank), experiment.history - 1
    begin = truth.read_block(start, block)
    steps = experiment.test.burn_in + start * experiment.surrogate.jump
    exchange = Halo(blocks, comm, halo_width(simulator, blocks))
    with Progress("reference", experiment.test.members, comm.rank) as progress:
        for first in range(1, experiment.test.members + 1, TOGETHER):
            members = range(first, min(first + TOGETHER, experiment.test.members + 1))
            kicks = simulator.kicks(
                block, truth.grid, (experiment.seed, FirstRun.TEST), members, steps
            )
            states = np.stack([begin] * len(members))
            _write_members(context, truth, blocks, comm, (members, states, exchange, kicks))
            progress.step(len(members))


def _write_members(
    context: Context, truth: Trajectory, blocks: Blocks, comm: Any, batch: tuple[Any, ...]
) -> None:
    """Advance some members together, and write a trajectory of each."""
    members, states, exchange, kicks = batch
    experiment = context.experiment
    simulator, jump = experiment.simulator, experiment.surrogate.jump
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                TrajectoryWriter(
                    context.folder,
                    f"reference-{member:04d}",
                    blocks,
                    comm,
                    truth.channels,
                    dtype=truth.dtype,
                    attributes=truth.attributes,
                )
            )
            for member in members
        ]
        for moment in truth.times[experiment.history :]:
            states = advance_members(simulator, states, jump, exchange, kicks)
            for writer, state in zip(writers, states, strict=True):
                writer.append(moment, state)


def write_run(
    context: Context,
    name: str,
    simulator: Simulator,
    blocks: Blocks,
    comm: Any,
    *,
    seed: tuple[int, int],
    burn_in: int,
    frames: int,
    shows: bool = False,
) -> None:
    """Advance one run and store `frames` frames, `jump` steps apart, the first after `burn_in`."""
    jump = context.experiment.surrogate.jump
    state = simulator.initial(blocks.block(comm.rank), blocks.grid, seed)
    advance = advancing(simulator, blocks, comm, seed)
    state = advance(state, burn_in)
    attributes = {"condition": condition_of(simulator), "jump": jump, "equation": plain(simulator)}
    writer = TrajectoryWriter(
        context.folder,
        name,
        blocks,
        comm,
        simulator.channels,
        dtype=state.dtype,
        attributes=attributes,
    )
    with writer, Progress(name, frames, comm.rank if shows else 1) as progress:
        for frame in range(frames):
            if frame:
                state = advance(state, jump)
            fields = simulator.fields(state)
            if largest(comm, not np.isfinite(fields).all()):
                raise FloatingPointError(f"{name}: frame {frame} of the simulator is not finite")
            writer.append((burn_in + frame * jump) * simulator.time_step, fields)
            progress.step()
