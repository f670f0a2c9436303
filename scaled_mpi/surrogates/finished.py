"""Finished weights in place of a training: what a file says of itself, and whether it may serve.

Whoever wrote the file, what it holds is checked before a network is built from it, and a mistake
is one line that names the file.
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


class Told(Spec):
    """What the metadata of a learned jump say; `stepper` holds the keys it was trained with."""

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
    def _lengths_fit(self) -> Told:
        for name, count in (
            ("mean", self.channels),
            ("spread", self.channels),
            ("change", self.channels),
            ("condition_mean", len(self.conditions)),
            ("condition_spread", len(self.conditions)),
        ):
            if len(getattr(self, name)) != count:
                raise InputError(f"{name}: {len(getattr(self, name))} given; {count} are needed")
        return self


def read_jump(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and metadata of a jump surrogate of this kind. Errors: `InputError`."""
    from scaled_mpi.learning.weights import load_weights

    tensors, meta = load_weights(path)
    if meta.get("kind") != kind:
        raise InputError(f"{path}: weights of a {meta.get('kind')}, not a {kind}")
    try:
        told = parse(Told, {key: meta[key] for key in Told.model_fields if key in meta})
    except (InputError, RecursionError) as error:
        raise InputError(f"{path}: its metadata do not fit: {error}") from error
    return tensors, plain(told)


def agree(spec: Any, meta: Mapping[str, Any], seen: Mapping[str, Any] | None, path: Path) -> None:
    """Whether weights fit the keys of a surrogate and the fields it is to advance.

    `seen`: axes and channels of the fields, and the names of the conditions; None: unknown.
    Errors: `InputError` with the first difference.
    """
    for key in spec.architecture:
        given, wanted = meta["stepper"].get(key), plain(spec)[key]
        if given != wanted:
            raise InputError(
                f"surrogate.{key}: {wanted} given; {given} is allowed, with which {path} was "
                "trained"
            )
    if seen is None:
        return
    for key in ("axes", "channels"):
        if meta[key] != seen[key]:
            raise InputError(f"{path}: learned on {meta[key]} {key}; {seen[key]} are needed")
    missing = sorted(set(meta["conditions"]) - set(seen["conditions"]))
    if missing:
        raise InputError(f"{path}: reads {', '.join(missing)}, which no run tells")


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
