"""The score model of patterns: its kinds, its training, its loading.

Kinds `single` (one level of noise, `alpha`) and `diffusion` (the DDPM of the paper: 100 linear
levels, v-prediction, score at level tau = 10). See `learning/scores.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, decisive
from scaled_mpi.facts import EventLog
from scaled_mpi.files import sha256
from scaled_mpi.learning.schedules import Levels
from scaled_mpi.learning.settings import Result, Session, Task, Training
from scaled_mpi.learning.sizes import UNetSize
from scaled_mpi.learning.training import train
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import integers
from scaled_mpi.shipped import weight_folder
from scaled_mpi.surrogates.finished import place_weights

if TYPE_CHECKING:
    import torch

CHANNELS = 2  # u and v
WEIGHTS = "best.safetensors"
JUDGED = 32  # held-out snapshots a validation looks at, always under the same noise
JUDGE_SEED = 20_250_917


class SingleNoise(Spec):
    """One level: x_t = sqrt(alpha) x + sqrt(1 - alpha) eps; see `learning/scores.py`.

    A residual block a width, with a kernel whose taps are a dilation apart (none: 1).
    """

    kind: Literal["single"] = "single"
    alpha: float = Field(default=0.8, gt=0, lt=1)
    gaussian_weight: NonNegativeFloat = 0.0
    predicts: Literal["epsilon", "x0"] = "epsilon"
    clip: NonNegativeFloat = 0.0
    widths: tuple[PositiveInt, ...] = (16, 32, 64)
    kernels: tuple[PositiveInt, ...] = (3, 3, 5)
    dilations: tuple[PositiveInt, ...] | None = None
    weights: str | None = Field(
        default=None, description="folder of finished weights, not trained here"
    )
    training: Training = Training(
        steps=2000,
        batch=16,
        micro_batches=4,
        learning_rate=1e-3,
        weight_decay=1e-5,
        warmup=500,
    )

    @model_validator(mode="after")
    def _fits(self) -> SingleNoise:
        count = len(self.widths)
        if len(self.kernels) != count or any(k % 2 == 0 for k in self.kernels):
            raise InputError(
                f"score.kernels: {list(self.kernels)} is not allowed: even ones, or another "
                f"number than widths. Allowed: {count} odd ones"
            )
        if self.dilations is not None and len(self.dilations) != count:
            raise InputError(
                f"score.dilations: {list(self.dilations)} is not allowed: another number than "
                f"widths. Allowed: {count} of them"
            )
        return self

    def check_shape(self, shape: Sequence[int]) -> None:
        """Errors: `InputError` for a pattern that a kernel wraps around more than once."""
        taps = zip(self.kernels, self.dilations or [1] * len(self.kernels), strict=True)
        widest = max(dilation * (kernel - 1) + 1 for kernel, dilation in taps)
        if min(shape) < widest:
            raise InputError(
                f"patterns.height, width: {list(shape)} is not allowed: a kernel of "
                "score.kernels, with its dilation, wraps around twice. Allowed: at least "
                f"{widest}"
            )

    def build(self) -> Any:
        """The untrained model, a `learning.scores.Score`."""
        from scaled_mpi.learning.networks.periodic import ResidualField
        from scaled_mpi.learning.scores import SingleLevelScore

        network = ResidualField(CHANNELS, self.widths, self.kernels, self.dilations)
        return SingleLevelScore(
            network, self.alpha, self.gaussian_weight, predicts=self.predicts, clip=self.clip
        )


class DiffusionScore(Spec):
    """All levels of a DDPM; the score is that of level `tau`, x bounded by `clip` (0: not).

    `focus` is the share of samples that are learned at level tau itself, the others at any.
    """

    kind: Literal["diffusion"] = "diffusion"
    schedule: Levels = Levels(levels=100, beta_first=1e-4, beta_last=0.1)
    parametrization: Literal["epsilon", "x0", "v", "flow", "edm"] = "v"
    spread: float = Field(default=0.5, gt=0, description="standard deviation of the data")
    tau: int = Field(default=10, ge=0)
    clip: NonNegativeFloat = 1.0
    focus: float = Field(default=0.0, ge=0, lt=1)
    network: UNetSize = UNetSize(widths=(16, 32, 64), blocks=2)
    weights: str | None = Field(
        default=None, description="folder of finished weights, not trained here"
    )
    training: Training = Training(
        steps=12_000,
        batch=64,
        micro_batches=4,
        learning_rate=1e-3,
        weight_decay=0.01,
        warmup=500,
        ema=0.999,
    )

    @model_validator(mode="after")
    def _fits(self) -> DiffusionScore:
        if self.tau >= self.schedule.levels:
            raise InputError(
                f"score.tau: {self.tau} is not allowed: no level has this number. Allowed: 0 to "
                f"{self.schedule.levels - 1}"
            )
        return self

    def check_shape(self, shape: Sequence[int]) -> None:
        """Errors: `InputError` for a pattern that the U-Net cannot halve often enough."""
        if any(cells % self.network.multiple for cells in shape):
            raise InputError(
                f"patterns.height, width: {list(shape)} is not allowed: score.network.widths "
                f"halves it too often. Allowed: multiples of {self.network.multiple}"
            )

    def build(self) -> Any:
        """The untrained model, a `learning.scores.Score`."""
        from scaled_mpi.learning.denoising import Denoiser
        from scaled_mpi.learning.networks.unet import UNet
        from scaled_mpi.learning.scores import LevelScore

        network = UNet(2, CHANNELS, self.network)
        denoiser = Denoiser(network, self.schedule, self.parametrization, self.spread)
        return LevelScore(denoiser, self.tau, self.clip, self.focus)


AnyScore = SingleNoise | DiffusionScore


def fit_score(
    spec: AnyScore,
    snapshots: np.ndarray,
    held_out: np.ndarray,
    comm: Comm,
    folder: Path,
    events: EventLog | None,
    seed: int,
) -> Any:
    """Train on snapshots (N, 2, Y, X); weights in `folder`. Collective over the training ranks."""
    from scaled_mpi.learning.scores import moved

    meta = {"kind": "score", "score": without_checkpoints(spec)}
    lesson = SnapshotLesson(lambda model, x: model.loss(x), snapshots, held_out, meta, moved)
    model = seeded(spec.build, seed)
    return train_on(model, lesson, spec.training, Session(comm, folder, events, seed))


def load_score(spec: AnyScore, folder: Path, device: str | torch.device = "cpu") -> Any:
    """The trained model on a device, in evaluation."""
    return load_model(spec.build(), folder, device)


@dataclass(frozen=True)
class SnapshotLesson:
    """A training whose batches are snapshots (N, C, *cells); `loss(model, x)` draws its noise.

    `altered` turns a micro-batch into another that is as likely. A validation looks at `judged`
    of the snapshots in `held_out`. `meta` goes into the weight files.
    """

    loss: Callable[[Any, Any], Any]
    snapshots: np.ndarray
    held_out: np.ndarray
    meta: dict[str, Any]
    altered: Callable[[Any], Any] = lambda x: x
    judged: int = JUDGED


def train_on(
    model: torch.nn.Module, lesson: SnapshotLesson, training: Training, session: Session
) -> Result:
    """Train on snapshots (N, C, *cells); collective over the session's ranks.

    The snapshots lie on the device of the model, and a batch is a list of their numbers.
    """
    import torch

    placed: dict[Any, torch.Tensor] = {}

    def chosen(numbers: torch.Tensor) -> torch.Tensor:
        if numbers.device not in placed:
            placed[numbers.device] = torch.from_numpy(lesson.snapshots).to(numbers.device)
        return placed[numbers.device][numbers]

    def sample(step: int, micro: int, size: int) -> np.ndarray:
        places = np.arange(micro * size, (micro + 1) * size)
        return integers(session.seed, step, places, len(lesson.snapshots), stream=Stream.SNAPSHOTS)

    def validate(model: torch.nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        x = torch.from_numpy(lesson.held_out[: lesson.judged]).to(device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(JUDGE_SEED)
            with torch.enable_grad():
                parts = x.split(-(-lesson.judged // 4))
                losses = [float(lesson.loss(model, part).detach()) for part in parts]
        return {"loss": float(np.mean(losses))}

    task = Task(
        lambda m, numbers: lesson.loss(m, lesson.altered(chosen(numbers))),
        sample,
        validate,
        lesson.meta,
    )
    return train(model, task, training, session)


Network = TypeVar("Network", bound="torch.nn.Module")


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """Return `build()`, its first weights decided by `seed`."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def load_model(model: Network, folder: Path, device: str | torch.device) -> Network:
    """The best weights of a folder in `model`. Errors: `InputError`."""
    from scaled_mpi.learning.weights import load_into, load_weights

    tensors, _ = load_weights(folder / WEIGHTS)
    load_into(model, tensors, str(folder / WEIGHTS))
    return model.to(device).eval().requires_grad_(False)


def without_checkpoints(spec: Spec) -> dict[str, Any]:
    """A spec as plain data without keys that decide no weight: equal weights, equal files."""
    told = decisive(spec)
    del told["weights"]
    return told


def finished_weights(spec: Any, kind: str, preset: str) -> Path | None:
    """Return the file that `spec.weights` stands for, None where a model is trained.

    `waves.score.safetensors` of a folder, or `score/waves/best.safetensors` of results.
    """
    if spec.weights is None:
        return None
    folder = weight_folder(spec.weights)
    of_results = folder / kind / preset / WEIGHTS
    return of_results if of_results.is_file() else folder / f"{preset}.{kind}.safetensors"


def fingerprints(spec: Any, kind: str, presets: Sequence[str]) -> list[str]:
    """SHA-256 of every finished weight file; none where weights are trained.

    Errors: `InputError` for a file that is not there.
    """
    paths = [path for preset in presets if (path := finished_weights(spec, kind, preset))]
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"{kind}.weights: {path} is not allowed: no such file. Allowed: a folder of "
                "weights"
            )
    return [sha256(path) for path in paths]


def take_weights(spec: Any, source: Path, folder: Path) -> None:
    """Put finished weights where a training would leave its best. Serial.

    Errors: `InputError` for a damaged file or one of another architecture; nothing is written.
    """
    from scaled_mpi.learning.weights import load_weights

    tensors, _ = load_weights(source)
    place_weights(source, folder / WEIGHTS, spec.build(), tensors)
