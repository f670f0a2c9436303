"""Trajectories in HDF5: written by all ranks, read by any number of them, by xarray and ParaView.

Layout of a trajectory NAME in a folder

    NAME.00000.h5, NAME.00001.h5, ...   closed groups of frames
        time              (frames,)            float64, dimension scale
        z, y, x           (cells,)             float64, dimension scales, cell centres
        <channel>         (frames, [z, y,] x)  float32 or float64, chunk = tile, units, long_name
        attributes        Conventions = CF-1.8, name, and those of the trajectory
    NAME.xdmf                           for ParaView
    NAME.json                           the index, written last

Every file is written under a temporary name, synced and renamed. The index holds shape, channels,
type, grid, tile, attributes and times, frames, size and sha256 of every file, and its own sha256.
Readers trust the index only, so a killed writer never leaves a trajectory that seems complete.
`NAME.progress` is the index of an unfinished one: from it a restarted writer goes on.
The bytes do not depend on the number of ranks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scaled_mpi.config import InputError
from scaled_mpi.files import link_or_copy, plain_name, seal, unseal, write_text
from scaled_mpi.parallel import hdf5
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from scaled_mpi.parallel.comm import Comm, raise_together
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.trajectory import (
    FORMAT,
    Trajectory,
    axis_names,
    check_size,
    file_entry,
    grid_tree,
)
from scaled_mpi.parallel.xdmf import xdmf_text

__all__ = [
    "Storage",
    "Trajectory",
    "TrajectoryWriter",
    "link_trajectory",
    "load_checkpoint",
    "remove_checkpoint",
    "save_checkpoint",
    "stored_frames",
    "trajectory_names",
]

LARGEST_FILE = 1 << 29  # bytes of field in one file, whatever the group
_DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Storage:
    """The plan of a trajectory, its files and its units.

    `times` is the plan: other times, or fewer, are an error. `group` frames make a file (None: as
    many as fit 512 MiB); they wait in memory and are written together. `keep` frames of an
    interrupted writing stay, and the next `append` is frame number `keep`. `units` has the units
    of channels, of "time" and of "length".
    """

    times: Sequence[float] | None = None
    group: int | None = None
    keep: int = 0
    units: Mapping[str, str] = field(default_factory=dict)


class TrajectoryWriter:
    """Writes frames (C, *block.size) of all ranks as one trajectory. Collective.

    Call `flush` before a checkpoint that counts on the frames so far. Without `close`, or after an
    exception inside `with`, no index is written and no reader opens it.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        blocks: Blocks,
        comm: Comm,
        channels: Sequence[str],
        dtype: DTypeLike = np.float32,
        attributes: Mapping[str, Any] | None = None,
        storage: Storage | None = None,
    ) -> None:
        storage = storage or Storage()
        self.folder, self.name = Path(folder), plain_name(name)
        self.blocks, self.comm = blocks, comm
        self.channels = tuple(plain_name(channel, "channel") for channel in channels)
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise InputError(
                f"channels: {list(channels)} is not allowed: names must differ. Allowed: "
                "one or more different names"
            )
        self.dtype = np.dtype(dtype)
        if self.dtype.name not in _DTYPES:
            raise InputError(
                f"dtype: {self.dtype.name} is not allowed: unknown type. Allowed: "
                f"{', '.join(_DTYPES)}"
            )
        frame_bytes = len(self.channels) * math.prod(blocks.grid.shape) * self.dtype.itemsize
        self.group = min(storage.group or LARGEST_FILE, max(1, LARGEST_FILE // frame_bytes))
        self.attributes, self.units = dict(attributes or {}), dict(storage.units)
        times = storage.times
        self._plan = None if times is None else [float(time) for time in times]
        self._block = blocks.block(comm.rank) if comm.rank < blocks.ranks else None
        self._times: list[float] = []
        self._files: list[dict[str, Any]] = []
        self._waiting: list[np.ndarray] = []
        self._closed = False
        self._begin(storage.keep)

    @property
    def frames(self) -> int:
        """Frames taken so far, those that still wait in memory included."""
        return len(self._times)

    def append(self, time: float, field: np.ndarray | None) -> None:
        """Add the frame of `time`: (C, *block.size) of this rank, None where it has no block."""
        if self._closed:
            raise ValueError(
                f"trajectory {self.name}: is closed. Needed: an open one to append a frame"
            )
        time = float(time)
        if not math.isfinite(time) or (self._times and time <= self._times[-1]):
            raise ValueError(
                f"time: {time} is not allowed: times of trajectory {self.name} grow. "
                f"Allowed: after {self._times[-1:]}"
            )
        if self._plan is not None and self._plan[self.frames : self.frames + 1] != [time]:
            raise ValueError(
                f"time: {time} is not allowed: trajectory {self.name} has planned times. "
                "Allowed: the next of them"
            )
        if self._block is not None:
            expected = (len(self.channels), *self._block.size)
            shape = None if field is None else np.shape(field)
            if shape != expected:
                raise ValueError(
                    f"field: shape {shape} is not allowed: trajectory {self.name} has "
                    f"another. Allowed: {expected}"
                )
            self._waiting.append(np.array(field, dtype=self.dtype))
        self._times.append(time)
        if self.frames - self._written >= self.group:
            self.flush()

    def flush(self) -> None:
        """Write the frames that wait as a file of their own; after it they survive a kill."""
        first, frames = self._written, self.frames - self._written
        if frames == 0:
            return
        path = self.folder / f"{self.name}.{self._number:05d}.h5"
        with hdf5.writing(path, self.comm) as temporary:
            on_root(self.comm, lambda: self._lay_out(temporary, self._times[first:]))
            hdf5.write(temporary, self.comm, self._pieces())
        self._waiting.clear()
        entry = on_root(self.comm, lambda: file_entry(path, first, frames))
        self._files.append(entry)
        self._number += 1
        on_root(self.comm, self._write_progress)

    def close(self) -> None:
        """Write what waits, the sidecar and, last, the index."""
        if self._closed:
            return
        if self.frames == 0 or (self._plan is not None and self.frames < len(self._plan)):
            missing = len(self._plan or [0]) - self.frames
            raise ValueError(
                f"trajectory {self.name}: {missing} planned frames are missing. Needed: all "
                "of them"
            )
        self.flush()
        on_root(self.comm, self._finish)
        self._closed = True

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()

    @property
    def _written(self) -> int:
        return sum(entry["frames"] for entry in self._files)

    @property
    def _progress(self) -> Path:
        return self.folder / f"{self.name}.progress"

    def _begin(self, keep: int) -> None:
        """Forget what lies there, except the first `keep` frames.

        Nothing is removed before `NAME.progress` tells of what stays: a kill in between must not
        cost frames that a checkpoint counts on.
        """
        files, times, cut, self._number = on_root(self.comm, lambda: self._find(keep))
        self._files, self._times = files, times
        error = None
        if cut and self._block is not None:  # the file in which the kept frames end
            try:
                self._waiting = self._read_back(cut[0], keep - self._written)
            except (OSError, InputError) as caught:
                error = caught
        raise_together(self.comm, error)
        if cut:
            self.flush()
        elif keep:
            on_root(self.comm, self._write_progress)
        on_root(self.comm, self._remove_stale)

    def _find(self, keep: int) -> tuple[list, list, list, int]:
        """Files that stay whole, times of the kept frames, the file they end in, the next number.

        What is kept of the last is written anew while an index still tells of every file there is,
        so it gets a number that none of them has.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if keep == 0:
            return [], [], [], 0
        path = self._progress if self._progress.exists() else self.folder / f"{self.name}.json"
        index = unseal(path, FORMAT)
        mine = self._index()
        for key in ("channels", "dtype", "grid"):
            if index[key] != mine[key]:
                raise InputError(
                    f"{path}: {key} differs from this run. Needed: the same, or remove the file "
                    "to start again"
                )
        if len(index["times"]) < keep:
            raise InputError(f"{path}: has {len(index['times'])} frames. Needed: {keep}")
        needed = [entry for entry in index["files"] if entry["first"] < keep]
        for entry in needed:
            check_size(self.folder, entry)
        ends = needed[-1]["first"] + needed[-1]["frames"] == keep
        if ends:
            return needed, index["times"][:keep], [], _number(needed[-1]) + 1
        number = max(map(_number, index["files"])) + 1
        return needed[:-1], index["times"][:keep], needed[-1:], number

    def _write_progress(self) -> None:
        write_text(self._progress, seal(self._index()))

    def _remove_stale(self) -> None:
        """Indexes first: what one names is never removed."""
        for suffix in (".json", ".xdmf"):
            (self.folder / f"{self.name}{suffix}").unlink(missing_ok=True)
        kept = {entry["file"] for entry in self._files}
        if not kept:
            self._progress.unlink(missing_ok=True)
        mine = re.compile(re.escape(self.name) + r"\.\d{5,}\.h5(\.tmp)?")
        for path in self.folder.iterdir():
            if mine.fullmatch(path.name) and path.name not in kept:
                path.unlink()

    def _read_back(self, entry: dict[str, Any], frames: int) -> list[np.ndarray]:
        path = self.folder / entry["file"]
        assert self._block is not None
        where = (slice(0, frames), *self._block.slices)
        with hdf5.reading(path) as file:
            values = [hdf5.plain_dataset(file, channel)[where] for channel in self.channels]
        return list(np.stack(values, axis=1))

    def _lay_out(self, path: Path, times: list[float]) -> None:
        shape, axes = self.blocks.grid.shape, axis_names(self.blocks.grid.axes)
        length = {"units": self.units.get("length", "1")}
        coordinates = {
            "time": (np.array(times), {"units": self.units.get("time", "1"), "axis": "T"})
        }
        for axis, name in enumerate(axes):
            coordinates[name] = (self.blocks.grid.centres(axis), {**length, "axis": name.upper()})
        chunk = hdf5.chunk_of(len(times), shape, self.blocks.tile, self.dtype.itemsize)
        variables = [
            hdf5.Variable(
                channel,
                ("time", *axes),
                (len(times), *shape),
                self.dtype,
                chunk,
                {"units": self.units.get(channel, "1"), "long_name": channel},
            )
            for channel in self.channels
        ]
        notes = {"Conventions": "CF-1.8", "name": self.name, **self.attributes}
        hdf5.create(path, coordinates, variables, notes)

    def _pieces(self) -> list[hdf5.StoredPiece]:
        if self._block is None:
            return [hdf5.StoredPiece(channel) for channel in self.channels]
        start = (0, *self._block.start)
        return [
            hdf5.StoredPiece(channel, start, np.stack([frame[c] for frame in self._waiting]))
            for c, channel in enumerate(self.channels)
        ]

    def _index(self) -> dict[str, Any]:
        grid = self.blocks.grid
        return {
            "format": FORMAT,
            "version": 1,
            "name": self.name,
            "shape": [self._written, len(self.channels), *grid.shape],
            "channels": list(self.channels),
            "dtype": self.dtype.name,
            "grid": grid_tree(grid),
            "tile": list(self.blocks.tile),
            "attributes": self.attributes,
            "times": self._times[: self._written],
            "files": self._files,
        }

    def _finish(self) -> None:
        grid, places = self.blocks.grid, []
        for entry in self._files:
            places += [(entry["file"], i, entry["frames"]) for i in range(entry["frames"])]
        text = xdmf_text(self.name, grid, self.channels, self.dtype, self._times, places)
        write_text(self.folder / f"{self.name}.xdmf", text)
        write_text(self.folder / f"{self.name}.json", seal(self._index()))
        self._progress.unlink(missing_ok=True)


def _number(entry: Mapping[str, Any]) -> int:
    """The number in the name of a file of an index."""
    return int(plain_name(entry["file"]).split(".")[-2])


def stored_frames(folder: str | Path, name: str) -> int:
    """Frames of a trajectory that are safely on disk, finished or not; 0 if there is none."""
    for suffix in (".progress", ".json"):
        path = Path(folder) / f"{plain_name(name)}{suffix}"
        if path.exists():
            return len(unseal(path, FORMAT)["times"])
    return 0


def trajectory_names(folder: str | Path) -> list[str]:
    """Names of the finished trajectories of a folder, sorted."""
    names = []
    for path in sorted(Path(folder).glob("*.json")):
        with open(path, "rb") as file:
            is_index = FORMAT.encode() in file.read(200)
        if is_index:
            names.append(path.name.removesuffix(".json"))
    return names


def link_trajectory(source: str | Path, target: str | Path, name: str) -> None:
    """Give a finished trajectory a second place: hard links where possible, else copies.

    Serial: call it on one rank. What `target` holds under `name` is replaced; the index comes
    last.
    """
    source, target = Path(source), Path(target)
    target.mkdir(parents=True, exist_ok=True)
    files = [entry["file"] for entry in unseal(source / f"{name}.json", FORMAT)["files"]]
    index = f"{name}.json"
    (target / index).unlink(missing_ok=True)
    for file in [*files, f"{name}.xdmf", index]:
        (target / file).unlink(missing_ok=True)
        link_or_copy(source / file, target / file)
