"""Denoisers in closed form: of a Gaussian, of a stationary Gaussian field, of a mixture.

For x ~ N(mu, C) and x_t = alpha x + sigma eps the posterior mean is

    D(x_t) = mu + alpha C (alpha^2 C + sigma^2)^-1 (x_t - alpha mu)

and for a mixture the mean of its components' answers under their posterior weights. What a
sampler makes of these can be compared with what is known: they are the oracle of `denoising.py`,
`samplers.py` and of the fusion of tiles. Arrays are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scaled_mpi.learning.schedules import Schedule


class GaussianDenoiser:
    """E[x | x_t] of x ~ N(mean, covariance); mean (d,), covariance (d, d) or its spectrum.

    Called with x (..., d). The covariance is diagonalised once.
    """

    def __init__(self, mean: np.ndarray, covariance: np.ndarray, schedule: Schedule) -> None:
        self.mean, self.schedule = np.asarray(mean, np.float64), schedule
        variances, self.vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
        self.variances = np.maximum(variances, 0.0)

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        alpha = self.schedule.alpha(t)
        return self.mean + ((x - alpha * self.mean) @ self.vectors * self._gain(t)) @ (
            self.vectors.T
        )

    def matrix(self, t: float) -> np.ndarray:
        """alpha C (alpha^2 C + sigma^2)^-1, (d, d)."""
        return (self.vectors * self._gain(t)) @ self.vectors.T

    def score(self, x: np.ndarray, t: float) -> np.ndarray:
        """Gradient of the log density of the noisy data, (..., d)."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return (alpha * self(x, t) - x) / sigma**2

    def _gain(self, t: float) -> np.ndarray:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return alpha * self.variances / (alpha**2 * self.variances + sigma**2)


class StationaryDenoiser:
    """The same of a field of mean 0 on a periodic grid, diagonal in Fourier space.

    `covariance` (*cells) is that of the first cell with every cell. Called with (..., *cells).
    """

    def __init__(self, covariance: np.ndarray, schedule: Schedule) -> None:
        self.schedule, self.shape = schedule, covariance.shape
        self.axes = tuple(range(-covariance.ndim, 0))
        # A covariance that is cut where it has not died away may have small negative values here.
        self.spectrum = np.maximum(np.fft.rfftn(covariance).real, 0.0)

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        gain = alpha * self.spectrum / (alpha**2 * self.spectrum + sigma**2)
        waves = gain * np.fft.rfftn(x, axes=self.axes)
        return np.fft.irfftn(waves, s=self.shape, axes=self.axes)


class MixtureDenoiser:
    """E[x | x_t] of a mixture of Gaussians: shares (k,), means (k, d), covariances (k, d, d)."""

    def __init__(
        self, shares: Sequence[float], means: np.ndarray, covariances: np.ndarray,
        schedule: Schedule,
    ) -> None:
        self.shares, self.schedule = np.asarray(shares, np.float64), schedule
        self.parts = [
            GaussianDenoiser(mean, covariance, schedule)
            for mean, covariance in zip(means, covariances, strict=True)
        ]

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        """(..., d) -> (..., d)."""
        weights = self._posterior(x, t)
        return sum(
            weights[..., i, None] * part(x, t) for i, part in enumerate(self.parts)
        )

    def score(self, x: np.ndarray, t: float) -> np.ndarray:
        """Gradient of the log density of the noisy data, (..., d)."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return (alpha * self(x, t) - x) / sigma**2

    def _posterior(self, x: np.ndarray, t: float) -> np.ndarray:
        """Probability of each component, (..., k)."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        logs = []
        for share, part in zip(self.shares, self.parts, strict=True):
            variance = alpha**2 * part.variances + sigma**2
            place = (x - alpha * part.mean) @ part.vectors
            logs.append(
                np.log(share) - 0.5 * (place**2 / variance + np.log(variance)).sum(-1)
            )
        log = np.stack(logs, -1)
        weights = np.exp(log - log.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)


def _squared_exponential(distance: np.ndarray, length: float) -> np.ndarray:
    return np.exp(-0.5 * (distance / length) ** 2)


def _exponential(distance: np.ndarray, length: float) -> np.ndarray:
    return np.exp(-distance / length)


KERNELS: dict[str, Callable[[Any, float], np.ndarray]] = {
    "squared_exponential": _squared_exponential,
    "exponential": _exponential,
}


def field_covariance(kernel: str, length: float, shape: Sequence[int]) -> np.ndarray:
    """Covariance of the first cell with every cell of a periodic grid, (*shape); variance 1.

    `length` is the correlation length in cells. Distances are the shortest around the grid. What
    the wrap makes negative in the spectrum is cut off, and the rest scaled back to variance 1.
    """
    squares = np.zeros((1,) * len(shape))
    for axis, cells in enumerate(shape):
        index = np.arange(cells)
        wrapped = np.minimum(index, cells - index).astype(np.float64)
        squares = squares + wrapped.reshape([-1 if a == axis else 1 for a in range(len(shape))])**2
    spectrum = np.maximum(np.fft.rfftn(KERNELS[kernel](np.sqrt(squares), length)).real, 0.0)
    covariance = np.fft.irfftn(spectrum, s=tuple(shape))
    return covariance / covariance.flat[0]
