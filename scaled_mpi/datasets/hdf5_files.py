"""HDF5 files of any layout."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from scaled_mpi.datasets.array_files import ArrayFiles
from scaled_mpi.parallel import hdf5


class Hdf5Source:
    """An HDF5 file of others: plain data inside it only, no links to elsewhere."""

    def __init__(self, path: str) -> None:
        self.file = hdf5.open_file(path)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the dataset `name` (groups separated by /)."""
        return tuple(hdf5.plain_dataset(self.file, name).shape)

    def read(self, name: str, index: tuple[Any, ...]) -> np.ndarray:
        """Return the part of it at `index`, of any shape."""
        return np.asarray(hdf5.plain_dataset(self.file, name)[index])

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Hdf5Files(ArrayFiles):
    """HDF5: an array is the path of a dataset, for example fields/density."""

    kind: Literal["hdf5"] = "hdf5"

    def open(self, path: str) -> Hdf5Source:
        """The file, open on this rank."""
        return Hdf5Source(path)
