"""Denoisers of fields at every noise level: of windows cut from boxes, of block means of boxes.

    D_w(x_t on w, t) ~ E[x on w | x_t on w]          a window, everything beyond it unknown
    D_c(R x_t, t)    ~ E[R x | R x_t]                the means of blocks of B cells, a whole box

The noise of block means has the spread sigma / B^(axes / 2). So B^(axes / 2) R x has the noise of
the schedule, and the coarse network learns it. Fields are normalised, (N, C, *cells) of mean 0 and
spread 1 a channel. Both are trained on periodic boxes. Every translation, mirror image and
exchange of axes of a box is as likely as the box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import PositiveInt

from scaled_mpi.config import InputError, decisive, plain
from scaled_mpi.learning.given_weights import TrainedPart
from scaled_mpi.learning.schedules import Schedule
from scaled_mpi.learning.settings import Result, Session, Training
from scaled_mpi.learning.sizes import UNetSize
from scaled_mpi.surrogates.finished import place_weights
from scaled_mpi.surrogates.score import (
    CHANNELS,
    JUDGED,
    WEIGHTS,
    SnapshotLesson,
    load_model,
    seeded,
    train_on,
)

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.denoising import Denoiser

Extent = tuple[int, ...]


class FieldDenoiser(TrainedPart):
    """A U-Net as a denoiser; it works on coarse cells of `coarsen` cells an axis.

    The padding of `network` is for windows; periodic boxes are padded circularly. `smooth`: fields
    vary little from cell to cell, and the network begins as a smoothing filter.
    """

    parametrization: Literal["x0", "v", "flow", "edm"] = "edm"
    coarsen: PositiveInt = 2
    smooth: bool = True
    network: UNetSize = UNetSize(widths=(32, 64, 64), norm="cell", padding="replicate")
    training: Training = Training(
        steps=300,
        batch=16,
        micro_batches=4,
        learning_rate=4e-3,
        ema=0.98,
        validate_every=50,
        warmup=20,
    )

    @property
    def multiple(self) -> int:
        """Cells that an axis of a field is a multiple of."""
        return self.coarsen * self.network.multiple

    def build(self, schedule: Schedule, spread: float = 1.0, periodic: bool = False) -> Denoiser:
        """The untrained `learning.denoising.Denoiser` of data of this spread."""
        from scaled_mpi.learning.denoising import Denoiser
        from scaled_mpi.learning.networks.gathered import Filtered, Gathered
        from scaled_mpi.learning.networks.unet import UNet

        size = (
            self.network.model_copy(update={"padding": "circular"}) if periodic else (self.network)
        )
        channels = CHANNELS * self.coarsen**2
        network: Gathered
        if self.smooth:
            inner = UNet(2, 2 * channels, size, outputs=channels)
            network = Filtered(inner, self.coarsen, size.padding)
        else:
            network = Gathered(UNet(2, channels, size), self.coarsen)
        return Denoiser(network, schedule, self.parametrization, spread)

    def load(
        self, folder: Path, schedule: Schedule, spread: float = 1.0, periodic: bool = False
    ) -> Callable[[np.ndarray, float], np.ndarray]:
        """Return the trained denoiser of arrays (N, C, *cells), on one thread of the CPU.

        The spread is that of its training; `spread` serves weights that do not state it.
        Errors: `InputError` for weights that are missing, damaged or of another network.
        """
        from scaled_mpi.learning.distributed import use_one_thread
        from scaled_mpi.learning.weights import load_weights

        use_one_thread()
        spread = load_weights(folder / WEIGHTS)[1].get("spread", spread)
        return load_model(self.build(schedule, spread, periodic), folder, "cpu").on_arrays()

    def take_as(
        self, schedule: Schedule, spread: float = 1.0, periodic: bool = False
    ) -> Callable[[Path, Path], None]:
        """Return `take(source, folder)` for a denoiser of data of this spread.

        Errors, of the function: `InputError` for weights of another network, schedule or spread;
        nothing is written then.
        """

        def take(source: Path, folder: Path) -> None:
            tensors, meta = load_weights(source)
            if meta.get("kind") != "denoiser" or meta.get("periodic") != periodic:
                raise InputError(f"{source}: these are other weights. Needed: a denoiser's")
            if meta["schedule"] != plain(schedule):
                raise InputError(
                    f"schedule: {plain(schedule)} is not allowed: {source} was trained with "
                    f"another. Allowed: {meta['schedule']}"
                )
            model = self.build(schedule, meta["spread"], periodic)
            place_weights(source, folder / WEIGHTS, model, tensors)

        from scaled_mpi.learning.weights import load_weights

        return take


@dataclass(frozen=True)
class BoxSet:
    """Normalised periodic boxes (N, C, *cells), to learn from and to validate on."""

    learned: np.ndarray
    held_out: np.ndarray


def fit_windows(
    spec: FieldDenoiser,
    schedule: Schedule,
    boxes: BoxSet,
    extents: Sequence[Extent],
    session: Session,
) -> Result:
    """Train on windows of the `extents` of boxes (N, C, *cells), each extent as often.

    Leaves the weights in the session's folder. Collective.
    """
    import torch

    from scaled_mpi.learning.scores import moved

    def cut(x: torch.Tensor) -> torch.Tensor:
        rows, columns = extents[int(torch.randint(len(extents), ()))]
        return moved(x)[:, :, :rows, :columns]

    largest = max(extents)
    exam = boxes.held_out[:JUDGED, :, : largest[0], : largest[1]]
    part = SnapshotLesson(denoising_loss, boxes.learned, exam, {}, cut)
    return _fit(spec, schedule, part, session)


def fit_means(
    spec: FieldDenoiser,
    schedule: Schedule,
    boxes: BoxSet,
    block: int,
    spread: float,
    session: Session,
) -> Result:
    """Train on `block` R x of whole boxes (N, C, *cells), data of `spread`.

    Leaves the weights in the session's folder. Collective.
    """
    import torch

    from scaled_mpi.learning.scores import moved

    def pooled(x: torch.Tensor) -> torch.Tensor:
        return block * torch.nn.functional.avg_pool2d(moved(x), block)

    held_out = torch.from_numpy(boxes.held_out[:JUDGED])
    exam = block * torch.nn.functional.avg_pool2d(held_out, block)
    part = SnapshotLesson(denoising_loss, boxes.learned, exam.numpy(), {}, pooled)
    return _fit(spec, schedule, part, session, spread, periodic=True)


def _fit(
    spec: FieldDenoiser,
    schedule: Schedule,
    lesson: SnapshotLesson,
    session: Session,
    spread: float = 1.0,
    periodic: bool = False,
) -> Result:
    meta = {
        "kind": "denoiser",
        "denoiser": {k: v for k, v in decisive(spec).items() if k != "weights"},
        "schedule": plain(schedule),
        "spread": spread,
        "periodic": periodic,
    }
    model = seeded(lambda: spec.build(schedule, spread, periodic), session.seed)
    return train_on(model, replace(lesson, meta=meta), spec.training, session)


def denoising_loss(model: Denoiser, x: torch.Tensor) -> torch.Tensor:
    """The denoiser's loss at one time in each of as many equal parts of [0, 1]; a scalar."""
    import torch

    count = len(x)
    places = torch.arange(count, device=x.device) + torch.rand(count, device=x.device)
    return model.loss(x, places / count, torch.randn_like(x))
