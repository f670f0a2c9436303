"""Compress and fit: what is learned from the training runs."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from scaled_mpi.compressors.coders import load_coder
from scaled_mpi.coupling.latent import Coding
from scaled_mpi.engine.context import Context
from scaled_mpi.learning.given_weights import taken
from scaled_mpi.parallel.blocks import Blocks, handy_tile, make_blocks
from scaled_mpi.parallel.comm import first_ranks, member_groups, quiet_barrier
from scaled_mpi.parallel.store import (
    Trajectory,
    TrajectoryWriter,
    link_trajectory,
    trajectory_names,
)
from scaled_mpi.simulators.running import condition_of


def training_runs(folder: Any) -> list[Trajectory]:
    """The stored runs to learn from, in order."""
    names = [name for name in trajectory_names(folder) if name.startswith("train-")]
    return [Trajectory(folder, name) for name in names]


def compress(context: Context) -> None:
    """Fit the compressor and write the latent fields of all training runs."""
    source, compressor = context.inputs["simulate"], context.experiment.compressor
    runs = training_runs(source)
    begun = time.perf_counter()
    seen = runs or [Trajectory(source, "test-0000")]  # nothing is learned: of identity, the axes
    fields = {"axes": seen[0].grid.axes, "channels": seen[0].shape[1]}
    take = partial(compressor.take, seen=fields)
    code = taken(compressor, "compressor", context.folder, context.comm, take)
    if code is None:
        compressor.fit(
            seen, context.comm, context.folder, context.events(), context.experiment.seed
        )
    else:
        context.facts.record("weights.sha256", code)
        context.say(f"  compressor: finished weights, {compressor.weights}")
    context.facts.record("time.compress", time.perf_counter() - begun, "s")
    coder = load_coder(compressor, context.folder)
    if all(f == 1 for f in coder.factor) or not runs:
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
        context.folder,
        run.name,
        latent_blocks,
        comm,
        channels,
        dtype=run.dtype,
        attributes={**run.attributes, "scalars": False},
    ) as writer:
        for frame, moment in enumerate(run.times):
            writer.append(moment, coding.encode(run, frame))


def fit(context: Context) -> None:
    """Fit the surrogate and its rivals to the latent fields, or take finished weights."""
    runs = training_runs(context.inputs["compress"])
    _learn(context, "surrogate", context.experiment.surrogate, runs, context.folder)
    for name, rival in context.experiment.rivals.items():
        folder = rival_folder(context.folder, name)
        _learn(context, f"rivals.{name}", rival, runs, folder, method=name)


def _learn(
    context: Context, key: str, member: Any, runs: list[Trajectory], folder: Path, **place: str
) -> None:
    begun, comm, seed = time.perf_counter(), context.comm, context.experiment.seed
    code = taken(member, key, folder, comm, partial(member.take, seen=_seen(context, runs)))
    if code is None:
        member.fit(runs, comm, folder, context.events(folder), seed)
    else:
        context.facts.record("weights.sha256", code, **place)
        context.say(f"  {key}: finished weights, {member.weights}")
    quiet_barrier(comm)
    context.facts.record("time.fit", time.perf_counter() - begun, "s", **place)


def _seen(context: Context, runs: list[Trajectory]) -> dict[str, Any]:
    """Axes, channels and conditions of what a surrogate is to advance."""
    if runs:
        conditions = runs[0].attributes.get("condition", {})
        return {"axes": runs[0].grid.axes, "channels": runs[0].shape[1], "conditions": conditions}
    experiment = context.experiment
    coder = load_coder(experiment.compressor, context.inputs["compress"])
    return {
        "axes": experiment.axes,
        "channels": coder.channels(len(experiment.simulator.channels)),
        "conditions": condition_of(experiment.simulator),
    }


def rival_folder(fit: Path, name: str) -> Path:
    """Where the stage `fit` keeps what a rival has learned."""
    return fit / "rivals" / name
