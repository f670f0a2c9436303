"""Forecasts beside the surrogate's first: its other members, in one piece, and the rivals.

    surrogate-0001 ...             further members of a stochastic surrogate, over all jumps
    untiled, untiled-0001 ...      some members on a single tile, the whole domain
    NAME, NAME-0001 ...            every rival, as many members if it is stochastic

A trajectory that is finished is not made again, so that a stopped stage goes on at the member.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from scaled_mpi.coupling.latent import Coding
from scaled_mpi.coupling.schwarz import March, Sweeping
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.forecast.learn import rival_folder
from scaled_mpi.parallel.comm import first_ranks, largest
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.signals import Stopped, stop_agreed
from scaled_mpi.parallel.store import TrajectoryWriter, trajectory_names
from scaled_mpi.progress import Progress

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


def members(context: Context, domain: Any, jumps: int, march_of: Callable[..., Any]) -> None:
    """All members of the surrogate but the first, tiled and in one piece, then all rivals.

    march_of(domain, operator, halo, sweeping, member) gives a march and its first frames.
    """
    experiment, settings = context.experiment, context.experiment.coupling
    sweeping = Sweeping(settings.sweeps, settings.tolerance, settings.fixed)
    operator = experiment.surrogate.load(context.inputs["fit"])
    done = on_root(domain.comm, lambda: trajectory_names(context.folder))
    if operator.stochastic:
        for member in range(1, settings.members):
            _write(
                context,
                domain,
                "surrogate",
                member,
                jumps,
                done,
                lambda n: march_of(domain, operator, experiment.halo, sweeping, n),
            )
        _untiled(context, domain, min(jumps, settings.compare), done, operator, march_of)
    for name, rival in experiment.rivals.items():
        other = rival.load(rival_folder(context.inputs["fit"], name))
        halo = tuple(
            max(h, r) if not getattr(rival, "masked", True) else h
            for h, r in zip(experiment.halo, other.reach, strict=True)
        )
        seconds = [
            _write(
                context,
                domain,
                name,
                member,
                jumps,
                done,
                lambda n, at=other, w=halo: march_of(domain, at, w, sweeping, n),
            )
            for member in range(settings.members if other.stochastic else 1)
        ]
        median = largest(domain.comm, float(np.median(np.concatenate(seconds))))
        context.facts.record("time.jump", median, "s", method=name)


def _write(
    context: Context,
    domain: Any,
    method: str,
    member: int,
    jumps: int,
    done: list[str],
    march_of: Callable[[int], tuple[March, list[np.ndarray]]],
) -> list[float]:
    """March one member and store it, unless it is; gives the seconds of its jumps."""
    name = member_name(method, member)
    if name in done:
        return [0.0]
    march, frames = march_of(member)
    seconds = []
    with (
        TrajectoryWriter(
            context.folder,
            name,
            domain.blocks,
            domain.comm,
            domain.truth.channels,
            dtype=np.float32,
            attributes=domain.truth.attributes,
        ) as writer,
        Progress(name, jumps, domain.comm.rank) as progress,
    ):
        for jump in march.jumps(frames, jumps):
            moment = domain.truth.times[domain.start + jump.number]
            writer.append(moment, domain.coding.decode(jump.field))
            seconds.append(jump.seconds)
            progress.step()
    if stop_agreed(domain.comm):
        raise Stopped(f"couple: stopped after {name}")
    return seconds


def _untiled(
    context: Context,
    domain: Any,
    jumps: int,
    done: list[str],
    operator: Any,
    march_of: Callable[..., Any],
) -> None:
    """Members on one tile as large as the domain, by one rank; the others wait."""
    settings = context.experiment.coupling
    if not settings.untiled:
        return
    grid = domain.blocks.grid
    blocks = replace(domain.blocks, tile=grid.shape, split=(1,) * grid.axes)
    comm = first_ranks(domain.comm, 1)
    if comm is not None:
        whole = replace(
            domain, blocks=blocks, comm=comm, coding=Coding(domain.coding.coder, blocks, comm)
        )
        for member in range(min(settings.untiled, settings.members)):
            _write(
                context,
                whole,
                UNTILED,
                member,
                jumps,
                done,
                lambda n: march_of(whole, operator, operator.reach, Sweeping(most=1), n),
            )
    domain.comm.Barrier()
