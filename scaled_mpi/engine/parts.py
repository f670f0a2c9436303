"""Parts of a configuration that decide the result of a training, for the hash of its stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaled_mpi.config import Spec, decisive
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.learning.given_weights import TrainedPart, weights_part

GPU = Path("/dev/nvidia0")  # bits are promised for a kind of device; torch need not be asked


def learned_part(experiment: ExperimentSpec, key: str, member: Spec, ranks: int) -> dict[str, Any]:
    """Return the keys that decide the weights of the block `key`, trained or finished.

    The training ranks are part of it in the mode where they decide bits.
    """
    part: dict[str, Any]
    if isinstance(member, TrainedPart):
        part = weights_part(member, key)
    else:
        part = {"member": decisive(member)}
    part["seed"] = experiment.seed
    training = getattr(member, "training", None)
    if training is not None:
        if training.device == "auto":
            part["member"]["training"]["device"] = "cuda" if GPU.exists() else "cpu"
        if training.rank_dependent:
            part["ranks"] = ranks
    return part


def weighed_part(experiment: ExperimentSpec, key: str, member: Spec, ranks: int) -> dict[str, Any]:
    """Return `learned_part` without the key `weights` of a member that is trained."""
    part = learned_part(experiment, key, member, ranks)
    part["member"].pop("weights", None)
    return part
