"""The low-dimensional cases of an experiment on patterns; dealt to ranks, one at a time."""

from __future__ import annotations

import time

from scaled_mpi.engine.context import Context
from scaled_mpi.parallel.arrays import save_arrays
from scaled_mpi.parallel.comm import quiet_barrier, shares


def work(context: Context) -> None:
    """Facts `lyapunov.*`, `stationarity.*`, `cos.*` and `density.drift.*` of every case."""
    spec = context.experiment.cases
    names = spec.names if spec is not None else ()
    begun, found = time.perf_counter(), []
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
        found += facts
    for name, value in sum(context.comm.allgather(found), []):
        context.facts.record(name, value)
    quiet_barrier(context.comm)
    context.facts.record("time.cases", time.perf_counter() - begun, "s")
