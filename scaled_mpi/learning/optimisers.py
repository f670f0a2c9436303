"""Tables of the training loop: optimisers, learning-rate schedules, and the averaged weights.

Schedules are functions of the step alone, so that a resumed run needs no state of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch.optim.swa_utils import AveragedModel

from scaled_mpi.learning.muon import Muon

if TYPE_CHECKING:
    from scaled_mpi.learning.settings import Training

Groups = list[dict]


def _adamw(groups: Groups, spec: Training, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=spec.betas, fused=fused)


def _adam(groups: Groups, spec: Training, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=spec.learning_rate, betas=spec.betas, fused=fused)


def _sgd(groups: Groups, spec: Training, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=spec.momentum, fused=fused)


def _muon(groups: Groups, spec: Training, fused: bool) -> torch.optim.Optimizer:
    return Muon(groups, lr=spec.learning_rate, betas=spec.betas)


OPTIMISERS: dict[str, Callable[[Groups, Training, bool], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "sgd": _sgd,
    "muon": _muon,
}


def _cosine(spec: Training, step: int) -> float:
    """Half a cosine from 1 to `floor` between the end of the warm-up and the last step."""
    span = max(1, spec.steps - spec.warmup)
    progress = min(1.0, max(0, step - spec.warmup) / span)
    return spec.floor + (1.0 - spec.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _step(spec: Training, step: int) -> float:
    """`decay` to the power of the number of whole `decay_every` steps that have passed."""
    return spec.decay ** (step // spec.decay_every)


def _none(spec: Training, step: int) -> float:
    return 1.0


SCHEDULERS: dict[str, Callable[[Training, int], float]] = {
    "cosine": _cosine,
    "step": _step,
    "none": _none,
}


def learning_rate(spec: Training, step: int) -> float:
    """Rate of optimiser step `step` (counted from 0): the schedule under a linear warm-up."""
    rise = min(1.0, (step + 1) / (spec.warmup + 1))
    return spec.learning_rate * rise * SCHEDULERS[spec.scheduler](spec, step)


def make_optimiser(
    parameters: Iterable[torch.nn.Parameter], spec: Training, device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of `spec`; biases and gains (one axis) are not pulled towards zero."""
    trained = list(parameters)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return OPTIMISERS[spec.optimizer](groups, spec, device.type in ("cpu", "cuda", "mps"))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the next step, for every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def averaged(model: torch.nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights of `model`.

    The decay of update n is min(decay, (1 + n) / (10 + n)). The average follows quickly at first
    and soon forgets the random start of a short run.
    """

    @torch.no_grad()
    def follow(
        average: Sequence[torch.Tensor],
        current: Sequence[torch.Tensor],
        updates: torch.Tensor | int,
    ) -> None:
        count = int(updates)
        weight = 1.0 - min(decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(list(average), list(current), weight)

    return AveragedModel(model, multi_avg_fn=follow)
