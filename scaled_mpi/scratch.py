"""Temporary folders for results without a folder of their own."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scaled_mpi.config import InputError
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.store import trajectory_names


def scratch_folder(folder: str | Path | None, comm: Comm) -> Path:
    """Return `folder`, created if need be, or a new one that is removed when Python ends.
    Collective.

    Rank 0 creates it; all ranks must see the file system of its temporary folder.
    """
    if folder is None:
        path = Path(on_root(comm, lambda: tempfile.mkdtemp(prefix="scaled_mpi-")))
        if comm.rank == 0:
            atexit.register(shutil.rmtree, path, ignore_errors=True)
        return path
    path = Path(folder)
    on_root(comm, lambda: path.mkdir(parents=True, exist_ok=True))
    return path


def check_unused(folder: Path, names: Sequence[str], comm: Comm) -> None:
    """Raise `InputError` where the folder already holds a trajectory of one of `names`.

    Fields that were returned before are lazy and may lie there. Collective.
    """
    held = on_root(comm, lambda: sorted(set(trajectory_names(folder)) & set(names)))
    if held:
        raise InputError(
            f"folder: {folder} is not allowed: it holds {held[0]}. Allowed: a folder without it"
        )
