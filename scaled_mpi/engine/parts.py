"""Parts of a configuration that decide what a training gives, for the hash of its stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaled_mpi.config import Spec, decisive
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.files import sha256
from scaled_mpi.shipped import weight_file

GPU = Path("/dev/nvidia0")  # bits are promised for a kind of device; torch need not be asked


def learned_part(experiment: ExperimentSpec, member: Any, ranks: int) -> dict[str, Any]:
    """What decides the weights; also the training ranks, in the mode where they do."""
    part: dict[str, Any] = {"member": decisive(member), "seed": experiment.seed}
    training = getattr(member, "training", None)
    if training is not None:
        if training.device == "auto":
            part["member"]["training"]["device"] = "cuda" if GPU.exists() else "cpu"
        if training.rank_dependent:
            part["ranks"] = ranks
    return part


def weighed_part(experiment: ExperimentSpec, key: str, member: Spec, ranks: int) -> dict[str, Any]:
    """What decides the weights: a training, or the file that they are taken from."""
    part = learned_part(experiment, member, ranks)
    given = part["member"].pop("weights", None)
    if given is None:
        return part
    return {**part, "weights": sha256(weight_file(f"{key}.weights", given))}
