"""Scores of the forecast of a density: all scores of one run, from its frames.

x is the true frame, f the forecast frame.

    r2          1 - sum |x - f|^2 / sum |x - mu|^2 over forecast frames, mu the training mean field
    r2_spatial  the mean over frames of 1 - |x - f|^2 / |x - <x>|^2, <x> the frame's own mean
    r2_aligned  r2_spatial after each forecast frame is moved by whole cells, round the domain,
                onto the true frame: it scores the shape alone, without its place
    e2          |x - f| / |x| of each frame; median, 10th and 90th percentile
    tau         the first forecast frame (from 0) at which the mean of e2 over a window reaches
                the tolerance; the number of frames if no frame does
    mass        |sum f - sum x| / sum x of each frame; mean and maximum
"""

from __future__ import annotations

import math

import numpy as np

from scaled_mpi.compressors.alignment import aligned

COLUMNS = (
    "r2",
    "r2_spatial",
    "r2_aligned",
    "median_e2",
    "p10_e2",
    "p90_e2",
    "tau_tol",
    "mean_mass_error",
    "max_mass_error",
)


def scores(
    truth: np.ndarray, forecast: np.ndarray, mean: np.ndarray, tolerance: float, window: int
) -> dict[str, float]:
    """Return every score of forecast frames (T, ny, nx) against the truth; `mean` is (ny, nx).

    `tolerance` and `window` (frames) define the horizon.
    """
    squares = np.sum((truth - forecast) ** 2, axis=(1, 2))
    about_mean = np.sum((truth - mean) ** 2, axis=(1, 2))
    own = np.sum((truth - truth.mean(axis=(1, 2), keepdims=True)) ** 2, axis=(1, 2))
    e2 = np.sqrt(squares / np.sum(truth**2, axis=(1, 2)))
    masses = [
        (math.fsum(x.ravel()), math.fsum(f.ravel())) for x, f in zip(truth, forecast, strict=True)
    ]
    mass = np.array([abs(forecast - true) / abs(true) for true, forecast in masses])
    return {
        "r2": float(1.0 - squares.sum() / about_mean.sum()),
        "r2_spatial": float(np.mean(1.0 - squares / own)),
        "r2_aligned": float(np.mean(1.0 - _aligned_squares(truth, forecast) / own)),
        "median_e2": float(np.median(e2)),
        "p10_e2": float(np.percentile(e2, 10)),
        "p90_e2": float(np.percentile(e2, 90)),
        "tau_tol": horizon(e2, tolerance, window),
        "mean_mass_error": float(mass.mean()),
        "max_mass_error": float(mass.max()),
    }


def _aligned_squares(truth: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Sums of squared errors (T,) of forecasts that were moved onto the truth."""
    moved = [aligned(f[None], x[None])[0] for x, f in zip(truth, forecast, strict=True)]
    return np.sum((truth - np.stack(moved)) ** 2, axis=(1, 2))


def horizon(errors: np.ndarray, tolerance: float, window: int) -> float:
    """Return the first frame at which the mean of the last `window` errors reaches the tolerance.

    `errors` has shape (T,); T is returned if no frame reaches the tolerance.
    """
    for frame in range(len(errors)):
        if errors[max(0, frame - window + 1) : frame + 1].mean() >= tolerance:
            return float(frame)
    return float(len(errors))
