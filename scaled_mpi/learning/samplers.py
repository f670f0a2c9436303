"""Samplers: from noise at t = 1 to a sample at t = 0, along a schedule and with a denoiser.

With D = D(x, t) and eps = (x - alpha D) / sigma the probability flow (Song et al. 2021, arXiv
2011.13456) is

    dx/dt = alpha'(t) D + sigma'(t) eps

which has no division by alpha and so starts where there is no signal. One step from t to s < t,
one row of SAMPLERS each:

    euler   dx/dt at t                                                        order 1
    ddim    exact if D and eps stay:  x + (alpha_s - alpha_t) D + (sigma_s - sigma_t) eps   order 1
    heun    the same with the means of D and eps at both ends; the last step, where eps is
            divided by next to nothing, is ddim's                             order 2
    sde     ddim with part of eps drawn anew, as the posterior of DDPM asks
            (Song, Meng and Ermon 2021, arXiv 2010.02502, equation 16)        order 1

All of it is arithmetic on whatever the denoiser takes: NumPy arrays, torch tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.learning.schedules import Schedule
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import normal

Denoise = Callable[[Any, float], Any]  # (x_t, t) -> E[x | x_t]
Noise = Callable[[int], Any]  # the k-th field of standard normals; 0 is where a sample starts

_DRAWS = 1 << 16  # fields of noise that one sample may take


@dataclass(frozen=True)
class CellNoise:
    """Standard normals (channels, *cells.shape) that depend on the global cell, not on the split.

    `cells` are global indices (`parallel.streams.cell_indices`), `sample` the number of the
    sample, so that each has noise of its own.
    """

    seed: int
    cells: np.ndarray
    channels: int = 1
    sample: int = 0
    dtype: type = np.float64

    def __call__(self, k: int) -> np.ndarray:
        step = self.sample * _DRAWS + k
        made = normal(self.seed, step, self.cells, draws=self.channels, stream=Stream.SAMPLES)
        return made.astype(self.dtype, copy=False)


def _ends(schedule: Schedule, t: float, s: float) -> tuple[float, float, float, float]:
    return schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)


def _euler(denoise: Denoise, x: Any, t: float, s: float, schedule: Schedule, noise: Any) -> Any:
    data = denoise(x, t)
    eps = (x - schedule.alpha(t) * data) / schedule.sigma(t)
    return x + (s - t) * (schedule.alpha_rate(t) * data + schedule.sigma_rate(t) * eps)


def _ddim(denoise: Denoise, x: Any, t: float, s: float, schedule: Schedule, noise: Any) -> Any:
    alpha, sigma, alpha_s, sigma_s = _ends(schedule, t, s)
    data = denoise(x, t)
    return alpha_s * data + (sigma_s / sigma) * (x - alpha * data)


def _heun(denoise: Denoise, x: Any, t: float, s: float, schedule: Schedule, noise: Any) -> Any:
    alpha, sigma, alpha_s, sigma_s = _ends(schedule, t, s)
    data = denoise(x, t)
    eps = (x - alpha * data) / sigma
    there = alpha_s * data + sigma_s * eps
    data_s = denoise(there, s)
    eps_s = (there - alpha_s * data_s) / sigma_s
    return x + 0.5 * ((alpha_s - alpha) * (data + data_s) + (sigma_s - sigma) * (eps + eps_s))


def _sde(denoise: Denoise, x: Any, t: float, s: float, schedule: Schedule, noise: Any) -> Any:
    alpha, sigma, alpha_s, sigma_s = _ends(schedule, t, s)
    data = denoise(x, t)
    eps = (x - alpha * data) / sigma
    kept = min(1.0, (alpha * sigma_s) / (alpha_s * sigma))  # of eps; its square is the share
    return alpha_s * data + sigma_s * (kept * eps + (1.0 - kept**2) ** 0.5 * noise)


SAMPLERS: dict[str, Callable[..., Any]] = {
    "ddim": _ddim,
    "euler": _euler,
    "heun": _heun,
    "sde": _sde,
}
STOCHASTIC = ("sde",)


def applications(kind: str, steps: int) -> int:
    """Number of denoiser evaluations of a sampler of `steps` steps."""
    return 2 * steps - 1 if kind == "heun" else steps


def check_sampler(kind: str) -> None:
    """Check the name of a sampler. Errors: `InputError` for a row that does not exist."""
    if kind not in SAMPLERS:
        raise InputError(
            f"sampler: {kind!r} is not allowed: unknown. Allowed: {', '.join(SAMPLERS)}"
        )


def sample(
    denoise: Denoise,
    noise: Noise,
    schedule: Schedule,
    steps: int,
    kind: str = "heun",
    times: Sequence[float] | None = None,
) -> Any:
    """One sample, or a batch of them, in the shape of `noise(0)`.

    `noise(k)` gives standard normals: k = 0 the start, k = 1 .. steps the noise that a sampler
    draws in each step. `times` fall from 1 to 0, by default `schedule.times(steps)`. Noise of
    spread `sigma_min` stays in the sample. Errors: `InputError` for an unknown `kind`.
    """
    check_sampler(kind)
    times = [float(t) for t in (schedule.times(steps) if times is None else times)]
    x = schedule.sigma(times[0]) * noise(0)
    for k, (t, s) in enumerate(itertools.pairwise(times), 1):
        last = kind == "heun" and k == len(times) - 1
        step = SAMPLERS["ddim" if last else kind]
        x = step(denoise, x, t, s, schedule, noise(k) if kind in STOCHASTIC else None)
    return x / schedule.alpha(times[-1])
