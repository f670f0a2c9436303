"""Couple the surrogate over the large domain, with the variants it is compared with.

Every method leaves a trajectory of its own name: `surrogate` as configured over all jumps, and
over the first `coupling.compare` jumps `halo8` (halo as wide as the reach: one exchange, no
sweep; the name is that of the default reach), `nosweep` (the narrow halo, one sweep) and the
simulator's cheaper selves. The march is saved every `coupling.checkpoint` jumps and continues
there, on any number of ranks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from scaled_mpi.coupling.chance import chance_of
from scaled_mpi.coupling.latent import Coding
from scaled_mpi.coupling.schwarz import Jump, March, Sweeping
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.forecast import sampling
from scaled_mpi.experiments.forecast.reference import run_references
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from scaled_mpi.parallel.comm import exact_sum, largest
from scaled_mpi.parallel.halo import expected_bytes, expected_messages, tile_bytes
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.signals import Stopped, stop_agreed
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.progress import Progress


@dataclass(frozen=True)
class Domain:
    """The decomposed large domain of this rank: truth, blocks, coding, the first known frame."""

    truth: Trajectory
    blocks: Blocks
    comm: Any
    coding: Coding
    start: int

    @property
    def latent(self) -> Blocks:
        return self.coding.latent


def work(context: Context) -> None:
    """Fill the folder with the trajectories of all methods."""
    experiment = context.experiment
    truth = Trajectory(context.inputs["simulate"], "test-0000")
    blocks, comm = context.blocks(truth.grid, experiment.domain.tile)
    if comm is None:
        return
    coder = experiment.compressor.load(context.inputs["compress"])
    domain = Domain(truth, blocks, comm, Coding(coder, blocks, comm), experiment.history - 1)
    jumps = min(experiment.coupling.jumps, truth.shape[0] - experiment.history)
    _march_all(context, domain, jumps)
    compare = min(experiment.coupling.compare, jumps)
    _variants(context, domain, compare)
    sampling.members(context, domain, jumps, partial(march_of, context))
    if experiment.simulator is not None:
        run_references(context, truth, blocks, comm, domain.start, compare)


def _march(
    context: Context, domain: Domain, halo: tuple[int, ...], sweeping: Sweeping
) -> tuple[March, list[np.ndarray]]:
    """A march of the surrogate over the domain and the frames it starts from."""
    operator = context.experiment.surrogate.load(context.inputs["fit"])
    return march_of(context, domain, operator, halo, sweeping)


def march_of(
    context: Context,
    domain: Domain,
    operator: Any,
    halo: tuple[int, ...],
    sweeping: Sweeping,
    member: int = 0,
) -> tuple[March, list[np.ndarray]]:
    """As `_march`, of any loaded surrogate and any of its members."""
    known = range(domain.start - operator.memory + 1, domain.start + 1)
    frames = [domain.coding.encode(domain.truth, frame) for frame in known]
    condition = operator.condition(domain.truth.attributes.get("condition", {}))
    march = March(
        operator,
        domain.latent,
        domain.comm,
        halo=halo,
        condition=condition,
        scale=_deviation(domain, frames[-1]),
        sweeping=sweeping,
        dtype=frames[-1].dtype,
        chance=chance_of(
            operator, domain.latent, domain.comm.rank, context.experiment.seed, member
        ),
    )
    return march, frames


def _deviation(domain: Domain, field: np.ndarray) -> np.ndarray:
    """Standard deviation of each channel over the domain (C,), the same for any split."""
    cells = float(np.prod(domain.latent.grid.shape))
    deviations = []
    for channel in field.astype(np.float64):
        tiles = [channel[view.core] for view in domain.coding.windows.views]
        mean = exact_sum(domain.comm, (tile.sum() for tile in tiles)) / cells
        square = exact_sum(domain.comm, (((tile - mean) ** 2).sum() for tile in tiles)) / cells
        deviations.append(max(square**0.5, 1e-12))
    return np.array(deviations)


def _march_all(context: Context, domain: Domain, jumps: int) -> None:
    """The configured coupling over all jumps, saved as it goes."""
    settings = context.experiment.coupling
    sweeping = Sweeping(settings.sweeps, settings.tolerance, settings.fixed)
    march, frames = _march(context, domain, context.experiment.halo, sweeping)
    path = context.folder / "march"
    done, records, counts = 0, [], np.zeros(5)
    saved = load_checkpoint(path, domain.comm, domain.latent)
    if saved is not None:
        arrays, scalars = saved
        frames = [arrays[f"frame{i}"] for i in range(len(frames))]
        done, records = scalars["done"], scalars["records"]
        counts = np.array(scalars["counts"])
        context.say(f"couple: {done} of {jumps} jumps were saved; going on from there")
    writer = TrajectoryWriter(
        context.folder,
        "surrogate",
        domain.blocks,
        domain.comm,
        domain.truth.channels,
        dtype=np.float32,
        attributes=domain.truth.attributes,
        group=settings.checkpoint,
        keep=done,
    )
    final = None
    with writer, Progress("couple", jumps, domain.comm.rank, done) as progress:
        for jump in march.jumps(frames, jumps, done + 1):
            final = domain.coding.decode(jump.field)
            writer.append(domain.truth.times[domain.start + jump.number], final)
            frames = [*frames[1:], jump.field]
            records.append(_record(jump))
            progress.step(note=f"{jump.sweeps} sweeps")
            stopping = stop_agreed(domain.comm)
            if stopping or jump.number % settings.checkpoint == 0:
                writer.flush()
                save_checkpoint(
                    path,
                    domain.comm,
                    domain.latent,
                    {f"frame{i}": frame for i, frame in enumerate(frames)},
                    {
                        "done": jump.number,
                        "records": records,
                        "counts": (counts + _traffic(march)).tolist(),
                    },
                )
            if stopping:
                raise Stopped(f"couple: stopped after jump {jump.number} of {jumps}")
    if final is None:
        final = domain.coding.decode(frames[-1])
    on_root(domain.comm, lambda: remove_checkpoint(path))
    _march_facts(context, domain, march, records, counts + _traffic(march))
    context.facts.record(
        "field.sha256", field_hash(domain, final), tiles=len(domain.blocks.tiles())
    )


def _record(jump: Jump) -> dict[str, Any]:
    return {
        "jump": jump.number,
        "sweeps": jump.sweeps,
        "seconds": jump.seconds,
        "mismatches": list(jump.mismatches),
    }


def _traffic(march: March) -> np.ndarray:
    """Bytes and messages of all ranks, both as counted and by formula, and exchanges so far."""
    exchange, comm = march.exchange, march.comm
    size = march.blocks, exchange.width, len(march.scale), exchange.dtype.itemsize
    return np.array(
        [
            exact_sum(comm, [exchange.bytes]),
            float(march.exchanges * expected_bytes(*size)),
            exact_sum(comm, [exchange.messages]),
            float(march.exchanges * expected_messages(march.blocks, exchange.width)),
            float(march.exchanges),
        ]
    )


def _march_facts(
    context: Context, domain: Domain, march: March, records: list[dict], traffic: np.ndarray
) -> None:
    facts = context.facts
    for record in records:
        facts.record("sweeps.jump", record["sweeps"], jump=record["jump"])
        for sweep, mismatch in enumerate(record["mismatches"], 2):
            facts.record("mismatch", mismatch, jump=record["jump"], sweep=sweep)
    sweeps = [record["sweeps"] for record in records]
    facts.record("sweeps.mean", sum(sweeps) / len(sweeps), "sweeps")
    facts.record("sweeps.max", max(sweeps), "sweeps")
    facts.record("mismatch.tolerance", march.sweeping.tolerance)
    names = ("bytes.counted", "bytes.formula", "messages", "messages.formula", "exchanges")
    for name, value in zip(names, traffic, strict=True):
        facts.record(f"halo.{name}", int(value), name.split(".")[0])
    as_ranks = replace(domain.latent, split=domain.latent.counts)
    exchanges, width = int(traffic[-1]), march.exchange.width
    facts.record(
        "halo.bytes.tiles",
        exchanges
        * tile_bytes(domain.latent, width, len(march.scale), march.exchange.dtype.itemsize),
        "bytes",
    )
    facts.record("halo.messages.tiles", exchanges * expected_messages(as_ranks, width), "messages")
    _time_fact(context, domain.comm, "surrogate", [record["seconds"] for record in records])


def _time_fact(context: Context, comm: Any, method: str, seconds: list[float]) -> None:
    """The median over jumps of the slowest rank's seconds."""
    value = largest(comm, float(np.median(seconds)))
    context.facts.record("time.jump", value, "s", method=method)


def _variants(context: Context, domain: Domain, jumps: int) -> None:
    """The same surrogate with enough halo, and with too little and no sweep."""
    experiment = context.experiment
    reach = experiment.reach
    variants = [("halo8", reach)]
    if any(h < r for h, r in zip(experiment.halo, reach, strict=True)):
        variants.append(("nosweep", experiment.halo))
    for method, halo in variants:
        march, frames = _march(context, domain, halo, Sweeping(most=1))
        seconds = []
        with (
            TrajectoryWriter(
                context.folder,
                method,
                domain.blocks,
                domain.comm,
                domain.truth.channels,
                dtype=np.float32,
                attributes=domain.truth.attributes,
            ) as writer,
            Progress(method, jumps, domain.comm.rank) as progress,
        ):
            for jump in march.jumps(frames, jumps):
                moment = domain.truth.times[domain.start + jump.number]
                writer.append(moment, domain.coding.decode(jump.field))
                seconds.append(jump.seconds)
                progress.step()
        _time_fact(context, domain.comm, method, seconds)


def field_hash(domain: Domain, field: np.ndarray) -> str:
    """SHA-256 of the tiles' SHA-256 in tile order: equal bits whoever owned the tiles."""
    rank, own = domain.comm.rank, {}
    for index in domain.blocks.tiles(rank):
        tile = np.ascontiguousarray(field[(..., *domain.blocks.local_slices(rank, index))])
        own[index] = hashlib.sha256(tile.tobytes()).hexdigest()
    merged = {key: value for part in domain.comm.allgather(own) for key, value in part.items()}
    return hashlib.sha256("".join(merged[key] for key in sorted(merged)).encode()).hexdigest()
