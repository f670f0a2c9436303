"""Couple the surrogate over the large domain, with the variants it is compared with.

Every method leaves a trajectory of its own name. `surrogate` is the configured coupling over all
jumps; the others cover the first `coupling.compare` jumps. `wide_halo` has a halo as wide as the
reach: one exchange, no sweep. `nosweep` has the narrow halo and one sweep. Further ones are the
simulator's cheaper selves. The march is saved every `coupling.checkpoint` jumps and continues
there, on any number of ranks.
"""

from __future__ import annotations

from dataclasses import replace

from scaled_mpi.compressors.coders import load_coder
from scaled_mpi.coupling.forecasting import Course, TiledDomain, begin, march_and_store
from scaled_mpi.coupling.schwarz import March, Sweeping
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.forecast import sampling
from scaled_mpi.experiments.forecast.reference import run_references
from scaled_mpi.experiments.forecast.settings import ForecastExperiment
from scaled_mpi.parallel.halo import expected_messages, tile_bytes
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.surrogates.operators import load_operator


def work(context: Context[ForecastExperiment]) -> None:
    """Fill the folder with the trajectories of all methods."""
    experiment = context.experiment
    truth = Trajectory(context.inputs["simulate"], "test-0000")
    blocks, comm = context.blocks(truth.grid, experiment.domain.tile)
    if comm is None:
        return
    coder = load_coder(experiment.compressor, context.inputs["compress"])
    domain = TiledDomain.on(truth, coder, blocks, comm, experiment.history - 1)
    jumps = min(experiment.coupling.jumps, truth.shape[0] - experiment.history)
    _march_all(context, domain, jumps)
    compare = min(experiment.coupling.compare, jumps)
    _variants(context, domain, compare)
    sampling.members(context, domain, jumps)
    if experiment.simulator is not None:
        run_references(context, truth, blocks, comm, domain.start, compare)


def _march_all(context: Context[ForecastExperiment], domain: TiledDomain, jumps: int) -> None:
    """The configured coupling over all jumps, saved as it goes."""
    experiment, settings = context.experiment, context.experiment.coupling
    operator = load_operator(experiment.surrogate, context.inputs["fit"])
    sweeping = Sweeping(settings.sweeps, settings.tolerance, settings.fixed)
    begun = begin(domain, operator, experiment.halo, sweeping, experiment.seed)
    course = march_and_store(
        context.folder, "surrogate", domain, begun, jumps, settings.checkpoint, context.say
    )
    _march_facts(context, domain, begun.march, course)
    assert course.final is not None  # set by every march
    context.facts.record(
        "field.sha256", domain.hash(course.final), tiles=len(domain.blocks.tiles())
    )


def _march_facts(
    context: Context[ForecastExperiment], domain: TiledDomain, march: March, course: Course
) -> None:
    facts, records = context.facts, course.records
    for record in records:
        facts.record("sweeps.jump", record["sweeps"], jump=record["jump"])
        for sweep, mismatch in enumerate(record["mismatches"], 2):
            facts.record("mismatch", mismatch, jump=record["jump"], sweep=sweep)
    sweeps = [record["sweeps"] for record in records]
    facts.record("sweeps.mean", sum(sweeps) / len(sweeps), "sweeps")
    facts.record("sweeps.max", max(sweeps), "sweeps")
    facts.record("mismatch.tolerance", march.sweeping.tolerance)
    names = ("bytes.counted", "bytes.formula", "messages", "messages.formula", "exchanges")
    for name, value in zip(names, course.traffic, strict=True):
        facts.record(f"halo.{name}", int(value), name.split(".")[0])
    as_ranks = replace(domain.latent, split=domain.latent.counts)
    exchanges, width = int(course.traffic[-1]), march.exchange.width
    per_exchange = tile_bytes(
        domain.latent, width, len(march.scale), march.exchange.dtype.itemsize
    )
    facts.record("halo.bytes.tiles", exchanges * per_exchange, "bytes")
    facts.record("halo.messages.tiles", exchanges * expected_messages(as_ranks, width), "messages")
    seconds = course.median_seconds(domain.comm)
    facts.record("time.jump", seconds, "s", method="surrogate")


def _variants(context: Context[ForecastExperiment], domain: TiledDomain, jumps: int) -> None:
    """The same surrogate with enough halo, and with too little and no sweep."""
    experiment = context.experiment
    variants = [("wide_halo", experiment.reach)]
    if any(h < r for h, r in zip(experiment.halo, experiment.reach, strict=True)):
        variants.append(("nosweep", experiment.halo))
    for method, halo in variants:
        operator = load_operator(experiment.surrogate, context.inputs["fit"])
        begun = begin(domain, operator, halo, Sweeping(most=1), experiment.seed)
        course = march_and_store(context.folder, method, domain, begun, jumps)
        seconds = course.median_seconds(domain.comm)
        context.facts.record("time.jump", seconds, "s", method=method)
