"""Network weights in safetensors: written whole or not at all, trusted only when the hash agrees.

A file carries its own SHA-256 over names, types, shapes, bytes and the metadata, because
safetensors checks its header but not its numbers. It is written beside its place, synced and
renamed, so that a process killed at any moment leaves the old file or the new one. Nothing here
unpickles: a hostile file can at worst be refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from scaled_mpi.config import InputError
from scaled_mpi.files import put_in_place

HEAD = "scaled_mpi"  # the one entry of the file's metadata

Tensors = dict[str, torch.Tensor]


def save_weights(path: str | Path, state: Mapping[str, torch.Tensor], meta: dict) -> str:
    """Write tensors, of any shape, and JSON metadata to `path` by rename.

    Returns their SHA-256 in hex.
    """
    tensors = {name: _plain(tensor) for name, tensor in state.items()}
    words = json.dumps(meta, sort_keys=True, allow_nan=False)
    digest = _digest(tensors, words)
    # One entry, because safetensors writes several in an order that changes from run to run.
    head = json.dumps({"meta": words, "sha256": digest})
    _write(Path(path), save(tensors, {HEAD: head}))
    return digest


def load_weights(path: str | Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors (on the CPU, of any shape) and metadata of a file that `save_weights` wrote.

    Errors: `InputError` where the file is absent, truncated, altered or of another program.
    """
    path = Path(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file. Needed: weights in safetensors") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: not readable ({error}). Needed: a safetensors file") from error
    if HEAD not in head:
        raise InputError(f"{path}: the entry {HEAD} is missing. Needed: safetensors of scaled_mpi")
    try:
        told = json.loads(head[HEAD])
        whole = told["sha256"] == _digest(tensors, told["meta"])
        meta = json.loads(told["meta"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: its metadata cannot be read. Needed: weights of scaled_mpi"
        ) from error
    if not whole or not isinstance(meta, dict):
        raise InputError(
            f"{path}: altered or damaged, its SHA-256 does not agree. Needed: another copy, "
            "or this file removed"
        )
    return tensors, meta


def load_into(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `tensors` into `module`; they must have exactly its names, shapes and types.

    Tensors of any shape. Errors: `InputError` naming the first difference and `source`, before
    anything is changed.
    """
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        mine, given = _kind(own.get(name)), _kind(tensors.get(name))
        if mine != given:
            raise InputError(
                f"{source}: weights of another architecture: {name} is {given}. Needed: {mine}"
            )
    bad = first_not_finite(tensors)
    if bad:
        raise InputError(
            f"{source}: {bad} holds values that are not finite. Needed: finite weights"
        )
    module.load_state_dict(dict(tensors))


def first_not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Name of the first tensor (of any shape) that holds a NaN or an infinity.

    None where all are finite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not math.isfinite(float(tensor.float().abs().sum())):
            if not bool(torch.isfinite(tensor).all()):
                return name
    return None


def _kind(tensor: torch.Tensor | None) -> str:
    if tensor is None:
        return "absent"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the CPU that shares its memory with no other entry."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _digest(tensors: Mapping[str, torch.Tensor], words: str) -> str:
    total = hashlib.sha256(words.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"\n{name} {_kind(tensor)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Put `content` at `path` as a whole; a draft that could not be finished is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        put_in_place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def sweep_drafts(folder: str | Path) -> None:
    """Remove the drafts of killed writers in `folder`; only its one writer may call this."""
    for draft in Path(folder).glob(".*.safetensors.*.tmp"):
        draft.unlink(missing_ok=True)
