"""An outputs folder in Python: fields as lazy xarray datasets, facts as lists.

    outputs = scaled_mpi.open("outputs/ddm")
    outputs["couple/surrogate"]["u"].isel(time=-1).plot()
    outputs.fact("vrmse.lead", method="surrogate", lead=1)

Needs numpy, h5py and xarray; no MPI, no PETSc, no parallel HDF5. The folder may be a copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaled_mpi.config import InputError
from scaled_mpi.fact_names import each_once, named, old_forms, placed, places
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
        """All measured numbers as names and places, in the order of their measurement.

        A folder of version 0.1 gives the same names.
        """
        return [dict(fact) for fact in each_once(read_facts(self.path / "facts" / "facts.jsonl"))]

    def fact(self, name: str, **where: Any) -> Any:
        """Return the last value of a name at exactly these places; an old name needs none.

        Errors: `KeyError`, which lists the places of this name, or all names.
        """
        wanted = dict(placed({"name": name, **where}))
        name = wanted.pop("name")
        found = named(self.facts, name, **wanted)
        if found:
            return found[-1]["value"]
        known = [places(fact) for fact in self.facts if fact["name"] == name]
        needed = [_words(one) for one in known] or [fact["name"] for fact in self.facts]
        asked = f"{name} {_words(wanted)}" if wanted else name
        raise KeyError(f"{asked}: not measured. Needed: {'; '.join(dict.fromkeys(needed))}")

    @property
    def latest(self) -> dict[str, Any]:
        """name -> the last value without a place; of a curve its last point.

        For one release the old names stand here too, such as `vrmse.jump1.surrogate`.
        """
        single = [fact for fact in self.facts if not places(fact)]
        old = [one for fact in self.facts for one in old_forms(fact)]
        return latest([*self.facts, *single, *old])

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


def _words(where: Mapping[str, Any]) -> str:
    """Places as text: `method=exact tiles=4`."""
    return " ".join(f"{key}={value}" for key, value in where.items()) or "no place"


def _trajectories(path: Path) -> list[tuple[Path, str]]:
    """(folder, name) of every finished trajectory in a folder and below it."""
    found = []
    for folder, below, _ in os.walk(path):
        unfinished = {name for name in below if name[0] == "." or name.endswith(".partial")}
        below[:] = sorted(set(below) - unfinished)  # os.walk goes on into what stays in the list
        found += [(Path(folder), name) for name in trajectory_names(folder)]
    return found
