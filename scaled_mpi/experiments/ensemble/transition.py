"""From order to disorder: Vicsek's polarization against the noise, at several system sizes.

Particles that turn towards their neighbours move together under weak noise, and singly under
strong noise. The transition sharpens with the size of the system (Vicsek, Czirok, Ben-Jacob,
Cohen, Shochet 1995, https://doi.org/10.1103/PhysRevLett.75.1226, figure 2). It tests the physics
of the simulator that the ensembles are drawn from.
"""

from __future__ import annotations

import math

import numpy as np

from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.ensemble.settings import EnsembleExperiment, Transition
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.simulators.density import order_parameters
from scaled_mpi.simulators.vicsek import Noise, Vicsek


def work(context: Context[EnsembleExperiment]) -> None:
    """Run every size and noise, shared by the ranks; record mean and deviation. Collective."""
    sweep = context.experiment.transition
    if sweep is None:
        return
    runs = [(size, noise) for size in sweep.sizes for noise in sweep.noises]
    # In turn, so that all ranks share the large systems, which come last.
    mine = runs[context.comm.rank :: context.comm.size]
    orders = {run: order_of(sweep, *run, context.experiment.seed) for run in mine}
    for part in context.comm.allgather(orders):
        orders |= part
    for size, noise in runs:
        mean, deviation = orders[size, noise]
        context.facts.record("transition.order", mean, N=size, noise=noise)
        context.facts.record("transition.deviation", deviation, N=size, noise=noise)


def order_of(sweep: Transition, size: int, noise: float, seed: int) -> tuple[float, float]:
    """Return mean and standard deviation of the polarization over `sweep.steps` steps."""
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
