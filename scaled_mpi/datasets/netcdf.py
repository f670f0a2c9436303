"""NetCDF files, 4 (through h5netcdf) and classic (through scipy)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.datasets.array_files import ArrayFiles
from scaled_mpi.parallel import hdf5

if TYPE_CHECKING:
    import xarray

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


class NetcdfSource:
    """A NetCDF file of others. Packed values come unpacked, fill values as nan."""

    def __init__(self, path: str) -> None:
        import xarray

        self.path = path
        with open(path, "rb") as file:
            is_hdf5 = file.read(8) == _HDF5_MAGIC
        if is_hdf5:
            with hdf5.reading(path) as file:
                hdf5.refuse_pointers(file)
        engine = "h5netcdf" if is_hdf5 else "scipy"
        try:
            self.data = xarray.open_dataset(path, engine=engine, decode_times=False, cache=False)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: damaged. Needed: a readable NetCDF file") from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the variable `name`."""
        return tuple(self._variable(name).shape)

    def read(self, name: str, index: tuple[Any, ...]) -> np.ndarray:
        """Return the part of it at `index`, of any shape."""
        return np.asarray(self._variable(name)[index].values)

    def close(self) -> None:
        """Close the file."""
        self.data.close()

    def _variable(self, name: str) -> xarray.Variable:
        if name not in self.data.variables:
            known = ", ".join(sorted(map(str, self.data.variables))[:12])
            raise InputError(f"{self.path}:{name}: not there. Needed: {known}")
        variable = self.data.variables[name]
        if variable.dtype.kind not in "fiub":
            raise InputError(f"{self.path}:{name}: holds {variable.dtype}. Needed: numbers")
        return variable


class NetcdfFiles(ArrayFiles):
    """NetCDF: an array is a variable."""

    kind: Literal["netcdf"] = "netcdf"

    def open(self, path: str) -> NetcdfSource:
        """The file, open on this rank."""
        return NetcdfSource(path)
