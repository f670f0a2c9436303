"""Snapshots of patterns in files of a few hundred: written whole by one rank each, read by any.

    waves.00000.h5, waves.00001.h5, ...   samples (n, 2, Y, X) float32; meta: preset, first sample
    waves.json                            the index, written last: shape, files and their sha256

A file that is there is complete; a killed run goes on with the others. The bytes depend on the
experiment alone, never on the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.files import plain_name, seal, sha256, unseal, write_text
from scaled_mpi.parallel.arrays import load_arrays, save_arrays

FORMAT = "scaled_mpi snapshots"


def chunk_path(folder: Path, preset: str, number: int) -> Path:
    """The file of one chunk."""
    return folder / f"{plain_name(preset)}.{number:05d}.h5"


def write_chunk(
    folder: Path, preset: str, number: int, samples: np.ndarray, meta: Mapping[str, Any]
) -> None:
    """Write samples (n, 2, Y, X) by rename. Serial, one rank a chunk."""
    save_arrays(chunk_path(folder, preset, number), {"samples": samples}, dict(meta))


def write_index(
    folder: Path, preset: str, chunks: int, shape: Sequence[int], meta: Mapping[str, Any]
) -> str:
    """Write the index of finished chunks; returns the sha256 over all of them. Serial."""
    files = [chunk_path(folder, preset, number) for number in range(chunks)]
    entries = [{"file": path.name, "sha256": sha256(path)} for path in files]
    text = seal(
        {
            "format": FORMAT,
            "preset": preset,
            "shape": list(shape),
            "files": entries,
            "meta": dict(meta),
        }
    )
    path = folder / f"{plain_name(preset)}.json"
    write_text(path, text)
    return sha256(path)


class SnapshotSet:
    """The finished snapshots of one preset: `shape` is (N, 2, Y, X).

    Errors: `InputError` where they are missing, unfinished or damaged.
    """

    def __init__(self, folder: str | Path, preset: str) -> None:
        self.folder, self.preset = Path(folder), plain_name(preset)
        path = self.folder / f"{preset}.json"
        index = unseal(path, FORMAT)
        try:
            self.shape = tuple(int(n) for n in index["shape"])
            self.meta: dict[str, Any] = dict(index["meta"])
            self.files = [plain_name(entry["file"], "file") for entry in index["files"]]
            self.chunk = int(self.meta["chunk"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: not an index ({error}). Needed: an index of version 1"
            ) from error

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples start .. stop - 1 as (n, 2, Y, X) float32, as stored (perhaps normalised).

        Errors: `InputError` for a value that is not finite.
        """
        if not 0 <= start < stop <= len(self):
            raise IndexError(
                f"samples: {start} to {stop} is not allowed: out of range. Allowed: inside "
                f"0 to {len(self)}"
            )
        result = np.empty((stop - start, *self.shape[1:]), np.float32)
        for number in range(start // self.chunk, (stop - 1) // self.chunk + 1):
            arrays, _ = load_arrays(self.folder / self.files[number])
            first = number * self.chunk
            low, high = max(start, first), min(stop, first + len(arrays["samples"]))
            result[low - start : high - start] = arrays["samples"][low - first : high - first]
        if not np.isfinite(result).all():
            raise InputError(
                f"{self.folder}: {self.preset} has samples that are not finite. Needed: "
                "finite numbers"
            )
        return result
