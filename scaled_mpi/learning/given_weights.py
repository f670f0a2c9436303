"""Finished weights in place of a training: `weights: outputs/ddm` in any block that is trained.

`weights` is a shipped name, a results folder, or the folder that a stage left. A part is trained
where it is None. The weights decide the result, so their SHA-256 enters the stage's hash, wherever
they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from scaled_mpi.config import InputError, SparseSpec, decisive
from scaled_mpi.files import link_or_copy, sha256
from scaled_mpi.learning.settings import with_steps_of
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.root import on_root
from scaled_mpi.shipped import weight_file

Part = TypeVar("Part", bound="TrainedPart")
Take = Callable[[Path, Path], None]  # (source, folder)


class TrainedPart(SparseSpec):
    """A block of YAML that is trained, or takes finished weights.

    `file` is the name of the file that a training leaves in its folder.
    """

    optional: ClassVar[tuple[str, ...]] = ("weights",)
    file: ClassVar[str] = "best.safetensors"

    weights: str | None = Field(
        default=None, description="finished weights, not trained here: a shipped name or a folder"
    )

    def epochs(self) -> int | None:
        """Return the passes over the data that the training asks for, None where it has steps."""
        training = getattr(self, "training", None)
        return None if training is None else training.epochs

    def sample_count(
        self, runs: int, frames: int, shape: Sequence[int], periodic: Sequence[bool]
    ) -> int:
        """Return the training samples in `runs` runs of `frames` frames of `shape` cells.

        `periodic`: of each axis. Errors: `InputError` where they are not known before the run.
        """
        raise InputError(
            f"training.epochs: {self.epochs()} is not allowed: the number of samples is not known "
            "here. Allowed: training.steps"
        )

    def take(self, source: Path, folder: Path, seen: Mapping[str, Any] | None = None) -> None:
        """Leave the finished weights `source` in `folder`, as a training would. Serial.

        `seen`: axes, channels and conditions of the fields that the part is to work on. Errors:
        `InputError` for weights that are damaged or do not fit; nothing is written then.
        """
        place_checked(source, folder / self.file, lambda: self._check_taken(folder, source, seen))

    def _check_taken(self, folder: Path, source: Path, seen: Mapping[str, Any] | None) -> None:
        """Raise `InputError` where the weights in `folder`, taken from `source`, do not fit."""


def with_counted_steps(
    part: Part, runs: int, frames: int, shape: Sequence[int], periodic: Sequence[bool]
) -> Part:
    """Return a part with its epochs as steps over `runs` runs; without epochs, itself.

    Each run has `frames` frames of `shape` cells. Errors: `InputError`.
    """
    if part.epochs() is None:
        return part
    return with_steps_of(part, part.sample_count(runs, frames, shape, periodic))


def weights_of(part: TrainedPart, key: str) -> Path | None:
    """Return the file that `weights` of the block `key` stands for, None where it is trained.

    Errors: `InputError` for a name or folder without such weights.
    """
    if part.weights is None:
        return None
    return weight_file(f"{key}.weights", part.weights, part.file)


def weights_part(part: TrainedPart, key: str) -> dict[str, Any]:
    """Return the keys that decide the weights of the block `key`, for the hash of its stage.

    `member`: the decisive keys; `weights`: the SHA-256 of finished weights, where they are given.
    Errors: `InputError` for a name or folder without such weights.
    """
    tree, source = decisive(part), weights_of(part, key)
    if source is None:
        return {"member": tree}
    del tree["weights"]
    return {"member": tree, "weights": sha256(source)}


def taken(
    part: TrainedPart, key: str, folder: Path, comm: Comm, take: Take | None = None
) -> str | None:
    """Leave finished weights of the block `key` in `folder`, as its training would. Collective.

    `take(source, folder)` does it on rank 0, `part.take` by default. Returns the SHA-256 of the
    weights, None where the part has to be trained. Errors: `InputError` for weights that are
    missing, damaged or do not fit; nothing is written then.
    """
    source = on_root(comm, lambda: weights_of(part, key))
    if source is None:
        return None
    on_root(comm, lambda: (take or part.take)(source, folder))
    return on_root(comm, lambda: sha256(source))


def place_checked(source: Path, target: Path, check: Callable[[], None]) -> None:
    """Put `source` at `target`, and take it away again where `check()` raises. Serial."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # left by a run that was killed
    link_or_copy(source, target)
    try:
        check()
    except Exception:
        target.unlink(missing_ok=True)
        raise
