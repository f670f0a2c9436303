"""Linear autoregression of latent fields by ridge regression whose sums can be merged.

    y_t(x) = c + sum_{j=1..p} sum_{o in N} A_{j,o} y_{t-j}(x + o) + e

y (r, *cells) a latent field, N the cells within `reach` on every axis (reach 0: the cell alone).
With F the rows (1, lagged neighbours) of all frames, cells and runs,

    [c A]' = (F'F + alpha diag(0, 1, ..., 1))^-1 F'Y,

the intercept unpenalised. F'F and F'Y are sums over runs. They are computed one run at a time, so
that no lag window crosses from one run into the next. Cross-validation subtracts the sums of
single runs again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaled_mpi.config import InputError

SINGULAR = 1e-13  # reciprocal condition number below which a solution means nothing
WAVES = 8  # wave numbers an axis at which the companion matrix is looked at


def offsets(reach: Sequence[int]) -> list[tuple[int, ...]]:
    """The neighbourhood: all cells within `reach`, the own one among them, in C order."""
    return list(itertools.product(*(range(-r, r + 1) for r in reach)))


def features(window: np.ndarray, reach: Sequence[int]) -> np.ndarray:
    """Rows (cells, p K r) of lagged neighbours; window (p, r, *(cells + 2 reach)), newest last.

    The newest lag comes first, then the neighbours, then the channels.
    """
    cells = [n - 2 * r for n, r in zip(window.shape[2:], reach, strict=True)]
    columns = []
    for frame in window[::-1]:
        for offset in offsets(reach):
            place = tuple(
                slice(r + o, r + o + n) for r, o, n in zip(reach, offset, cells, strict=True)
            )
            columns.append(frame[(slice(None), *place)].reshape(len(frame), -1).T)
    return np.concatenate(columns, axis=1)


def ringed(field: np.ndarray, reach: Sequence[int], periodic: Sequence[bool]) -> np.ndarray:
    """(..., *cells) with `reach` cells around: wrapped, or mirrored beyond a wall."""
    for axis, (width, wraps) in enumerate(zip(reach, periodic, strict=True), -len(reach)):
        if width:
            around = [(0, 0)] * field.ndim
            around[axis] = (width, width)
            field = np.pad(field, around, mode="wrap" if wraps else "symmetric")
    return field


@dataclass(frozen=True)
class Sums:
    """F'F, F'Y, the sums of Y and of its squares, the number of rows; they add and subtract."""

    gram: np.ndarray
    cross: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    rows: float

    @classmethod
    def of_run(
        cls, run: np.ndarray, lag: int, reach: Sequence[int], periodic: Sequence[bool]
    ) -> Sums:
        """The sums of one run (T, r, *cells)."""
        channels, cells = run.shape[1], math.prod(run.shape[2:])
        size = 1 + lag * channels * len(offsets(reach))
        gram, cross = np.zeros((size, size)), np.zeros((size, channels))
        padded = ringed(run, reach, periodic)
        targets = run.reshape(len(run), channels, cells).transpose(0, 2, 1)
        rows = [
            np.hstack([np.ones((cells, 1)), features(padded[t - lag : t], reach)])
            for t in range(lag, len(run))
        ]
        if rows:
            stacked, wanted = np.concatenate(rows), np.concatenate(targets[lag:])
            gram, cross = stacked.T @ stacked, stacked.T @ wanted
        late = targets[lag:].reshape(-1, channels)
        return cls(gram, cross, late.sum(0), late.T @ late, float(len(late)))

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(a + b for a, b in zip(self.parts(), other.parts(), strict=True)))

    def __sub__(self, other: Sums) -> Sums:
        return Sums(*(a - b for a, b in zip(self.parts(), other.parts(), strict=True)))

    def parts(self) -> tuple:
        return self.gram, self.cross, self.total, self.squares, self.rows

    def packed(self) -> np.ndarray:
        """Return all numbers as one array (n,); `unpacked` inverts it."""
        return np.concatenate([np.ravel(part) for part in self.parts()])

    @classmethod
    def unpacked(cls, numbers: np.ndarray, size: int, channels: int) -> Sums:
        """Return the sums of an array (n,) from `packed`, of `size` features."""
        shapes = [(size, size), (size, channels), (channels,), (channels, channels), (1,)]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        parts = [p.reshape(s) for p, s in zip(np.split(numbers, ends[:-1]), shapes, strict=True)]
        gram, cross, total, squares, rows = parts
        return cls(gram, cross, total, squares, float(rows[0]))

    def solve(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights (1 + p K r, r) and the covariance of the residuals (r, r).

        Errors: `InputError` where alpha is too small to make the equations solvable.
        """
        from scipy.linalg import LinAlgError, LinAlgWarning, solve

        penalty = np.full(len(self.gram), alpha)
        penalty[0] = 0.0
        system = self.gram + np.diag(penalty)
        size = np.sqrt(np.maximum(np.diag(system), 1e-300))
        scaled = system / np.outer(size, size)  # the condition that matters is not that of units
        least = float(np.linalg.eigvalsh(scaled)[0])
        if not least > SINGULAR * len(scaled):
            raise InputError(
                f"surrogate.alpha: {alpha:g} is not allowed: the {self.rows:.0f} windows do not "
                f"determine {len(self.gram)} weights. Allowed: a larger alpha, or lower rank or "
                "memory"
            )
        try:
            weights = solve(scaled, self.cross / size[:, None], assume_a="pos") / size[:, None]
        except (LinAlgError, LinAlgWarning) as error:
            raise InputError(
                f"surrogate.alpha: {alpha:g} is not allowed: {error}. Allowed: a larger alpha"
            ) from error
        residual = (
            self.squares
            - weights.T @ self.cross
            - self.cross.T @ weights
            + weights.T @ self.gram @ weights
        )
        free = max(self.rows - len(self.gram), 1.0)
        return weights, (residual + residual.T) / (2 * free)

    def path(self, alphas: Sequence[float]) -> list[np.ndarray | None]:
        """Return weights (1 + p K r, r) of `solve` for many alphas; None: not determined.

        The unpenalised intercept is eliminated first, which leaves centred sums.
        """
        mean, target = self.gram[0, 1:] / self.rows, self.total / self.rows
        centred = self.gram[1:, 1:] - self.rows * np.outer(mean, mean)
        cross = self.cross[1:] - self.rows * np.outer(mean, target)
        values, axes = np.linalg.eigh(centred)
        turned = axes.T @ cross
        found: list[np.ndarray | None] = []
        for alpha in alphas:
            if values[0] + alpha <= SINGULAR * len(values) * values[-1]:
                found.append(None)
                continue
            weights = axes @ (turned / (values + alpha)[:, None])
            found.append(np.vstack([target - mean @ weights, weights]))
        return found

    def leading(self, rank: int, channels: int, blocks: int) -> Sums:
        """The sums of the first `rank` of `channels` latents; `blocks` is lags x neighbours."""
        kept = [0, *(1 + b * channels + c for b in range(blocks) for c in range(rank))]
        return Sums(
            self.gram[np.ix_(kept, kept)],
            self.cross[np.ix_(kept, range(rank))],
            self.total[:rank],
            self.squares[:rank, :rank],
            self.rows,
        )


@dataclass(frozen=True)
class Linear:
    """A fitted autoregression: weights (1 + p K r, r), lag p, reach, periodic axes."""

    weights: np.ndarray
    lag: int
    reach: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.weights.shape[1]

    @property
    def intercept(self) -> np.ndarray:
        """The intercept c, (r,)."""
        return self.weights[0]

    @property
    def matrices(self) -> np.ndarray:
        """Matrices A, (p, K, r, r): [j, o] weighs the neighbour at o, j + 1 frames back."""
        r = self.channels
        return self.weights[1:].reshape(self.lag, -1, r, r).transpose(0, 1, 3, 2)

    def step(self, window: np.ndarray) -> np.ndarray:
        """The next field (r, *cells) from (p, r, *(cells + 2 reach)), newest last."""
        cells = [n - 2 * r for n, r in zip(window.shape[2:], self.reach, strict=True)]
        made = features(window[-self.lag :], self.reach) @ self.weights[1:] + self.intercept
        return np.ascontiguousarray(made.T).reshape(self.channels, *cells)

    def forecast(self, known: np.ndarray, steps: int, periodic: Sequence[bool]) -> np.ndarray:
        """Forecast `steps` further fields (steps, r, *cells) after `known` (>= p, r, *cells)."""
        frames = list(known[-self.lag :])
        for _ in range(steps):
            frames.append(self.step(ringed(np.stack(frames[-self.lag :]), self.reach, periodic)))
        return np.stack(frames[self.lag :])

    def radius(self) -> float:
        """The largest modulus of an eigenvalue of the companion matrix, over wave numbers."""
        r, p = self.channels, self.lag
        waves = [np.arange(WAVES) * 2 * np.pi / WAVES if reach else [0.0] for reach in self.reach]
        largest = 0.0
        for wave in itertools.product(*waves):
            phases = np.exp(1j * np.array(offsets(self.reach)) @ np.array(wave))
            phases = phases if any(wave) else phases.real
            symbols = np.tensordot(self.matrices, phases, axes=([1], [0]))
            companion = np.eye(p * r, k=-r, dtype=symbols.dtype)
            companion[:r] = np.concatenate(list(symbols), axis=1)
            largest = max(largest, float(np.abs(np.linalg.eigvals(companion)).max()))
        return largest

    def bounded(self, radius: float) -> Linear:
        """The same model with every eigenvalue shrunk alike so that none exceeds `radius`.

        Scaling A_j by s^j scales the companion's eigenvalues by s.
        """
        largest = self.radius()
        if largest <= radius:
            return self
        shrink = radius / largest
        weights = self.weights.copy()
        block = (len(weights) - 1) // self.lag
        for j in range(self.lag):
            weights[1 + j * block : 1 + (j + 1) * block] *= shrink ** (j + 1)
        return replace(self, weights=weights)
