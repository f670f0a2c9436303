"""The low-dimensional cases of an experiment on patterns; each rank studies some of them."""

from __future__ import annotations

import time

from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.dynamics.settings import Cases, DynamicsExperiment
from scaled_mpi.parallel.arrays import save_arrays
from scaled_mpi.parallel.comm import quiet_barrier, shares


def work(context: Context[DynamicsExperiment]) -> None:
    """Record `lyapunov`, `lyapunov.*`, `stationarity`, `cos` and `density.drift` of every case.

    The places are `field` and `system`, the case. Collective.
    """
    begun = time.perf_counter()
    own: list[tuple[str, float, dict[str, str]]] = []
    if context.experiment.cases is not None:
        own = _study(context, context.experiment.cases)
    for name, value, where in sum(context.comm.allgather(own), []):
        context.facts.record(name, value, **where)
    quiet_barrier(context.comm)
    context.facts.record("time.cases", time.perf_counter() - begun, "s")


def _study(
    context: Context[DynamicsExperiment], spec: Cases
) -> list[tuple[str, float, dict[str, str]]]:
    """The facts of this rank's cases; their arrays go into files."""
    names = spec.names
    own: list[tuple[str, float, dict[str, str]]] = []
    for place in shares(len(names), context.comm.size)[context.comm.rank]:
        from scaled_mpi.surrogates.cases import study

        facts, arrays = study(
            names[place],
            spec.noise,
            spec.steps,
            spec.horizon,
            spec.separation,
            context.experiment.seed,
            context.folder,
        )
        save_arrays(context.folder / f"{names[place]}.case.h5", arrays, {"case": names[place]})
        own += facts
    return own
