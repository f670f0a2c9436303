"""Conditional diffusion of one jump: noise becomes a sample of the change that a field undergoes.

With u normalised, s the spread of a jump's change and c the known data,

    x = mask (u(t + jump) - u(t)) / s        x_t = alpha x + sigma eps        D(x_t, t, c) ~ E[x]

The network reads the past frames and their mask, scalars, and the change of cells of known future.
This change is 1 where it is not known, and a mask marks it. (The encoding by 1 and the training
with random halos are those of SCALED's diffusion surrogate.) It works on the whole window, tile
and reach. So neighbouring tiles, which read the same noise, nearly agree on their common cells.
Cells are first gathered into coarse ones, as `convolution.py` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scaled_mpi.learning.denoising import Denoiser
from scaled_mpi.learning.networks.building_blocks import BlockNetwork
from scaled_mpi.learning.networks.convolution import crop, gather, spread
from scaled_mpi.learning.networks.unet import Condition, UNet
from scaled_mpi.learning.samplers import sample
from scaled_mpi.learning.schedules import Schedule

NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet, "local": BlockNetwork}
UNKNOWN = 1.0  # stands where the future is not known


class Known(NamedTuple):
    """Data known before a jump; cells are those of the window, tile + 2 reach.

    window (B, M, C, *cells) newest last and 0 where not known, mask (B, 1, *cells). scalars (B, n)
    or None, future (B, C, *cells) and its mask (B, 1, *cells), or None.
    """

    window: Tensor
    mask: Tensor
    scalars: Tensor | None = None
    future: Tensor | None = None
    future_mask: Tensor | None = None


class JumpShape(NamedTuple):
    """Shape of a jump's input: C channels of `memory` frames, `reach` cells an axis around a tile.

    `change` holds the spread of one jump's change, C numbers. `factor` cells an axis are gathered
    into channels, `conditions` counts the scalars.
    """

    channels: int
    memory: int
    reach: Sequence[int]
    change: Sequence[float]
    factor: int
    conditions: int


class ConditionalJump(nn.Module):
    """A sampler of fields one jump on, conditioned on the past."""

    scale: Tensor

    def __init__(
        self, shape: JumpShape, size: Any, schedule: Schedule, parametrization: str
    ) -> None:
        super().__init__()
        self.reach, self.factor, axes = tuple(shape.reach), shape.factor, len(shape.reach)
        cells = shape.factor**axes
        read = {
            "fields": ((shape.memory + 1) * shape.channels + 2) * cells,
            "scalars": shape.conditions,
        }
        channels = shape.channels * cells
        if size.kind in NETWORKS:
            network = NETWORKS[size.kind](axes, channels, size, **read)
        else:  # of an installed package
            network = size.build(axes, channels, **read)
        self.denoiser = Denoiser(network, schedule, parametrization)
        scale = torch.tensor(tuple(shape.change), dtype=torch.float32)
        self.register_buffer("scale", scale.view(-1, *(1,) * axes), persistent=False)

    def condition(self, known: Known) -> Condition:
        """The fields (B, K, *cells) that the U-Net reads, gathered, and the scalars (B, n)."""
        newest = known.window[:, -1]
        told, where = torch.full_like(newest, UNKNOWN), torch.zeros_like(known.mask)
        if known.future is not None and known.future_mask is not None:
            where = known.future_mask
            change = (known.future - newest) / self.scale
            told = torch.where(where > 0, change, told)
        past = (known.window * known.mask[:, None]).flatten(1, 2)
        fields = torch.cat((past, known.mask, told, where), 1)
        return Condition(gather(fields, self.factor), known.scalars)

    def loss(self, known: Known, truth: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """Denoising loss; truth and noise (B, C, *cells), time (B,) in [0, 1]; a scalar."""
        change = known.mask * (truth - known.window[:, -1]) / self.scale
        return self.denoiser.loss(
            gather(change, self.factor), time, gather(noise, self.factor), self.condition(known)
        )

    def sample(self, known: Known, noise: Tensor, steps: int, kind: str) -> Tensor:
        """The tile one jump on (B, C, *tile), from noise (B, k C, *cells): k fields of it."""
        channels, condition = known.window.shape[2], self.condition(known)

        def drawn(number: int) -> Tensor:
            fields = noise[:, number * channels : (number + 1) * channels]
            return gather(fields, self.factor)

        def denoise(x: Tensor, time: float) -> Tensor:
            return self.denoiser(x, time, condition)

        made = sample(denoise, drawn, self.denoiser.schedule, steps, kind)
        change = spread(made, self.factor) * self.scale
        return crop(known.window[:, -1] + change, self.reach)
