"""Copies of NPZ files without their pickled members, which nobody should have to trust.

    python -m scaled_mpi.datasets.plain oscar_outputs plain_outputs

copies a folder: of NPZ files all arrays of numbers and text, byte for byte, other files as they
are. A pickled member can run any code when it is read; here it is never read, only left out and
named. (Upstream's traj.npz pickles `config`, which its metadata.json says in plain words too.)
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.files import link_or_copy, put_in_place, walk

COMMAND = "python -m scaled_mpi.datasets.plain FOLDER COPY"


def pickled_members(path: str | Path) -> list[str]:
    """Names of the members of an NPZ file that hold objects.

    Errors: `InputError` where the file is missing or no NPZ file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [
                name.removesuffix(".npy")
                for name in archive.namelist()
                if _is_pickled(archive, name)
            ]
    except FileNotFoundError:
        raise InputError(f"{path}: not there. Needed: the whole tree") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged. Needed: a readable NPZ file") from error


def _is_pickled(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as stream:
        if np.lib.format.read_magic(stream) == (1, 0):
            header = np.lib.format.read_array_header_1_0(stream)
        else:
            header = np.lib.format.read_array_header_2_0(stream)
    return bool(header[2].hasobject)


def copy_plainly(source: Path, target: Path) -> list[str]:
    """Copy a folder without pickled members; returns FILE:MEMBER of what was left out.

    Errors: `InputError` where `source` is no folder or `target` is there.
    """
    if not source.is_dir() or target.exists():
        raise InputError(
            f"{source}, {target}: no folder, or a name in use. Needed: a folder, and a "
            "name that is free"
        )
    left_out = []
    target.mkdir(parents=True)
    for entry in walk(source):
        place = target / entry.relative_to(source)
        if entry.is_dir():
            place.mkdir()
        elif entry.suffix == ".npz" and (pickled := pickled_members(entry)):
            _copy_without(entry, place, {f"{name}.npy" for name in pickled})
            left_out += [f"{entry}:{name}" for name in pickled]
        else:
            link_or_copy(entry, place)
    return left_out


def _copy_without(source: Path, target: Path, left_out: set[str]) -> None:
    temporary = target.with_name(target.name + ".tmp")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(temporary, "w") as new:
        for member in old.infolist():
            if member.filename not in left_out:
                new.writestr(member, old.read(member))
    put_in_place(temporary, target)


def main() -> int:
    """The command line; returns the exit code, 2 for bad input."""
    if len(sys.argv) != 3:
        print(COMMAND, file=sys.stderr)
        return 2
    try:
        left_out = copy_plainly(Path(sys.argv[1]), Path(sys.argv[2]))
    except InputError as error:
        print(f"scaled_mpi: {error}", file=sys.stderr)
        return 2
    for name in left_out:
        print(f"left out: {name}")
    print(sys.argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
