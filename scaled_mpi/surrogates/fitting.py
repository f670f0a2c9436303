"""Common parts of all surrogates that learn a jump from stored runs: keys, training, operator.

A member defines its network (`_network`), and its samples and loss (`_lesson`). Its operator
defines how the network computes a tile (`_made`). All else stands here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from scaled_mpi.config import InputError, decisive
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.held_out import hold_out, learned_frames
from scaled_mpi.learning.settings import Session, Task, Training
from scaled_mpi.learning.training import on_team, train
from scaled_mpi.parallel.blocks import whole_per_axis
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.surrogates.finished import agree, place_weights, read_jump
from scaled_mpi.surrogates.operators import Future, Operator, Surrogate

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.patches import Patches, Scale

WEIGHTS = "best.safetensors"
FEWEST = 2  # frames at the end of a run that a validation needs
JUDGED = 16  # patches that a validation looks at


class JumpSpec(Surrogate):
    """Keys that every learned jump has; lengths are in cells of its own grid.

    `architecture` names the keys that finished weights have to share.
    """

    optional: ClassVar[tuple[str, ...]] = ()  # hashes of jumps have always had the weights
    if TYPE_CHECKING:
        kind: str

    architecture: ClassVar[tuple[str, ...]] = ("jump", "memory", "reach", "coarsen")

    jump: PositiveInt = Field(default=50, description="simulator steps of one application")
    memory: PositiveInt = Field(default=1, description="past frames read, the newest included")
    reach: PositiveInt | tuple[PositiveInt, ...] = 8
    coarsen: PositiveInt = Field(default=2, description="cells an axis gathered into channels")
    patch: PositiveInt = Field(default=64, description="cells an axis of a training sample")
    symmetric: bool = Field(default=True, description="learn all flips and turns (scalar fields)")
    held_out: PositiveInt = Field(default=2, description="last runs, kept for validation")
    training: Training = Training()
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where a forecast runs")

    def fit(
        self,
        trajectories: Sequence[Trajectory],
        comm: Comm,
        folder: str | Path,
        events: EventLog | None,
        seed: int,
    ) -> None:
        """Train on stored runs and leave the weights in `folder`. Collective over `comm`.

        The last `held_out` runs are for validation (of too few runs, the last eighth of each).
        `seed` decides everything. Errors: `InputError` for runs that cannot be used.
        """
        self._check(trajectories)
        on_team(
            comm,
            self.training,
            lambda team: self._train(list(trajectories), team, Path(folder), events, seed),
        )

    def take(self, source: Path, folder: Path, seen: Mapping[str, Any] | None = None) -> None:
        """Leave finished weights in `folder`, as `fit` would; `seen` as `agree` says. Serial.

        Errors: `InputError` for weights that are damaged or do not fit; nothing is written then.
        """
        tensors, meta = read_jump(source, self.kind)
        agree(self, meta, seen, source)
        place_weights(source, folder / WEIGHTS, self._network(meta, 0), tensors)

    def sample_count(
        self, runs: int, frames: int, shape: Sequence[int], periodic: Sequence[bool]
    ) -> int:
        """Return the training samples without a cell in common in `runs` runs of `frames` frames.

        `shape`: cells of a run on the surrogate's own grid; `periodic`: of each axis.
        """
        learned, kept = (runs - self.held_out, frames) if runs > self.held_out else (runs, 0)
        if not kept:
            kept = learned_frames(frames, FEWEST)
        starts = max(0, kept - self.memory - self._jumps() + 1)
        core = shape if self._jumps() > 1 else self._core(shape, periodic)
        return (
            learned * starts * math.prod(max(1, n // c) for n, c in zip(shape, core, strict=True))
        )

    def _jumps(self) -> int:
        """Jumps that the frames of one sample span; above 1 its patch is the whole box."""
        return 1

    def _check(self, runs: Sequence[Trajectory]) -> None:
        if not runs:
            raise InputError(
                "data: 0 runs are not allowed: the surrogate learns from them. Allowed: 1 or more"
            )
        whole_per_axis("surrogate.reach", self.reach, runs[0].grid.axes, 1)
        for run in runs:
            told = run.attributes.get("jump", self.jump)
            if told != self.jump:
                raise InputError(
                    f"surrogate.jump: {self.jump} is not allowed: the frames of {run.name} have "
                    f"another spacing. Allowed: {told}"
                )

    def _core(self, shape: Sequence[int], periodic: Sequence[bool]) -> tuple[int, ...]:
        """Cells of a patch an axis: `patch`, or what fits into a small bounded domain."""
        unit, cores = 2 * self.coarsen, []
        for cells, wraps in zip(shape, periodic, strict=True):
            core = self.patch if wraps else min(self.patch, cells // unit * unit)
            if core < unit:
                raise InputError(
                    f"data.shape: {cells} cells are not allowed: fewer than the smallest patch. "
                    f"Allowed: {unit} or more"
                )
            cores.append(core)
        return tuple(cores)

    def _network(self, meta: Mapping[str, Any], seed: int) -> torch.nn.Module:
        raise TypeError(f"{self.kind}: no network of its own")

    def _lesson(self, excerpt: Excerpt, seed: int) -> Any:
        raise TypeError(f"{self.kind}: no lesson of its own")

    def _train(
        self, runs: list[Trajectory], comm: Comm, folder: Path, events: EventLog | None, seed: int
    ) -> None:
        from scaled_mpi.learning.patches import condition_names, measure

        learned, judged = hold_out(runs, self.held_out, FEWEST)
        names = condition_names(runs)
        scale = measure(learned.runs, names)
        told = decisive(self)  # equal weights, equal files
        del told["device"]
        told.pop("weights", None)
        meta = {
            "kind": self.kind,
            "stepper": told,
            "axes": runs[0].grid.axes,
            "channels": runs[0].shape[1],
            "mean": scale.mean.tolist(),
            "spread": scale.spread.tolist(),
            "change": scale.change.tolist(),
            "conditions": list(names),
            "condition_mean": scale.condition_mean.tolist(),
            "condition_spread": scale.condition_spread.tolist(),
        }
        lesson = self._lesson(Excerpt(*learned, scale, names), seed)
        self.training.check_batch(lesson.single.distinct)
        exam = self._lesson(Excerpt(*judged, scale, names), seed)
        task = Task(lesson.loss, lesson.sample, exam.judge, meta)
        session = Session(comm, folder, events, seed)
        train(self._network(meta, seed), task, self.training, session)


@dataclass(frozen=True)
class Excerpt:
    """Runs, the frames used of each, how fields are normalised, and the conditions read."""

    runs: Sequence[Trajectory]
    moments: slice
    scale: Scale
    names: Sequence[str]


def patches_of(spec: JumpSpec, excerpt: Excerpt, jumps: int, whole: bool = False) -> Patches:
    """Return patches of `jumps` jumps and the ring that they read; or the whole periodic box."""
    from scaled_mpi.learning.patches import Patches

    runs = excerpt.runs
    grid = runs[0].grid
    reach = whole_per_axis("surrogate.reach", spec.reach, grid.axes, 1)
    core = spec._core(grid.shape, [boundary.periodic for boundary in grid.boundary])
    ring = [jumps * r for r in reach]
    if whole:  # closes on itself after every jump
        core, ring = grid.shape, [0] * grid.axes
    return Patches(
        runs,
        excerpt.scale,
        excerpt.names,
        frames=spec.memory + jumps,
        core=core,
        ring=ring,
        moments=excerpt.moments,
        # The channels of a latent field do not turn with the field.
        symmetric=spec.symmetric and all(run.attributes.get("scalars", True) for run in runs),
    )


class JumpOperator(Operator):
    """A trained jump, applied one tile a call: one shape, one thread, so always the same bits.

    Attributes: `reach` (cells an axis), `memory`, `stochastic`, `conditions` (names).
    """

    kind = ""
    stochastic = False
    noises = 0  # channels of white noise that one jump of one sample takes

    def __init__(self, folder: Path, device: str) -> None:
        import torch

        from scaled_mpi.learning.distributed import use_one_thread
        from scaled_mpi.learning.weights import load_into

        if device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                "surrogate.device: cuda is not allowed: this machine has none. Allowed: cpu"
            )
        use_one_thread()
        tensors, meta = read_jump(folder / WEIGHTS, self.kind)
        self.meta = meta
        self.network = self._network(meta)
        load_into(self.network, tensors, str(folder / WEIGHTS))
        self.device = torch.device(device)
        self.network.to(self.device).eval()
        axes = meta["axes"]
        self.reach = self.network.reach
        self.memory: int = meta["stepper"]["memory"]
        self.coarsen: int = meta["stepper"]["coarsen"]
        self.conditions = tuple(meta["conditions"])
        self._mean, self._spread = (
            np.array(meta[key], np.float32).reshape(-1, *[1] * axes) for key in ("mean", "spread")
        )
        self._condition_mean = np.array(meta["condition_mean"])
        self._condition_spread = np.array(meta["condition_spread"])

    def advance(
        self,
        window: np.ndarray,
        mask: np.ndarray,
        condition: np.ndarray,
        future: Future | None = None,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """The tile one jump later, (C, *tile), in the type of `window`.

        `window` (M, C, *(tile + 2 reach)), newest last. `mask` (*(tile + 2 reach)) is 1 where the
        window is known. `condition` (n,) is from the method `condition`. `future` holds the value
        (C, *(tile + 2 reach)) one jump on and the mask of its known cells. `noise` (noises, *(tile
        + 2 reach)), where `stochastic`. Errors: `InputError` for a tile that the network cannot
        take.
        """
        import torch

        self._check(window, mask)
        told = None
        if self.conditions:
            told = self._put((condition - self._condition_mean) / self._condition_spread)
        with torch.inference_mode():
            made = self._made(window, mask, told, future, noise)[0].cpu().numpy()
        return (made * self._spread + self._mean).astype(window.dtype)

    def _network(self, meta: Mapping[str, Any]) -> Any:
        raise TypeError(f"{self.kind}: no network of its own")

    def _made(
        self,
        window: np.ndarray,
        mask: np.ndarray,
        told: torch.Tensor | None,
        future: Future | None,
        noise: np.ndarray | None,
    ) -> torch.Tensor:
        raise TypeError(f"{self.kind}: no network of its own")

    def _normal(self, fields: np.ndarray) -> np.ndarray:
        """Fields (..., C, *cells) in mean 0 and spread 1."""
        return (fields - self._mean) / self._spread

    def _put(self, values: np.ndarray) -> torch.Tensor:
        """A batch of one, float32, on the device."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(values[None], np.float32)).to(self.device)

    def _check(self, window: np.ndarray, mask: np.ndarray) -> None:
        tile = [n - 2 * r for n, r in zip(window.shape[2:], self.reach, strict=True)]
        if any(n % self.coarsen or n <= 0 for n in tile):
            raise InputError(
                f"domain.tile: {tile} cells are not allowed: surrogate.coarsen does not divide "
                f"them. Allowed: multiples of {self.coarsen}"
            )
