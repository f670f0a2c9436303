"""A stepper that knows its uncertainty: one pass of a network draws one sample of the future.

The network of `stepper` also reads white noise in every cell of its reach. Each draw is another
sample of the field one jump on. Training gives the samples the distribution of the truth by the
almost fair CRPS of a few samples. It is the score of cells and of means over blocks
(`learning/crps.py`; Lang et al. 2024, arXiv 2412.15832). At the end of the training it runs two
jumps, its gradient through both. So the spread is right from the states of a forecast, too.

In a forecast the noise of a cell is keyed by seed, jump, member and the cell's place in the whole
domain (`coupling/chance.py`). So tiles that meet read the same noise where they overlap. With a
halo that covers the reach a sample over many tiles is the sample in one piece. No rank count
changes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.config import InputError
from scaled_mpi.learning.settings import Training
from scaled_mpi.parallel.keys import FreeStep
from scaled_mpi.surrogates.fitting import JUDGED, Excerpt, patches_of
from scaled_mpi.surrogates.stepper import JumpLesson, Stepper, StepperOperator

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.networks.jump import JumpNetwork

UNREAD = {"agreement", "halos", "passes", "full", "noise"}  # keys of the stepper
EXAMINED = 8  # samples of each patch in a validation


class Probabilistic(Stepper):
    """A stepper that draws samples; lengths are in cells of its own grid."""

    architecture: ClassVar[tuple[str, ...]] = (*Stepper.architecture, "noises")

    kind: Literal["probabilistic"] = "probabilistic"  # type: ignore[assignment]
    masked: Literal[False] = False
    pushforward: Literal[1] = 1
    rollout: Literal[1] = 1
    noises: PositiveInt = Field(default=4, description="channels of white noise")
    samples: int = Field(default=2, ge=2, description="samples of each patch in training")
    alpha: float = Field(default=0.95, ge=0, le=1, description="how fair the CRPS is; 1: entirely")
    scales: tuple[PositiveInt, ...] = Field(
        default=(1, 4), min_length=1, description="blocks of cells whose means are scored"
    )
    unrolled: float = Field(
        default=0.3, ge=0, le=1, description="last share of steps, of two jumps"
    )
    training: Training = Training(
        steps=1200,
        batch=4,
        micro_batches=4,
        optimizer="muon",
        learning_rate=4e-3,
        warmup=60,
        ema=0.99,
    )

    @model_validator(mode="after")
    def _scales_fit(self) -> Probabilistic:
        # A resolved configuration, as results folders hold, writes out every default.
        unread = [
            key
            for key in sorted(UNREAD)
            if getattr(self, key) != type(self).model_fields[key].default
        ]
        if unread:
            raise InputError(
                f"surrogate.{unread[0]}: a value is not allowed: only a stepper with masks has "
                "this key. Allowed: none"
            )
        if any(self.patch % scale for scale in self.scales):
            raise InputError(
                f"surrogate.scales: {list(self.scales)} is not allowed: they do not divide the "
                f"patch. Allowed: divisors of {self.patch}"
            )
        return self

    def load(self, folder: str | Path, device: str | None = None) -> ProbabilisticOperator:
        """The trained operator of a folder that `fit` filled."""
        return ProbabilisticOperator(Path(folder), device or self.device)

    def _lesson(self, excerpt: Excerpt, seed: int) -> ProbabilisticLesson:
        return ProbabilisticLesson(self, excerpt, seed)


class ProbabilisticLesson(JumpLesson):
    """Samples and losses of a probabilistic stepper; see `learning.settings.Task`."""

    spec: Probabilistic

    def __init__(self, spec: Probabilistic, excerpt: Excerpt, seed: int) -> None:
        super().__init__(spec, excerpt, seed)
        self.chain = patches_of(spec, excerpt, 2)

    def sample(self, step: int, micro: int, size: int) -> dict[str, Any]:
        """A batch for `loss`: frames of one jump or two, and conditions."""
        last = step >= (1.0 - self.spec.unrolled) * self.spec.training.steps
        source = self.chain if last else self.single
        frames, told = source.draw(self.seed, step, range(micro * size, (micro + 1) * size))
        return {"frames": frames, "condition": told}

    def loss(self, model: JumpNetwork, batch: Mapping[str, Any]) -> torch.Tensor:
        """The mean CRPS of the jumps that the batch holds; a scalar tensor."""
        from scaled_mpi.learning.crps import crps_of_scales

        spec = self.spec
        scores = [
            crps_of_scales(members, truth, spec.scales, spec.alpha)
            for members, truth in self._forecast(model, batch, spec.samples)
        ]
        return reduce(add, scores) / len(scores)

    def _forecast(
        self, model: JumpNetwork, batch: Mapping[str, Any], count: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """For each jump: (B, count, C, *cells) of the network and (B, C, *cells) of the truth."""
        import torch

        from scaled_mpi.learning.networks.convolution import crop

        frames, memory = batch["frames"], self.spec.memory
        told = batch["condition"].repeat_interleave(count, 0)
        told = told if told.shape[1] else None
        window = frames[:, :memory].repeat_interleave(count, 0)
        for jump in range(1, frames.shape[1] - memory + 1):
            cells = window.shape[3:]
            noise = torch.randn(
                (len(window), self.spec.noises, *cells), device=window.device, dtype=window.dtype
            )
            made = model(window, told, noise=noise)
            window = torch.cat((crop(window[:, 1:], self.reach), made[:, None]), 1)
            truth = crop(frames[:, memory + jump - 1], [jump * r for r in self.reach])
            yield made.unflatten(0, (-1, count)), truth

    def judge(self, model: JumpNetwork) -> dict[str, float]:
        """Fair CRPS over two jumps, in spreads, and the spread over the error of the mean."""
        import torch

        from scaled_mpi.learning.crps import almost_fair_crps

        device = next(model.parameters()).device
        scores: list[list[float]] = [[], []]
        spreads, errors = np.zeros((2, JUDGED)), np.zeros((2, JUDGED))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for number in range(JUDGED):
                drawn = self.chain.draw(self.seed, FreeStep.VALIDATION, [number])
                frames, told = (torch.from_numpy(one).to(device) for one in drawn)
                batch = {"frames": frames, "condition": told}
                found = self._forecast(model, batch, EXAMINED)
                for jump, (members, truth) in enumerate(found):
                    scores[jump].append(float(almost_fair_crps(members, truth, 1.0)))
                    fair = (EXAMINED + 1) / EXAMINED
                    spreads[jump, number] = fair * members.var(1).mean()
                    errors[jump, number] = (members.mean(1) - truth).square().mean()
        ratios = np.sqrt(spreads.mean(1) / errors.mean(1))
        crps = [float(np.mean(one)) for one in scores]
        return {
            "loss": sum(crps) / 2,
            "crps.jump1": crps[0],
            "crps.jump2": crps[1],
            "spread.skill.jump1": float(ratios[0]),
            "spread.skill.jump2": float(ratios[1]),
        }


class ProbabilisticOperator(StepperOperator):
    """A trained sampler, applied one tile a call; `noises` channels of white noise a sample."""

    kind = "probabilistic"
    stochastic = True

    def __init__(self, folder: Path, device: str) -> None:
        super().__init__(folder, device)
        self.noises: int = self.meta["stepper"]["noises"]
