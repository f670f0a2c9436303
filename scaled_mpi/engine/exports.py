"""Finished results in other forms: one table of the engine's own, to which a kind adds rows."""

from __future__ import annotations

import shutil
from pathlib import Path

from scaled_mpi.config import InputError
from scaled_mpi.engine.kind import Export, Found, Kind
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.labelled import as_dataset
from scaled_mpi.parallel.store import Trajectory, trajectory_names


def export(kind: Kind, experiment: ExperimentSpec, found: Found, name: str, folder: Path) -> Path:
    """Write `folder`/`name`, whole or not at all, and return its path. Serial.

    Errors: `InputError` for an unknown name, or stages that are not finished.
    """
    table = {**EXPORTS, **kind.exports}
    if name not in table:
        raise InputError(
            f"--export: {name} is not allowed: no such form of an experiment of kind "
            f"{kind.name}. Allowed: {', '.join(table)}."
        )
    target = folder / name
    partial = target.with_name(f"{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    table[name](experiment, found, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def export_netcdf(experiment: ExperimentSpec, found: Found, folder: Path) -> Path:
    """Write every trajectory of the finished stages as `folder`/STAGE/NAME.nc (NetCDF 4)."""
    done = {stage: one.path for stage, one in found.items() if one.done}
    runs = [(stage, path, name) for stage, path in done.items() for name in trajectory_names(path)]
    if not runs:
        raise InputError("--export netcdf: no fields are finished. Needed: a finished run.")
    for stage, path, name in runs:
        (folder / stage).mkdir(exist_ok=True)
        as_dataset(Trajectory(path, name)).to_netcdf(folder / stage / f"{name}.nc")
    return folder


EXPORTS: dict[str, Export] = {"netcdf": export_netcdf}
