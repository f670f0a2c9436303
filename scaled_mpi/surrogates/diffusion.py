"""Conditional diffusion: samples of the field one jump on, drawn by a denoiser.

The denoiser (`learning/networks/conditional.py`) reads a tile and `reach` cells around it: past
frames, the parameters, and the known part of the halo one jump on. In training the halo has a
width drawn from `halos`. With probability `told` its future is known, so that Schwarz sweeps can
couple tiles. In the first sweep each tile draws its sample alone. In the next it draws the same
sample with the neighbours' samples known; the noise of a cell depends on its place in the domain.

The uncertainty of a jump is often far less than its change: a sixth, for example. A few steps even
in the noise, as along straight lines, end far above that spread. They reproduce two thirds of it,
even with a perfect denoiser. Steps even in the root of the noise reproduce it within 8 %, from a
twelfth of the change on. The noise has to begin where it hides the jump completely. In the mean
over a tile white noise of spread 4 has a spread of a fifth. A denoiser then learns to read the
jump there, and finds a false jump in pure noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.config import InputError
from scaled_mpi.learning.schedules import SCHEDULES, AnySchedule, Powered
from scaled_mpi.learning.settings import Training
from scaled_mpi.learning.sizes import AnySize, NetworkBlocks, size_of
from scaled_mpi.parallel.blocks import whole_per_axis
from scaled_mpi.parallel.keys import FreeStep, Stream
from scaled_mpi.parallel.streams import uniform
from scaled_mpi.surrogates.fitting import (
    JUDGED,
    Excerpt,
    JumpOperator,
    JumpSpec,
    patches_of,
)

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.networks.conditional import ConditionalJump

EXAMINED = 4  # samples of a patch in a validation
SAMPLED = 4  # patches of a validation that are sampled


class Diffusion(JumpSpec):
    """A diffusion surrogate; lengths are in cells of its own grid.

    `parametrization` is a row of `learning.denoising`, `sampler` one of `learning.samplers`, of
    `steps` steps.
    """

    architecture: ClassVar[tuple[str, ...]] = (
        *JumpSpec.architecture,
        "network",
        "schedule",
        "parametrization",
        "sampler",
        "steps",
    )

    kind: Literal["diffusion"] = "diffusion"
    network: AnySize = NetworkBlocks()
    schedule: AnySchedule = Powered(alpha_min=1e-3, sigma_min=1e-2)
    parametrization: Literal["epsilon", "x0", "v", "flow", "edm"] = "edm"
    sampler: Literal["ddim", "euler", "heun", "sde"] = "heun"
    steps: int = Field(default=6, ge=2)
    halos: tuple[PositiveInt, ...] = Field(default=(8, 8, 4, 6), min_length=1)
    told: float = Field(
        default=0.5, ge=0, le=1, description="share of steps that know the halo's future"
    )
    patch: PositiveInt = Field(default=32, description="cells an axis of a training sample")
    training: Training = Training(
        steps=1200,
        batch=16,
        micro_batches=4,
        optimizer="muon",
        learning_rate=4e-3,
        warmup=60,
        ema=0.99,
    )

    @model_validator(mode="after")
    def _network_fits(self) -> Diffusion:
        unit = self.coarsen * self.network.multiple
        reaches = self.reach if isinstance(self.reach, tuple) else (self.reach,)
        if any((self.patch + 2 * r) % unit for r in reaches) or self.network.padding == "valid":
            raise InputError(
                f"surrogate.patch: {self.patch} with reach {list(reaches)} is not allowed: "
                f"patch + 2 reach is no multiple of {unit} (coarsen, network.widths), or "
                "network.padding is valid. Allowed: multiples, with network.padding circular "
                "or replicate"
            )
        if self.parametrization == "epsilon" and self.schedule.zero_terminal_snr:
            raise InputError(
                "surrogate.parametrization: epsilon is not allowed: with zero_terminal_snr the "
                "noise alone does not determine the data. Allowed: x0, v, flow, edm"
            )
        return self

    @property
    def masked(self) -> bool:
        """Whether halos narrower than the reach are known: always."""
        return True

    def load(self, folder: str | Path, device: str | None = None) -> DiffusionOperator:
        """The trained operator of a folder that `fit` filled."""
        return DiffusionOperator(Path(folder), device or self.device)

    def _network(self, meta: Mapping[str, Any], seed: int) -> ConditionalJump:
        return network_of(meta, seed)

    def _lesson(self, excerpt: Excerpt, seed: int) -> DiffusionLesson:
        return DiffusionLesson(self, excerpt, seed)


def network_of(meta: Mapping[str, Any], seed: int) -> ConditionalJump:
    """A network of the shape in `meta`, its first weights decided by `seed`."""
    import torch

    from scaled_mpi.learning.networks.conditional import ConditionalJump, JumpShape

    spec = meta["stepper"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = JumpShape(
            meta["channels"],
            spec["memory"],
            whole_per_axis("surrogate.reach", spec["reach"], meta["axes"], 1),
            meta["change"],
            factor=spec["coarsen"],
            conditions=len(meta["conditions"]),
        )
        schedule = SCHEDULES[spec["schedule"]["kind"]](**spec["schedule"])
        return ConditionalJump(shape, size_of(spec["network"]), schedule, spec["parametrization"])


class DiffusionLesson:
    """Samples and losses of one diffusion surrogate; see `learning.settings.Task`."""

    def __init__(self, spec: Diffusion, excerpt: Excerpt, seed: int) -> None:
        self.spec, self.seed = spec, seed
        self.single = patches_of(spec, excerpt, 1)
        self.reach = self.single.ring

    def sample(self, step: int, micro: int, size: int) -> dict[str, Any]:
        """A batch for `loss`: frames, conditions, the halo known, whether its future is."""
        width, told = uniform(
            self.seed, step, np.array([micro]), draws=2, stream=Stream.DIFFUSION_HALOS
        )[:, 0]
        frames, named = self.single.draw(self.seed, step, range(micro * size, (micro + 1) * size))
        halos = self.spec.halos
        return {
            "frames": frames,
            "condition": named,
            "halo": halos[int(width * len(halos))],
            "told": bool(told < self.spec.told),
        }

    def loss(self, model: ConditionalJump, batch: Mapping[str, Any]) -> torch.Tensor:
        """The denoising loss at times drawn evenly; a scalar tensor."""
        import torch

        known, truth = self._known(batch)
        count = len(truth)
        # One time in each of `count` equal parts of [0, 1]: less noise than independent ones.
        time = (
            torch.arange(count, device=truth.device) + torch.rand(count, device=truth.device)
        ) / count
        return model.loss(known, truth, time, torch.randn_like(truth))

    def _known(self, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """What a tile knows under the batch's halo, and the truth (B, C, *window)."""
        from scaled_mpi.learning.losses import box_mask
        from scaled_mpi.learning.networks.conditional import Known

        frames, memory = batch["frames"], self.spec.memory
        window, truth = frames[:, :memory], frames[:, memory]
        cells = window.shape[3:]
        beyond = [r - min(batch["halo"], r) for r in self.reach]
        mask = box_mask(cells, beyond, window).expand(len(window), -1, *cells)
        told = batch["condition"] if batch["condition"].shape[1] else None
        future = where = None
        if batch["told"]:
            future, where = truth, mask - box_mask(cells, self.reach, window)
        return Known(window * mask[:, None], mask, told, future, where), truth

    def judge(self, model: ConditionalJump) -> dict[str, float]:
        """The loss under noise that is always the same, and scores of a few samples."""
        import torch

        device = next(model.parameters()).device
        losses = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for number in range(JUDGED):
                frames, told = (
                    torch.from_numpy(one).to(device)
                    for one in self.single.draw(self.seed, FreeStep.VALIDATION, [number])
                )
                batch = {
                    "frames": frames,
                    "condition": told,
                    "halo": self.spec.halos[0],
                    "told": number % 2 == 1,
                }
                known, truth = self._known(batch)
                time = torch.full((1,), (number + 0.5) / JUDGED, device=device)
                noise = torch.randn(truth.shape).to(device)
                losses.append(float(model.loss(known, truth, time, noise)))
            return {"loss": float(np.mean(losses)), **self._sampled(model, device)}

    def _sampled(self, model: ConditionalJump, device: torch.device) -> dict[str, float]:
        """Fair CRPS, in spreads, and spread over error of a few samples of a few patches."""
        import torch

        from scaled_mpi.learning.crps import almost_fair_crps
        from scaled_mpi.learning.networks.convolution import crop

        frames, told = (
            torch.from_numpy(one).to(device).repeat_interleave(EXAMINED, 0)
            for one in self.single.draw(self.seed, FreeStep.VALIDATION, range(SAMPLED))
        )
        batch = {"frames": frames, "condition": told, "halo": self.spec.halos[0], "told": False}
        known, truth = self._known(batch)
        fields = noise_channels(self.spec.sampler, self.spec.steps, 1)
        noise = torch.randn(len(truth), fields * truth.shape[1], *truth.shape[2:]).to(device)
        made = model.sample(known, noise, self.spec.steps, self.spec.sampler)
        members = made.unflatten(0, (SAMPLED, EXAMINED))
        true = crop(truth, self.reach)[::EXAMINED]
        variance = (EXAMINED + 1) / EXAMINED * members.var(1).mean()
        error = (members.mean(1) - true).square().mean()
        return {
            "crps": float(almost_fair_crps(members, true, 1.0)),
            "spread.skill": float((variance / error).sqrt()),
        }


def noise_channels(sampler: str, steps: int, channels: int) -> int:
    """Channels of white noise of one sample: its start, and each step of a random walk."""
    from scaled_mpi.learning.samplers import STOCHASTIC

    return channels * (steps if sampler in STOCHASTIC else 1)


class DiffusionOperator(JumpOperator):
    """A trained sampler, applied one tile a call to white noise of `noises` channels."""

    kind = "diffusion"
    stochastic = True

    def __init__(self, folder: Path, device: str) -> None:
        super().__init__(folder, device)
        spec = self.meta["stepper"]
        self.steps, self.sampler = spec["steps"], spec["sampler"]
        self.unit = self.coarsen * size_of(spec["network"]).multiple
        self.noises = noise_channels(self.sampler, self.steps, self.meta["channels"])

    def _network(self, meta: Mapping[str, Any]) -> ConditionalJump:
        return network_of(meta, 0)

    def _made(
        self,
        window: np.ndarray,
        mask: np.ndarray,
        told: torch.Tensor | None,
        future: tuple[np.ndarray, np.ndarray] | None,
        noise: np.ndarray | None,
    ) -> torch.Tensor:
        from scaled_mpi.learning.networks.conditional import Known

        ahead = where = None
        if future is not None:
            ahead, where = self._put(self._normal(future[0])), self._put(future[1][None])
        seen = self._put(self._normal(window) * mask)
        known = Known(seen, self._put(mask[None]), told, ahead, where)
        assert noise is not None
        return self.network.sample(known, self._put(noise), self.steps, self.sampler)

    def _check(self, window: np.ndarray, mask: np.ndarray) -> None:
        if any(n % self.unit for n in window.shape[2:]):
            raise InputError(
                f"domain.tile: {list(window.shape[2:])} cells with the reach are not allowed: "
                f"the network halves them too often. Allowed: multiples of {self.unit} "
                "(surrogate.coarsen, network.widths)"
            )
