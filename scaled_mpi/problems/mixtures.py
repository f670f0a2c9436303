"""Densities of few dimensions whose score is known: mixtures of equal Gaussians.

    p(x) = mean over centres c of N(x; c, spread^2 I)

`two_moons`, `ring` and `two_peaks` are the toy densities of Zhang and Levin 2025 (arXiv
2509.17990). Each is a mixture, so that the gradient of log p is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import integers, normal


@dataclass(frozen=True)
class Mixture:
    """Equal Gaussians of one spread around `centres` (K, d)."""

    centres: np.ndarray
    spread: float

    def sample(self, seed: int, count: int) -> np.ndarray:
        """(count, d) float64; sample i depends on (seed, i) alone."""
        numbers = np.arange(count)
        chosen = integers(seed, 0, numbers, len(self.centres), stream=Stream.MIXTURE_CENTRES)
        noise = normal(
            seed, 0, numbers, draws=self.centres.shape[1], stream=Stream.MIXTURE_SCATTER
        )
        return self.centres[chosen] + self.spread * noise.T

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """x (..., d) -> (...)."""
        exponent = self._exponents(x)
        top = exponent.max(-1)
        d = self.centres.shape[1]
        total = np.log(np.exp(exponent - top[..., None]).mean(-1))
        return top + total - 0.5 * d * math.log(2 * math.pi * self.spread**2)

    def score(self, x: np.ndarray) -> np.ndarray:
        """The gradient of log p at x (..., d)."""
        exponent = self._exponents(x)
        weights = np.exp(exponent - exponent.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ self.centres - x) / self.spread**2

    def _exponents(self, x: np.ndarray) -> np.ndarray:
        """-|x - c|^2 / (2 spread^2), (..., K)."""
        square = ((x[..., None, :] - self.centres) ** 2).sum(-1)
        return -0.5 * square / self.spread**2


def two_moons(spread: float) -> Mixture:
    """Two half circles of radius 1 that reach into each other."""
    angle = np.linspace(0.0, math.pi, 64)
    upper = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], 1)
    return Mixture(np.concatenate([upper, -upper]), spread)


def ring(spread: float) -> Mixture:
    """A circle of radius 1."""
    angle = np.linspace(0.0, 2 * math.pi, 128, endpoint=False)
    return Mixture(np.stack([np.cos(angle), np.sin(angle)], 1), spread)


def two_peaks(spread: float) -> Mixture:
    """Two round peaks, three of their spreads either side of the middle."""
    return Mixture(3.0 * spread * np.array([[-1.0, 0.0], [1.0, 0.0]]), spread)


MIXTURES: dict[str, Callable[[float], Mixture]] = {
    "two_moons": two_moons,
    "ring": ring,
    "two_peaks": two_peaks,
}
