"""Stepper: a network that advances a field by `jump` simulator steps in one application.

The network (`learning/networks/convolution.py`) is a local operator: it reads a tile and `reach`
cells around it, and pads nothing. Trained with `masked`, it also knows narrower halos (cells
beyond are 0 under a mask of 0). It then reads the known part of the halo one jump on. So Schwarz
sweeps can couple tiles whose halo is narrower than the reach (`learning/losses.py`).

With diffusion D a jump of time T sees about erfcinv(tolerance) sqrt(4 D T) around a cell. `reach`
has to cover this; 8 cells suffice for 50 steps of Gray-Scott at D = 0.16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.config import InputError
from scaled_mpi.learning.settings import Training
from scaled_mpi.parallel.blocks import whole_per_axis
from scaled_mpi.parallel.keys import FreeStep, Stream
from scaled_mpi.parallel.store import Trajectory
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

    from scaled_mpi.learning.networks.jump import JumpNetwork


class Stepper(JumpSpec):
    """A convolutional stepper of declared reach; lengths are in cells of its own grid."""

    architecture: ClassVar[tuple[str, ...]] = (
        *JumpSpec.architecture,
        "width",
        "depth",
        "masked",
        "agreement",
    )

    kind: Literal["stepper"] = "stepper"
    width: PositiveInt = Field(default=64, description="channels inside")
    depth: PositiveInt = Field(
        default=4, description="residual blocks; each can reach `coarsen` cells"
    )
    masked: bool = Field(
        default=True, description="also learn halos narrower than the reach, and sweeps"
    )
    agreement: PositiveInt = Field(default=48, description="channels of the network that sweeps")
    halos: tuple[PositiveInt, ...] = Field(default=(4, 4, 4, 3, 5, 6), min_length=1)
    passes: tuple[PositiveInt, ...] = Field(default=(2, 3), min_length=1)
    full: float = Field(
        default=0.3, ge=0, le=1, description="share of steps with everything known"
    )
    pushforward: PositiveInt = Field(
        default=1, description="jumps of a step with everything known"
    )
    rollout: PositiveInt = Field(
        default=1,
        description="jumps that a step's gradient runs through; above 1 on a whole periodic box",
    )
    noise: float = Field(default=0.0, ge=0, description="noise on the frames read, in spreads")
    training: Training = Training(
        steps=1400,
        batch=4,
        micro_batches=4,
        optimizer="muon",
        learning_rate=4e-3,
        warmup=60,
        ema=0.99,
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> Stepper:
        for key, entry in (("reach", self.reach), ("patch", self.patch)):
            entries = entry if isinstance(entry, tuple) else (entry,)
            unit = self.coarsen * (2 if key == "patch" else 1)
            if any(cells % unit for cells in entries):
                raise InputError(
                    f"surrogate.{key}: {list(entries)} is not allowed: coarsen is {self.coarsen}. "
                    f"Allowed: multiples of {unit}"
                )
        if self.rollout > 1 and self.masked:
            raise InputError(
                f"surrogate.rollout: {self.rollout} is not allowed: masked is true. Allowed: 1"
            )
        if max(self._reaches()) > self.coarsen * self.depth:
            raise InputError(
                f"surrogate.depth: {self.depth} is not allowed: its blocks reach "
                f"{self.coarsen * self.depth} cells, not {max(self._reaches())}. Allowed: more "
                "blocks, or a smaller reach"
            )
        return self

    def needs_whole_reach(self) -> bool:
        """Return whether the halo must cover the reach: without masks it must."""
        return not self.masked

    def _jumps(self) -> int:
        return self.rollout

    def _reaches(self) -> tuple[int, ...]:
        return self.reach if isinstance(self.reach, tuple) else (self.reach,)

    def load(self, folder: str | Path, device: str | None = None) -> StepperOperator:
        """The trained operator of a folder that `fit` filled."""
        return StepperOperator(Path(folder), device or self.device)

    def _check(self, runs: Sequence[Trajectory]) -> None:
        super()._check(runs)
        grid = runs[0].grid
        open_sides = not all(boundary.periodic for boundary in grid.boundary)
        if self.rollout > 1 and (open_sides or any(n % self.coarsen for n in grid.shape)):
            raise InputError(
                f"surrogate.rollout: {self.rollout} is not allowed: the domain "
                f"{list(grid.shape)} is not periodic, or no multiple of surrogate.coarsen. "
                "Allowed: 1"
            )

    def _network(self, meta: Mapping[str, Any], seed: int) -> JumpNetwork:
        return network_of(meta, seed)

    def _lesson(self, excerpt: Excerpt, seed: int) -> JumpLesson:
        return JumpLesson(self, excerpt, seed)


def network_of(meta: Mapping[str, Any], seed: int) -> JumpNetwork:
    """A network of the shape in `meta`, its first weights decided by `seed`."""
    import torch

    from scaled_mpi.learning.networks.jump import JumpNetwork

    spec = meta["stepper"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JumpNetwork(
            meta["channels"],
            spec["memory"],
            whole_per_axis("surrogate.reach", spec["reach"], meta["axes"], 1),
            meta["change"],
            masked=spec["masked"],
            agreement=spec["agreement"],
            noises=spec.get("noises", 0),
            factor=spec["coarsen"],
            width=spec["width"],
            depth=spec["depth"],
            conditions=len(meta["conditions"]),
        )


class JumpLesson:
    """Samples and losses of one stepper on some runs; see `learning.settings.Task`."""

    def __init__(self, spec: Stepper, excerpt: Excerpt, seed: int) -> None:
        grid = excerpt.runs[0].grid
        self.spec, self.seed = spec, seed
        self.reach = whole_per_axis("surrogate.reach", spec.reach, grid.axes, 1)
        whole = spec.rollout > 1
        self.single = self.chain = patches_of(spec, excerpt, max(1, spec.rollout), whole)
        if spec.pushforward > 1 and not whole:
            self.chain = patches_of(spec, excerpt, spec.pushforward)

    def sample(self, step: int, micro: int, size: int) -> dict[str, Any]:
        """A batch for `loss`: frames, conditions, and the halo known (0 cells: all of it)."""
        everything, width, passes = uniform(
            self.seed, step, np.array([micro]), draws=3, stream=Stream.STEPPER_HALOS
        )[:, 0]
        spec = self.spec
        full = not spec.masked or everything < spec.full
        source = self.chain if full else self.single
        frames, told = source.draw(self.seed, step, range(micro * size, (micro + 1) * size))
        return {
            "frames": frames,
            "condition": told,
            "halo": 0 if full else spec.halos[int(width * len(spec.halos))],
            "passes": spec.passes[int(passes * len(spec.passes))],
        }

    def loss(self, model: JumpNetwork, batch: Mapping[str, Any]) -> torch.Tensor:
        """Mean square error, normalised, of the jumps or sweeps of a batch; a scalar tensor."""
        frames = batch["frames"]
        if self.spec.noise:
            import torch

            read = frames[:, : self.spec.memory]
            noisy = read + self.spec.noise * torch.randn_like(read)
            frames = torch.cat((noisy, frames[:, self.spec.memory :]), 1)
        errors = self._errors(model, frames, batch)
        return reduce(add, errors) / len(errors)

    def _errors(
        self, model: JumpNetwork, frames: torch.Tensor, batch: Mapping[str, Any]
    ) -> list[torch.Tensor]:
        from scaled_mpi.learning.losses import jump_errors, rolled_errors, sweep_errors

        told = batch["condition"] if batch["condition"].shape[1] else None
        if self.spec.rollout > 1:
            return rolled_errors(model, frames, self.spec.memory, told)
        if not batch["halo"]:
            return jump_errors(model, frames, self.spec.memory, told)
        halo = [min(batch["halo"], r) for r in self.reach]
        return sweep_errors(model, frames, self.spec.memory, told, halo, batch["passes"])

    def judge(self, model: JumpNetwork) -> dict[str, float]:
        """Root mean square errors, in spreads, with everything known and in sweeps."""
        import torch

        device = next(model.parameters()).device
        squares: dict[str, list[torch.Tensor]] = {"full": []}
        for number in range(JUDGED):
            frames, told = self.single.draw(self.seed, FreeStep.VALIDATION, [number])
            batch: dict[str, Any] = {
                "frames": torch.from_numpy(frames).to(device),
                "condition": torch.from_numpy(told).to(device),
                "halo": 0,
                "passes": 1,
            }
            squares["full"] += self._errors(model, batch["frames"], batch)
            if self.spec.masked:
                narrow = batch | {"halo": self.spec.halos[0], "passes": 3}
                first, _, last = self._errors(model, batch["frames"], narrow)
                squares.setdefault("nosweep", []).append(first)
                squares.setdefault("swept", []).append(last)
        means = {name: float(np.mean([float(x) for x in v])) for name, v in squares.items()}
        scores = {f"rmse.{name}": value**0.5 for name, value in means.items()}
        return {"loss": sum(means.values()) / len(means), **scores}


class StepperOperator(JumpOperator):
    """A trained stepper; `ValueError` for a mask that a network without masks cannot use."""

    kind = "stepper"

    def _network(self, meta: Mapping[str, Any]) -> JumpNetwork:
        return network_of(meta, 0)

    def _made(
        self,
        window: np.ndarray,
        mask: np.ndarray,
        told: torch.Tensor | None,
        future: tuple[np.ndarray, np.ndarray] | None,
        noise: np.ndarray | None,
    ) -> torch.Tensor:
        known = [self._put(self._normal(window)), told]
        if self.network.masked:
            known.append(self._put(mask[None]))
            if future is not None:
                known += [self._put(self._normal(future[0])), self._put(future[1][None])]
        drawn = None if noise is None else self._put(noise)
        return self.network(*known, noise=drawn)

    def _check(self, window: np.ndarray, mask: np.ndarray) -> None:
        super()._check(window, mask)
        if not self.network.masked and not mask.all():
            raise ValueError("the network was trained without masks: its whole reach is needed")
