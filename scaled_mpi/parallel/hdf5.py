"""One HDF5 file: its layout, writing it by all ranks, and reading files of others safely.

Rank 0 lays a file out alone, with every chunk already placed; then all ranks write raw data and
nothing else. So no call that changes metadata is collective, the classic cause of hangs. The bytes
of a file are the same for any number of ranks. Numbers are written collectively through MPI-IO
where h5py was built for it. Otherwise rank 0 writes block after block and holds one at a time. A
rank without a block takes part with an empty selection; left out, it would hang the others (h5py
issue 965). No value is ever broadcast into a selection, which MPI-IO turns into a
call for each row (h5py issue 1108).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.files import put_in_place
from scaled_mpi.parallel.comm import Comm, by_mpi, raise_together
from scaled_mpi.parallel.root import on_root

if TYPE_CHECKING:
    import h5py

SMALLEST_CHUNK = 16_384  # bytes; below it HDF5 spends more on its index than on the data
LARGEST_FOREIGN = 1 << 40  # bytes that one dataset of others may hold


@dataclass(frozen=True)
class Variable:
    """A dataset to create: name, dimension names and lengths, type, chunk and attributes."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredPiece:
    """The part of a variable that one rank writes: `values` from `start` on, None for nothing."""

    name: str
    start: tuple[int, ...] = ()
    values: np.ndarray | None = None


def chunk_of(
    lead: int, shape: Sequence[int], tile: Sequence[int], itemsize: int
) -> tuple[int, ...]:
    """Chunk of a variable (lead, *shape): one tile, widened while it is tiny.

    First along the leading axis, then along the last, the last but one, ...: the tile of a latent
    field may be a single cell. Depends on the grid and the tile only, never on ranks.
    """
    wanted = math.ceil(SMALLEST_CHUNK / (math.prod(tile) * itemsize))
    chunk = [max(1, min(lead, wanted)), *tile]
    for axis in range(len(shape), 0, -1):
        missing = math.ceil(SMALLEST_CHUNK / (math.prod(chunk) * itemsize))
        tiles = min(missing, shape[axis - 1] // tile[axis - 1])
        chunk[axis] = tiles * tile[axis - 1]
    return tuple(chunk)


def create(
    path: Path,
    coordinates: Mapping[str, tuple[np.ndarray, Mapping[str, Any]]],
    variables: Sequence[Variable],
    attributes: Mapping[str, Any],
) -> None:
    """Lay a file out on this rank: coordinates with values (n,), variables with space alone."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, (values, notes) in coordinates.items():
            dataset = file.create_dataset(name, data=values)
            dataset.make_scale(name)
            dataset.attrs.update(notes)
        for variable in variables:
            dataset = _allocate(file, variable)
            for axis, name in enumerate(variable.dims):
                if name in coordinates:
                    dataset.dims[axis].attach_scale(file[name])
            dataset.attrs.update(variable.attributes)
        for key, value in attributes.items():
            file.attrs[key] = attribute(value)


def _allocate(file: h5py.File, variable: Variable) -> h5py.Dataset:
    """A dataset whose chunks all have their place in the file before any is written."""
    from h5py import Dataset, h5d, h5p, h5s, h5t

    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk(variable.chunk)
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # a date inside would make every file's sha differ
    space = h5s.create_simple(variable.shape)
    kind = h5t.py_create(np.dtype(variable.dtype))
    return Dataset(h5d.create(file.id, variable.name.encode(), kind, space, properties))


def attribute(value: object) -> str | bool | int | float | np.number | np.ndarray:
    """Return a value as an HDF5 attribute: text, a scalar, numbers (n,), anything else as JSON."""
    if isinstance(value, (str, bool, int, float, np.number)):
        return value
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(entry, (int, float)) for entry in value):
            return np.asarray(value)
    return json.dumps(value)


def write(path: Path, comm: Comm, pieces: Sequence[StoredPiece]) -> None:
    """Write every rank's piece of the same variables, in the same order, into a laid out file.

    Collective; the file is closed at the end. All ranks raise the error of one.
    """
    if comm.size > 1 and has_mpi() and by_mpi(comm):
        _write_together(path, comm, pieces)
    elif comm.size > 1:
        _write_by_root(path, comm, pieces)
    else:
        _write_alone(path, pieces)


def has_mpi() -> bool:
    """Whether h5py was built on a parallel HDF5."""
    import h5py

    return bool(h5py.get_config().mpi)


def _write_together(path: Path, comm: Comm, pieces: Sequence[StoredPiece]) -> None:
    import h5py
    from h5py import h5fd, h5p, h5s

    error = None
    collective = h5p.create(h5p.DATASET_XFER)
    collective.set_dxpl_mpio(h5fd.MPIO_COLLECTIVE)
    with h5py.File(path, "r+", driver="mpio", comm=comm) as file:
        for piece in pieces:
            dataset = file[piece.name].id
            values = piece.values
            in_file = dataset.get_space()
            if values is None:
                values = np.zeros(1, dataset.dtype)
                in_memory = h5s.create_simple((1,))
                in_memory.select_none()
                in_file.select_none()
            else:
                values = np.ascontiguousarray(values)
                in_memory = h5s.create_simple(values.shape)
                in_file.select_hyperslab(piece.start, values.shape)
            try:
                dataset.write(in_memory, in_file, values, dxpl=collective)
            except OSError as caught:  # a full disk: said once all have written
                error = error or caught
        file.flush()
    raise_together(comm, error)


def _write_by_root(path: Path, comm: Comm, pieces: Sequence[StoredPiece]) -> None:
    plan = comm.gather(
        [
            None if p.values is None else (p.start, p.values.shape, p.values.dtype.str)
            for p in pieces
        ]
    )
    error = None
    if comm.rank == 0:
        try:
            _receive_and_write(path, comm, pieces, plan)
        except OSError as caught:
            error = caught
    else:
        for piece in pieces:
            if piece.values is not None:
                comm.Send(np.ascontiguousarray(piece.values), dest=0)
    raise_together(comm, error)


def _receive_and_write(
    path: Path, comm: Comm, pieces: Sequence[StoredPiece], plan: list | None
) -> None:
    import h5py

    error = None
    with h5py.File(path, "r+") as file:
        for rank, entries in enumerate(plan or []):
            for piece, entry in zip(pieces, entries, strict=True):
                if entry is None:
                    continue
                start, shape, dtype = entry
                values = piece.values
                if rank > 0:
                    values = np.empty(shape, dtype)
                    comm.Recv(values, source=rank)
                try:
                    file[piece.name][_selection(start, shape)] = values
                except OSError as caught:  # go on receiving, or the senders would wait for ever
                    error = error or caught
    if error:
        raise error


def _write_alone(path: Path, pieces: Sequence[StoredPiece]) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        for piece in pieces:
            if piece.values is not None:
                file[piece.name][_selection(piece.start, piece.values.shape)] = piece.values


def _selection(start: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))


@contextmanager
def writing(path: Path, comm: Comm) -> Iterator[Path]:
    """Yield a temporary name; at the end its file is synced and becomes `path`. Collective."""
    temporary = path.with_name(path.name + ".tmp")
    yield temporary
    on_root(comm, lambda: put_in_place(temporary, path))


@contextmanager
def reading(path: str | Path) -> Iterator[h5py.File]:
    """Yield an open HDF5 file on this rank. Errors: `InputError` if it is missing or not HDF5."""
    file = open_file(path)
    try:
        yield file
    finally:
        file.close()


def open_file(path: str | Path) -> h5py.File:
    """As `reading`, for a handle that stays open: the caller closes it."""
    import h5py

    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise InputError(f"{path}: not there. Needed: an HDF5 file") from None
    except OSError as error:
        raise InputError(f"{path}: damaged or cut short. Needed: a readable HDF5 file") from error


def refuse_pointers(file: h5py.File) -> None:
    """Check a file of others. Errors: `InputError` if anything in it is a link.

    For libraries that open a file as a whole and would follow what `plain_dataset` refuses.
    """
    import h5py

    def points_away(name: str, link: object) -> str | None:
        here = file[name] if isinstance(link, h5py.HardLink) else None
        outside = isinstance(here, h5py.Dataset) and (here.external or here.is_virtual)
        return name if here is None or outside else None

    found = file.visititems_links(points_away)
    if found is not None:
        raise InputError(f"{file.filename}:{found}: is a link. Needed: data inside the file")


def plain_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return the numeric dataset `name` of an open file that may come from anyone.

    A file can point at other files of the machine (external and soft links, external storage,
    virtual sources); none is followed.

    Errors: `InputError` for these, for a missing name and for data that is not plain numbers.
    """
    import h5py

    where = f"{file.filename}:{name}"
    here: Any = file
    for part in [part for part in name.split("/") if part]:
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            known = ", ".join(sorted(here)[:12]) if isinstance(here, h5py.Group) else "nothing"
            raise InputError(f"{where}: not there. Needed: {known}")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{where}: is a link. Needed: data inside the file")
        here = here[part]
    if not isinstance(here, h5py.Dataset):
        raise InputError(f"{where}: is a group. Needed: a dataset")
    if here.external or here.is_virtual:
        raise InputError(f"{where}: keeps its data in other files. Needed: data inside the file")
    if here.dtype.kind not in "fiub" or here.dtype.subdtype or here.shape is None:
        raise InputError(f"{where}: holds {here.dtype}. Needed: plain numbers")
    if here.size * here.dtype.itemsize > LARGEST_FOREIGN:
        raise InputError(f"{where}: claims {here.size} values. Needed: at most 1 TiB")
    return here
