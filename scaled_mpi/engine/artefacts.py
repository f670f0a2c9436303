"""Artefacts: finished results of stages, found again by the hash of all their inputs.

    ROOT/STAGE-HASH/           complete, never changed again; provenance.json tells its origin
    ROOT/STAGE-HASH.partial/   in work; kept when a run is killed, so that the stage can go on
    ROOT/STAGE-HASH.old/       the former one while `redo` replaces it

A folder gets its final name only when all ranks are done and every file in it is on disk. The hash
covers the stage's part of the configuration, the artefacts it read and the version of the stage,
never the number of ranks. Two runs never work in one partial folder: the system keeps a lock on
it, and frees it when the run ends.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scaled_mpi.config import InputError, canonical
from scaled_mpi.facts import git_commit, read_facts
from scaled_mpi.files import link_tree, plain_name, sync, walk, write_text
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.root import on_root

PROVENANCE = "provenance.json"
_LIBRARIES = (
    "scaled_mpi",
    "numpy",
    "scipy",
    "numba",
    "torch",
    "safetensors",
    "h5py",
    "mpi4py",
    "petsc4py",
    "pydantic",
)
_SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)


def artefact_hash(
    stage: str, version: int, config_part: Mapping[str, Any], inputs: Sequence[str] = ()
) -> str:
    """Ten hex digits that change when anything does that the result depends on.

    `version` is the stage's own number, raised when its results change; `inputs` are the names
    (STAGE-HASH) of the artefacts that it reads, in order.
    """
    tree = {"stage": stage, "version": version, "config": config_part, "inputs": list(inputs)}
    return hashlib.sha256(canonical(tree).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Artefact:
    """A stage's result under `root`, finished or not; `name` is STAGE-HASH."""

    root: Path
    stage: str
    hash: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        plain_name(self.stage, "stage")
        plain_name(self.hash, "hash")

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.hash}"

    @property
    def path(self) -> Path:
        """The folder of the finished artefact."""
        return self.root / self.name

    @property
    def partial(self) -> Path:
        """The folder in which it is built."""
        return self.root / f"{self.name}.partial"

    @property
    def done(self) -> bool:
        """Whether it is complete. Ranks that ask during a run should ask once, on rank 0."""
        return (self.path / PROVENANCE).is_file()

    def provenance(self) -> dict[str, Any]:
        """The recorded origin of a finished artefact."""
        try:
            return json.loads((self.path / PROVENANCE).read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path}: not finished. Needed: a readable {PROVENANCE}"
            ) from error


@contextmanager
def building(
    artefact: Artefact,
    comm: Comm,
    redo: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> Iterator[Path]:
    """The folder in which all ranks build an artefact, which it becomes at the end. Collective.

    What a killed run left in it is still there, unless `redo`. A finished artefact of the same
    name stays until the new one is complete. `provenance` (configuration, inputs, seed) is written
    into provenance.json with versions, ranks and times; text under keys that sound secret is left
    out. After an error the folder stays partial. InputError if another run works on the same
    artefact.
    """
    began = time.monotonic()
    lock = _Lock(artefact.partial)
    on_root(comm, lambda: _begin(artefact, lock, redo))
    try:
        yield artefact.partial
        comm.Barrier()
        origin = {"stage": artefact.stage, "hash": artefact.hash, **(provenance or {})}
        on_root(comm, lambda: _finish(artefact, _origin(origin, comm.size, began)))
    finally:
        lock.free()


def _begin(artefact: Artefact, lock: _Lock, redo: bool) -> None:
    artefact.partial.mkdir(parents=True, exist_ok=True)
    lock.take()
    if redo:
        for entry in artefact.partial.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _finish(artefact: Artefact, origin: dict[str, Any]) -> None:
    write_text(artefact.partial / PROVENANCE, json.dumps(origin, indent=1, default=str) + "\n")
    for entry in walk(artefact.partial):
        sync(entry)
    sync(artefact.partial)
    former = artefact.root / f"{artefact.name}.old"
    if former.exists():
        shutil.rmtree(former)
    if artefact.path.exists():
        os.rename(artefact.path, former)
    os.rename(artefact.partial, artefact.path)
    sync(artefact.root)
    if former.exists():
        shutil.rmtree(former)


class _Lock:
    """Says that a folder is worked on, until freed or the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle: int | None = None

    def take(self) -> None:
        import fcntl

        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its former owner may have finished and renamed it between the two calls.
            taken = self.folder.exists() and self.folder.stat().st_ino == os.fstat(handle).st_ino
        except BlockingIOError:
            taken = False
        except OSError:  # a network file system without locks: nothing to hold
            taken = True
        if not taken:
            os.close(handle)
            raise InputError(f"{self.folder}: another run works on this artefact. Needed: its end")
        self._handle = handle

    def free(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _origin(given: Mapping[str, Any], ranks: int, began: float) -> dict[str, Any]:
    return {
        **_without_secrets(given),
        "ranks": ranks,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 3),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """Versions as installed, without importing anything."""
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    h5py = sys.modules.get("h5py")
    if h5py is not None:
        found["hdf5"] = h5py.version.hdf5_version
    return found


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: "(left out)"
            if _SECRET.search(str(key)) and isinstance(entry, str)
            else _without_secrets(entry)
            for key, entry in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_secrets(entry) for entry in value]
    return value


def stage_facts(folder: Path) -> list[dict[str, Any]]:
    """The facts that a finished stage left in the folder of its artefact."""
    path = folder / "facts.jsonl"
    return read_facts(path) if path.exists() else []


def publish(artefacts: Iterable[Artefact] | Mapping[str, Artefact], outputs: str | Path) -> None:
    """Show finished artefacts in a folder for people: OUTPUTS/STAGE/..., hard links or copies.

    A mapping gives other names than the stages'. What stood there under the same name is replaced
    as a whole; what is up to date stays. Serial: call it on one rank.
    """
    outputs = Path(outputs)
    outputs.mkdir(parents=True, exist_ok=True)
    if not isinstance(artefacts, Mapping):
        artefacts = {artefact.stage: artefact for artefact in artefacts}
    for name, artefact in artefacts.items():
        plain_name(name)
        if not artefact.done:
            raise InputError(f"{artefact.path}: not finished. Needed: a finished artefact")
        _show(artefact.path, outputs / name)


def _show(source: Path, target: Path) -> None:
    if _same_content(source / PROVENANCE, target / PROVENANCE):
        return
    fresh, former = (target.with_name(f".{target.name}.{word}") for word in ("new", "old"))
    for leftover in (fresh, former):
        if leftover.exists():
            shutil.rmtree(leftover)
    link_tree(source, fresh)
    if target.exists():
        os.rename(target, former)
    os.rename(fresh, target)
    if former.exists():
        shutil.rmtree(former)


def _same_content(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()
