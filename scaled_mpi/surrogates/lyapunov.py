"""Lyapunov exponents of any field: how fast nearby states part.

All exponents are computed at once by perturbations along every axis. The flow carries them for a
step; then they are made orthogonal again and their growth is counted (Benettin et al. 1980,
https://doi.org/10.1007/BF02128236). Perturbations are differences of states, so that a field needs
no derivative.

`separation` is the simpler figure that Zhang and Levin (2025, arXiv 2509.17990) publish.
"""

from __future__ import annotations

import math

import numpy as np

from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import normal
from scaled_mpi.simulators.lorenz import Rate, runge_kutta


def lyapunov_exponents(
    rate: Rate,
    start: np.ndarray,
    dt: float,
    steps: int,
    burn: int = 0,
    size: float = 1e-6,
    bound: float = math.inf,
) -> np.ndarray:
    """Exponents (B, d) in 1/time, the largest first, of each start (B, d).

    `rate` takes states (..., d). `steps` of `dt` are counted after `burn` uncounted ones; `size`
    is the length of a perturbation, small beside the field's features. A path that leaves the cube
    of side 2 `bound` has no exponents: NaN.
    """
    state = np.asarray(start, np.float64)
    count, dims = state.shape
    frame = np.broadcast_to(np.eye(dims), (count, dims, dims)).copy()  # rows are perturbations
    growth = np.zeros((count, dims))
    left = np.zeros(count, bool)
    for step in range(burn + steps):
        bundle = np.concatenate([state[:, None], state[:, None] + size * frame], 1)
        bundle = runge_kutta(rate, bundle, dt)
        left |= np.abs(bundle[:, 0]).max(axis=1) > bound
        bundle[left] = 0.0
        state = bundle[:, 0]
        frame, triangle = np.linalg.qr(np.swapaxes((bundle[:, 1:] - bundle[:, :1]) / size, 1, 2))
        frame = np.swapaxes(frame, 1, 2)
        if step >= burn:
            growth += np.log(np.abs(np.einsum("bii->bi", triangle)) + 1e-300)
    return np.where(left[:, None], np.nan, growth / (steps * dt))


def separation(
    rate: Rate,
    start: np.ndarray,
    dt: float,
    steps: int,
    parts: int = 2,
    size: float = 1e-5,
    seed: int = 0,
    bound: float = 4.0,
) -> float | None:
    """log(d_end / d_0) / time of the mean distance d of paths to paths that began `size` aside.

    Each path (of starts (B, d)) is cut into `parts`, at whose beginnings the distance is `size`
    again. Paths that leave the cube of side 2 `bound` are not counted; none left: None. Distances
    cannot outgrow the attractor, so that the figure is at most log(attractor / size) / time.
    """
    state = np.asarray(start, np.float64)
    ways = normal(seed, 0, np.arange(state.size), stream=Stream.LYAPUNOV_DIRECTIONS).reshape(
        state.shape
    )
    kept, ends = np.ones(len(state), bool), []
    for _ in range(parts):
        ways = size * ways / np.linalg.norm(ways, axis=1, keepdims=True)
        pair = np.stack([state, state + ways])
        for _ in range(steps // parts):
            pair = np.clip(runge_kutta(rate, pair, dt), -2.0 * bound, 2.0 * bound)
            kept &= np.abs(pair[0]).max(axis=1) < bound
        state, ways = pair[0], pair[1] - pair[0]
        ends.append(np.linalg.norm(ways, axis=1))
        ways = np.where(ends[-1][:, None] > 0.0, ways, 1.0)
    if not kept.any():
        return None
    grown = np.mean([end[kept].mean() for end in ends])
    return float(np.log(max(grown, 1e-300) / size) / (dt * (steps // parts)))
