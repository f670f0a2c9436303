"""Likeness of two sets of periodic random fields: statistics of each, and their differences.

A set is (S, Y, X), samples of one law that no translation changes. A covariance is the mean over
all pairs of cells at a distance, in all directions. Distances go up to half the domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaled_mpi.metrics import seam_from_sums, seam_sums, spectrum_error, tile_spectrum

LEVELS = np.linspace(0.0005, 0.9995, 1000)  # of the quantiles that histograms are compared at
BANDS = ("large", "middle", "small")


@dataclass(frozen=True)
class Statistics:
    """Statistics of one set: moments of a cell and of the mean of a tile, covariance, spectrum.

    `curve` (distances,) is the covariance, `counts` (distances,) the cells at each distance.
    `spectrum` (K,) is the power by wavenumber, `quantiles` (1000,) those of a cell's value. `seam`
    is the mean jump across the edges of tiles over the mean jump inside.
    """

    mean: float
    variance: float
    skewness: float
    tile_variance: float
    quantiles: np.ndarray
    curve: np.ndarray
    counts: np.ndarray
    spectrum: np.ndarray
    seam: float


def statistics(fields: np.ndarray, tile: Sequence[int]) -> Statistics:
    """Return the statistics of fields (S, Y, X) in tiles of `tile` cells."""
    fields = np.asarray(fields, np.float64)
    mean = fields.mean()
    away = fields - mean
    variance = (away**2).mean()
    tiles = _tile_means(away, tile)
    curve, counts = _by_distance(away)
    spectrum = np.mean([tile_spectrum(field[None])[0] for field in fields], 0)
    seams = [_seams(field, tile) for field in fields]
    return Statistics(
        float(mean),
        float(variance),
        float((away**3).mean() / variance**1.5),
        float((tiles**2).mean()),
        np.quantile(fields, LEVELS),
        curve,
        counts,
        spectrum,
        float(seam_from_sums([one for field in seams for one in field])[0]),
    )


def differences(made: Statistics, truth: Statistics, tile: Sequence[int]) -> dict[str, float]:
    """Return the errors of the set `made`, by name.

    `cov.error.tiled` is the root of the squared difference of the covariances, over the root of
    the squared covariance of the truth. Both sums run over all pairs of cells up to half the
    domain apart; in `cov.error.beyond` over pairs at least a tile apart. `histogram.distance` is
    the mean difference of the quantiles of a cell's value (Wasserstein's distance). It and
    `mean.error` are in standard deviations of the truth.
    """
    spread = truth.variance**0.5
    found = {
        "cov.error.tiled": _relative(made.curve, truth.curve, truth.counts),
        "cov.error.beyond": _relative(made.curve, truth.curve, truth.counts, max(tile)),
        "variance.ratio": made.variance / truth.variance,
        "variance.ratio.tiles": made.tile_variance / truth.tile_variance,
        "mean.error": (made.mean - truth.mean) / spread,
        "skewness": made.skewness,
        "histogram.distance": float(np.abs(made.quantiles - truth.quantiles).mean() / spread),
        "seam.index": made.seam,
    }
    errors = spectrum_error(made.spectrum[None], truth.spectrum[None])[0]
    return found | {
        f"spectrum.error.{band}": float(error) for band, error in zip(BANDS, errors, strict=True)
    }


def _relative(made: np.ndarray, truth: np.ndarray, counts: np.ndarray, first: int = 0) -> float:
    weight = counts[first:]
    wrong = np.sum(weight * (made[first:] - truth[first:]) ** 2)
    return float((wrong / np.sum(weight * truth[first:] ** 2)) ** 0.5)


def _by_distance(away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariance (distances,) of fields of mean 0, and the number of cells at each distance."""
    shape = away.shape[1:]
    power = np.mean([np.abs(np.fft.rfft2(field)) ** 2 for field in away], 0)
    covariance = np.fft.irfft2(power, s=shape) / np.prod(shape)
    lags = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape]
    rings = np.rint(np.hypot(lags[0][:, None], lags[1])).astype(int).ravel()
    last = min(shape) // 2
    counts = np.bincount(rings)[: last + 1]
    return np.bincount(rings, covariance.ravel())[: last + 1] / counts, counts


def _tile_means(away: np.ndarray, tile: Sequence[int]) -> np.ndarray:
    rows, columns = (n // t for n, t in zip(away.shape[1:], tile, strict=True))
    return away.reshape(-1, rows, tile[0], columns, tile[1]).mean((2, 4))


def _seams(field: np.ndarray, tile: Sequence[int]) -> list[np.ndarray]:
    """`metrics.seam_sums` of every tile of a field (Y, X)."""
    padded = np.pad(field, 1, mode="wrap")[None]
    return [
        seam_sums(padded[:, y : y + tile[0] + 2, x : x + tile[1] + 2])
        for y in range(0, field.shape[0], tile[0])
        for x in range(0, field.shape[1], tile[1])
    ]
