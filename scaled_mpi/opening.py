"""An outputs folder in Python: fields as lazy xarray datasets, facts as lists.

    outputs = scaled_mpi.open("outputs/ddm")
    outputs["couple/surrogate"]["u"].isel(time=-1).plot()
    outputs.latest["vrmse.jump1.surrogate"]

Needs numpy, h5py and xarray; no MPI, no PETSc, no parallel HDF5. The folder may be a copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.facts import latest, read_events, read_facts
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.parallel.trajectory import axis_names

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Outputs:
    """The results of an experiment: `fields` by path, such as "couple/surrogate", and facts."""

    path: Path
    fields: xarray.DataTree

    def __getitem__(self, name: str) -> xarray.Dataset:
        """Return the trajectory `name` (STAGE/NAME) as a lazy dataset. Errors: `KeyError`."""
        if name not in self:
            raise KeyError(
                f"fields: {name} is not allowed: {self.path} has no such fields. "
                f"Allowed: {', '.join(self)}"
            )
        return self.fields[name].to_dataset()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of all trajectories."""
        return (node.path.lstrip("/") for node in self.fields.subtree if node.has_data)

    def __contains__(self, name: str) -> bool:
        return name in list(self)

    @cached_property
    def facts(self) -> list[dict[str, Any]]:
        """All measured numbers, in the order of measurement."""
        return read_facts(self.path / "facts" / "facts.jsonl")

    @property
    def latest(self) -> dict[str, Any]:
        """Last value of each fact by name."""
        return latest(self.facts)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events of the training."""
        return read_events(self.path / "facts")

    @property
    def report(self) -> Path:
        """Path of the page."""
        return self.path / "report.html"

    def verify(self) -> None:
        """Compare every field file with its checksum.

        Errors: `InputError` for the first file that differs.
        """
        for folder, name in _trajectories(self.path):
            Trajectory(folder, name).verify()


def open_outputs(path: str | Path) -> Outputs:
    """Open the folder of an experiment (outputs/NAME), or any folder that holds trajectories.

    Reads indexes only; fields are read on access. Errors: `InputError` for a missing folder or a
    damaged trajectory.
    """
    import xarray

    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder. Needed: a results folder")
    fields = {
        "/".join((*folder.relative_to(path).parts, name)): as_dataset(Trajectory(folder, name))
        for folder, name in _trajectories(path)
    }
    return Outputs(path, xarray.DataTree.from_dict(fields, name=path.resolve().name))


def as_dataset(run: Trajectory) -> xarray.Dataset:
    """Return a trajectory as a lazy dataset: a variable a channel, with dims time, [z, y,] x."""
    import xarray
    from xarray.core.indexing import LazilyIndexedArray

    dims = ("time", *axis_names(run.grid.axes))
    variables = {
        channel: (dims, LazilyIndexedArray(_channel(run, number)), {"long_name": channel})
        for number, channel in enumerate(run.channels)
    }
    coordinates = {name: run.grid.centres(axis) for axis, name in enumerate(dims[1:])}
    boundary = [edge.kind for edge in run.grid.boundary]
    attributes = {**run.attributes, "tile": list(run.tile), "boundary": boundary}
    return xarray.Dataset(variables, {"time": run.times, **coordinates}, attributes)


def _channel(run: Trajectory, number: int) -> Any:
    """One channel of a trajectory as an array that xarray reads in parts."""
    from xarray.backends import BackendArray
    from xarray.core.indexing import IndexingSupport, explicit_indexing_adapter

    class Channel(BackendArray):
        shape = (run.shape[0], *run.shape[2:])
        dtype = run.dtype

        def __getitem__(self, key: Any) -> np.ndarray:
            return explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._part)

        def _part(self, key: tuple[int | slice, ...]) -> np.ndarray:
            whole = [
                range(n)[k] if isinstance(k, slice) else range(k % n, k % n + 1)
                for k, n in zip(key, self.shape, strict=True)
            ]
            if not all(map(len, whole)):
                values = np.empty(tuple(map(len, whole)), self.dtype)
            else:
                box = [slice(min(cut), max(cut) + 1) for cut in whole[1:]]
                values = run.read(_slice(whole[0]), box, channels=[number])[:, 0]
                steps = tuple(slice(None, None, cut.step) for cut in whole[1:])
                values = values[(slice(None), *steps)]
            return values[tuple(slice(None) if isinstance(k, slice) else 0 for k in key)]

    return Channel()


def _slice(frames: range) -> slice:
    """The slice that picks these frames; a range that runs down to 0 ends before it begins."""
    stop = None if frames.step < 0 and frames.stop < 0 else frames.stop
    return slice(frames.start, stop, frames.step)


def _trajectories(path: Path) -> list[tuple[Path, str]]:
    """(folder, name) of every finished trajectory in a folder and below it."""
    found = []
    for folder, below, _ in os.walk(path):
        unfinished = {name for name in below if name[0] == "." or name.endswith(".partial")}
        below[:] = sorted(set(below) - unfinished)  # os.walk goes on into what stays in the list
        found += [(Path(folder), name) for name in trajectory_names(folder)]
    return found
