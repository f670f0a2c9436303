"""Learning a local solver: harvest the tiles' residuals of solves, then fit to them."""

from __future__ import annotations

import time

from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.elliptic.settings import EllipticExperiment
from scaled_mpi.learning.given_weights import taken
from scaled_mpi.parallel.comm import quiet_barrier


def work(context: Context[EllipticExperiment]) -> None:
    """Write `residuals-0000.npz` ... into the folder if the solver is learned; collective."""
    experiment = context.experiment
    if not experiment.local_solver.learns():
        return
    from scaled_mpi.coupling.harvest import harvest

    begun = time.perf_counter()
    count = harvest(
        experiment.harvest,
        experiment.lessons,
        experiment.domain.tile,
        experiment.solving,
        context.folder,
        context.comm,
        experiment.seed,
    )
    quiet_barrier(context.comm)
    context.facts.record("residuals", count, "local problems")
    context.facts.record("time.data", time.perf_counter() - begun, "s")


def fit(context: Context[EllipticExperiment]) -> None:
    """Train the local solver on the residuals, or copy finished weights; collective."""
    experiment = context.experiment
    code = taken(experiment.local_solver, "local_solver", context.folder, context.comm)
    if code is not None:
        context.facts.record("weights.sha256", code)
        context.say(f"  local_solver: finished weights, {experiment.local_solver.weights}")
    if not experiment.local_solver.learns():
        return
    begun = time.perf_counter()
    experiment.local_solver.fit(
        context.inputs["residuals"],
        context.comm,
        context.folder,
        context.events(),
        experiment.seed,
    )
    quiet_barrier(context.comm)
    context.facts.record("time.train", time.perf_counter() - begun, "s")
