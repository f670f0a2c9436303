"""A decoder that draws: a conditional denoiser samples the remainder of an autoencoder.

    z = E(x)      y = D(z)      r = (x - y) / s      R(r_t, t, y, z) ~ E[r | r_t, z]
    decoded = y + s * (a sample of r)

The encoder keeps what it can and the denoiser draws the rest, as in the diffusion autoencoder of
Preechakul et al. 2022 (arXiv 2111.15640). Here it draws the remainder of the mean y of a plain
decoder, as in Mardani et al. 2023 (arXiv 2309.15214). So it has small scales to draw and no large
ones to lose. E and D are trained first and then stay as they are.

The denoiser is a stack of valid convolutions of known reach, and a sampler of few steps applies it
that often. The whole is again a local operator. A tile needs `decode_reach` latent cells around it
and the noise of its cells to decode as the whole domain does. Each application spends a ring;
instead of shrinking, fields are padded, and all spent cells are cut off at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scaled_mpi.learning.denoising import Denoiser
from scaled_mpi.learning.networks.coding import CodingNetwork
from scaled_mpi.learning.networks.convolution import LocalNetwork, crop
from scaled_mpi.learning.networks.unet import FREQUENCIES
from scaled_mpi.learning.reaches import latents_spent
from scaled_mpi.learning.samplers import applications, sample
from scaled_mpi.learning.schedules import Schedule


class LocalDenoiser(nn.Module):
    """(B, channels, *(cells + 2 reach)) and `told` fields there -> (B, channels, *cells).

    The network of a `Denoiser`, whose condition are the `told` fields.
    """

    frequencies: Tensor

    def __init__(
        self,
        channels: int,
        told: int,
        reach: Sequence[int],
        *,
        factor: int,
        width: int,
        depth: int,
    ) -> None:
        super().__init__()
        self.body = LocalNetwork(
            channels + told,
            channels,
            reach,
            factor=factor,
            width=width,
            depth=depth,
            conditions=2 * FREQUENCIES,
        )
        self.register_buffer("frequencies", 2.0 ** torch.arange(FREQUENCIES), persistent=False)

    def forward(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """`level` (B,) in [0, pi / 2], see `learning/denoising.py`."""
        angles = level[:, None] * self.frequencies.to(level.dtype)
        return self.body(torch.cat((x, condition), 1), torch.cat((angles.sin(), angles.cos()), 1))


class DrawingSize(NamedTuple):
    """Size of the denoiser, how it is parametrised, and its sampler of `steps` steps."""

    coarsen: int
    width: int
    depth: int
    parametrization: str
    sampler: str
    steps: int


class DrawingNetwork(nn.Module):
    """A trained coding network and the denoiser of its remainder.

    Each application of the denoiser reaches `reach` cells of the field, `once` latent ones; all
    applications for a sample reach `beyond` latent cells.
    """

    spread: Tensor

    def __init__(
        self,
        coder: CodingNetwork,
        channels: int,
        latent: int,
        size: DrawingSize,
        schedule: Schedule,
    ) -> None:
        super().__init__()
        self.coder, self.sampler, self.steps = (
            coder.requires_grad_(False),
            size.sampler,
            size.steps,
        )
        self.factor, self.encode_reach = coder.factor, coder.encode_reach
        axes = len(self.factor)
        cells = size.coarsen * size.depth
        self.reach = (cells,) * axes
        network = LocalDenoiser(
            channels,
            channels + latent,
            self.reach,
            factor=size.coarsen,
            width=size.width,
            depth=size.depth,
        )
        self.denoiser = Denoiser(network, schedule, size.parametrization)
        self.register_buffer("spread", torch.ones(channels, *(1,) * axes))
        self.beyond = latents_spent(applications(size.sampler, size.steps) * cells, self.factor)
        self.once = latents_spent(cells, self.factor)
        self.decode_reach = tuple(
            d + b for d, b in zip(coder.decode_reach, self.beyond, strict=True)
        )

    @property
    def bits(self) -> float:
        """Bits of one latent cell."""
        return self.coder.bits

    @property
    def ring(self) -> tuple[int, ...]:
        """Cells beside a patch that one application of the denoiser needs."""
        return self._around(self.once)

    @property
    def whole_ring(self) -> tuple[int, ...]:
        """Cells beside a patch that coding and drawing need."""
        return self._around(self.beyond)

    def encode(self, field: Tensor) -> Tensor:
        """Return the latent (B, c, *cells), as `CodingNetwork.encode` does."""
        return self.coder.encode(field)

    def decode(self, latent: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return (N, channels, *field) of (N, latent, *cells), field = core cells times factor.

        noise: standard normals (N, channels, *((cells + 2 decode_reach) * factor)); without them
        the sampler starts from 0, the middle of all noise.
        """
        mean, told = self._mean(latent)
        start = torch.zeros_like(mean) if noise is None else self._where_mean_is(noise)
        around = [r for reach in reversed(self.reach) for r in (reach, reach)]
        told = nn.functional.pad(told, around, mode="replicate")

        def denoise(x: Tensor, time: float) -> Tensor:
            padded = nn.functional.pad(x, around, mode="replicate")
            return self.denoiser(padded, time, told)

        drawn = sample(
            denoise, lambda number: start, self.denoiser.schedule, self.steps, self.sampler
        )
        made = crop(mean + self.spread * drawn, self._cells(self.beyond))
        return self.coder.keep(crop(latent, self.decode_reach), made)

    def forward(self, field: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return a field (B, C, *cells) coded and drawn again; spends `whole_ring`.

        noise: as for `decode`, which is the field without `encode_reach`.
        """
        return self.decode(self.encode(field), noise)

    def remainder(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """Return a field (B, C, *cells) with `ring` less its mean, and the condition."""
        with torch.no_grad():
            mean, told = self._mean(self.encode(field))
            return crop(field, self.coder.ring) - mean, told

    def loss(self, field: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """Denoising loss of the remainder; noise as the field without `encode_reach`; a scalar."""
        left, told = self.remainder(field)
        return self.denoiser.loss(left / self.spread, time, self._where_mean_is(noise), told)

    def _mean(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """The mean y, and what the denoiser is told: y, and the latent on the field's cells."""
        mean = self.coder.decode(latent)
        here = self.coder.enlarge(crop(latent, self.coder.decode_reach))
        return mean, torch.cat((mean, here), 1)

    def _where_mean_is(self, noise: Tensor) -> Tensor:
        return crop(noise, self._cells(self.coder.decode_reach))

    def _cells(self, latents: Sequence[int]) -> list[int]:
        return [f * n for f, n in zip(self.factor, latents, strict=True)]

    def _around(self, latents: Sequence[int]) -> tuple[int, ...]:
        return tuple(a + b for a, b in zip(self.coder.ring, self._cells(latents), strict=True))
