"""The Well: 15 TB of simulations in one HDF5 layout (Ohana et al. 2024, arXiv:2412.00568).

    dimensions            @spatial_dims; time (T) or (n, T); x, y, ... coordinates
    boundary_conditions   groups with @bc_type (periodic, wall, open) and @associated_dims
    scalars               numbers that set runs apart, one for a file or one a run
    t0_fields             scalars (n, T, x, y, ...)
    t1_fields             vectors (n, T, x, y, ..., component)

Layout: https://polymathic-ai.org/the_well/data_format. Channels are the names of t0 fields and
<name>_<axis> for the components of t1 fields. Fields that do not vary in time or from run to run
are no channels. Their first axis in space is x; here it is the last. Walls and open ends are taken
as neumann.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from scaled_mpi.config import InputError
from scaled_mpi.datasets.hdf5_files import Hdf5Source
from scaled_mpi.datasets.runs import Place, Run, Source, TrajectoryFiles
from scaled_mpi.parallel.blocks import Boundary, per_axis
from scaled_mpi.parallel.hdf5 import plain_dataset

if TYPE_CHECKING:
    import h5py

_KINDS = {"periodic": "periodic", "wall": "neumann", "open": "neumann"}
_UNEVEN = 1e-3  # relative difference of spacings that counts as a non-uniform grid


class WellFiles(TrajectoryFiles):
    """Files of The Well; `channels` chooses and orders them (none named: all that vary).

    `boundary` replaces what the files say, one for all axes or a list in the order z, y, x.
    """

    kind: Literal["well"] = "well"
    channels: tuple[str, ...] = ()
    boundary: (
        Literal["periodic", "neumann"] | tuple[Literal["periodic", "neumann"], ...] | None
    ) = None

    def open(self, path: str) -> Hdf5Source:
        """The file, open on this rank."""
        return Hdf5Source(path)

    def runs(self, path: str, source: Source) -> list[Run]:
        """Return the trajectories of a file."""
        assert isinstance(source, Hdf5Source)
        names = _words(_group(source, path, "dimensions").attrs.get("spatial_dims", ()))
        if not 1 <= len(names) <= 3:
            raise InputError(f"{path}: has dimensions of space {names}. Needed: 1 to 3")
        letters = names if set(names) <= set("xyz") else list("zyx"[-len(names) :])
        axes = "nt" + "".join(letters)
        places = self._places(path, source, axes)
        shape = source.shape(places[0].array)
        sizes = dict(zip(axes, shape, strict=False))
        by_letter = dict(zip(letters, names, strict=True))
        order = [by_letter[axis] for axis in "zyx"[-len(names) :]]
        spacing = tuple(_spacing(path, source, name) for name in order)
        boundary = self._boundary(path, source, order)
        cells = tuple(range(sizes[axis]) for axis in "zyx"[-len(names) :])
        frames = range(sizes["t"])
        return [
            Run(
                path,
                axes,
                places,
                frames,
                cells,
                spacing,
                boundary,
                _time_step(path, source, number),
                number,
                _condition(source, number, sizes["n"]),
            )
            for number in range(sizes["n"])
        ]

    def _places(self, path: str, source: Hdf5Source, axes: str) -> tuple[Place, ...]:
        found: dict[str, Place] = {}
        for name, array in _fields(source, path, "t0_fields"):
            if len(source.shape(array)) == len(axes):
                found[name] = Place(name, array)
        for name, array in _fields(source, path, "t1_fields"):
            if len(source.shape(array)) == len(axes) + 1:
                for c, axis in enumerate(axes[2:]):
                    found[f"{name}_{axis}"] = Place(f"{name}_{axis}", array, c, axes + "c")
        unknown = [channel for channel in self.channels if channel not in found]
        if unknown or not found:
            raise InputError(
                f"{path}: has no channels {unknown}. Needed: {', '.join(found) or 'none'}"
            )
        places = tuple(found[channel] for channel in self.channels or found)
        shapes = {source.shape(place.array)[: len(axes)] for place in places}
        if len(shapes) > 1 or 0 in next(iter(shapes)):
            raise InputError(
                f"{path}: has fields of different shapes {sorted(shapes)}. Needed: one shape"
            )
        return places

    def _boundary(self, path: str, source: Hdf5Source, order: list[str]) -> tuple[Boundary, ...]:
        if self.boundary is not None:
            kinds = per_axis("dataset.boundary", self.boundary, len(order))
            return tuple(Boundary(kind) for kind in kinds)
        found: dict[str, str] = {}
        group = _group(source, path, "boundary_conditions")
        for name in group:
            attributes = _group(source, path, f"boundary_conditions/{name}").attrs
            kind = str(attributes.get("bc_type", "")).lower()
            for axis in _words(attributes.get("associated_dims", ())):
                found[axis] = _KINDS.get(kind, kind)
        for axis in order:
            if found.get(axis) not in _KINDS.values():
                raise InputError(
                    f"{path}: boundary {found.get(axis)!r} of {axis} is not known. Needed: "
                    "periodic, wall or open, or dataset.boundary"
                )
        return tuple(Boundary(found[axis]) for axis in order)


def _group(source: Hdf5Source, path: str, name: str) -> h5py.Group:
    """A group inside the file; InputError if it is missing or a link to elsewhere."""
    import h5py

    here = source.file
    for part in name.split("/"):
        link = here.get(part, getlink=True)
        if not isinstance(link, h5py.HardLink) or not isinstance(here[part], h5py.Group):
            raise InputError(f"{path}: has no group {name}. Needed: a file of The Well")
        here = here[part]
    return here


def _fields(source: Hdf5Source, path: str, group: str) -> list[tuple[str, str]]:
    """(name, path in the file) of the fields that vary in time and from run to run."""
    if group not in source.file:
        return []
    fields = []
    for name in _group(source, path, group):
        attributes = _attributes(source, group, name)
        if all(
            np.all(attributes.get(f"{kind}_varying", True)) for kind in ("time", "sample", "dim")
        ):
            fields.append((name, f"{group}/{name}"))
    return sorted(fields)


def _attributes(source: Hdf5Source, group: str, name: str) -> dict[str, Any]:
    return dict(plain_dataset(source.file, f"{group}/{name}").attrs)


def _spacing(path: str, source: Hdf5Source, name: str) -> float:
    points = _vector(source, f"dimensions/{name}")
    steps = np.diff(points)
    if len(steps) == 0:
        return 1.0
    if not steps[0] > 0 or np.ptp(steps) > _UNEVEN * steps[0]:
        raise InputError(f"{path}:dimensions/{name}: uneven. Needed: a uniform grid")
    return float(points[-1] - points[0]) / len(steps)


def _time_step(path: str, source: Hdf5Source, number: int) -> float:
    shape = source.shape("dimensions/time")
    index: tuple[Any, ...] = (slice(None),) if len(shape) == 1 else (number, slice(None))
    steps = np.diff(np.asarray(source.read("dimensions/time", index), np.float64))
    if len(steps) == 0 or not np.mean(steps) > 0:
        raise InputError(f"{path}:dimensions/time: does not grow. Needed: times of frames")
    return float(np.mean(steps))


def _vector(source: Hdf5Source, name: str) -> np.ndarray:
    """A coordinate; of one that is told for each run or time, the first."""
    shape = source.shape(name)
    return np.asarray(source.read(name, (0,) * (len(shape) - 1) + (slice(None),)), np.float64)


def _condition(source: Hdf5Source, number: int, count: int) -> dict[str, float]:
    """Scalars of a run that do not vary in time."""
    if "scalars" not in source.file:
        return {}
    found = {}
    for name in _group(source, source.file.filename, "scalars"):
        attributes = _attributes(source, "scalars", name)
        shape = source.shape(f"scalars/{name}")
        if not attributes.get("time_varying", False) and shape in ((), (1,), (count,)):
            values = source.read(f"scalars/{name}", (slice(None),) * len(shape)).reshape(-1)
            found[name] = float(values[number if len(values) == count else 0])
    return found


def _words(value: ArrayLike) -> list[str]:
    return [w.decode() if isinstance(w, bytes) else str(w) for w in np.atleast_1d(value)]
