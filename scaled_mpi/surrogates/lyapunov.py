"""Lyapunov exponents of any field: how fast nearby states part.

All exponents at once by perturbations along every axis, carried by the flow for a step, made
orthogonal again and their growth counted (Benettin et al. 1980,
https://doi.org/10.1007/BF02128236). Perturbations are differences of states, so that a field needs
no derivative.
"""

from __future__ import annotations

import numpy as np

from scaled_mpi.simulators.lorenz import Rate, runge_kutta


def lyapunov_exponents(
    rate: Rate, start: np.ndarray, dt: float, steps: int, burn: int = 0, size: float = 1e-6
) -> np.ndarray:
    """Exponents (B, d) in 1/time, the largest first, of each start (B, d).

    `rate` takes states (..., d). `steps` of `dt` are counted after `burn` that are not; `size` is
    the length of a perturbation, small beside the field's features.
    """
    state = np.asarray(start, np.float64)
    count, dims = state.shape
    frame = np.broadcast_to(np.eye(dims), (count, dims, dims)).copy()  # rows are perturbations
    growth = np.zeros((count, dims))
    for step in range(burn + steps):
        bundle = np.concatenate([state[:, None], state[:, None] + size * frame], 1)
        bundle = runge_kutta(rate, bundle, dt)
        state = bundle[:, 0]
        frame, triangle = np.linalg.qr(
            np.swapaxes((bundle[:, 1:] - bundle[:, :1]) / size, 1, 2))
        frame = np.swapaxes(frame, 1, 2)
        if step >= burn:
            growth += np.log(np.abs(np.einsum("bii->bi", triangle)) + 1e-300)
    return growth / (steps * dt)
