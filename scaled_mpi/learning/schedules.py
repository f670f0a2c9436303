"""Noise schedules: how a sample x becomes noise as the time t goes from 0 to 1.

    x_t = alpha(t) x + sigma(t) eps        eps standard normal, t in [0, 1]

alpha falls and sigma rises. The names are those of Song et al. 2021 (arXiv 2011.13456) and of
Karras et al. 2022 (arXiv 2206.00364). A schedule is a frozen block of the configuration; its
functions take a number, a NumPy array or a torch tensor and return the same.

The signal-to-noise ratio at t = 1 is alpha(1)^2 / sigma(1)^2. Where it is not zero, a sampler that
starts from pure noise starts from something that training never showed (Lin et al. 2024, arXiv
2305.08891); `zero_terminal_snr` stretches alpha so that it ends at 0 exactly.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec


def namespace(values: Any) -> Any:
    """The module whose functions take `values`: torch for its tensors, else numpy."""
    return sys.modules["torch"] if type(values).__module__.startswith("torch") else np


class Schedule(Spec):
    """A noise schedule. Members define their signal, and their noise unless they keep variance.

    `sigma_min` is sigma(0). It is small beside the data's spread, which is of order 1. It is not
    0, since eps = (x_t - alpha x) / sigma is evaluated at every time.
    """

    zero_terminal_snr: bool = False
    sigma_min: PositiveFloat = 1e-3

    def alpha(self, t: Any) -> Any:
        """Factor of the data, 1 at t = 0."""
        alpha = self._signal(t)[0]
        if self.zero_terminal_snr:
            last = self._signal(1.0)[0]
            alpha = (alpha - last) / (1.0 - last)
        return alpha

    def alpha_rate(self, t: Any) -> Any:
        """d alpha / dt."""
        rate = self._signal(t)[1]
        return rate / (1.0 - self._signal(1.0)[0]) if self.zero_terminal_snr else rate

    def sigma(self, t: Any) -> Any:
        """Spread of the noise: here the spread that keeps the variance of data of spread 1."""
        return (1.0 - self.alpha(t) ** 2 + self.sigma_min**2) ** 0.5

    def sigma_rate(self, t: Any) -> Any:
        """d sigma / dt."""
        return -self.alpha(t) * self.alpha_rate(t) / self.sigma(t)

    def times(self, steps: int) -> np.ndarray:
        """The times 1 = t_0 > ... > t_steps = 0 of a sampler, (steps + 1,)."""
        return np.linspace(1.0, 0.0, steps + 1)

    def _signal(self, t: Any) -> tuple[Any, Any]:
        """alpha and its rate, before the stretch; each member says them."""
        raise TypeError(f"{type(self).__name__} has no signal of its own")


class VariancePreserving(Schedule):
    """alpha = exp(-integral of beta / 2), beta linear in t (Song et al. 2021, Ho et al. 2020)."""

    kind: Literal["vp"] = "vp"
    beta_first: PositiveFloat = 0.1
    beta_last: PositiveFloat = 20.0

    def _signal(self, t: Any) -> tuple[Any, Any]:
        slope = self.beta_last - self.beta_first
        alpha = namespace(t).exp(-0.5 * t * (self.beta_first + 0.5 * t * slope))
        return alpha, -0.5 * (self.beta_first + t * slope) * alpha


class Cosine(Schedule):
    """alpha = cos(a t) (Nichol and Dhariwal 2021, arXiv 2102.09672), alpha(1) = `alpha_min`."""

    kind: Literal["cosine"] = "cosine"
    alpha_min: float = Field(default=1e-2, gt=0, lt=1)

    def _signal(self, t: Any) -> tuple[Any, Any]:
        angle, xp = math.acos(self.alpha_min), namespace(t)
        return xp.cos(angle * t), -angle * xp.sin(angle * t)


class Rectified(Schedule):
    """Straight lines from data to noise (Liu et al. 2023, arXiv 2209.03003)."""

    kind: Literal["rectified"] = "rectified"
    alpha_min: float = Field(default=1e-2, gt=0, lt=1)

    def _signal(self, t: Any) -> tuple[Any, Any]:
        return 1.0 - (1.0 - self.alpha_min) * t, 0.0 * t - (1.0 - self.alpha_min)

    def sigma(self, t: Any) -> Any:
        """A straight line from sigma_min to 1."""
        return self.sigma_min + (1.0 - self.sigma_min) * t

    def sigma_rate(self, t: Any) -> Any:
        """d sigma / dt."""
        return 0.0 * t + (1.0 - self.sigma_min)


class Powered(Rectified):
    """The same straight lines at the time t^rho: slow near the data.

    A condition may leave little uncertainty, which is then decided at small noise. Steps even in t
    spend themselves there and keep its spread. At t = 1 the sample is still independent of the
    data at every scale. A variance that merely explodes reaches this only at sigma of tens.
    """

    kind: Literal["powered"] = "powered"  # type: ignore[assignment]
    rho: float = Field(default=2.0, ge=1)

    def _signal(self, t: Any) -> tuple[Any, Any]:
        alpha, rate = super()._signal(t**self.rho)
        return alpha, rate * self.rho * t ** (self.rho - 1.0)

    def sigma(self, t: Any) -> Any:
        """From sigma_min to 1, as t^rho."""
        return super().sigma(t**self.rho)

    def sigma_rate(self, t: Any) -> Any:
        """d sigma / dt."""
        return super().sigma_rate(t) * self.rho * t ** (self.rho - 1.0)


class VarianceExploding(Schedule):
    """alpha = 1, sigma^(1/rho) linear in t (Karras et al. 2022, equation 5)."""

    kind: Literal["ve"] = "ve"
    sigma_max: PositiveFloat = 80.0
    rho: PositiveFloat = 7.0

    @model_validator(mode="after")
    def _exploding(self) -> VarianceExploding:
        if self.zero_terminal_snr:
            raise InputError(
                "schedule.zero_terminal_snr: true is not allowed: alpha of kind ve is 1 at "
                "every time. Allowed: false, or the kinds vp, cosine, rectified, ddpm"
            )
        if self.sigma_max <= self.sigma_min:
            raise InputError(
                f"schedule.sigma_max: {self.sigma_max:g} is not allowed: not above sigma_min. "
                f"Allowed: more than {self.sigma_min:g}"
            )
        return self

    def _signal(self, t: Any) -> tuple[Any, Any]:
        return 0.0 * t + 1.0, 0.0 * t

    def sigma(self, t: Any) -> Any:
        """From sigma_min to sigma_max."""
        return self._root(t) ** self.rho

    def sigma_rate(self, t: Any) -> Any:
        """d sigma / dt."""
        span = self.sigma_max ** (1.0 / self.rho) - self.sigma_min ** (1.0 / self.rho)
        return self.rho * span * self._root(t) ** (self.rho - 1.0)

    def _root(self, t: Any) -> Any:
        first, last = (s ** (1.0 / self.rho) for s in (self.sigma_min, self.sigma_max))
        return first + (last - first) * t


class Levels(Schedule):
    """The discrete levels of DDPM (Ho et al. 2020, arXiv 2006.11239), log alpha linear between.

    alpha^2 = product of (1 - beta) over `levels` betas. The betas are linear, or (`scaled_linear`)
    the squares of linear roots. Level k of a document that counts from 0 is t = (k + 1) / levels.
    """

    kind: Literal["ddpm"] = "ddpm"
    levels: PositiveInt = 1000
    beta_first: float = Field(default=1e-4, gt=0, lt=1)
    beta_last: float = Field(default=2e-2, gt=0, lt=1)
    betas: Literal["linear", "scaled_linear"] = "linear"

    def time_of(self, level: int) -> float:
        """The time of level 0 .. levels - 1."""
        return (level + 1) / self.levels

    def _signal(self, t: Any) -> tuple[Any, Any]:
        power = 1.0 if self.betas == "linear" else 0.5
        xp, table = namespace(t), _logs(self.levels, self.beta_first, self.beta_last, power)
        where = t * self.levels
        if xp is np:
            below = np.clip(np.floor(where), 0, self.levels - 1).astype(np.int64)
        else:
            below = where.floor().clamp(0, self.levels - 1).long()
            table = xp.as_tensor(table, dtype=t.dtype, device=t.device)
        slope = table[below + 1] - table[below]
        alpha = xp.exp(table[below] + slope * (where - below))
        return alpha, slope * self.levels * alpha


@lru_cache(maxsize=16)
def _logs(levels: int, first: float, last: float, power: float) -> np.ndarray:
    """log alpha at the times k / levels, (levels + 1,)."""
    betas = np.linspace(first**power, last**power, levels) ** (1.0 / power)
    return np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-betas))])


SCHEDULES: dict[str, type[Schedule]] = {
    "vp": VariancePreserving,
    "ve": VarianceExploding,
    "rectified": Rectified,
    "powered": Powered,
    "cosine": Cosine,
    "ddpm": Levels,
}
AnySchedule = Annotated[  # the type of a key of the configuration
    VariancePreserving | VarianceExploding | Rectified | Powered | Cosine | Levels,
    Field(discriminator="kind"),
]
