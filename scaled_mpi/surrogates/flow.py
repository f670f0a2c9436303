"""Fields under which the snapshots' density stands still: learned, and without training.

The learned one is a small isotropic network under the stationarity loss
(`learning/stationarity.py`); the other is a skew-symmetric convolution of the score
(`learning/skew.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator

from scaled_mpi.config import InputError, Spec
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.settings import Result, Session, Training
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.surrogates.score import (
    CHANNELS,
    SnapshotLesson,
    load_model,
    seeded,
    train_on,
    without_checkpoints,
)

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.networks.periodic import IsotropicFlow


class Flow(Spec):
    """The learned field: `probes` (even) divergence probes a step, penalties as in the loss."""

    width: PositiveInt = 32
    centred: bool = Field(default=True, description="without its mean over cells")
    probes: PositiveInt = 4
    symmetry: NonNegativeFloat = Field(
        default=0.1, description="weight of the squared part along s"
    )
    unit: NonNegativeFloat = Field(
        default=1.0, description="weight that keeps the field of unit size"
    )
    weights: str | None = Field(
        default=None, description="folder of finished weights, not trained here"
    )
    training: Training = Training(
        steps=600,
        batch=8,
        micro_batches=4,
        learning_rate=5e-3,
        weight_decay=1e-5,
        warmup=50,
        validate_every=100,
    )

    @field_validator("probes")
    @classmethod
    def _even(cls, probes: int) -> int:
        if probes % 2:
            raise InputError(
                f"flow.probes: {probes} is not allowed: they are split into two halves. "
                "Allowed: even numbers"
            )
        return probes

    def build(self) -> IsotropicFlow:
        """The untrained network (B, 2, Y, X) -> (B, 2, Y, X)."""
        from scaled_mpi.learning.networks.periodic import IsotropicFlow

        return IsotropicFlow(CHANNELS, self.width, self.centred)


class Kernels(Spec):
    """Skew kernels without training: sizes of their sides, all odd."""

    sizes: tuple[PositiveInt, ...] = (1, 5)

    @field_validator("sizes")
    @classmethod
    def _odd(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or any(size % 2 == 0 for size in sizes):
            raise InputError(
                f"kernels.sizes: {list(sizes)} is not allowed: a kernel has a middle. Allowed: "
                "odd numbers, one or more"
            )
        return sizes


def fit_flow(
    spec: Flow,
    score: Any,
    snapshots: np.ndarray,
    held_out: np.ndarray,
    comm: Comm,
    folder: Path,
    events: EventLog | None,
    seed: int,
) -> Result:
    """Train on snapshots (N, 2, Y, X) under a trained score model; weights in `folder`."""
    import torch

    from scaled_mpi.learning.scores import moved
    from scaled_mpi.learning.stationarity import residuals, stationarity_loss

    def loss(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        score.to(x.device)
        noisy = score.noisy(x, torch.randn_like(x))
        with torch.no_grad():
            s = score.score(noisy).float()
        found = residuals(model, noisy, s, spec.probes, keep=True)
        return stationarity_loss(found, spec.symmetry, spec.unit)

    meta = {"kind": "flow", "flow": without_checkpoints(spec)}
    lesson = SnapshotLesson(loss, snapshots, held_out, meta, moved)
    model = seeded(spec.build, seed)
    return train_on(model, lesson, spec.training, Session(comm, folder, events, seed))


def load_flow(spec: Flow, folder: Path, device: str | torch.device = "cpu") -> IsotropicFlow:
    """The trained network on a device, in evaluation."""
    return load_model(spec.build(), folder, device)
