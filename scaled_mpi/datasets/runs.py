"""Runs inside files of others: where their numbers lie, and copying them into the store.

A format only has to list its runs (`Run`) and to open a file as a `Source`. Every rank reads its
own block frame by frame, so nobody holds a whole field, and the values are checked on the way.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import DTypeLike
from pydantic import Field, PositiveInt

from scaled_mpi.config import InputError, Spec
from scaled_mpi.parallel.blocks import Block, Boundary, Grid, handy_tile, make_blocks
from scaled_mpi.parallel.comm import Comm, raise_together
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.store import TrajectoryWriter, trajectory_names

_TEST_SHARE = 4  # of a single run, the last frame in so many is for the test


class Source(Protocol):
    """An open file: arrays by name, of which any part can be read."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the array `name`."""
        ...

    def read(self, name: str, index: tuple[Any, ...]) -> np.ndarray:
        """Return the part of the array `name` at `index`, of any shape."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


@dataclass(frozen=True)
class Place:
    """Where the values of a channel lie: an array, and an index on its axis c if it has one."""

    channel: str
    array: str
    component: int | None = None
    axes: str | None = None  # of this array, where they differ from those of the run


@dataclass(frozen=True)
class Run:
    """One trajectory in a file of others.

    `axes` names the axes of its arrays in their order: n runs, t time, c channels, z y x space.
    `cells` and `frames` are the parts to take, one range for each axis of space in the order z, y,
    x.
    """

    path: str
    axes: str
    places: tuple[Place, ...]
    frames: range
    cells: tuple[range, ...]
    spacing: tuple[float, ...]
    boundary: tuple[Boundary, ...]
    time_step: float = 1.0
    number: int = 0  # on axis n
    condition: dict[str, float] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """The grid of what is taken; a stride widens the spacing."""
        shape = tuple(len(cut) for cut in self.cells)
        spacing = tuple(h * cut.step for h, cut in zip(self.spacing, self.cells, strict=True))
        return Grid(shape, spacing, self.boundary)

    def read(self, source: Source, frame: int, block: Block, dtype: DTypeLike) -> np.ndarray:
        """Frame number `frame` (C, *block.size); InputError for a value that is not finite."""
        cuts = [
            slice(cut[a], cut[a + n - 1] + 1, cut.step)
            for cut, a, n in zip(self.cells, block.start, block.size, strict=True)
        ]
        space = "zyx"[-len(cuts) :]
        values = np.empty((len(self.places), *block.size), dtype)
        for c, place in enumerate(self.places):
            where: dict[str, Any] = dict(zip(space, cuts, strict=True))
            where |= {"n": self.number, "t": self.frames[frame], "c": place.component}
            axes = place.axes or self.axes
            part = source.read(place.array, tuple(where[axis] for axis in axes))
            order = [axis for axis in axes if axis in space]
            with np.errstate(over="ignore"):  # too large for float32: infinite, and found below
                values[c] = np.transpose(part, [order.index(axis) for axis in space])
        if not np.isfinite(values).all():
            c, *local = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            cell = tuple(
                cut[a + i] for cut, a, i in zip(self.cells, block.start, local, strict=True)
            )
            raise InputError(
                f"{self.path}:{self.places[c].array}: frame {self.frames[frame]}, cell "
                f"{cell} is not finite in {np.dtype(dtype).name}. Needed: finite numbers"
            )
        return values


Cut = tuple[int, int]
Axis = Literal["t", "z", "y", "x"]


class TrajectoryFiles(Spec):
    """Keys that all formats share.

    `train` and `test` are paths or patterns with *. Without `test`, the test is the last
    `held_out` runs of `train` (1 if there are several), or the last `test_frames` frames of the
    last run. A single run gives a quarter of its frames. `crop` cuts an axis (t, z, y, x) to
    [start, stop), `stride` keeps one in so many of its entries.
    """

    train: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = ()
    held_out: PositiveInt | None = None
    test_frames: PositiveInt | None = None
    crop: dict[Axis, Cut] = {}
    stride: dict[Axis, PositiveInt] = {}
    dtype: Literal["float32", "float64"] = "float32"

    def open(self, path: str) -> Source:
        """One file, open on this rank. Each format has its own."""
        raise TypeError(f"{type(self).__name__}: has no method open. Needed: one")

    def runs(self, path: str, source: Source) -> list[Run]:
        """The whole runs of a file, before crop and stride. Each format has its own."""
        raise TypeError(f"{type(self).__name__}: has no method runs. Needed: one")

    def import_into(self, folder: str | Path, comm: Comm) -> list[str]:
        """Write `train-0000` ... and `test-0000` ... into a folder; collective. Returns the names.

        Trajectories that are complete there stay, so that a killed import goes on. InputError for
        anything in the files that does not fit, in one line with file and array.
        """
        train, test = on_root(comm, self.plan)
        named = [(f"train-{i:04d}", run) for i, run in enumerate(train)]
        named += [(f"test-{i:04d}", run) for i, run in enumerate(test)]
        done = on_root(comm, lambda: trajectory_names(folder) if Path(folder).is_dir() else [])
        for name, run in named:
            if name not in done:
                self._copy(folder, name, run, comm)
        return [name for name, _ in named]

    def plan(self) -> tuple[list[Run], list[Run]]:
        """The runs to learn from and those to test on, cropped and strided; reads no field."""
        train = [
            self._cut(run) for path in _paths("train", self.train) for run in self._list(path)
        ]
        if self.test:
            test = [
                self._cut(run) for path in _paths("test", self.test) for run in self._list(path)
            ]
        else:
            train, test = self._hold_out(train)
        places = {tuple(place.channel for place in run.places) for run in [*train, *test]}
        if len(places) > 1 or len({len(run.cells) for run in [*train, *test]}) > 1:
            raise InputError(
                f"dataset: runs differ in channels or axes: {sorted(places)}. Needed: the "
                "same in all"
            )
        return train, test

    def fingerprint(self) -> list[list[Any]]:
        """[name, bytes, time of last change] of every file: what a hash of an import covers."""
        paths = [*_paths("train", self.train), *(_paths("test", self.test) if self.test else [])]
        stats = [Path(path).stat() for path in paths]
        return [[p, s.st_size, s.st_mtime_ns] for p, s in zip(paths, stats, strict=True)]

    def _list(self, path: str) -> list[Run]:
        with closing(self.open(path)) as source:
            return self.runs(path, source)

    def _cut(self, run: Run) -> Run:
        space = "zyx"[-len(run.cells) :]
        unknown = (set(self.crop) | set(self.stride)) - {"t", *space}
        if unknown:
            raise InputError(
                f"dataset.crop, stride: {sorted(unknown)} is not allowed: unknown axes. "
                f"Allowed: t, {', '.join(space)}"
            )
        cells = tuple(
            self._cut_axis(run, axis, cut) for axis, cut in zip(space, run.cells, strict=True)
        )
        frames = self._cut_axis(run, "t", run.frames)
        step = run.time_step * frames.step
        return replace(run, cells=cells, frames=frames, time_step=step)

    def _cut_axis(self, run: Run, name: str, whole: range) -> range:
        axis = cast(Axis, name)
        start, stop = self.crop.get(axis, (0, len(whole)))
        if not 0 <= start < stop <= len(whole):
            raise InputError(
                f"dataset.crop.{axis}: {[start, stop]} is not allowed: outside {run.path}. "
                f"Allowed: inside 0 to {len(whole)}"
            )
        return whole[start : stop : self.stride.get(axis, 1)]

    def _hold_out(self, runs: list[Run]) -> tuple[list[Run], list[Run]]:
        count = self.held_out or (1 if len(runs) > 1 and not self.test_frames else 0)
        if count:
            if count >= len(runs):
                raise InputError(
                    f"dataset.held_out: {count} is not allowed: no run is left to learn from. "
                    f"Allowed: fewer than the {len(runs)} runs"
                )
            return runs[:-count], runs[-count:]
        last = runs[-1]
        frames = self.test_frames or len(last.frames) // _TEST_SHARE
        if not 0 < frames < len(last.frames):
            raise InputError(
                f"dataset.test_frames: {frames} is not allowed: nothing is left to learn "
                f"from or to test on. Allowed: 1 to {len(last.frames) - 1} of the last run"
            )
        early, late = last.frames[:-frames], last.frames[-frames:]
        return [*runs[:-1], replace(last, frames=early)], [replace(last, frames=late)]

    def _copy(self, folder: str | Path, name: str, run: Run, comm: Comm) -> None:
        blocks = make_blocks(run.grid, handy_tile(run.grid.shape), comm.size)
        block = blocks.block(comm.rank) if comm.rank < blocks.ranks else None
        attributes = {
            "condition": run.condition,
            "jump": run.frames.step,
            "source": Path(run.path).name,
            "run": run.number,
        }
        writer = TrajectoryWriter(
            folder,
            name,
            blocks,
            comm,
            [place.channel for place in run.places],
            dtype=self.dtype,
            attributes=attributes,
        )
        with closing(self.open(run.path)) as source, writer:
            for frame in range(len(run.frames)):
                values, error = None, None
                try:
                    if block is not None:
                        values = run.read(source, frame, block, self.dtype)
                except (InputError, OSError) as caught:
                    error = caught
                raise_together(comm, error)
                writer.append(frame * run.time_step, values)


def _paths(key: str, patterns: Sequence[str]) -> list[str]:
    paths = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True)) if "*" in pattern else [pattern]
        if not found or not all(Path(path).is_file() for path in found):
            raise InputError(
                f"dataset.{key}: {pattern} is not allowed: no such file. Allowed: a path or "
                "a pattern"
            )
        paths += found
    return paths
