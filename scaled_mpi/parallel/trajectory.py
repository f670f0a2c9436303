"""Reading trajectories: any part of any frame, on any number of ranks, with a serial h5py.

`store.py` writes them and describes the layout.
"""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.files import plain_name, sha256, unseal
from scaled_mpi.parallel import hdf5
from scaled_mpi.parallel.blocks import Block, Boundary, Grid, whole_per_axis

FORMAT = "scaled_mpi trajectory"
_MOST_OPEN = 64  # files that one reader keeps open


class Trajectory:
    """A finished trajectory: its times and shape are in memory, its frames on disk.

    `shape` is (T, C, *grid.shape). Any rank reads any part, with a serial h5py. Opening checks the
    index and the sizes of the files, `verify` every byte. Each process opens files at its first
    reading.

    Errors: `InputError` for a trajectory that is missing, unfinished or damaged.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self.folder, self.name = Path(folder), plain_name(name)
        path = self.folder / f"{name}.json"
        index = unseal(path, FORMAT)
        try:
            self.shape: tuple[int, ...] = tuple(index["shape"])
            self.channels: tuple[str, ...] = tuple(index["channels"])
            self.dtype = np.dtype(index["dtype"])
            self.grid = grid_from(index["grid"])
            self.tile: tuple[int, ...] = tuple(index["tile"])
            self.times = np.array(index["times"], dtype=np.float64)
            self.attributes: dict[str, Any] = index["attributes"]
            self._files: list[dict[str, Any]] = index["files"]
            self._firsts = np.array([entry["first"] for entry in self._files])
            for entry in self._files:
                check_size(self.folder, entry)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path}: not an index ({error}). Needed: an index of version 1"
            ) from error
        self._open: OrderedDict[int, tuple[Any, list[Any]]] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """All but the open files, which stay where they were opened."""
        return {**self.__dict__, "_open": OrderedDict()}

    def __len__(self) -> int:
        return self.shape[0]

    def verify(self) -> None:
        """Compare every file with its sha256. Errors: `InputError` for the first that differs."""
        for entry in self._files:
            check_size(self.folder, entry)
            if sha256(self.folder / entry["file"]) != entry["sha256"]:
                raise InputError(
                    f"{self.folder / entry['file']}: damaged, its checksum differs. Needed: an "
                    "intact file"
                )

    def read(
        self,
        frame: int | slice,
        box: Sequence[slice] | None = None,
        halo: int | Sequence[int] = 0,
        channels: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Return values (C, *cells) of one frame, or (frames, C, *cells) of a slice of frames.

        `box` holds one slice an axis inside the grid (None: everything). `halo` cells are added at
        both its ends. Beyond the domain they wrap around (periodic), are mirrored (neumann), or
        are mirrored about the value on the face (dirichlet). The first axis comes first.
        `channels` are the numbers of the channels to read (None: all).

        Errors: `IndexError` for a frame or a box outside, `InputError` for a halo wider than the
        axis or a damaged file.
        """
        frames: Sequence[int]
        if isinstance(frame, slice):
            frames = range(*frame.indices(len(self)))
        elif -len(self) <= frame < len(self):
            frames = (frame % len(self),)
        else:
            raise IndexError(
                f"frame: {frame} is not allowed: out of range. Allowed: 0 to {len(self) - 1}"
            )
        spans = self._spans(box, halo)
        wanted = range(self.shape[1]) if channels is None else channels
        result = self._gather(frames, wanted, spans)
        self._reflect(result, spans)
        return result if isinstance(frame, slice) else result[0]

    def read_block(
        self, frame: int | slice, block: Block, halo: int | Sequence[int] = 0
    ) -> np.ndarray:
        """Return values (C, *cells) or (frames, C, *cells) of the cells of a block; see `read`."""
        return self.read(frame, block.slices, halo)

    def close(self) -> None:
        """Close the files; reading opens them again."""
        while self._open:
            self._open.popitem()[1][0].close()

    def _spans(self, box: Sequence[slice] | None, halo: int | Sequence[int]) -> list[range]:
        """Cells wanted of each axis, those beyond the domain with indices beyond it."""
        halo = whole_per_axis("halo", halo, self.grid.axes, 0)
        box = tuple(box) if box is not None else (slice(None),) * self.grid.axes
        spans = []
        for cut, width, cells, boundary in zip(
            box, halo, self.grid.shape, self.grid.boundary, strict=True
        ):
            start, stop, step = cut.indices(cells)
            if step != 1 or stop <= start:
                raise IndexError(
                    f"box: {cut} is not allowed: outside the grid. Allowed: inside {cells} "
                    "cells, step 1"
                )
            if width > cells and not boundary.periodic:
                raise InputError(
                    f"halo: {width} is not allowed: wider than the axis. Allowed: at most "
                    f"{cells} cells"
                )
            spans.append(range(start - width, stop + width))
        return spans

    def _gather(
        self, frames: Sequence[int], channels: Sequence[int], spans: Sequence[range]
    ) -> np.ndarray:
        """Stored values under `spans`, wrapped and mirrored, before any Dirichlet value."""
        runs = [
            _runs(span.start, span.stop, cells, boundary.periodic)
            for span, cells, boundary in zip(spans, *self._domain(), strict=True)
        ]
        result = np.empty((len(frames), len(channels), *map(len, spans)), self.dtype)
        for row, frame in enumerate(frames):
            number = int(np.searchsorted(self._firsts, frame, side="right")) - 1
            datasets = self._datasets(number)
            local = frame - int(self._firsts[number])
            for target, source, flip in _product(runs):
                for c, channel in enumerate(channels):
                    result[(row, c, *target)] = datasets[channel][(local, *source)][flip]
        return result

    def _domain(self) -> tuple[tuple[int, ...], tuple[Boundary, ...]]:
        return self.grid.shape, self.grid.boundary

    def _reflect(self, values: np.ndarray, spans: Sequence[range]) -> None:
        """Turn mirrored values into odd ones about the Dirichlet value, axis after axis."""
        axes = zip(spans, *self._domain(), strict=True)
        for axis, (span, cells, boundary) in enumerate(axes, 2):
            if boundary.kind != "dirichlet":
                continue
            twice = self.dtype.type(2 * boundary.value)
            for beyond in (slice(0, max(0, -span.start)), slice(cells - span.start, None)):
                part = values[(slice(None),) * axis + (beyond,)]
                np.subtract(twice, part, out=part)

    def _datasets(self, number: int) -> list[Any]:
        if self._process != os.getpid():  # handles do not survive a fork; leave the parent's alone
            self._open, self._process = OrderedDict(), os.getpid()
        if number not in self._open:
            file = hdf5.open_file(self.folder / self._files[number]["file"])
            self._open[number] = file, [hdf5.plain_dataset(file, c) for c in self.channels]
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)[1][0].close()
        self._open.move_to_end(number)
        return self._open[number][1]


def _runs(start: int, stop: int, cells: int, periodic: bool) -> list[tuple[slice, slice, slice]]:
    """Where the cells [start, stop) of an axis come from, as (target, source, flip) slices.

    Cells beyond a periodic axis come from its other end, beyond another axis from the mirror
    image.
    """
    runs, here = [], start
    while here < stop:
        lap, offset = divmod(here, cells)
        length = min(cells - offset, stop - here)
        source, flip = slice(offset, offset + length), slice(None)
        if lap and not periodic:
            source, flip = slice(cells - offset - length, cells - offset), slice(None, None, -1)
        runs.append((slice(here - start, here - start + length), source, flip))
        here += length
    return runs


def _product(runs: Sequence[list[tuple[slice, slice, slice]]]) -> Iterator[tuple[tuple, ...]]:
    """All rectangles of the runs of each axis, as (target, source, flip) tuples of slices."""
    for parts in itertools.product(*runs):
        target, source, flip = zip(*parts, strict=True)
        yield target, source, flip


def axis_names(axes: int) -> tuple[str, ...]:
    """Names of the last `axes` of z, y, x."""
    return ("z", "y", "x")[3 - axes :]


def grid_tree(grid: Grid) -> dict[str, Any]:
    """A grid as plain data; `grid_from` inverts it."""
    boundary = [{"kind": b.kind, "value": b.value} for b in grid.boundary]
    return {"shape": list(grid.shape), "spacing": list(grid.spacing), "boundary": boundary}


def grid_from(tree: dict[str, Any]) -> Grid:
    """The grid of `grid_tree`."""
    boundary = tuple(Boundary(entry["kind"], entry["value"]) for entry in tree["boundary"])
    return Grid(tuple(tree["shape"]), tuple(tree["spacing"]), boundary)


def file_entry(path: Path, first: int, frames: int) -> dict[str, Any]:
    """Return the entry of a finished file in the index."""
    size = path.stat().st_size
    return {
        "file": path.name,
        "first": first,
        "frames": frames,
        "size": size,
        "sha256": sha256(path),
    }


def check_size(folder: Path, entry: dict[str, Any]) -> None:
    """Check a file of an index. Errors: `InputError` if it is missing or has another length."""
    path = folder / plain_name(entry["file"], "file")
    try:
        size = path.stat().st_size
    except OSError:
        raise InputError(
            f"{path}: missing although {folder} is finished. Needed: the whole folder"
        ) from None
    if size != entry["size"]:
        raise InputError(f"{path}: has {size} bytes, cut short. Needed: {entry['size']} bytes")
