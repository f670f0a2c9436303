"""NumPy's NPZ files: np.savez(path, u=array, ...). Pickled members are refused."""

from __future__ import annotations

import zipfile
from typing import IO, Any, Literal

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.datasets.array_files import ArrayFiles
from scaled_mpi.datasets.plain import COMMAND

LARGEST_PACKED = 8 << 30  # bytes of a compressed member, which has to be held in memory
_LOCAL_HEADER = 30  # bytes of a zip entry before its name; its last four tell what follows


class NpzSource:
    """An NPZ file of others. Members stay on disk, but compressed ones are held in memory."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._arrays: dict[str, np.ndarray] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: damaged. Needed: a readable NPZ file") from error

    def __contains__(self, name: str) -> bool:
        return f"{name}.npy" in self._zip.namelist()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the array `name`."""
        return tuple(self._array(name).shape)

    def read(self, name: str, index: tuple[Any, ...]) -> np.ndarray:
        """Return the part of it at `index`, of any shape."""
        return np.asarray(self._array(name)[index])

    def close(self) -> None:
        """Close the file."""
        self._arrays.clear()
        self._zip.close()

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            try:
                member = self._zip.getinfo(f"{name}.npy")
            except KeyError:
                known = ", ".join(
                    sorted(n.removesuffix(".npy") for n in self._zip.namelist())[:12]
                )
                raise InputError(f"{self.path}:{name}: not there. Needed: {known}") from None
            try:
                self._arrays[name] = self._load(name, member)
            except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(
                    f"{self.path}:{name}: not readable ({error}). Needed: an array"
                ) from error
        return self._arrays[name]

    def _load(self, name: str, member: zipfile.ZipInfo) -> np.ndarray:
        with self._zip.open(member) as stream:
            shape, fortran, dtype = _header(stream)
            if dtype.hasobject:
                raise InputError(
                    f"{self.path}:{name}: pickled. Needed: plain numbers; {COMMAND} leaves the "
                    "array out"
                )
            if dtype.kind not in "fiub" or dtype.subdtype:
                raise InputError(f"{self.path}:{name}: holds {dtype}. Needed: numbers")
            begin = stream.tell()
        if member.compress_type == zipfile.ZIP_STORED:
            offset = self._data_start(member) + begin
            order: Literal["F", "C"] = "F" if fortran else "C"
            return np.memmap(
                self.path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order
            )
        if member.file_size > LARGEST_PACKED:
            raise InputError(
                f"{self.path}:{name}: too large to unpack. Needed: a file that np.savez wrote"
            )
        with self._zip.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    def _data_start(self, member: zipfile.ZipInfo) -> int:
        with open(self.path, "rb") as file:
            file.seek(member.header_offset)
            header = file.read(_LOCAL_HEADER)
        name, extra = (int.from_bytes(header[a : a + 2], "little") for a in (26, 28))
        return member.header_offset + _LOCAL_HEADER + name + extra


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


class NpzFiles(ArrayFiles):
    """NPZ: an array is a key of the file."""

    kind: Literal["npz"] = "npz"

    def open(self, path: str) -> NpzSource:
        """The file, open on this rank."""
        return NpzSource(path)
