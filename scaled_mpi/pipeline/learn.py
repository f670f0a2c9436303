"""Compress and fit: what is learned from the training runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from scaled_mpi.coupling.latent import Coding
from scaled_mpi.datasets.runs import handy_tile
from scaled_mpi.facts import EventLog
from scaled_mpi.parallel.blocks import Blocks, make_blocks
from scaled_mpi.parallel.comm import first_ranks, member_groups, quiet_barrier
from scaled_mpi.parallel.store import (
    Trajectory,
    TrajectoryWriter,
    link_trajectory,
    trajectory_names,
)
from scaled_mpi.pipeline.context import Context


def training_runs(folder: Any) -> list[Trajectory]:
    """The stored runs to learn from, in order."""
    names = [name for name in trajectory_names(folder) if name.startswith("train-")]
    return [Trajectory(folder, name) for name in names]


def compress(context: Context) -> None:
    """Fit the compressor and write the latent fields of all training runs."""
    source, compressor = context.inputs["simulate"], context.experiment.compressor
    runs = training_runs(source)
    begun = time.perf_counter()
    compressor.fit(runs, context.comm, context.folder, event_log(context), context.experiment.seed)
    context.facts.record("time.compress", time.perf_counter() - begun, "s")
    coder = compressor.load(context.folder)
    if all(f == 1 for f in coder.factor):
        if context.comm.rank == 0:
            for run in runs:
                link_trajectory(source, context.folder, run.name)
        return
    group, members = member_groups(len(runs), context.comm)
    for member in members:
        _encode_run(context, coder, runs[member], group)
    quiet_barrier(context.comm)


def _encode_run(context: Context, coder: Any, run: Trajectory, group: Any) -> None:
    tile = tuple(
        t if t % f == 0 else n
        for t, f, n in zip(handy_tile(run.grid.shape), coder.factor, run.grid.shape, strict=True)
    )
    blocks = make_blocks(run.grid, tile, group.size)
    comm = first_ranks(group, blocks.ranks)
    if comm is None:
        return
    coding = Coding(coder, blocks, comm)
    channels = tuple(f"z{i}" for i in range(coder.channels(run.shape[1])))
    latent_blocks: Blocks = blocks.coarsen(coder.factor)
    with TrajectoryWriter(
        context.folder, run.name, latent_blocks, comm, channels,
        dtype=run.dtype, attributes={**run.attributes, "scalars": False},
    ) as writer:
        for frame, moment in enumerate(run.times):
            writer.append(moment, coding.encode(run, frame))


def fit(context: Context) -> None:
    """Fit the surrogate to the latent fields."""
    runs = training_runs(context.inputs["compress"])
    begun = time.perf_counter()
    experiment = context.experiment
    experiment.surrogate.fit(
        runs, context.comm, context.folder, event_log(context), experiment.seed
    )
    quiet_barrier(context.comm)
    context.facts.record("time.fit", time.perf_counter() - begun, "s")
    for name, rival in experiment.rivals.items():
        begun, folder = time.perf_counter(), rival_folder(context.folder, name)
        rival.fit(runs, context.comm, folder, event_log(context, folder), experiment.seed)
        quiet_barrier(context.comm)
        context.facts.record("time.fit", time.perf_counter() - begun, "s", method=name)


def rival_folder(fit: Path, name: str) -> Path:
    """Where the stage `fit` keeps what a rival has learned."""
    return fit / "rivals" / name


def event_log(context: Context, folder: Path | None = None) -> EventLog:
    """The course of this stage's training, or of that in a folder within it."""
    return EventLog(
        folder or context.folder, f"{context.experiment.name}-{context.folder.stem}",
        context.experiment.seed, context.comm.rank, context.comm.size,
    )
