"""Denoisers in closed form: of a Gaussian, of a stationary Gaussian field, of a mixture.

For x ~ N(mu, C) and x_t = alpha x + sigma eps the posterior mean is

    D(x_t) = mu + alpha C (alpha^2 C + sigma^2)^-1 (x_t - alpha mu)

and for a mixture the mean of its components' answers under their posterior weights. Their samples
have a known distribution. They are the oracle of `denoising.py`, `samplers.py` and of the fusion
of tiles. Arrays are float64.
"""

from __future__ import annotations

import itertools
import math
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
    """The denoiser of a field of mean 0 on a periodic grid, diagonal in Fourier space.

    `covariance` (*cells) is the covariance of the first cell with every cell. The noise has the
    spread `noise` sigma(t). Called with (..., *cells).
    """

    def __init__(self, covariance: np.ndarray, schedule: Schedule, noise: float = 1.0) -> None:
        self.schedule, self.shape, self.noise = schedule, covariance.shape, noise
        self.axes = tuple(range(-covariance.ndim, 0))
        # A covariance that is cut where it has not died away may have small negative values here.
        self.spectrum = np.maximum(np.fft.rfftn(covariance).real, 0.0)

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        alpha, sigma = self.schedule.alpha(t), self.noise * self.schedule.sigma(t)
        gain = alpha * self.spectrum / (alpha**2 * self.spectrum + sigma**2)
        waves = gain * np.fft.rfftn(x, axes=self.axes)
        return np.fft.irfftn(waves, s=self.shape, axes=self.axes)


class WindowDenoiser:
    """The denoiser of a window (*extent) cut out of a stationary field of mean 0.

    The covariance must be even in every axis. Then the even and the odd part of the window are
    independent on every axis. So 2^axes small matrices replace one of all cells. Called with (...,
    *extent).
    """

    def __init__(self, covariance: np.ndarray, extent: Sequence[int], schedule: Schedule) -> None:
        self.extent, self.schedule = tuple(extent), schedule
        lags = [np.subtract.outer(np.arange(n), np.arange(n)) for n in extent]
        axes = len(lags)
        window = covariance[
            tuple(
                lag.reshape([n if a in (axis, axis + axes) else 1 for a in range(2 * axes)])
                for axis, (lag, n) in enumerate(zip(lags, extent, strict=True))
            )
        ]
        self.parts = []
        for bases in itertools.product(*(_parities(n) for n in extent)):
            both = _project(_project(window, bases), bases, axes)
            cells = math.prod(len(basis) for basis in bases)
            denoiser = GaussianDenoiser(np.zeros(cells), both.reshape(cells, cells), schedule)
            self.parts.append((bases, denoiser))
        self._kept: dict[float, list[np.ndarray]] = {}

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        lead = x.shape[: x.ndim - len(self.extent)]
        x = x.reshape(-1, *self.extent)
        total: Any = 0.0
        for (bases, _), matrix in zip(self.parts, self._matrices(t), strict=True):
            part = _project(x, bases, 1)
            made = (part.reshape(len(x), -1) @ matrix).reshape(part.shape)
            total = total + _project(made, [basis.T for basis in bases], 1)
        return total.reshape(*lead, *self.extent)

    def _matrices(self, t: float) -> list[np.ndarray]:
        """Those of the last two times are kept: Heun's method asks for each time twice."""
        if t not in self._kept:
            if len(self._kept) == 2:
                del self._kept[next(iter(self._kept))]
            self._kept[t] = [part.matrix(t) for _, part in self.parts]
        return self._kept[t]


def _parities(cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal bases of the even and of the odd vectors, (about cells / 2, cells) each."""
    identity = np.eye(cells)
    even, odd = identity + identity[::-1], identity - identity[::-1]
    even, odd = even[: -(-cells // 2)], odd[: cells // 2]
    return tuple(basis / np.linalg.norm(basis, axis=1, keepdims=True) for basis in (even, odd))


def _project(x: np.ndarray, bases: Sequence[np.ndarray], first: int = 0) -> np.ndarray:
    """Coefficients of the axes `first`, first + 1, ... of x in one basis (k, n) each."""
    for axis, basis in enumerate(bases, first):
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ basis.T, -1, axis)
    return x


class MixtureDenoiser:
    """E[x | x_t] of a mixture of Gaussians: shares (k,), means (k, d), covariances (k, d, d)."""

    def __init__(
        self,
        shares: Sequence[float],
        means: np.ndarray,
        covariances: np.ndarray,
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
        return sum(weights[..., i, None] * part(x, t) for i, part in enumerate(self.parts))

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
            logs.append(np.log(share) - 0.5 * (place**2 / variance + np.log(variance)).sum(-1))
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

    `length` is the correlation length in cells. Distances are the shortest around the grid.
    Negative values of the spectrum, which the wrap causes, are cut off. The rest is scaled back to
    variance 1.
    """
    wrapped = [np.minimum(np.arange(n), n - np.arange(n)).astype(np.float64) for n in shape]
    squares = sum(distance**2 for distance in np.meshgrid(*wrapped, indexing="ij"))
    spectrum = np.maximum(np.fft.rfftn(KERNELS[kernel](np.sqrt(squares), length)).real, 0.0)
    covariance = np.fft.irfftn(spectrum, s=tuple(shape), axes=tuple(range(len(shape))))
    return covariance / covariance.flat[0]


def block_covariance(covariance: np.ndarray, block: int) -> np.ndarray:
    """Return the covariance of block means, first block with every block, (*blocks).

    covariance (*cells); a block has `block` cells an axis.
    """
    axes = tuple(range(covariance.ndim))
    waves = np.fft.rfftn(covariance, axes=axes)
    box = np.zeros(covariance.shape)
    box[(slice(block),) * len(axes)] = 1.0 / block ** len(axes)
    waves = waves * np.abs(np.fft.rfftn(box, axes=axes)) ** 2
    means = np.fft.irfftn(waves, s=covariance.shape, axes=axes)
    return means[(slice(None, None, block),) * len(axes)]


def lookalike(examples: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Gaussian fields (S, C, Y, X) of the mean and covariance of `examples` (N, C, Y, X).

    `noise` (S, C, Y, X), standard normal, is coloured; N is at least C. The fields share all
    second moments of the examples on their periodic domain, within and across channels.
    """
    mean = examples.mean((0, 2, 3), dtype=np.float64)[:, None, None]
    waves = np.fft.rfft2(examples - mean)
    channels = range(examples.shape[1])
    power = np.stack(
        [
            np.stack([(waves[:, a] * waves[:, b].conj()).mean(0) for b in channels], -1)
            for a in channels
        ],
        -2,
    ) / np.prod(examples.shape[2:])
    values, vectors = np.linalg.eigh(power)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ (
        vectors.conj().swapaxes(-1, -2)
    )
    drawn = np.einsum("yxab,sbyx->sayx", root, np.fft.rfft2(noise))
    return mean + np.fft.irfft2(drawn, s=examples.shape[2:])
