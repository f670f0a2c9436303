"""Denoisers: the mean of the data given its noisy copy, by a network and a preconditioning.

    D(x_t, t) = c_skip x_t + c_out F(c_in x_t, c_noise, condition)  ~  E[x | x_t]

The quantity that the network F predicts decides the coefficients, one row of PARAMETRIZATIONS
each:

    epsilon   the noise                      Ho et al. 2020, arXiv 2006.11239
    x0        the data
    v         alpha eps - sigma x            Salimans and Ho 2022, arXiv 2202.00512
    flow      eps - x, the velocity of straight lines   Liu et al. 2023, arXiv 2209.03003
    edm       of variance 1 at every level   Karras et al. 2022, arXiv 2206.00364

The loss is |D - x|^2 weighted by 1 / c_out^2: the network's own mean square error. From D follows
the score of the noisy data, (alpha D - x_t) / sigma^2 (Tweedie's formula).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from scaled_mpi.config import InputError
from scaled_mpi.learning.schedules import Schedule, namespace


class Coefficients(NamedTuple):
    """One row at one noise level; numbers or arrays alike."""

    c_in: Any
    c_skip: Any
    c_out: Any
    c_noise: Any

    @property
    def weight(self) -> Any:
        """Weight of |D - x|^2 in the loss."""
        return 1.0 / self.c_out**2


def _scale(alpha: Any, sigma: Any, spread: float) -> Any:
    """What brings x_t to variance 1 for data of this spread."""
    return (alpha**2 * spread**2 + sigma**2) ** -0.5


def _angle(alpha: Any, sigma: Any) -> Any:
    """The noise level as an angle in [0, pi / 2]; also without signal."""
    xp = namespace(sigma)
    return xp.arctan2(sigma, alpha + 0.0 * sigma)


def _epsilon(alpha: Any, sigma: Any, spread: float) -> Coefficients:
    return Coefficients(
        _scale(alpha, sigma, spread), 1.0 / alpha, -sigma / alpha, _angle(alpha, sigma)
    )


def _x0(alpha: Any, sigma: Any, spread: float) -> Coefficients:
    return Coefficients(
        _scale(alpha, sigma, spread), 0.0 * sigma, 0.0 * sigma + 1.0, _angle(alpha, sigma)
    )


def _v(alpha: Any, sigma: Any, spread: float) -> Coefficients:
    square = alpha**2 + sigma**2
    return Coefficients(
        _scale(alpha, sigma, spread), alpha / square, -sigma / square, _angle(alpha, sigma)
    )


def _flow(alpha: Any, sigma: Any, spread: float) -> Coefficients:
    total = alpha + sigma
    return Coefficients(
        _scale(alpha, sigma, spread), 1.0 / total, -sigma / total, _angle(alpha, sigma)
    )


def _edm(alpha: Any, sigma: Any, spread: float) -> Coefficients:
    scale = _scale(alpha, sigma, spread)
    # Karras et al. give the network log(sigma) / 4, which knows no end where alpha is 0.
    return Coefficients(
        scale, alpha * spread**2 * scale**2, sigma * spread * scale, _angle(alpha, sigma)
    )


PARAMETRIZATIONS: dict[str, Callable[[Any, Any, float], Coefficients]] = {
    "epsilon": _epsilon,
    "x0": _x0,
    "v": _v,
    "flow": _flow,
    "edm": _edm,
}


def check_parametrization(kind: str, schedule: Schedule) -> None:
    """Check the name of a parametrization.

    Errors: `InputError` where the row does not exist or does not fit the schedule.
    """
    if kind not in PARAMETRIZATIONS:
        raise InputError(
            f"parametrization: {kind!r} is not allowed: unknown. Allowed: "
            f"{', '.join(PARAMETRIZATIONS)}"
        )
    if kind == "epsilon" and schedule.zero_terminal_snr:
        raise InputError(
            "parametrization: epsilon is not allowed: with zero_terminal_snr the noise "
            "alone does not determine the data. Allowed: x0, v, flow, edm; or "
            "zero_terminal_snr false"
        )


class Denoiser(nn.Module):
    """A network as a denoiser: called with x_t (B, ...), t and a condition it returns E[x | x_t].

    `network(x, level, condition)` takes x (B, ...), the noise level (B,) in [0, pi / 2] and the
    condition, or None. `t` is a number or (B,). `spread` is the standard deviation of the data.
    Errors: `InputError` for a row that does not fit the schedule.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        parametrization: str = "v",
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        check_parametrization(parametrization, schedule)
        self.network, self.schedule, self.spread = network, schedule, spread
        self.row = PARAMETRIZATIONS[parametrization]

    def forward(self, x: Tensor, t: Tensor | float, condition: object = None) -> Tensor:
        """E[x | x_t], in the shape of `x` (or, with valid convolutions, of its core)."""
        c = self.coefficients(x, t)
        made = self.network(c.c_in * x, c.c_noise.flatten(), condition)
        return c.c_skip * _core(x, made) + c.c_out * made

    def loss(
        self,
        x: Tensor,
        t: Tensor,
        noise: Tensor,
        condition: object = None,
        weight: Tensor | float = 1.0,
    ) -> Tensor:
        """Mean of weight * |F - target of F|^2; scalar. `weight` broadcasts against x.

        x, noise: (B, ...); t (B,) in [0, 1].
        """
        c = self.coefficients(x, t)
        alpha, sigma = (_wide(f(t), x) for f in (self.schedule.alpha, self.schedule.sigma))
        noisy = alpha * x + sigma * noise
        made = self.network(c.c_in * noisy, c.c_noise.flatten(), condition)
        wanted = (_core(x, made) - c.c_skip * _core(noisy, made)) / c.c_out
        return (weight * (made.float() - wanted).square()).mean()

    def score(self, x: Tensor, t: Tensor | float, condition: object = None) -> Tensor:
        """Gradient of the log density of the noisy data."""
        made = self(x, t, condition)
        time = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        alpha, sigma = (_wide(f(time), x) for f in (self.schedule.alpha, self.schedule.sigma))
        return (alpha * made - _core(x, made)) / sigma**2

    def coefficients(self, x: Tensor, t: Tensor | float) -> Coefficients:
        """The row at the times of a batch, each (B, 1, ...)."""
        time = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))
        alpha, sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        return Coefficients(*(_wide(c, x) for c in self.row(alpha, sigma, self.spread)))

    def on_arrays(self, condition: object = None) -> Callable[[np.ndarray, float], np.ndarray]:
        """The denoiser as a function of NumPy arrays (B, ...), for samplers outside torch."""
        weight = next(self.network.parameters())

        def denoise(x: np.ndarray, t: float) -> np.ndarray:
            with torch.inference_mode():
                made = self(
                    torch.as_tensor(x, dtype=weight.dtype, device=weight.device), t, condition
                )
            return made.cpu().numpy().astype(x.dtype)

        return denoise


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """(B,) or () as (B, 1, ...), to be multiplied with x."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def _core(x: Tensor, made: Tensor) -> Tensor:
    """x without the cells that valid convolutions have spent."""
    for axis in range(2, x.ndim):
        spent = x.shape[axis] - made.shape[axis]
        if spent:
            x = x.narrow(axis, spent // 2, made.shape[axis])
    return x
