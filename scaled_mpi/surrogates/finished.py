"""Finished weights in place of a training: the metadata of a file, and whether it may serve.

The content of a file is checked before a network is built from it, whoever wrote the file. A
mistake is one line that names the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, parse, plain
from scaled_mpi.files import link_or_copy

if TYPE_CHECKING:
    import torch

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class JumpMetadata(Spec):
    """Metadata of a learned jump; `stepper` holds the keys of its training."""

    kind: str
    stepper: dict[str, Any]
    axes: int = Field(ge=1, le=3)
    channels: PositiveInt
    mean: tuple[Finite, ...]
    spread: tuple[Positive, ...]
    change: tuple[Positive, ...]
    conditions: tuple[str, ...]
    condition_mean: tuple[Finite, ...]
    condition_spread: tuple[Finite, ...]

    @model_validator(mode="after")
    def _lengths_fit(self) -> JumpMetadata:
        for name, count in (
            ("mean", self.channels),
            ("spread", self.channels),
            ("change", self.channels),
            ("condition_mean", len(self.conditions)),
            ("condition_spread", len(self.conditions)),
        ):
            if len(getattr(self, name)) != count:
                raise InputError(
                    f"{name}: {len(getattr(self, name))} numbers are not allowed: "
                    f"one a channel or condition. Allowed: {count}"
                )
        return self


def read_jump(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and metadata of a jump surrogate of this kind. Errors: `InputError`."""
    from scaled_mpi.learning.weights import load_weights

    tensors, meta = load_weights(path)
    if meta.get("kind") != kind:
        raise InputError(f"{path}: weights of a {meta.get('kind')}. Needed: those of a {kind}")
    try:
        metadata = parse(
            JumpMetadata, {key: meta[key] for key in JumpMetadata.model_fields if key in meta}
        )
    except (InputError, RecursionError) as error:
        raise InputError(
            f"{path}: its metadata do not fit: {error}. Needed: weights of a {kind}"
        ) from error
    return tensors, plain(metadata)


def agree(spec: Any, meta: Mapping[str, Any], seen: Mapping[str, Any] | None, path: Path) -> None:
    """Check that weights fit the keys of a surrogate and the fields it is to advance.

    `seen`: axes and channels of the fields, and the names of the conditions; None: unknown.
    Errors: `InputError` with the first difference.
    """
    for key in spec.architecture:
        given, wanted = meta["stepper"].get(key), plain(spec)[key]
        if given != wanted:
            raise InputError(
                f"surrogate.{key}: {wanted} is not allowed: {path} was trained with another. "
                f"Allowed: {given}"
            )
    if seen is None:
        return
    for key in ("axes", "channels"):
        if meta[key] != seen[key]:
            raise InputError(f"{path}: it learned on {meta[key]} {key}. Needed: {seen[key]}")
    missing = sorted(set(meta["conditions"]) - set(seen["conditions"]))
    if missing:
        raise InputError(
            f"{path}: it reads {', '.join(missing)}, and no run has this. Needed: runs with "
            "these conditions"
        )


def place_weights(
    path: Path, target: Path, module: torch.nn.Module, tensors: Mapping[str, Any]
) -> None:
    """Put a finished file where a training would leave its best, if `module` can take it. Serial.

    Errors: `InputError` for another architecture and for numbers that are not finite; nothing is
    written then.
    """
    from scaled_mpi.learning.weights import load_into

    load_into(module, tensors, str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # left by a run that was killed
    link_or_copy(path, target)
