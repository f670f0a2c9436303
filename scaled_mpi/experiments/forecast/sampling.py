"""Forecasts beside the surrogate's first: its other members, in one piece, and the rivals.

    surrogate-0001 ...             further members of a stochastic surrogate, over all jumps
    untiled, untiled-0001 ...      some members on a single tile, the whole domain
    NAME, NAME-0001 ...            every rival, as many members if it is stochastic

A trajectory that is finished is not made again, so that a stopped stage goes on at the member.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaled_mpi.coupling.forecasting import TiledDomain, begin, march_and_store
from scaled_mpi.coupling.schwarz import Sweeping
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.forecast.learn import rival_folder
from scaled_mpi.experiments.forecast.settings import ForecastExperiment
from scaled_mpi.parallel.comm import largest
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.signals import Stopped, stop_agreed
from scaled_mpi.parallel.store import trajectory_names
from scaled_mpi.surrogates.operators import Operator, load_operator

UNTILED = "untiled"


def member_name(method: str, member: int) -> str:
    """The trajectory of one member of a method; member 0 bears the method's own name."""
    return f"{method}-{member:04d}" if member else method


def ensemble_names(names: list[str], method: str) -> list[str]:
    """The members of a method among the names of trajectories, in order."""
    others = sorted(name for name in names if name.rpartition("-")[0] == method)
    return [name for name in names if name == method] + others


def alone(name: str) -> bool:
    """Whether a trajectory is a method's only or first one."""
    return "-" not in name


def members(context: Context[ForecastExperiment], domain: TiledDomain, jumps: int) -> None:
    """All members of the surrogate but the first, tiled and in one piece, then all rivals."""
    experiment, settings = context.experiment, context.experiment.coupling
    sweeping = Sweeping(settings.sweeps, settings.tolerance, settings.fixed)
    operator = load_operator(experiment.surrogate, context.inputs["fit"])
    done = on_root(domain.comm, lambda: trajectory_names(context.folder))
    if operator.stochastic:
        method = CoupledMethod("surrogate", operator, experiment.halo, sweeping)
        for member in range(1, settings.members):
            _write(context, domain, method, member, jumps, done)
        _untiled(context, domain, min(jumps, settings.compare), done, operator)
    for name, rival in experiment.rivals.items():
        other = load_operator(rival, rival_folder(context.inputs["fit"], name))
        halo = tuple(
            max(h, r) if rival.needs_whole_reach() else h
            for h, r in zip(experiment.halo, other.reach, strict=True)
        )
        method = CoupledMethod(name, other, halo, sweeping)
        seconds = [
            _write(context, domain, method, member, jumps, done)
            for member in range(settings.members if other.stochastic else 1)
        ]
        median = largest(domain.comm, float(np.median(np.concatenate(seconds))))
        context.facts.record("time.jump", median, "s", method=name)


@dataclass(frozen=True)
class CoupledMethod:
    """A loaded surrogate under its name, with the halo and the sweeps of its coupling."""

    name: str
    operator: Operator
    halo: tuple[int, ...]
    sweeping: Sweeping


def _write(
    context: Context[ForecastExperiment],
    domain: TiledDomain,
    method: CoupledMethod,
    member: int,
    jumps: int,
    done: list[str],
) -> list[float]:
    """March one member and store it, unless it is; gives the seconds of its jumps."""
    name = member_name(method.name, member)
    if name in done:
        return [0.0]
    seed = context.experiment.seed
    begun = begin(domain, method.operator, method.halo, method.sweeping, seed, member)
    course = march_and_store(context.folder, name, domain, begun, jumps)
    if stop_agreed(domain.comm):
        raise Stopped(f"couple: stopped after {name}")
    return course.seconds


def _untiled(
    context: Context[ForecastExperiment],
    domain: TiledDomain,
    jumps: int,
    done: list[str],
    operator: Operator,
) -> None:
    """Members on one tile as large as the domain, by one rank; the others wait."""
    settings = context.experiment.coupling
    if not settings.untiled:
        return
    whole = domain.whole()
    if whole is not None:
        method = CoupledMethod(UNTILED, operator, operator.reach, Sweeping(most=1))
        for member in range(min(settings.untiled, settings.members)):
            _write(context, whole, method, member, jumps, done)
    domain.comm.Barrier()
