"""Stored fields as labelled arrays, and labelled arrays as stored fields.

A trajectory becomes a lazy xarray dataset: a variable a channel with dims (time, [z,] [y,] x), or
(run, time, ...) for several. `fields_of` inverts it: a dataset that still is a stored trajectory
is that trajectory, anything else is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Boundary, Grid, handy_tile, make_blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.store import TrajectoryWriter
from scaled_mpi.parallel.trajectory import Trajectory, axis_names, grid_from, grid_tree

if TYPE_CHECKING:
    import xarray

    Fields = xarray.Dataset | xarray.DataArray | np.ndarray

MAPPINGS = ("condition", "equation", "grid")  # attributes that hold JSON text


def as_dataset(run: Trajectory) -> xarray.Dataset:
    """Return a trajectory as a lazy dataset: dims (time, [z,] [y,] x), a variable a channel.

    Mappings among the attributes become JSON text, so that `to_netcdf` writes the dataset.
    """
    return _dataset([run], several=False)


def as_runs(runs: Sequence[Trajectory]) -> xarray.Dataset:
    """Return several trajectories of one shape as a lazy dataset with dims (run, time, ..., x)."""
    return _dataset(runs, several=True)


def _dataset(runs: Sequence[Trajectory], several: bool) -> xarray.Dataset:
    import xarray
    from xarray.core.indexing import LazilyIndexedArray

    first = runs[0]
    if any(run.shape != first.shape or run.channels != first.channels for run in runs):
        raise InputError("runs: different shapes or channels. Needed: runs of one shape.")
    space = axis_names(first.grid.axes)
    dims = ("run", "time", *space) if several else ("time", *space)
    variables = {
        channel: (
            dims,
            LazilyIndexedArray(_channel(runs, number, several)),
            {"long_name": channel},
        )
        for number, channel in enumerate(first.channels)
    }
    centres = {name: first.grid.centres(axis) for axis, name in enumerate(space)}
    attributes = {
        **{key: _plain(value) for key, value in first.attributes.items() if value is not None},
        "tile": list(first.tile),
        "boundary": [edge.kind for edge in first.grid.boundary],
        "grid": json.dumps(grid_tree(first.grid)),
    }
    if several:
        conditions = [run.attributes.get("condition", {}) for run in runs]
        attributes["condition"] = json.dumps(conditions)
    return xarray.Dataset(variables, {"time": first.times, **centres}, attributes)


def _plain(value: Any) -> Any:
    """A value that NetCDF can hold as an attribute."""
    if isinstance(value, bool):
        return int(value)
    return json.dumps(value) if isinstance(value, Mapping) else value


def _channel(runs: Sequence[Trajectory], number: int, several: bool) -> Any:
    """One channel of one or several trajectories as an array that xarray reads in parts."""
    from xarray.backends import BackendArray
    from xarray.core.indexing import IndexingSupport, explicit_indexing_adapter

    class StoredChannel(BackendArray):
        stored = tuple(runs)
        one = (runs[0].shape[0], *runs[0].shape[2:])
        shape = (len(runs), *one) if several else one
        dtype = runs[0].dtype

        def __getitem__(self, key: Any) -> np.ndarray:
            return explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._part)

        def _part(self, key: tuple[int | slice, ...]) -> np.ndarray:
            if not several:
                return _read(runs[0], number, key)
            chosen = key[0]
            if not isinstance(chosen, slice):
                return _read(runs[chosen], number, key[1:])
            parts = [_read(run, number, key[1:]) for run in runs[chosen]]
            return np.stack(parts) if parts else np.empty((0, *self.one), self.dtype)

    return StoredChannel()


def _read(run: Trajectory, number: int, key: tuple[int | slice, ...]) -> np.ndarray:
    """Values (time, ..., x) of one channel under whole numbers and slices."""
    shape = (run.shape[0], *run.shape[2:])
    whole = [
        range(n)[k] if isinstance(k, slice) else range(k % n, k % n + 1)
        for k, n in zip(key, shape, strict=True)
    ]
    if not all(map(len, whole)):
        values = np.empty(tuple(map(len, whole)), run.dtype)
    else:
        box = [slice(min(cut), max(cut) + 1) for cut in whole[1:]]
        values = run.read(_slice(whole[0]), box, channels=[number])[:, 0]
        steps = tuple(slice(None, None, cut.step) for cut in whole[1:])
        values = values[(slice(None), *steps)]
    return values[tuple(slice(None) if isinstance(k, slice) else 0 for k in key)]


def _slice(frames: range) -> slice:
    """The slice that picks these frames; a range that runs down to 0 ends before it begins."""
    stop = None if frames.step < 0 and frames.stop < 0 else frames.stop
    return slice(frames.start, stop, frames.step)


@dataclass(frozen=True)
class Describing:
    """Facts about an array without labels: channels, boundary, time of the last frame."""

    channels: Sequence[str] | None = None
    grid: Grid | None = None
    condition: Mapping[str, float] | None = None


def fields_of(
    fields: Fields, folder: Path, name: str, comm: Comm, known: Describing | None = None
) -> list[Trajectory]:
    """Return the trajectories that hold `fields`; collective.

    A whole dataset of `as_dataset` or `as_runs` gives the trajectories behind it. Other fields are
    written to `folder` as float32. Allowed are a dataset with dims ([run,] time, [z,] [y,] x) or
    ([z,] [y,] x), and a data array with a further dimension `channel`. So are arrays (C, *cells)
    or (T, C, *cells) of a grid that `known` describes. Every rank passes the same fields and
    writes its own block. Errors: `InputError` for other dims, and for values that are not finite.
    """
    known = known or Describing()
    if not isinstance(fields, np.ndarray):
        stored = stored_runs(fields)
        if stored is not None:
            return stored
    dataset = _labelled(fields, known)
    if "run" not in dataset.dims:
        return [_write(dataset, folder, name, comm, known)]
    conditions = _mappings(dataset.attrs).get("condition")
    written = []
    for run in range(dataset.sizes["run"]):
        one = dataset.isel(run=run)
        if isinstance(conditions, list):
            one = one.assign_attrs(condition=json.dumps(conditions[run]))
        written.append(_write(one, folder, f"{name}-{run:04d}", comm, known))
    return written


def stored_runs(fields: object) -> list[Trajectory] | None:
    """Return the trajectories behind a dataset of `as_dataset` or `as_runs`.

    None where the dataset is a part of them, or holds other values.
    """
    from xarray import Dataset
    from xarray.core.indexing import LazilyIndexedArray

    if not isinstance(fields, Dataset) or not fields.data_vars:
        return None
    found = []
    for variable in fields.data_vars.values():
        data = variable.variable._data
        if not isinstance(data, LazilyIndexedArray):
            return None
        source = data.array
        if not hasattr(source, "stored") or data.shape != source.shape:
            return None
        whole = [
            range(n)[k] == range(n) if isinstance(k, slice) else False
            for k, n in zip(data.key.tuple, source.shape, strict=True)
        ]
        if not all(whole):
            return None
        found.append(source.stored)
    runs = found[0]
    same = all(one is runs or one == runs for one in found)
    names = tuple(map(str, fields.data_vars)) == runs[0].channels
    return list(runs) if same and names else None


def _labelled(fields: Fields, known: Describing) -> xarray.Dataset:
    """Any accepted form of fields as a dataset with a time."""
    import xarray

    if isinstance(fields, np.ndarray):
        fields = _from_array(fields, known)
    elif isinstance(fields, xarray.DataArray):
        if "channel" in fields.dims:
            fields = fields.to_dataset("channel")
        else:
            fields = fields.to_dataset(name=fields.name or "u")
    space = [dim for dim in ("z", "y", "x") if dim in fields.dims]
    if set(fields.dims) - {"run", "time", *space} or not space:
        raise InputError(
            f"fields: dims {list(map(str, fields.dims))} are not allowed: other names, or "
            "no axis of cells. Allowed: run, time, z, y, x."
        )
    if "time" not in fields.dims:
        fields = fields.expand_dims("time")
    if "time" not in fields.coords:
        fields = fields.assign_coords(time=np.arange(fields.sizes["time"], dtype=float))
    return fields.transpose(*(d for d in ("run", "time", *space) if d in fields.dims))


def _from_array(values: np.ndarray, known: Describing) -> xarray.Dataset:
    """An array (C, *cells) or (T, C, *cells) as a dataset."""
    import xarray

    axes = known.grid.axes if known.grid is not None else max(1, min(values.ndim - 1, 2))
    if values.ndim == axes + 1:
        values = values[None]
    if values.ndim != axes + 2:
        raise InputError(
            f"fields: an array of {values.ndim} dimensions is not allowed: the grid has "
            f"{axes} axes of cells. Allowed: (C, *cells) or (T, C, *cells)."
        )
    channels = known.channels or [f"c{number}" for number in range(values.shape[1])]
    if len(channels) != values.shape[1]:
        raise InputError(
            f"fields: {values.shape[1]} channels are not allowed: not those of the "
            f"training. Allowed: {len(channels)}, {', '.join(channels)}."
        )
    dims = ("time", *axis_names(axes))
    return xarray.Dataset(
        {channel: (dims, values[:, number]) for number, channel in enumerate(channels)}
    )


def _write(
    dataset: xarray.Dataset, folder: Path, name: str, comm: Comm, known: Describing
) -> Trajectory:
    """Write a dataset with dims (time, ..., x) as a trajectory; collective."""
    attributes = _mappings(dataset.attrs)
    grid = _grid(dataset, attributes, known)
    condition = attributes.get("condition")
    if isinstance(condition, list):  # of several runs that this one was taken from
        condition = condition[0] if all(one == condition[0] for one in condition) else None
    condition = condition or dict(known.condition or {})
    blocks = make_blocks(grid, handy_tile(grid.shape), comm.size)
    kept = {"condition": condition, "jump": int(attributes.get("jump", 1))}
    if isinstance(attributes.get("equation"), Mapping):
        kept["equation"] = attributes["equation"]
    channels = [str(channel) for channel in dataset.data_vars]
    names = axis_names(grid.axes)
    mine = blocks.block(comm.rank).slices if comm.rank < blocks.ranks else None
    with TrajectoryWriter(folder, name, blocks, comm, channels, attributes=kept) as writer:
        for frame, moment in enumerate(np.asarray(dataset["time"].values, np.float64)):
            field = None
            if mine is not None:
                part = dataset.isel({"time": frame, **dict(zip(names, mine, strict=True))})
                field = np.stack([part[one].values for one in channels]).astype(np.float32)
                if not np.isfinite(field).all():
                    raise InputError(
                        f"fields: frame {frame} is not allowed: not finite. Allowed: numbers."
                    )
            writer.append(float(moment), field)
    return Trajectory(folder, name)


def _mappings(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with their JSON texts read."""
    read = dict(attributes)
    for key in MAPPINGS:
        if isinstance(read.get(key), str):
            try:
                read[key] = json.loads(read[key])
            except ValueError:
                del read[key]
    return read


def _grid(dataset: xarray.Dataset, attributes: Mapping[str, Any], known: Describing) -> Grid:
    """The grid of a dataset: its own where it says so, else that of `known`, else cells of 1."""
    space = [dim for dim in ("z", "y", "x") if dim in dataset.dims]
    shape = tuple(dataset.sizes[dim] for dim in space)
    if isinstance(attributes.get("grid"), Mapping):
        own = grid_from(attributes["grid"])
        return Grid(shape, own.spacing, own.boundary)
    if known.grid is not None:
        return Grid(shape, known.grid.spacing, known.grid.boundary)
    kinds = attributes.get("boundary", ["periodic"] * len(shape))
    kinds = [kinds] * len(shape) if isinstance(kinds, str) else list(kinds)
    spacing = []
    for dim in space:
        known_places = dim in dataset.coords
        places = np.asarray(dataset[dim].values, float) if known_places else np.arange(2.0)
        spacing.append(float(places[1] - places[0]) if len(places) > 1 else 1.0)
    return Grid(shape, tuple(spacing), tuple(Boundary(kind) for kind in kinds))
