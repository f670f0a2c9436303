"""The Lorenz system, three ordinary differential equations with a strange attractor.

    dx/dt = s (y - x)        dy/dt = x (r - z) - y        dz/dt = x y - b z

s = 10, r = 28, b = 8/3 (Lorenz 1963, https://doi.org/10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2).
The largest Lyapunov exponent is 0.906 (Sprott 2003, Chaos and Time-Series Analysis), the sum of
all is the divergence, -(s + 1 + b).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import normal

S, R, B = 10.0, 28.0, 8.0 / 3.0
DIVERGENCE = -(S + 1.0 + B)
LARGEST_EXPONENT = 0.906

Rate = Callable[[np.ndarray], np.ndarray]


def lorenz_rate(state: np.ndarray) -> np.ndarray:
    """d/dt of states (..., 3)."""
    x, y, z = np.moveaxis(state, -1, 0)
    return np.stack([S * (y - x), x * (R - z) - y, x * y - B * z], -1)


def runge_kutta(rate: Rate, state: np.ndarray, dt: float) -> np.ndarray:
    """One classical step of fourth order for states (..., d)."""
    a = rate(state)
    b = rate(state + 0.5 * dt * a)
    c = rate(state + 0.5 * dt * b)
    d = rate(state + dt * c)
    return state + dt / 6.0 * (a + 2.0 * b + 2.0 * c + d)


def lorenz_states(
    seed: int, runs: int, steps: int, dt: float = 0.01, burn: int = 1000
) -> np.ndarray:
    """States (n, 3) on the attractor, n = runs x steps: `steps` of each run after `burn` steps."""
    state = normal(seed, 0, np.arange(3 * runs), stream=Stream.LORENZ_STARTS).reshape(runs, 3)
    state = state + np.array([0.0, 0.0, 25.0])
    found = []
    for step in range(burn + steps):
        state = runge_kutta(lorenz_rate, state, dt)
        if step >= burn:
            found.append(state)
    return np.concatenate(found)
