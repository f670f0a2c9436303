"""From order to disorder: Vicsek's polarization against the noise, at several system sizes.

Particles that turn towards their neighbours move together while the noise is weak, and singly
while it is strong; the larger the system, the sharper the change between (Vicsek, Czirok,
Ben-Jacob, Cohen, Shochet 1995, https://doi.org/10.1103/PhysRevLett.75.1226, figure 2). It says
that the simulator has the physics that the ensembles above are drawn from.
"""

from __future__ import annotations

import math

import numpy as np

from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.ensemble.settings import Transition
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.simulators.density import order_parameters
from scaled_mpi.simulators.vicsek import Noise, Vicsek


def work(context: Context) -> None:
    """One run a size and noise, dealt to ranks; mean and deviation as facts. Collective."""
    sweep = context.experiment.transition
    if sweep is None:
        return
    runs = [(size, noise) for size in sweep.sizes for noise in sweep.noises]
    # In turn, so that the large systems, which come last, are shared evenly.
    mine = runs[context.comm.rank :: context.comm.size]
    found = {run: order_of(sweep, *run, context.experiment.seed) for run in mine}
    for part in context.comm.allgather(found):
        found |= part
    for size, noise in runs:
        mean, deviation = found[size, noise]
        context.facts.record("transition.order", mean, N=size, noise=noise)
        context.facts.record("transition.deviation", deviation, N=size, noise=noise)


def order_of(sweep: Transition, size: int, noise: float, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of the polarization over the steps that are looked at."""
    side = math.sqrt(size / sweep.density)
    system = Vicsek(
        particles=size,
        box=(side, side),
        speed=sweep.speed,
        radius=1.0,
        dt=1.0,
        noise=Noise(kind="uniform", eta=noise),
    )
    exchange = system.exchange(system.blocks((1, 1), 1), SerialComm())
    flock = system.advance(system.initial(exchange, seed), sweep.burn_in, exchange)
    values = []
    for _ in range(sweep.steps):
        flock = system.advance(flock, 1, exchange)
        values.append(order_parameters(flock.particles, SerialComm())["polarization"])
    return float(np.mean(values)), float(np.std(values))
