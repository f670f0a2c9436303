"""Simulate, or import from files: the runs to learn from, and the run on the large domain."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.forecast.settings import ForecastExperiment, check_tiles
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm, quiet_barrier
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.keys import FirstRun
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.progress import Progress
from scaled_mpi.simulators.recording import Recording, record_run, record_runs
from scaled_mpi.simulators.running import advance_members, halo_width, kicks_of

Kicks = Callable[[], np.ndarray]  # normal numbers (N, *size)
TOGETHER = 8  # members of the reference that share messages and are held in memory


def work(context: Context[ForecastExperiment]) -> None:
    """Write `train-0000` ..., where anything is learned, and `test-0000` into the folder."""
    experiment = context.experiment
    if experiment.dataset is not None:
        experiment.dataset.import_into(context.folder, context.comm)
        _check_imported(context)
        return
    from scaled_mpi.simulators import warm

    warm(experiment.system, context.comm, experiment.axes)
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


def _check_imported(context: Context[ForecastExperiment]) -> None:
    truth = Trajectory(context.folder, "test-0000")
    check_tiles(context.experiment, truth.grid.shape)
    frames, history = truth.shape[0], context.experiment.history
    if frames <= history:
        raise InputError(
            f"dataset: {frames} test frames are not allowed: all are known before the "
            f"forecast. Allowed: more than {history}"
        )


def _training_runs(context: Context[ForecastExperiment]) -> None:
    experiment, data = context.experiment, context.experiment.data
    record_runs(
        context.folder,
        lambda run: f"train-{run:04d}",
        experiment.runs(),
        experiment.training_grid(),
        (experiment.seed, FirstRun.LEARNED),
        Recording(data.frames, experiment.surrogate.jump, data.burn_in),
        context.comm,
    )


def _test_run(context: Context[ForecastExperiment]) -> None:
    experiment = context.experiment
    blocks, comm = context.blocks(experiment.test_grid(), experiment.domain.tile)
    if comm is None:
        return
    frames = experiment.history + experiment.coupling.jumps
    record_run(
        context.folder,
        "test-0000",
        experiment.system,
        (blocks, comm),
        (experiment.seed, FirstRun.TEST),
        Recording(frames, experiment.surrogate.jump, experiment.test.burn_in),
        shows=True,
    )


def reference_members(context: Context[ForecastExperiment]) -> None:
    """Write `reference-0001` ...: further runs from the test run's last known frame."""
    experiment, simulator = context.experiment, context.experiment.system
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
            seed = (experiment.seed, FirstRun.TEST)
            kicks = kicks_of(simulator, block, truth.grid, seed, members, steps)
            states = np.stack([begin] * len(members))

            def advance(states: np.ndarray, kicks: Kicks | None = kicks) -> np.ndarray:
                jump = experiment.surrogate.jump
                return advance_members(simulator, states, jump, exchange, kicks)

            times = truth.times[experiment.history :]
            _write_members(
                context.folder, truth, (blocks, comm), (members, times), advance, states
            )
            progress.step(len(members))


def _write_members(
    folder: Path,
    truth: Trajectory,
    where: tuple[Blocks, Comm],
    plan: tuple[range, np.ndarray],
    advance: Callable[[np.ndarray], np.ndarray],
    states: np.ndarray,
) -> None:
    """Advance members (N, C, *size) together and write a trajectory of each.

    `plan`: the members' numbers and the times of their frames.
    """
    members, times = plan
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                TrajectoryWriter(
                    folder,
                    f"reference-{member:04d}",
                    *where,
                    truth.channels,
                    dtype=truth.dtype,
                    attributes=truth.attributes,
                )
            )
            for member in members
        ]
        for moment in times:
            states = advance(states)
            for writer, state in zip(writers, states, strict=True):
                writer.append(moment, state)
