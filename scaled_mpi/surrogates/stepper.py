"""Stepper: a network that takes a field `jump` simulator steps further in one application.

The network (`learning/networks/convolution.py`) is a local operator: it reads a tile and `reach`
cells around it, and pads nothing. Trained with `masked`, it also knows narrower halos (cells
beyond are 0 under a mask of 0) and takes what is known of the halo one jump on, so that Schwarz
sweeps can couple tiles whose halo is narrower than the reach (`learning/losses.py`).

With diffusion D a jump of time T sees about erfcinv(tolerance) sqrt(4 D T) around a cell, which is
what `reach` has to cover; 8 cells do for 50 steps of Gray-Scott at D = 0.16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, plain
from scaled_mpi.learning.training import Training, on_team, train
from scaled_mpi.parallel.blocks import whole_per_axis
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.parallel.streams import uniform

if TYPE_CHECKING:
    from scaled_mpi.learning.patches import Patches

WEIGHTS = "best.safetensors"
MODES = 102  # number of the random stream that draws halo widths and passes
JUDGED = 16  # patches that a validation looks at
JUDGE_STEP = 2**32 - 1  # a step that no training reaches, so that they are never trained on


class Stepper(Spec):
    """A convolutional stepper of declared reach; lengths are in cells of its own grid."""

    kind: Literal["stepper"] = "stepper"
    jump: PositiveInt = Field(50, description="simulator steps of one application")
    memory: PositiveInt = Field(1, description="past frames read, the newest included")
    reach: PositiveInt | tuple[PositiveInt, ...] = 8
    coarsen: PositiveInt = Field(2, description="cells an axis gathered into channels")
    width: PositiveInt = Field(64, description="channels inside")
    depth: PositiveInt = Field(4, description="residual blocks; each can reach `coarsen` cells")
    masked: bool = Field(True, description="also learn halos narrower than the reach, and sweeps")
    agreement: PositiveInt = Field(48, description="channels of the network that sweeps")
    halos: tuple[PositiveInt, ...] = Field((4, 4, 4, 3, 5, 6), min_length=1)
    passes: tuple[PositiveInt, ...] = Field((2, 3), min_length=1)
    full: float = Field(0.3, ge=0, le=1, description="share of steps with everything known")
    pushforward: PositiveInt = Field(1, description="jumps of a step with everything known")
    rollout: PositiveInt = Field(
        1, description="jumps that a step's gradient runs through; above 1 on a whole periodic box"
    )
    noise: float = Field(0.0, ge=0, description="noise on the frames read, in spreads")
    patch: PositiveInt = Field(64, description="cells an axis of a training sample")
    symmetric: bool = Field(True, description="learn all flips and turns (scalar fields)")
    held_out: PositiveInt = Field(2, description="last runs, kept for validation")
    training: Training = Training(
        steps=1400, batch=4, micro_batches=4, optimizer="muon", learning_rate=4e-3, warmup=60,
        ema=0.99,
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> Stepper:
        for key, entry in (("reach", self.reach), ("patch", self.patch)):
            entries = entry if isinstance(entry, tuple) else (entry,)
            unit = self.coarsen * (2 if key == "patch" else 1)
            if any(cells % unit for cells in entries):
                raise InputError(
                    f"surrogate.{key}: {list(entries)} given; multiples of {unit} are allowed "
                    f"(coarsen is {self.coarsen})"
                )
        if self.rollout > 1 and self.masked:
            raise InputError(
                f"surrogate.rollout: {self.rollout} given; 1 is allowed where masked is true"
            )
        if max(self._reaches()) > self.coarsen * self.depth:
            raise InputError(
                f"surrogate.depth: {self.depth} blocks reach {self.coarsen * self.depth} cells, "
                f"not {max(self._reaches())}; more blocks, or a smaller reach, are allowed"
            )
        return self

    def _reaches(self) -> tuple[int, ...]:
        return self.reach if isinstance(self.reach, tuple) else (self.reach,)

    def fit(
        self, trajectories: Sequence[Trajectory], comm: Comm, folder: str | Path, events: Any,
        seed: int,
    ) -> None:
        """Train on stored runs and leave the weights in `folder`. Collective over `comm`.

        The last `held_out` runs are for validation (of too few runs, the last eighth of each).
        `seed` decides everything. Errors: `InputError` for runs that cannot be used.
        """
        self._check(trajectories)
        on_team(comm, self.training, lambda team: self._train(
            list(trajectories), team, Path(folder), events, seed
        ))

    def load(self, folder: str | Path, device: str = "cpu") -> StepperOperator:
        """The trained operator of a folder that `fit` filled."""
        return StepperOperator(Path(folder), device)

    def _check(self, runs: Sequence[Trajectory]) -> None:
        if not runs:
            raise InputError("data: no run is given; the surrogate needs at least one")
        whole_per_axis("surrogate.reach", self.reach, runs[0].grid.axes, 1)
        for run in runs:
            told = run.attributes.get("jump", self.jump)
            if told != self.jump:
                raise InputError(
                    f"surrogate.jump: {self.jump} given; the frames of {run.name} are {told} "
                    "steps apart"
                )
        grid = runs[0].grid
        open_sides = not all(boundary.periodic for boundary in grid.boundary)
        if self.rollout > 1 and (open_sides or any(n % self.coarsen for n in grid.shape)):
            raise InputError(
                f"surrogate.rollout: {self.rollout} given; 1 is allowed unless the domain "
                f"{list(grid.shape)} is periodic and a multiple of surrogate.coarsen"
            )

    def _core(self, shape: Sequence[int], periodic: Sequence[bool]) -> tuple[int, ...]:
        """Cells of a patch an axis: `patch`, or what fits into a small bounded domain."""
        unit, cores = 2 * self.coarsen, []
        for cells, wraps in zip(shape, periodic, strict=True):
            core = self.patch if wraps else min(self.patch, cells // unit * unit)
            if core < unit:
                raise InputError(f"data.shape: {cells} cells; at least {unit} are needed")
            cores.append(core)
        return tuple(cores)

    def _lesson(self, *of: Any) -> Lesson:
        return Lesson(self, *of)

    def _train(
        self, runs: list[Trajectory], comm: Comm, folder: Path, events: Any, seed: int
    ) -> None:
        from scaled_mpi.learning.patches import condition_names, measure

        learned, judged, moments = _hold_out(runs, self.held_out)
        names = condition_names(runs)
        scale = measure(learned, names)
        told = plain(self)
        del told["training"]["checkpoint_every"]  # decides nothing: equal weights, equal files
        meta = {
            "kind": self.kind, "stepper": told, "axes": runs[0].grid.axes,
            "channels": runs[0].shape[1], "mean": scale.mean.tolist(),
            "spread": scale.spread.tolist(), "change": scale.change.tolist(),
            "conditions": list(names), "condition_mean": scale.condition_mean.tolist(),
            "condition_spread": scale.condition_spread.tolist(),
        }
        lesson = self._lesson(learned, moments[0], scale, names, seed)
        exam = self._lesson(judged, moments[1], scale, names, seed)
        train(
            network_of(meta, seed), lesson.loss, lesson.sample, exam.judge, self.training, comm,
            folder, events, seed, meta=meta,
        )


def _hold_out(runs: list[Trajectory], count: int) -> tuple[list, list, tuple[slice, slice]]:
    """Runs to learn from, runs to judge by, and the frames used of each."""
    if len(runs) > count:
        return runs[:-count], runs[-count:], (slice(None), slice(None))
    border = min(len(run) for run in runs)
    border -= max(2, border // 8)
    return runs, runs, (slice(0, border), slice(border, None))


def network_of(meta: Mapping[str, Any], seed: int) -> Any:
    """A network of the shape that `meta` tells, its first weights decided by `seed`."""
    import torch

    from scaled_mpi.learning.networks.jump import JumpNetwork

    spec = meta["stepper"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JumpNetwork(
            meta["channels"], spec["memory"],
            whole_per_axis("surrogate.reach", spec["reach"], meta["axes"], 1), meta["change"],
            masked=spec["masked"], agreement=spec["agreement"], noises=spec.get("noises", 0),
            factor=spec["coarsen"], width=spec["width"], depth=spec["depth"],
            conditions=len(meta["conditions"]),
        )


class Lesson:
    """Samples and losses of one stepper on some runs; see `learning.training.Task`."""

    def __init__(
        self, spec: Stepper, runs: list[Trajectory], moments: slice, scale: Any,
        names: Sequence[str], seed: int,
    ) -> None:
        grid = runs[0].grid
        self.spec, self.seed = spec, seed
        self.reach = whole_per_axis("surrogate.reach", spec.reach, grid.axes, 1)
        self._of = (runs, moments, scale, names)
        self.single = self._patches(1)
        self.chain = self._patches(spec.pushforward) if spec.pushforward > 1 else self.single

    def _patches(self, jumps: int) -> Patches:
        """Patches of `jumps` jumps, with what they read of the ring."""
        from scaled_mpi.learning.patches import Patches

        (runs, moments, scale, names), spec = self._of, self.spec
        grid = runs[0].grid
        core = spec._core(grid.shape, [boundary.periodic for boundary in grid.boundary])
        ring = [jumps * r for r in self.reach]
        if spec.rollout > 1:  # the whole box, which closes on itself after every jump
            core, ring, jumps = grid.shape, [0] * grid.axes, spec.rollout
        return Patches(
            runs, scale, names, frames=spec.memory + jumps, core=core, ring=ring, moments=moments,
            # The channels of a latent field do not turn with the field.
            symmetric=spec.symmetric and all(run.attributes.get("scalars", True) for run in runs),
        )

    def sample(self, step: int, micro: int, size: int) -> dict[str, Any]:
        """A batch for `loss`: frames, conditions, and the halo known (0 cells: all of it)."""
        everything, width, passes = uniform(
            self.seed, step, np.array([micro]), draws=3, stream=MODES
        )[:, 0]
        spec = self.spec
        full = not spec.masked or everything < spec.full
        source = self.chain if full else self.single
        frames, told = source.draw(self.seed, step, range(micro * size, (micro + 1) * size))
        return {
            "frames": frames, "condition": told,
            "halo": 0 if full else spec.halos[int(width * len(spec.halos))],
            "passes": spec.passes[int(passes * len(spec.passes))],
        }

    def loss(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """Mean square error, normalised, of what the batch asks for; a scalar tensor."""
        frames = batch["frames"]
        if self.spec.noise:
            import torch

            read = frames[:, : self.spec.memory]
            noisy = read + self.spec.noise * torch.randn_like(read)
            frames = torch.cat((noisy, frames[:, self.spec.memory :]), 1)
        errors = self._errors(model, frames, batch)
        return sum(errors) / len(errors)

    def _errors(self, model: Any, frames: Any, batch: Mapping[str, Any]) -> list[Any]:
        from scaled_mpi.learning.losses import jump_errors, rolled_errors, sweep_errors

        told = batch["condition"] if batch["condition"].shape[1] else None
        if self.spec.rollout > 1:
            return rolled_errors(model, frames, self.spec.memory, told)
        if not batch["halo"]:
            return jump_errors(model, frames, self.spec.memory, told)
        halo = [min(batch["halo"], r) for r in self.reach]
        return sweep_errors(model, frames, self.spec.memory, told, halo, batch["passes"])

    def judge(self, model: Any) -> dict[str, float]:
        """Root mean square errors, in spreads, with everything known and in sweeps."""
        import torch

        device = next(model.parameters()).device
        squares: dict[str, list[float]] = {"full": []}
        for number in range(JUDGED):
            frames, told = self.single.draw(self.seed, JUDGE_STEP, [number])
            batch = {
                "frames": torch.from_numpy(frames).to(device),
                "condition": torch.from_numpy(told).to(device), "halo": 0, "passes": 1,
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


class StepperOperator:
    """A trained stepper, applied one tile a call: one shape, one thread, so always the same bits.

    Attributes: `reach` (cells an axis), `memory`, `stochastic`, `conditions` (names).
    """

    kind = "stepper"
    stochastic = False
    noises = 0  # channels of white noise that one jump of one sample takes

    def __init__(self, folder: Path, device: str) -> None:
        import torch

        from scaled_mpi.learning.weights import load_into, load_weights

        torch.set_num_threads(1)
        tensors, meta = load_weights(folder / WEIGHTS)
        if meta.get("kind") != self.kind:
            raise InputError(
                f"{folder / WEIGHTS}: weights of a {meta.get('kind')}, not a {self.kind}"
            )
        self.meta = meta
        self.network = network_of(meta, 0)
        load_into(self.network, tensors, str(folder / WEIGHTS))
        self.device = torch.device(device)
        self.network.to(self.device).eval()
        axes = meta["axes"]
        self.reach = self.network.reach
        self.memory: int = meta["stepper"]["memory"]
        self.coarsen: int = meta["stepper"]["coarsen"]
        self.conditions = tuple(meta["conditions"])
        self._mean, self._spread = (
            np.array(meta[key], np.float32).reshape(-1, *[1] * axes)
            for key in ("mean", "spread")
        )
        self._condition_mean = np.array(meta["condition_mean"])
        self._condition_spread = np.array(meta["condition_spread"])

    def condition(self, told: Mapping[str, float]) -> np.ndarray:
        """The conditions that the network reads, (n,), out of all that a run tells."""
        missing = [name for name in self.conditions if name not in told]
        if missing:
            raise InputError(f"condition: {', '.join(missing)} missing; the surrogate reads it")
        return np.array([float(told[name]) for name in self.conditions], np.float64)

    def advance(
        self,
        window: np.ndarray,
        mask: np.ndarray,
        condition: np.ndarray,
        future: tuple[np.ndarray, np.ndarray] | None = None,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """The tile one jump later, (C, *tile), in the type of `window`.

        window (M, C, *(tile + 2 reach)), newest last; mask (*(tile + 2 reach)), 1 where known;
        condition (n,) as `condition` gives it; future: value (C, *(tile + 2 reach)) and mask of
        what is known one jump on; noise (noises, *(tile + 2 reach)) where `stochastic`.
        Errors: `InputError` for a tile that is no multiple of `coarsen`, `ValueError` for a mask
        that a network without masks cannot use.
        """
        import torch

        self._check(window, mask)
        told = None
        if self.conditions:
            told = self._put((condition - self._condition_mean) / self._condition_spread)
        known = [self._put((window - self._mean) / self._spread), told]
        if self.network.masked:
            known.append(self._put(mask[None]))
            if future is not None:
                value, where = future
                known.append(self._put((value - self._mean) / self._spread))
                known.append(self._put(where[None]))
        drawn = None if noise is None else self._put(noise)
        with torch.inference_mode():
            made = self.network(*known, noise=drawn)[0].cpu().numpy()
        return (made * self._spread + self._mean).astype(window.dtype)

    def _put(self, values: np.ndarray) -> Any:
        """A batch of one, float32, on the device."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(values[None], np.float32)).to(self.device)

    def _check(self, window: np.ndarray, mask: np.ndarray) -> None:
        tile = [n - 2 * r for n, r in zip(window.shape[2:], self.reach, strict=True)]
        if any(n % self.coarsen or n <= 0 for n in tile):
            raise InputError(
                f"domain.tile: {tile} cells for the surrogate; multiples of {self.coarsen} "
                "(surrogate.coarsen) are allowed"
            )
        if not self.network.masked and not mask.all():
            raise ValueError("the network was trained without masks: its whole reach is needed")
