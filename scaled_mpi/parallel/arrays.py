"""A few named arrays and plain data in one small HDF5 file: written whole, checked when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.files import put_in_place
from scaled_mpi.parallel import hdf5

HEAD = "scaled_mpi"


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], meta: object) -> str:
    """Write arrays of any shape and JSON-able `meta` by rename; return their SHA-256. Serial.

    Equal contents give equal bytes.
    """
    path = Path(path)
    contents = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    words = json.dumps(meta, sort_keys=True, allow_nan=False)
    digest = _digest(contents, words)
    temporary = path.with_name(path.name + ".tmp")
    _write(temporary, contents, {HEAD: words, "sha256": digest})
    put_in_place(temporary, path)
    return digest


def load_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], Any]:
    """Return the arrays (of any shape) and the meta of a file that `save_arrays` wrote.

    Errors: `InputError` where the file is missing, cut short, altered or of another program.
    """
    path = Path(path)
    try:
        with hdf5.reading(path) as file:
            arrays = {name: np.asarray(hdf5.plain_dataset(file, name)[()]) for name in file}
            words, told = str(file.attrs[HEAD]), file.attrs["sha256"]
        meta = json.loads(words)
    except InputError:
        raise
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: not readable ({error}). Needed: a file that this program wrote"
        ) from error
    if _digest(arrays, words) != told:
        raise InputError(
            f"{path}: damaged, its content differs from its checksum. Needed: an intact file"
        )
    return arrays, meta


def _write(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, str]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, track_times=False)
        for key, value in attributes.items():
            file.attrs[key] = value


def _digest(arrays: Mapping[str, np.ndarray], words: str) -> str:
    found = hashlib.sha256(words.encode())
    for name in sorted(arrays):
        values = arrays[name]
        found.update(f"{name} {values.dtype.str} {values.shape}".encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
