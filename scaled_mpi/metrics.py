"""Scores of two arrays: the distance of a prediction from the truth.

Fields are arrays (C, *cells), and every score has one number a channel, shape (C,). All sums run
in float64. A distributed evaluation has two halves: one function turns a tile into a few sums,
another joins the sums of all tiles. The joining uses `math.fsum`, which rounds once and exactly,
so a score does not depend on the owners of the tiles:

    sums = [pair_sums(prediction, truth) for each of my tiles]      # (5, C) an entry
    scores = scores_from_sums(all tiles' sums, gathered)            # the same on any rank count

The variance-scaled error follows The Well (Ohana et al. 2024, arXiv 2412.00568),

    VRMSE = sqrt( <(p - t)^2> / (<(t - <t>)^2> + epsilon) ),        epsilon = 1e-7,

so predicting the mean scores 1. Where the truth hardly varies, epsilon rules and the score means
nothing: an offset of 1 on a constant field scores 3162. Such frames are called stationary.
`summary` counts them and leaves them out of means and medians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

EPSILON = 1e-7
# Above this variance epsilon changes a VRMSE by less than 0.5 %.
STATIONARY = 1e-5


class Scores(NamedTuple):
    """Errors of one frame, each an array (C,); `variance` is the truth's."""

    vrmse: np.ndarray
    mae: np.ndarray
    rmse: np.ndarray
    variance: np.ndarray


class Summary(NamedTuple):
    """VRMSE over frames and channels that are not stationary, and how many were; nan if all."""

    mean: float
    median: float
    masked: int


def pair_sums(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Sums of one tile (C, *cells): rows n, (p-t)^2, |p-t|, t, t^2; float64 of shape (5, C)."""
    # Contiguous rows: numpy's order of summation follows the strides, and a tile must give the
    # same sums whether it was read alone or cut out of a block.
    predicted, true = _rows(prediction), _rows(truth)
    if predicted.shape != true.shape:
        raise ValueError(
            f"prediction: shape {prediction.shape} is not allowed: it must not differ in shape "
            f"from the truth. Allowed: {truth.shape}"
        )
    error = predicted - true
    count = np.full(true.shape[0], float(true.shape[1]))
    rows = (error * error, np.abs(error), true, true * true)
    return np.stack([count, *(row.sum(axis=1) for row in rows)])


def scores_from_sums(sums: Sequence[np.ndarray], epsilon: float = EPSILON) -> Scores:
    """Join `pair_sums` (5, C) of all tiles of a frame, exactly rounded and so in any order."""
    count, squared, absolute, first, second = joined(sums)
    mean = first / count
    variance = np.maximum(second / count - mean * mean, 0.0)
    error = squared / count
    vrmse_ = np.sqrt(error / (variance + epsilon))
    return Scores(vrmse_, absolute / count, np.sqrt(error), variance)


def vrmse(prediction: np.ndarray, truth: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
    """Variance-scaled root mean square error of each channel, (C,); `.mean()` is the headline."""
    return scores_from_sums([pair_sums(prediction, truth)], epsilon).vrmse


def mae(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute error of each channel, (C,); the CRPS of a forecast of one member."""
    return scores_from_sums([pair_sums(prediction, truth)]).mae


def summary(frames: Sequence[Scores], threshold: float = STATIONARY) -> Summary:
    """Mean and median VRMSE over frames and channels whose truth varies more than `threshold`."""
    values = np.stack([scores.vrmse for scores in frames])
    moving = np.stack([scores.variance for scores in frames]) > threshold
    kept = values[moving]
    if kept.size == 0:
        return Summary(math.nan, math.nan, int(values.size))
    return Summary(float(kept.mean()), float(np.median(kept)), int(values.size - kept.size))


def extrapolate(frames: Sequence[np.ndarray], lead: int, order: int) -> np.ndarray:
    """Return the polynomial through the last order + 1 frames, `lead` frames past the newest.

    Frames have any shape, the result has the same shape. Order 0 is persistence, 1 linear,
    2 quadratic: predictors that cost nothing. The weights are Lagrange's, so the polynomials of
    the last frames are continued exactly.

    Errors: `ValueError` for fewer frames.
    """
    if len(frames) < order + 1:
        raise ValueError(
            f"order: {order} is not allowed: it needs {order + 1} frames. Allowed: at most "
            f"{len(frames) - 1}"
        )
    nodes = range(-order, 1)
    result = np.zeros(np.shape(frames[-1]), dtype=np.float64)
    for node, frame in zip(nodes, frames[len(frames) - order - 1 :], strict=True):
        others = [other for other in nodes if other != node]
        weight = math.prod((lead - other) / (node - other) for other in others)
        result += weight * np.asarray(frame, dtype=np.float64)
    return result.astype(np.asarray(frames[-1]).dtype)


def wavenumbers(tile: Sequence[int]) -> np.ndarray:
    """Return the wavenumbers (K,) of `tile_spectrum` in cycles a cell; 0.5 is the grid's limit."""
    return np.arange(_rings(tuple(tile)).max() + 1) / min(tile)


def tile_spectrum(tile: np.ndarray) -> np.ndarray:
    """Radial power spectrum of one tile (C, *cells), shape (C, K): Welch's method (1967).

    The tile's mean is removed and a Hann window applied along each axis, so a tile need not be
    periodic. Powers are summed over rings of equal |k| and scaled: white noise of variance s^2
    sums to s^2. A plain mean over tiles (`spectrum_from_tiles`) is the estimate.
    """
    values = np.asarray(tile, dtype=np.float64)
    shape = values.shape[1:]
    axes = tuple(range(1, values.ndim))
    window = np.ones(shape)
    for axis, cells in enumerate(shape):
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(cells) + 0.5) / cells)
        window *= hann.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    values = (values - values.mean(axis=axes, keepdims=True)) * window
    power = np.abs(np.fft.fftn(values, axes=axes)) ** 2 / (window.size * (window**2).sum())
    rings = _rings(shape)
    return np.stack([np.bincount(rings.ravel(), one.ravel()) for one in power])


def spectrum_from_tiles(spectra: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of all tiles' spectra, (C, K), exactly rounded and so in any order."""
    return joined(spectra) / len(spectra)


def spectrum_error(prediction: np.ndarray, truth: np.ndarray, bands: int = 3) -> np.ndarray:
    """Root mean square of 1 - p/t over bands of k, (C, bands): large, middle, small scales.

    Spectra are (C, K); the bands share ln k evenly from k = 1 to K - 1 (as in Rozet et al. 2025,
    arXiv 2507.02608). Bins where the truth is rounding noise (1e-12 of its peak) are left out.
    """
    last = truth.shape[1] - 1
    edges = np.exp(np.linspace(0.0, math.log(last), bands + 1))
    k = np.arange(last + 1)
    band = np.where(k >= 1, np.minimum(np.searchsorted(edges, k, side="right") - 1, bands - 1), -1)
    result = np.full((truth.shape[0], bands), np.nan)
    for channel, (predicted, true) in enumerate(zip(prediction, truth, strict=True)):
        sound = true > 1e-12 * true.max()
        for number in range(bands):
            chosen = sound & (band == number)
            if chosen.any():
                ratio = predicted[chosen] / true[chosen]
                result[channel, number] = math.sqrt(np.mean((1.0 - ratio) ** 2))
    return result


def seam_sums(padded: np.ndarray, edges: Sequence[tuple[bool, bool]] | None = None) -> np.ndarray:
    """Jumps at the edges of one tile with one cell of halo, (C, *(tile + 2)); shape (4, C).

    Rows: sum of |jump| across edges, their number, sum of |jump| one cell inside, their number.
    A tile counts its upper edge of each axis (its lower ones belong to the neighbours) and the
    jumps just inside at both ends. `edges` says for each axis whether the lower and the upper
    neighbour exist (default: all, as on a periodic grid).
    """
    axes = padded.ndim - 1
    known = [(True, True)] * axes if edges is None else list(edges)
    sums = np.zeros((4, padded.shape[0]))
    for axis, (lower, upper) in enumerate(known):
        core = tuple(slice(None) if a == axis else slice(1, -1) for a in range(axes))
        line = np.moveaxis(np.asarray(padded[(slice(None), *core)], np.float64), axis + 1, -1)
        jumps = np.abs(np.diff(line, axis=-1)).reshape(padded.shape[0], -1, line.shape[-1] - 1)
        # Jump j lies between cells j and j + 1 of the padded line; the last one crosses the edge.
        across = [-1] if upper else []
        inside = ([1] if lower else []) + ([-2] if upper else [])
        for row, places in ((0, across), (2, inside)):
            for place in places:
                sums[row] += np.ascontiguousarray(jumps[..., place]).sum(axis=1)
                sums[row + 1] += jumps.shape[1]
    return sums


def seam_from_sums(sums: Sequence[np.ndarray]) -> np.ndarray:
    """Seam index (C,): mean jump across tile edges over the mean one cell inside; 1 = no seam."""
    across, edges, inside, places = joined(sums)
    index = np.ones_like(across)
    for channel in range(len(index)):
        if across[channel] > 0:
            mean_inside = inside[channel] / places[channel]
            mean_across = across[channel] / edges[channel]
            index[channel] = mean_across / mean_inside if mean_inside > 0 else math.inf
        elif edges[channel] > 0 and inside[channel] > 0:
            index[channel] = 0.0
    return index


def crps(members: np.ndarray, truth: np.ndarray) -> float:
    """Fair continuous ranked probability score of an ensemble (M, ...), averaged over cells.

    mean |x_m - y| - sum |x_m - x_n| / (2 M (M - 1)) (Ferro 2014): unbiased for any M, and the
    mean absolute error where M = 1.
    """
    ensemble = np.asarray(members, np.float64)
    count = len(ensemble)
    skill = np.abs(ensemble - truth).mean()
    if count == 1:
        return float(skill)
    # Sum over pairs of |x_m - x_n| from the sorted members: M log M instead of M^2.
    weights = 2.0 * np.arange(count) - (count - 1)
    pairs = np.tensordot(weights, np.sort(ensemble, axis=0), axes=1)
    return float(skill - pairs.mean() / (count * (count - 1)))


def spread(members: np.ndarray) -> float:
    """Spread sqrt((M + 1) / M * unbiased variance) of (M, ...), M >= 2, averaged over cells.

    The factor makes it equal to the error of the ensemble mean where truth and members are
    drawn from one law (Fortin et al. 2014).
    """
    ensemble = np.asarray(members, np.float64)
    count = len(ensemble)
    if count < 2:
        raise ValueError("members: 1 is not allowed: no spread. Allowed: at least 2 members")
    return math.sqrt((count + 1) / count * ensemble.var(axis=0, ddof=1).mean())


def spread_skill(members: np.ndarray, truth: np.ndarray) -> float:
    """Return spread over the root mean square error of the mean of (M, ...); 1 = calibrated."""
    error = np.asarray(members, np.float64).mean(axis=0) - truth
    return spread(members) / math.sqrt(np.mean(error * error))


def rank_histogram(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How often the truth has m members below it, shape (M + 1,); flat = calibrated.

    A cell whose truth ties with several members is shared evenly by the ranks it could have.
    """
    ensemble = np.asarray(members)
    count = len(ensemble)
    below = (ensemble < truth).sum(axis=0).ravel()
    ties = (ensemble == truth).sum(axis=0).ravel()
    steps = np.zeros(count + 2)
    share = 1.0 / (ties + 1)
    np.add.at(steps, below, share)
    np.add.at(steps, below + ties + 1, -share)
    return np.cumsum(steps)[:-1]


def energy_score(members: np.ndarray, truth: np.ndarray) -> float:
    """Fair energy score of an ensemble of vectors (M, ...): CRPS with the Euclidean norm.

    mean ||x_m - y|| - sum ||x_m - x_n|| / (2 M (M - 1)) (Gneiting and Raftery 2007); unlike the
    CRPS it sees the dependence between cells.
    """
    ensemble = np.asarray(members, np.float64).reshape(len(members), -1)
    count = len(ensemble)
    skill = np.linalg.norm(ensemble - np.asarray(truth, np.float64).ravel(), axis=1).mean()
    if count == 1:
        return float(skill)
    pairs = sum(
        np.linalg.norm(ensemble[m + 1 :] - ensemble[m], axis=1).sum() for m in range(count)
    )
    return float(skill - pairs / (count * (count - 1)))


def ensemble_sums(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Sums of one tile of an ensemble (M, C, *cells), M >= 2; float64 of shape (5 + M + 1, C).

    The first rows are the cells, the fair CRPS, and (M + 1) / M times the unbiased variance of the
    members. Then come the squared and the absolute error of their mean, and the rank histogram.
    """
    ensemble = np.stack([_rows(member) for member in members])
    true, count = _rows(truth), len(members)
    ordered = np.sort(ensemble, axis=0)
    weights = (2.0 * np.arange(count) - (count - 1)) / (count * (count - 1))
    crps_ = np.abs(ensemble - true).mean(axis=0) - np.tensordot(weights, ordered, axes=1)
    error = ensemble.mean(axis=0) - true
    variance = (count + 1) / count * ensemble.var(axis=0, ddof=1)
    cells = np.full(true.shape[0], float(true.shape[1]))
    rows = (crps_, variance, error * error, np.abs(error))
    ranks = [rank_histogram(ensemble[:, c], one) for c, one in enumerate(true)]
    return np.concatenate(
        [cells[None], np.stack([row.sum(axis=1) for row in rows]), np.stack(ranks, axis=1)]
    )


class Calibration(NamedTuple):
    """Scores of one frame of an ensemble; arrays (C,), and `ranks` (M + 1, C) summing to 1."""

    crps: np.ndarray
    spread: np.ndarray
    rmse: np.ndarray
    mae: np.ndarray
    ranks: np.ndarray

    def coverage(self, nominal: float) -> tuple[float, float]:
        """(share of cells inside, its expected value) of the central interval between members.

        Of the intervals that order statistics bound, the one nearest to `nominal`; mean over
        channels. The expected value is exact for truth and members of one law.
        """
        members = len(self.ranks) - 1
        cut = min(max(round((1.0 - nominal) * (members + 1) / 2), 1), members // 2)
        inside = self.ranks[cut : len(self.ranks) - cut].sum(axis=0).mean()
        return float(inside), (members + 1 - 2 * cut) / (members + 1)


def calibration_from_sums(sums: Sequence[np.ndarray]) -> Calibration:
    """Join `ensemble_sums` (5 + M + 1, C) of all tiles of a frame, exactly rounded."""
    total = joined(sums)
    crps_, variance, squared, absolute = total[1:5] / total[0]
    return Calibration(crps_, np.sqrt(variance), np.sqrt(squared), absolute, total[5:] / total[0])


def energy_sums(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(sum of fair energy scores, their number) of patches: members (M, P, D), truth (P, D)."""
    count = len(members)
    skill = np.linalg.norm(members - truth, axis=-1).mean(axis=0)
    pairs = sum(
        np.linalg.norm(members[m + 1 :] - members[m], axis=-1).sum(axis=0)
        for m in range(count - 1)
    )
    scores = skill - pairs / (count * (count - 1))
    return np.array([scores.sum(), float(len(scores))])


def breakeven(data: float, training: float, reference: float, surrogate: float) -> float:
    """Uses from which a surrogate has paid for itself: a whole number, or math.inf for never.

    N* = ceil((data + training) / (reference - surrogate)), all in seconds, `reference` and
    `surrogate` a use (a jump, say), the reference being a solver at the surrogate's accuracy.
    """
    gain = reference - surrogate
    if gain <= 0:
        return math.inf
    return float(math.ceil((data + training) / gain))


def _rows(field: np.ndarray) -> np.ndarray:
    """(C, *cells) as contiguous float64 (C, n)."""
    values = np.ascontiguousarray(field, dtype=np.float64)
    return values.reshape(values.shape[0], -1)


def joined(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of arrays of the same shape, entry by entry, exactly rounded."""
    if not len(tiles):
        raise ValueError("tiles: none is not allowed: nothing to join. Allowed: at least 1")
    stacked = np.stack(tiles).reshape(len(tiles), -1)
    sums = [math.fsum(column) for column in stacked.T]
    return np.array(sums).reshape(np.shape(tiles[0]))


def _rings(shape: tuple[int, ...]) -> np.ndarray:
    """Bin of each Fourier mode: |k| in cycles a cell, times the shortest axis, rounded."""
    squares = sum(
        np.fft.fftfreq(cells).reshape([-1 if a == axis else 1 for a in range(len(shape))]) ** 2
        for axis, cells in enumerate(shape)
    )
    return np.rint(np.sqrt(squares) * min(shape)).astype(int)
