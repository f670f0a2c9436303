"""Snapshots of stored runs as a tall matrix, whichever of its sides is the longer one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from scaled_mpi.compressors.decompositions import Tall, decompose
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.ordered import my_parts, ordered_sum, parts_of, share, stacked
from scaled_mpi.parallel.store import Trajectory

EQUAL_MASS = 1e-9  # relative; snapshots that differ by less are said to have the same mass
PIECE = 1 << 26  # bytes of fields that are read at a time


class Slabs:
    """Parts of the snapshot matrix, a range of its rows each, read from stored runs.

    Rows are cells (a part then has a range of cells of all snapshots) or snapshots, whichever are
    more. This rank's parts, `mine`, are read at once and kept; any other is read at its first use.
    A copy for another process carries no rows, which can be read there.
    """

    def __init__(
        self,
        runs: Sequence[Trajectory],
        factor: Sequence[int],
        transform: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.runs, self.factor, self.transform = list(runs), tuple(factor), transform
        shape = runs[0].grid.shape
        self.tiles = math.prod(n // f for n, f in zip(shape, factor, strict=True))
        self.spans = list(_spans(self.runs))
        self.count = sum(map(len, self.runs)) * self.tiles
        self.length = runs[0].shape[1] * math.prod(factor)
        self.cells_are_rows = self.length >= self.count
        rows = self.length if self.cells_are_rows else self.count // self.tiles
        self.parts = parts_of(rows)
        self.mine: range = range(0)
        self.mean, self.spread = np.zeros(()), np.ones(())
        self._kept: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "mine": range(0)}

    def __call__(self, part: int) -> np.ndarray:
        """The rows of a part, float64, less the mean and over the spread."""
        if part not in self._kept:
            found = self._read(self.mine if part in self.mine else range(part, part + 1))
            for number, rows in found.items():
                self._centre(number, rows)
            if part not in self.mine:
                return found[part]
            self._kept = found
        return self._kept[part]

    def centred(self, mean: np.ndarray, spread: np.ndarray) -> Slabs:
        """Return the same rows about `mean` and over `spread`, both (n,); kept rows change."""
        self.mean, self.spread = mean, spread
        for part, rows in self._kept.items():
            self._centre(part, rows)
        return self

    def masses(self, part: int) -> np.ndarray:
        """Least and largest sum over a raw snapshot, of a share of the frames, (2,)."""
        found = [
            math.fsum(row)
            for run, frames in self._spans_of(part)
            for field in run.read(frames).astype(np.float64)
            for row in to_snapshots(field, self.factor)[1]
        ]
        return np.array([min(found), max(found)])

    def _centre(self, part: int, rows: np.ndarray) -> None:
        if np.ndim(self.mean) == 0:
            return
        if self.cells_are_rows:
            span = slice(self.parts[part].start, self.parts[part].stop)
            rows -= self.mean[span, None]
            rows /= self.spread[span, None]
        else:
            rows -= self.mean
            rows /= self.spread

    def _shots(self, run: Trajectory, frames: slice) -> np.ndarray:
        """Transformed snapshots (frames x tiles, n)."""
        fields = run.read(frames).astype(np.float64)
        return np.concatenate(
            [to_snapshots(self.transform(field), self.factor)[1] for field in fields]
        )

    def _read(self, wanted: range) -> dict[int, np.ndarray]:
        if not self.cells_are_rows:
            return {
                part: np.concatenate([self._shots(*span) for span in self._spans_of(part)])
                for part in wanted
            }
        rows = {part: np.empty((len(self.parts[part]), self.count)) for part in wanted}
        place = 0
        for run, frames in self.spans:
            values = self._shots(run, frames)
            for part, slab in rows.items():
                span = self.parts[part]
                slab[:, place : place + len(values)] = values[:, span.start : span.stop].T
            place += len(values)
        return rows

    def _spans_of(self, part: int) -> Iterator[tuple[Trajectory, slice]]:
        """(run, frames) of a part of all frames."""
        wanted, first = parts_of(self.count // self.tiles)[part], 0
        for run, frames in self.spans:
            low = max(wanted.start, first) - first
            high = min(wanted.stop, first + frames.stop - frames.start) - first
            if low < high:
                yield run, slice(frames.start + low, frames.start + high)
            first += frames.stop - frames.start


def _spans(runs: Sequence[Trajectory]) -> Iterator[tuple[Trajectory, slice]]:
    """All frames in order, as many at a time as PIECE bytes hold."""
    for run in runs:
        step = max(1, PIECE // (8 * math.prod(run.shape[1:])))
        for first in range(0, len(run), step):
            yield run, slice(first, min(first + step, len(run)))


class SnapshotMatrix:
    """All tiles of all frames of `runs`, transformed; this rank reads its share of them once.

    `count` snapshots of `length` numbers; `mean` (n,) and `spread` (n,), which is 1 where not
    normalised. `mass` is the sum over one raw snapshot where all have the same, else None.
    Collective.
    """

    def __init__(
        self,
        runs: Sequence[Trajectory],
        factor: Sequence[int],
        comm: Comm,
        transform: Callable[[np.ndarray], np.ndarray],
        normalise: bool,
    ) -> None:
        self.comm, self.slabs = comm, Slabs(runs, factor, transform)
        self.count, self.length = self.slabs.count, self.slabs.length
        self.parts, self.channels = self.slabs.parts, runs[0].shape[1]
        if not hasattr(comm, "in_order"):
            self.slabs.mine = my_parts(len(self.parts), comm)
        self.mass = self._common_mass()
        self.mean, self.spread = self._moments(normalise)
        self.slabs.centred(self.mean, self.spread)

    def modes(
        self, method: str, wanted: Callable[[np.ndarray, float], int], seed: int
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """(singular values, modes (n, r), sum of all squared singular values); collective.

        `wanted(values, total)` returns the number of modes, of singular values (k,). The largest
        entry of each mode is positive.
        """
        slabs = self.slabs
        columns = self.count if slabs.cells_are_rows else self.length
        matrix = Tall(self.comm, len(self.parts), columns, slabs)
        total = matrix.energy()
        limit = wanted(np.ones(columns), 1.0) if method == "randomized" else None
        values, right = decompose(matrix, method, limit, seed)
        rank = wanted(values, total)
        if not slabs.cells_are_rows:
            modes = right[:, :rank]
        else:
            weights = right[:, :rank] / values[:rank]
            modes = share(
                self.comm, stacked(self.comm, len(self.parts), lambda part: slabs(part) @ weights)
            )
        largest = np.abs(modes).argmax(axis=0)
        signs = np.where(modes[largest, np.arange(rank)] < 0, -1.0, 1.0)
        return values, np.ascontiguousarray(modes * signs), total

    def _common_mass(self) -> float | None:
        """The largest mass, which is that of all if the smallest agrees with it."""
        frames = self.count // self.slabs.tiles
        rows = stacked(
            self.comm,
            len(parts_of(frames)),
            partial(_masses, self.slabs),
        )
        low, high = share(
            self.comm, None if rows is None else np.array([rows[:, 0].min(), rows[:, 1].max()])
        )
        return float(high) if high - low <= EQUAL_MASS * abs(high) else None

    def _moments(self, normalise: bool) -> tuple[np.ndarray, np.ndarray]:
        """Mean of every entry, and standard deviation of its channel (or 1)."""
        mean = self._by_entry(lambda rows, axis: rows.sum(axis=axis)) / self.count
        if not normalise:
            return mean, np.ones(self.length)
        square = self._by_entry(lambda rows, axis: (rows**2).sum(axis=axis)) / self.count
        per_channel = (self.channels, -1)
        variance = square.reshape(per_channel).mean(1) - mean.reshape(per_channel).mean(1) ** 2
        spread = np.sqrt(np.maximum(variance, 1e-24))
        return mean, np.repeat(spread, self.length // len(spread))

    def _by_entry(self, reduce: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """A sum over snapshots for each of the n entries, on every rank."""
        slabs = self.slabs
        if slabs.cells_are_rows:
            return share(
                self.comm, stacked(self.comm, len(self.parts), lambda part: reduce(slabs(part), 1))
            )
        return ordered_sum(self.comm, len(self.parts), lambda part: reduce(slabs(part), 0))


def _masses(slabs: Slabs, part: int) -> np.ndarray:
    return slabs.masses(part)[None]


def to_snapshots(field: np.ndarray, factor: Sequence[int]) -> tuple[tuple[int, ...], np.ndarray]:
    """(C, *cells) as tiles: how many an axis, and one row (C x cells of a tile) each."""
    places = tuple(n // f for n, f in zip(field.shape[1:], factor, strict=True))
    axes = len(factor)
    shape = [field.shape[0]]
    for count, f in zip(places, factor, strict=True):
        shape += [count, f]
    split = field.reshape(shape)
    order = [1 + 2 * a for a in range(axes)] + [0] + [2 + 2 * a for a in range(axes)]
    return places, split.transpose(order).reshape(math.prod(places), -1)


def from_snapshots(
    shots: np.ndarray, places: Sequence[int], factor: Sequence[int], fields: int
) -> np.ndarray:
    """The inverse of `to_snapshots`, (C, *cells)."""
    axes = len(factor)
    split = shots.reshape(*places, fields, *factor)
    order = [axes]
    for axis in range(axes):
        order += [axis, axes + 1 + axis]
    shape = [p * f for p, f in zip(places, factor, strict=True)]
    return np.ascontiguousarray(split.transpose(order)).reshape(fields, *shape)
