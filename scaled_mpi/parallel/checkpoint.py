"""State of a march on disk: arrays of all ranks and a few scalars, readable on another rank count.

PATH is a JSON index of the newest and the previous generation, PATH.<number>.h5, with size and
sha256. It is replaced by rename when the new file is complete and synced. So the index names at
least one whole generation at every moment. If the newest file is damaged later, the previous one
is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.files import plain_name, seal, sha256, unseal, write_text
from scaled_mpi.parallel import hdf5
from scaled_mpi.parallel.blocks import Block, Blocks
from scaled_mpi.parallel.comm import Comm, raise_together
from scaled_mpi.parallel.root import on_root

FORMAT = "scaled_mpi checkpoint"


def save_checkpoint(
    path: str | Path,
    comm: Comm,
    blocks: Blocks,
    arrays: Mapping[str, np.ndarray],
    scalars: Mapping[str, Any],
) -> None:
    """Save arrays (..., *block.size) of every rank and scalars that JSON knows; collective.

    All ranks give the same names, leading axes and types. A rank without a block gives arrays of
    any values, and its scalars do not count.

    Errors: `FloatingPointError` on all ranks, before anything is written, if a value is not
    finite: such a state must not replace a good one. `ValueError` for an array of another shape.
    """
    path = Path(path)
    block = blocks.block(comm.rank) if comm.rank < blocks.ranks else None
    names = sorted(plain_name(name, "array") for name in arrays)
    if block is not None:
        for name in names:
            if np.shape(arrays[name])[-blocks.grid.axes :] != block.size:
                raise ValueError(
                    f"{name}: shape {np.shape(arrays[name])} is not allowed: it must end in the "
                    f"block. Allowed: (..., {block.size})"
                )
    for rank, words in enumerate(comm.allgather(_not_finite(arrays, block))):
        if words:
            raise FloatingPointError(f"rank {rank}: {words}, not saved. Needed: finite values")
    old = on_root(comm, lambda: _generations(path))
    number = old[0]["number"] + 1 if old else 0
    file = path.with_name(f"{path.name}.{number:08d}.h5")
    lead = {name: list(np.shape(arrays[name])[: -blocks.grid.axes]) for name in names}
    pieces = [_piece(name, arrays[name], block) for name in names]
    with hdf5.writing(file, comm) as temporary:
        on_root(comm, lambda: _lay_out(temporary, blocks, arrays, lead))
        hdf5.write(temporary, comm, pieces)
    entry = {"number": number, "file": file.name, "lead": lead, "scalars": dict(scalars)}
    on_root(comm, lambda: _commit(path, [{**entry, **_weigh(file)}, *old[:1]], blocks))


def load_checkpoint(
    path: str | Path, comm: Comm, blocks: Blocks
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Return (arrays, scalars) of the newest whole generation, None if nothing was saved.

    Arrays are (..., *block.size) of this rank's block; a rank without a block gets empty ones.
    Collective; `blocks` may split the same grid for another number of ranks.

    Errors: `InputError` if all generations are damaged or belong to another grid.
    """
    path = Path(path)
    entry = on_root(comm, lambda: _newest_whole(path, blocks))
    if entry is None:
        return None
    arrays, error = {}, None
    try:
        arrays = _read(path.with_name(entry["file"]), entry["lead"], comm, blocks)
    except (OSError, InputError) as caught:
        error = caught
    raise_together(comm, error)
    return arrays, entry["scalars"]


def remove_checkpoint(path: str | Path) -> None:
    """Remove a checkpoint and its generations, index first. Serial: call it on one rank."""
    path = Path(path)
    path.unlink(missing_ok=True)
    for file in path.parent.glob(f"{path.name}.[0-9]*.h5*"):
        file.unlink()


def _not_finite(arrays: Mapping[str, np.ndarray], block: Block | None) -> str | None:
    """Which array has its first value that is not finite in which global cell."""
    if block is None:
        return None
    axes = len(block.size)
    for name, values in arrays.items():
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            cell = tuple(int(i) + a for i, a in zip(bad[0][-axes:], block.start, strict=True))
            return f"{name} is not finite at cell {cell}"
    return None


def _piece(name: str, values: np.ndarray, block: Block | None) -> hdf5.StoredPiece:
    if block is None:
        return hdf5.StoredPiece(name)
    lead = np.ndim(values) - len(block.size)
    return hdf5.StoredPiece(name, (0,) * lead + block.start, np.asarray(values))


def _lay_out(path: Path, blocks: Blocks, arrays: Mapping[str, Any], lead: dict) -> None:
    grid, variables = blocks.grid, []
    for name, front in lead.items():
        dtype = np.asarray(arrays[name]).dtype
        chunk = hdf5.chunk_of(1, grid.shape, blocks.tile, dtype.itemsize)
        chunk = (1,) * len(front) + chunk[1:]
        dims = tuple(f"d{axis}" for axis in range(len(chunk)))
        variables.append(hdf5.Variable(name, dims, (*front, *grid.shape), dtype, chunk))
    hdf5.create(path, {}, variables, {})


def _weigh(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": sha256(file)}


def _generations(path: Path) -> list[dict[str, Any]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return unseal(path, FORMAT)["generations"] if path.exists() else []


def _commit(path: Path, generations: list[dict[str, Any]], blocks: Blocks) -> None:
    tree = {"format": FORMAT, "shape": list(blocks.grid.shape), "generations": generations}
    write_text(path, seal(tree))
    kept = {entry["file"] for entry in generations}
    for file in path.parent.glob(f"{path.name}.[0-9]*.h5*"):
        if file.name not in kept:
            file.unlink()


def _newest_whole(path: Path, blocks: Blocks) -> dict[str, Any] | None:
    if not path.exists():
        return None
    tree = unseal(path, FORMAT)
    if tree["shape"] != list(blocks.grid.shape):
        raise InputError(
            f"{path}: holds a grid {tree['shape']}. Needed: {list(blocks.grid.shape)}"
        )
    for entry in tree["generations"]:
        file = path.with_name(plain_name(entry["file"], "file"))
        if file.exists() and _weigh(file) == {"size": entry["size"], "sha256": entry["sha256"]}:
            return entry
    raise InputError(
        f"{path}: all its files are missing or damaged. Needed: a whole one, or "
        "remove it to start again"
    )


def _read(path: Path, lead: dict, comm: Comm, blocks: Blocks) -> dict[str, np.ndarray]:
    arrays = {}
    block = blocks.block(comm.rank) if comm.rank < blocks.ranks else None
    with hdf5.reading(path) as file:
        for name, front in lead.items():
            dataset = hdf5.plain_dataset(file, name)
            if block is None:
                arrays[name] = np.empty((*front, *(0,) * blocks.grid.axes), dataset.dtype)
            else:
                arrays[name] = dataset[(slice(None),) * len(front) + block.slices]
    return arrays
