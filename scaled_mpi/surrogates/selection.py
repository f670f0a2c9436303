"""Rank, lag and penalty of an autoregression, chosen on runs that the fit has not seen.

The training runs are dealt to `folds` folds, run i to fold i modulo folds. For each fold the other
runs give principal axes of the latents, the normal equations and their solutions. So rank means
the leading axes, as in the final fit. The runs left out are forecast in closed loop from their
first frames. Their score is 1 - |error|^2 / |deviation from the training mean|^2, averaged over
runs. Components outside the leading axes are forecast as their mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from scaled_mpi.config import InputError, Spec
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.ordered import dealt
from scaled_mpi.surrogates.autoregression import Linear, Sums, offsets


class Selection(Spec):
    """Candidates of the selection; those above the limits of the data are left out."""

    folds: PositiveInt = Field(default=4, ge=2)
    ranks: tuple[PositiveInt, ...] = (10, 20, 30, 40, 50, 60)
    lags: tuple[PositiveInt, ...] = (1, 2, 3, 4)
    alphas: tuple[NonNegativeFloat, ...] = (1e-6, 1.0, 10.0, 100.0)


Candidate = tuple[int, int, float]


def choose(
    spec: Selection,
    runs: Sequence[np.ndarray],
    memory: int,
    reach: Sequence[int],
    periodic: Sequence[bool],
    comm: Comm,
) -> tuple[Candidate, dict[Candidate, float]]:
    """The best (rank, lag, alpha) and the mean score of every candidate; collective.

    runs: latents (T, r, *cells), the same list on every rank. Every forecast starts after the
    first `memory` frames, whatever the lag.
    """
    folds = [list(range(first, len(runs), spec.folds)) for first in range(spec.folds)]
    if not all(folds):
        raise InputError(
            f"surrogate.selection.folds: {spec.folds} is not allowed: there are fewer runs. "
            f"Allowed: at most {len(runs)}"
        )
    jobs = [(fold, lag) for fold in range(spec.folds) for lag in spec.lags if lag <= memory]
    found: dict[Candidate, list[tuple[int, float]]] = {}

    def score(number: int) -> dict[Candidate, list[tuple[int, float]]]:
        fold, lag = jobs[number]
        return _score(spec, runs, folds[fold], lag, memory, reach, periodic)

    for scores in dealt(comm, len(jobs), score):
        for candidate, values in scores.items():
            found.setdefault(candidate, []).extend(values)
    means = {
        candidate: float(np.mean([value for _, value in sorted(values)]))
        for candidate, values in found.items()
        if len(values) == len(runs)
    }
    if not means:
        raise InputError(
            "surrogate.selection: these candidates are not allowed: none can be fitted. "
            "Allowed: lower ranks or lags, or a larger alpha"
        )
    return max(sorted(means), key=means.__getitem__), means


def _score(
    spec: Selection,
    runs: Sequence[np.ndarray],
    left_out: Sequence[int],
    lag: int,
    memory: int,
    reach: Sequence[int],
    periodic: Sequence[bool],
) -> dict[Candidate, list[tuple[int, float]]]:
    """Scores of all ranks and penalties for one fold and one lag: candidate -> (run, score)."""
    learned = [run for number, run in enumerate(runs) if number not in set(left_out)]
    mean, axes = principal_axes(learned)
    learned = [turned_run(run, mean, axes) for run in learned]
    judged = [(number, turned_run(runs[number], mean, axes)) for number in left_out]
    ranks = [rank for rank in spec.ranks if rank <= axes.shape[1]]
    scores: dict[Candidate, list[tuple[int, float]]] = {}
    if not ranks:
        return scores
    most = max(ranks)
    parts = [Sums.of_run(run[:, :most], lag, reach, periodic) for run in learned]
    total, blocks = sum(parts[1:], parts[0]), lag * len(offsets(reach))
    for rank in ranks:
        path = total.leading(rank, most, blocks).path(spec.alphas)
        for alpha, weights in zip(spec.alphas, path, strict=True):
            if weights is not None:
                model = Linear(weights, lag, tuple(reach))
                skills = _skills(model, [run for _, run in judged], rank, memory, periodic)
                numbers = [number for number, _ in judged]
                scores[rank, lag, alpha] = list(zip(numbers, skills, strict=True))
    return scores


def _skills(
    model: Linear, runs: Sequence[np.ndarray], rank: int, memory: int, periodic: Sequence[bool]
) -> list[float]:
    """Scores of closed-loop forecasts of runs; where no neighbours are read, all side by side."""
    if any(model.reach) or len({run.shape for run in runs}) > 1:
        made = [model.forecast(run[:memory, :rank], len(run) - memory, periodic) for run in runs]
    else:
        together = np.concatenate([run[:memory, :rank] for run in runs], axis=-1)
        made = np.split(model.forecast(together, len(runs[0]) - memory, periodic), len(runs), -1)
    return [_skill(one, run[memory:], rank) for one, run in zip(made, runs, strict=True)]


def _skill(made: np.ndarray, late: np.ndarray, rank: int) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.sum((made - late[:, :rank]) ** 2) + np.sum(late[:, rank:] ** 2)
        score = 1.0 - error / np.sum(late**2)
    return float(score) if np.isfinite(score) else -1e300


def principal_axes(runs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean (r,) and orthonormal axes (r, r), of largest variance first, of all runs' latents."""
    rows = np.concatenate([np.moveaxis(run, 1, -1).reshape(-1, run.shape[1]) for run in runs])
    mean = rows.mean(axis=0)
    _, axes = np.linalg.eigh((rows - mean).T @ (rows - mean))
    return mean, axes[:, ::-1]


def turned_run(run: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """A run's latents in other axes, (T, r, *cells)."""
    last = np.moveaxis(run, 1, -1)
    rows = (last.reshape(-1, len(mean)) - mean) @ axes  # one product, not one a cell
    return np.moveaxis(rows.reshape(last.shape), -1, 1)
