"""Settings of a training, its task and its result: the ground that the training loop stands on.

`training.py` trains with these, `loop.py` does the work. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.config import InputError, SparseSpec, SpecType, parse, plain, undecisive
from scaled_mpi.facts import EventLog
from scaled_mpi.parallel.comm import Comm


class Training(SparseSpec):
    """Settings of a training. Every budget is in optimiser steps, never in seconds.

    `epochs`, passes over the data, may stand in place of `steps`. `with_steps` turns it into steps
    where the number of samples is known. Hashes and trainings see steps alone.
    """

    optional: ClassVar[tuple[str, ...]] = ("epochs",)

    steps: int = Field(default=2000, ge=1)
    epochs: PositiveInt | None = Field(
        default=None, description="passes over the data, in place of steps"
    )
    batch: int = Field(default=16, ge=1, description="samples an optimiser step")
    micro_batches: int = Field(
        default=4, ge=1, description="parts of a batch; at most so many ranks"
    )
    mode: Literal["ordered", "ddp"] = "ordered"
    optimizer: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    scheduler: Literal["cosine", "step", "none"] = "cosine"
    warmup: int = Field(default=50, ge=0, description="steps of linear rise, under any scheduler")
    floor: float = Field(default=0.01, ge=0, le=1, description="cosine: last rate over the first")
    decay: float = Field(default=0.5, gt=0, le=1, description="step: factor of one decay")
    decay_every: int = Field(default=500, ge=1, description="step: steps between decays")
    clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0 does not clip")
    ema: float = Field(
        default=0.998, ge=0, lt=1, description="decay of averaged weights; 0 takes none"
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    validate_every: int = Field(default=200, ge=1, description="steps of an epoch")
    patience: int = Field(
        default=0, ge=0, description="epochs without progress before an end; 0: never"
    )
    min_delta: float = Field(default=0.0, ge=0, description="progress smaller than this is none")
    checkpoint_every: int = undecisive(200, ge=1, description="steps between resumable states")

    @model_validator(mode="after")
    def _parts_fit(self) -> Training:
        if self.batch % self.micro_batches:
            raise InputError(
                f"training.batch: {self.batch} is not allowed: no multiple of micro_batches. "
                f"Allowed: multiples of {self.micro_batches}"
            )
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> Training:
        if self.epochs is not None and "steps" in self.model_fields_set:
            raise InputError(
                f"training.epochs: {self.epochs} is not allowed: training.steps is {self.steps}. "
                "Allowed: one of the two"
            )
        return self

    @property
    def micro_size(self) -> int:
        """Samples in one micro-batch."""
        return self.batch // self.micro_batches

    @property
    def rank_dependent(self) -> bool:
        """Whether the weights depend on the ranks, which then belong in the artefact's hash."""
        return self.mode == "ddp"

    def check_batch(self, samples: int) -> None:
        """Raise InputError where one batch asks for more samples than the data set has."""
        if self.batch > samples:
            raise InputError(
                f"training.batch: {self.batch} is not allowed: it is larger than the data set. "
                f"Allowed: at most its {samples} samples"
            )


def with_steps(training: Training, samples: int) -> Training:
    """Return the training with its `epochs` as steps over `samples`; without epochs, itself.

    The steps read every sample `epochs` times, the last batch whole. Errors: `InputError` where
    one batch is larger than the data set.
    """
    if training.epochs is None:
        return training
    training.check_batch(samples)
    steps = -(-training.epochs * samples // training.batch)
    return training.model_copy(update={"epochs": None, "steps": steps})


def with_steps_of(part: SpecType, samples: int) -> SpecType:
    """Return a block with a key `training` whose epochs are steps, checked again as a whole.

    A block without epochs is returned as it is. Errors: `InputError`, also for other keys that do
    not fit the number of steps.
    """
    training = getattr(part, "training", None)
    if training is None or training.epochs is None:
        return part
    return parse(type(part), {**plain(part), "training": plain(with_steps(training, samples))})


def check_steps_known(training: Training) -> None:
    """Raise `InputError` where `epochs` has not been turned into steps."""
    if training.epochs is not None:
        raise InputError(
            f"training.epochs: {training.epochs} is not allowed: the number of samples is not "
            "known here. Allowed: training.steps"
        )


@dataclass(frozen=True)
class Result:
    """The result of a finished training; `model` itself then holds the best (averaged) weights."""

    steps: int  # optimiser steps taken
    best_step: int
    best_loss: float  # validation loss of the best weights
    best_metrics: dict[str, float]
    best: Path  # best.safetensors
    last: Path  # last.safetensors
    sha256: str  # of the best weights and their metadata
    throughput: float  # samples a second, all ranks together, validation not counted
    seconds: float  # in optimiser steps, over all resumed parts
    stopped_early: bool


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite. Nothing of that step has been written."""


@dataclass(frozen=True)
class Task:
    """The samples and the loss of a training, apart from its settings.

    `loss(model, batch)` is a scalar tensor, the mean over the batch. `sample(step, micro, size)`
    returns a batch (a tensor, array, or tuple, list or dict of them) and depends on its arguments
    alone. `validate(model)` is called on one rank with the averaged weights, without gradients. It
    returns numbers, among them "loss". `meta` goes into the weight files as it is.
    """

    loss: Callable[[Any, Any], Any]
    sample: Callable[[int, int, int], Any]
    validate: Callable[[Any], dict[str, float]]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """The session of one training: its ranks, its folder, its log and its seed.

    `events` is an EventLog (rank 0's is used) or None. `seed` decides every random number.
    """

    comm: Comm
    folder: Path
    events: EventLog | None
    seed: int


def useful_ranks(spec: Training, ranks: int) -> int:
    """The fewest ranks whose busiest has as few micro-batches as with `ranks`.

    `ddp` gives every rank the same weight, so there the number must divide `micro_batches`.
    """
    ranks = min(ranks, spec.micro_batches)
    if spec.mode == "ddp":
        return max(n for n in range(1, ranks + 1) if spec.micro_batches % n == 0)
    busiest = -(-spec.micro_batches // ranks)
    return -(-spec.micro_batches // busiest)
