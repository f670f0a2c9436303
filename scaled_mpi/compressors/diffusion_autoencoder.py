"""A diffusion autoencoder: a denoiser draws the remainder of a plain autoencoder's fields.

See `learning/networks/drawing.py`. The latent is that of the plain autoencoder, so a surrogate on
it is as good. The decoded field differs: its small scales have the energy of true ones. The seed
and the place of a cell in the domain decide its noise. So one field belongs to a latent field,
whatever the tiles, the ranks and the frame. Without noise a decoder draws nothing: it starts from
0, the middle of all noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.compressors.autoencoder import Autoencoder
from scaled_mpi.compressors.lesson import CodingLesson, Material, mean_vrmse
from scaled_mpi.compressors.network_coder import network_of
from scaled_mpi.config import InputError, Spec
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.reaches import latents_spent
from scaled_mpi.learning.samplers import applications
from scaled_mpi.learning.schedules import AnySchedule, Cosine
from scaled_mpi.learning.settings import Session, Task
from scaled_mpi.learning.training import train
from scaled_mpi.parallel.blocks import whole_per_axis
from scaled_mpi.parallel.comm import Comm

if TYPE_CHECKING:
    from scaled_mpi.learning.networks.drawing import DrawingNetwork

TIMES = 8  # noise levels of a validation
FOLDER = "decoder"  # where the training of the denoiser leaves its states


class Decoder(Spec):
    """The denoiser, a local network on cells `coarsen` times coarser, and its sampler.

    Each step of the sampler reaches `coarsen * depth` cells further. `temperature` is the spread
    of the first noise; at 0 there is none.
    """

    coarsen: PositiveInt = 2
    width: PositiveInt = 48
    depth: PositiveInt = Field(default=3, description="blocks; each reaches one coarse cell")
    schedule: AnySchedule = Cosine()
    parametrization: Literal["epsilon", "x0", "v", "flow", "edm"] = "edm"
    # On a schedule that keeps variance Euler steps, however few, leave a remainder of spread 1
    # its variance; four of ddim lose half of it.
    sampler: Literal["ddim", "euler", "heun"] = "euler"
    steps: PositiveInt = 4
    temperature: float = Field(default=1.0, ge=0, le=1)


class DiffusionAutoencoder(Autoencoder):
    """A convolutional autoencoder whose decoder draws; lengths are in cells of the field.

    `training` is that of the autoencoder, and then of the denoiser.
    """

    kind: Literal["diffusion"] = "diffusion"  # type: ignore[assignment]
    decoder: Decoder = Decoder()

    @model_validator(mode="after")
    def _decoder_fits(self) -> DiffusionAutoencoder:
        factors = self.factor if isinstance(self.factor, tuple) else (self.factor,)
        if any(f % self.decoder.coarsen for f in factors):
            raise InputError(
                f"compressor.decoder.coarsen: {self.decoder.coarsen} is not allowed: it does "
                f"not divide the factor {list(factors)}. Allowed: divisors of the factor on "
                "every axis"
            )
        if self.decoder.parametrization == "epsilon" and self.decoder.schedule.zero_terminal_snr:
            raise InputError(
                "compressor.decoder.parametrization: epsilon is not allowed: with "
                "zero_terminal_snr the noise alone does not determine the data. Allowed: x0, "
                "v, flow, edm"
            )
        return self

    def decode_reach(self, axes: int) -> tuple[int, ...]:
        """The autoencoder's reach, and the reach of the sampler's steps."""
        factor = whole_per_axis("compressor.factor", self.factor, axes, 1)
        spec = self.decoder
        cells = applications(spec.sampler, spec.steps) * spec.coarsen * spec.depth
        reaches = zip(super().decode_reach(axes), latents_spent(cells, factor), strict=True)
        return tuple(mean + drawn for mean, drawn in reaches)

    def _learn(
        self, material: Material, comm: Comm, folder: Path, events: EventLog | None, seed: int
    ) -> tuple[Any, dict[str, Any]]:
        import torch

        coder, meta = super()._learn(material, comm, folder, events, seed)
        meta |= {"seed": seed}
        network = network_of(meta, seed)
        network.coder.load_state_dict(coder.state_dict())
        recipe = self._recipe()
        lesson = Drawing(recipe, material, material.learned, network.ring, seed)
        exam = Drawing(recipe, material, material.judged, network.whole_ring, seed)
        with torch.no_grad():
            lesson.measure(network)
        log = events and EventLog(
            folder / FOLDER, f"{folder.name}-{FOLDER}", seed, comm.rank, comm.size
        )
        task = Task(lesson.loss, lesson.sample, exam.judge, meta)
        result = train(network, task, self.training, Session(comm, folder / FOLDER, log, seed))
        mean = {f"{name}.mean": value for name, value in meta["scores"].items() if name == "vrmse"}
        return network, {**meta, "scores": {**meta["scores"], **mean, **result.best_metrics}}


class Drawing(CodingLesson):
    """Samples and losses of the denoiser of an autoencoder's remainder."""

    def measure(self, network: DrawingNetwork) -> None:
        """Set the network's spread of the remainder, channel by channel."""
        import torch

        from scaled_mpi.learning.distributed import one_thread

        with one_thread():
            left = torch.cat([network.remainder(one[None])[0] for one in self.surveyed()])
            spread = left.double().square().mean((0, *range(2, left.ndim))).sqrt()
            network.spread.copy_(spread.clamp_min(1e-6).view(network.spread.shape))

    def loss(self, model: Any, fields: Any) -> Any:
        """The denoising loss at times drawn evenly; a scalar tensor."""
        import torch

        from scaled_mpi.learning.networks.convolution import crop

        count, device = len(fields), fields.device
        # One time in each of `count` equal parts of [0, 1]: less noise than independent ones.
        time = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
        return model.loss(fields, time, torch.randn_like(crop(fields, model.encode_reach)))

    def judge(self, model: Any) -> dict[str, float]:
        """The loss under noise that is always the same, and the error of samples."""
        import torch

        from scaled_mpi.learning.networks.convolution import crop

        losses, pairs = [], []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for number, field in enumerate(self.examples(model)):
                noise = torch.randn(crop(field, model.encode_reach).shape).to(field.device)
                time = torch.full((1,), (number % TIMES + 0.5) / TIMES, device=field.device)
                losses.append(float(model.loss(field, time, noise)))
                pairs.append((model(field, noise).float(), crop(field, model.whole_ring)))
        return {"loss": float(np.mean(losses)), **mean_vrmse(pairs)}
