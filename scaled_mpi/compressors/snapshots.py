"""Snapshots of stored runs as a tall matrix, whichever of its sides is the longer one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scaled_mpi.compressors.decompositions import Tall, decompose
from scaled_mpi.parallel.ordered import my_parts, ordered_sum, parts_of, share, stacked
from scaled_mpi.parallel.store import Trajectory

EQUAL_MASS = 1e-9  # relative; snapshots that differ by less are said to have the same mass


class Snapshots:
    """All tiles of all frames of `runs`, transformed; this rank reads its share of them once.

    `count` snapshots of `length` numbers; `mean` (n,) and `spread` (n,; 1 where not normalised);
    `mass` the sum over one raw snapshot where all have the same, else None. Collective.
    """

    def __init__(
        self, runs: Sequence[Trajectory], factor: Sequence[int], comm: Any,
        transform: Callable[[np.ndarray], np.ndarray], normalise: bool,
    ) -> None:
        self.runs, self.factor, self.comm = list(runs), tuple(factor), comm
        self.transform = transform
        tiles = math.prod(n // f for n, f in zip(runs[0].grid.shape, factor, strict=True))
        self.frames = [(run, frame) for run in range(len(runs)) for frame in range(len(runs[run]))]
        self.count = len(self.frames) * tiles
        self.length = runs[0].shape[1] * math.prod(factor)
        self.cells_are_rows = self.length >= self.count
        self.parts = parts_of(self.length if self.cells_are_rows else len(self.frames))
        self.mine = my_parts(len(self.parts), comm)
        self._rows = self._read()
        self.mass = self._common_mass()
        self.mean, self.spread = self._moments(normalise)
        self._centre()

    def modes(
        self, method: str, wanted: Callable[[np.ndarray, float], int], seed: int
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """(singular values, modes (n, r), sum of all squared singular values); collective.

        `wanted(values, total)` says how many modes. The largest entry of each mode is positive.
        """
        columns = self.count if self.cells_are_rows else self.length
        matrix = Tall(self.comm, len(self.parts), columns, self._rows.__getitem__)
        total = matrix.energy()
        limit = wanted(np.ones(columns), 1.0) if method == "randomized" else None
        values, right = decompose(matrix, method, limit, seed)
        rank = wanted(values, total)
        if not self.cells_are_rows:
            modes = right[:, :rank]
        else:
            weights = right[:, :rank] / values[:rank]
            modes = share(self.comm, stacked(
                self.comm, len(self.parts), lambda part: self._rows[part] @ weights
            ))
        largest = np.abs(modes).argmax(axis=0)
        signs = np.where(modes[largest, np.arange(rank)] < 0, -1.0, 1.0)
        return values, np.ascontiguousarray(modes * signs), total

    def _read(self) -> dict[int, np.ndarray]:
        """My parts: some cells of all snapshots (cells, count), or some snapshots (some, n)."""
        self._masses: list[float] = []
        self._mass_frames = self._my_frames()

        def shots(run: int, frame: int) -> np.ndarray:
            raw = self.runs[run].read(frame).astype(np.float64)
            if (run, frame) in self._mass_frames:
                _, plain = to_snapshots(raw, self.factor)
                self._masses += [math.fsum(row) for row in plain]
            return to_snapshots(self.transform(raw), self.factor)[1]

        if not self.cells_are_rows:
            return {
                part: np.concatenate([shots(*self.frames[i]) for i in self.parts[part]])
                for part in self.mine
            }
        rows = {part: np.empty((len(self.parts[part]), self.count)) for part in self.mine}
        place = 0
        for run, frame in self.frames:
            values = shots(run, frame)
            for part, slab in rows.items():
                span = self.parts[part]
                slab[:, place : place + len(values)] = values[:, span.start : span.stop].T
            place += len(values)
        return rows

    def _my_frames(self) -> set[tuple[int, int]]:
        """Frames whose mass this rank looks at: one share, so that each is looked at once."""
        parts = parts_of(len(self.frames))
        return {self.frames[i] for p in my_parts(len(parts), self.comm) for i in parts[p]}

    def _common_mass(self) -> float | None:
        """The largest mass, which is that of all if the smallest agrees with it."""
        parts = self.comm.allgather((min(self._masses, default=math.inf),
                                     max(self._masses, default=-math.inf)))
        low, high = min(p[0] for p in parts), max(p[1] for p in parts)
        return high if high - low <= EQUAL_MASS * abs(high) else None

    def _moments(self, normalise: bool) -> tuple[np.ndarray, np.ndarray]:
        """Mean of every entry, and standard deviation of its channel (or 1)."""
        mean = self._by_entry(lambda rows, axis: rows.sum(axis=axis)) / self.count
        if not normalise:
            return mean, np.ones(self.length)
        square = self._by_entry(lambda rows, axis: (rows**2).sum(axis=axis)) / self.count
        per_channel = (self.runs[0].shape[1], -1)
        variance = square.reshape(per_channel).mean(1) - mean.reshape(per_channel).mean(1) ** 2
        spread = np.sqrt(np.maximum(variance, 1e-24))
        return mean, np.repeat(spread, self.length // len(spread))

    def _by_entry(self, reduce: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """A sum over snapshots for each of the n entries, on every rank."""
        if self.cells_are_rows:
            return share(self.comm, stacked(
                self.comm, len(self.parts), lambda part: reduce(self._rows[part], 1)
            ))
        return ordered_sum(self.comm, len(self.parts), lambda p: reduce(self._rows[p], 0))

    def _centre(self) -> None:
        for part, rows in self._rows.items():
            if self.cells_are_rows:
                span = slice(self.parts[part].start, self.parts[part].stop)
                rows -= self.mean[span, None]
                rows /= self.spread[span, None]
            else:
                rows -= self.mean
                rows /= self.spread


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
