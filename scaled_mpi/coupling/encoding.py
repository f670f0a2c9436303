"""Fits of a compressor and of a surrogate to stored runs, and the latent runs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scaled_mpi.compressors.coders import Coder, Compressor
from scaled_mpi.coupling.latent import Coding
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.given_weights import taken
from scaled_mpi.parallel.blocks import handy_tile, make_blocks
from scaled_mpi.parallel.comm import Comm, first_ranks, member_groups, quiet_barrier
from scaled_mpi.parallel.store import TrajectoryWriter, link_trajectory
from scaled_mpi.parallel.trajectory import Trajectory
from scaled_mpi.surrogates.operators import Surrogate


@dataclass(frozen=True)
class TrainingPlace:
    """The folder of a training, its ranks, the log of its events, its seed."""

    folder: Path
    comm: Comm
    events: EventLog | None
    seed: int


def fit_compressor(
    compressor: Compressor, runs: Sequence[Trajectory], place: TrainingPlace
) -> str | None:
    """Train the compressor on stored runs, or take finished weights; collective.

    Returns the SHA-256 of finished weights, None after a training. Errors: `InputError`.
    """
    seen = {"axes": runs[0].grid.axes, "channels": runs[0].shape[1]}
    take = partial(compressor.take, seen=seen)
    code = taken(compressor, "compressor", place.folder, place.comm, take)
    if code is None:
        compressor.fit(runs, place.comm, place.folder, place.events, place.seed)
    return code


def encode_runs(coder: Coder, runs: Sequence[Trajectory], folder: Path, comm: Comm) -> None:
    """Write the latent field of every run into `folder`, under the run's name; collective.

    Groups of ranks share the runs. A coder of factor 1 links them.
    """
    if all(f == 1 for f in coder.factor) or not runs:
        if comm.rank == 0:
            for run in runs:
                link_trajectory(run.folder, folder, run.name)
        return
    group, members = member_groups(len(runs), comm)
    for member in members:
        _encode_run(coder, runs[member], folder, group)
    quiet_barrier(comm)


def _encode_run(coder: Coder, run: Trajectory, folder: Path, group: Comm) -> None:
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
    attributes = {**run.attributes, "scalars": False}
    with TrajectoryWriter(
        folder,
        run.name,
        blocks.coarsen(coder.factor),
        comm,
        channels,
        dtype=run.dtype,
        attributes=attributes,
    ) as writer:
        for frame, moment in enumerate(run.times):
            writer.append(moment, coding.encode(run, frame))


def fit_surrogate(
    key: str,
    surrogate: Surrogate,
    runs: Sequence[Trajectory],
    place: TrainingPlace,
    seen: Mapping[str, Any] | None = None,
) -> str | None:
    """Train a surrogate on latent runs, or take finished weights; collective.

    `key` is the configuration's key of the surrogate. `seen`: axes, channels and conditions of the
    fields that it is to advance, by default those of the runs. Returns the SHA-256 of finished
    weights, None after a training. Errors: `InputError`.
    """
    seen = seen if seen is not None else seen_in(runs[0])
    take = partial(surrogate.take, seen=seen)
    code = taken(surrogate, key, place.folder, place.comm, take)
    if code is None:
        surrogate.fit(runs, place.comm, place.folder, place.events, place.seed)
    quiet_barrier(place.comm)
    return code


def seen_in(run: Trajectory) -> dict[str, Any]:
    """Return axes, channels and conditions of a stored run."""
    conditions = run.attributes.get("condition", {})
    return {"axes": run.grid.axes, "channels": run.shape[1], "conditions": conditions}
