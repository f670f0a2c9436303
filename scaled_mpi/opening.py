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

from scaled_mpi.config import InputError
from scaled_mpi.facts import latest, read_events, read_facts
from scaled_mpi.labelled import as_dataset
from scaled_mpi.parallel.store import Trajectory, trajectory_names

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Outputs:
    """The outputs of an experiment: `fields` by path, such as "couple/surrogate", and facts."""

    path: Path
    fields: xarray.DataTree

    def __getitem__(self, name: str) -> xarray.Dataset:
        """The trajectory `name` (STAGE/NAME) as a lazy dataset."""
        if name not in self:
            raise KeyError(f"{name}: not in {self.path}. Needed: {', '.join(self)}")
        return self.fields[name].to_dataset()

    def __iter__(self) -> Iterator[str]:
        """Names of all trajectories."""
        return (node.path.lstrip("/") for node in self.fields.subtree if node.has_data)

    def __contains__(self, name: str) -> bool:
        return name in list(self)

    @cached_property
    def facts(self) -> list[dict[str, Any]]:
        """All measured numbers, in the order in which they were measured."""
        return read_facts(self.path / "facts" / "facts.jsonl")

    @property
    def latest(self) -> dict[str, Any]:
        """name -> the last value of each fact."""
        return latest(self.facts)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The course of the training."""
        return read_events(self.path / "facts")

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.path / "report.html"

    def verify(self) -> None:
        """Compare every field file with its checksum. Errors: `InputError` for the first one."""
        for folder, name in _trajectories(self.path):
            Trajectory(folder, name).verify()


def open_outputs(path: str | Path) -> Outputs:
    """Open the folder of an experiment (outputs/NAME), or any folder that holds trajectories.

    Reads indexes only; the fields are lazy.

    Errors: `InputError` for a folder that does not exist or a trajectory that is damaged.
    """
    import xarray

    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder. Needed: the folder of a run")
    found = {
        "/".join((*folder.relative_to(path).parts, name)): as_dataset(Trajectory(folder, name))
        for folder, name in _trajectories(path)
    }
    return Outputs(path, xarray.DataTree.from_dict(found, name=path.resolve().name))


def _trajectories(path: Path) -> list[tuple[Path, str]]:
    """(folder, name) of every finished trajectory in a folder and below it."""
    found = []
    for folder, below, _ in os.walk(path):
        unfinished = {name for name in below if name[0] == "." or name.endswith(".partial")}
        below[:] = sorted(set(below) - unfinished)  # os.walk goes on into what stays in the list
        found += [(Path(folder), name) for name in trajectory_names(folder)]
    return found
