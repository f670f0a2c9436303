"""A convolutional autoencoder that can be cut anywhere: valid convolutions, nothing global.

    z = P crop(x) + E(x)          P, U: linear maps of one factor x factor patch
    y = U crop(z) + D(z)          E, D: residual blocks and strided convolutions, kernel = stride

No layer pads and none normalises over cells. A latent cell depends on its own patch and the cells
within a known reach, and on no other. So a tile with its halo has the numbers of the whole domain.
P and U begin as the principal components of the patches, the best linear code in closed form. E
and D begin at zero, so training starts from the linear answer. Stage s halves the axes whose
factor is at least 2^(s+1).

Between E and D stands one of `bottlenecks.py`. With `conserve` the first latent channels are the
means of the patches. The decoded field is shifted, patch by patch, to these means. Integrals of
the field over tiles, and over the domain, are then kept to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from scaled_mpi.learning.networks.bottlenecks import bottlenecks
from scaled_mpi.learning.networks.convolution import (
    CONVOLUTIONS,
    POOLS,
    ConvolutionBlock,
    crop,
    set_to_zero,
)
from scaled_mpi.learning.reaches import decode_margins, encode_reach, strides
from scaled_mpi.parallel.comm import Comm

TRANSPOSED: dict[
    int, Callable[..., nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d]
] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


def _blocks(axes: int, width: int, depth: int) -> nn.ModuleList:
    return nn.ModuleList(ConvolutionBlock(width, (3,) * axes, 0) for _ in range(depth))


class CodingNetwork(nn.Module):
    """Field (N, channels, *cells) to latent (N, latent, *(cells / factor)) and back.

    `width` features on the first coarser grid and twice as many on the others, `depth` blocks on
    each. `encode_reach` is in cells of the field, `decode_reach` in cells of the latent field.
    """

    def __init__(
        self,
        channels: int,
        latent: int,
        factor: Sequence[int],
        width: int,
        depth: int,
        bottleneck: str = "identity",
        conserve: bool = False,
        **keys: Any,
    ) -> None:
        super().__init__()
        self.factor, axes = tuple(factor), len(factor)
        self.kept = channels if conserve else 0
        coded = latent - self.kept
        self.encode_reach = encode_reach(factor, depth)
        self.margins = decode_margins(factor, depth)
        self.decode_reach = self.margins[0]
        self.strides = strides(factor)
        widths = [width, *[2 * width] * (len(self.strides) - 1)]
        last = max(8, width // 2)
        convolution, transposed = CONVOLUTIONS[axes], TRANSPOSED[axes]
        self.project = convolution(channels, coded, self.factor, self.factor)
        self.lift = transposed(coded, channels, self.factor, self.factor)
        levels = list(zip([channels, *widths[:-1]], widths, self.strides, strict=True))
        self.down = nn.ModuleList(convolution(fine, coarse, s, s) for fine, coarse, s in levels)
        levels[0] = (last, *levels[0][1:])
        self.up = nn.ModuleList(transposed(coarse, fine, s, s) for fine, coarse, s in levels)
        self.down_blocks = nn.ModuleList(_blocks(axes, w, depth) for w in widths)
        self.up_blocks = nn.ModuleList(_blocks(axes, w, depth) for w in widths)
        self.to_latent = convolution(widths[-1], coded, 1)
        self.from_latent = convolution(latent, widths[-1], 1)
        self.paint = convolution(last, channels, 3)
        for layer in (self.to_latent, self.paint):
            set_to_zero(layer)
        self.bottleneck = bottlenecks()[bottleneck](axes, coded, **keys)

    def encode(self, field: torch.Tensor) -> torch.Tensor:
        """(N, channels, *(cells + 2 encode_reach)) to (N, latent, *(cells / factor))."""
        return self._with_means(field, self.bottleneck.code(self._features(field)))

    def reconstruct(self, field: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coded and decoded field (N, C, *core), and the bottleneck's scalar penalty.

        field: (N, C, *cells), core = cells less `ring`. The bottleneck works as in training.
        """
        coded, penalty = self.bottleneck(self._features(field))
        return self.decode(self._with_means(field, coded)), penalty

    def after_step(self, comm: Comm) -> None:
        """Update the bottleneck once the gradients of a step are used. Collective."""
        self.bottleneck.after_step(comm)

    @property
    def ring(self) -> tuple[int, ...]:
        """Cells of the field at both ends of each axis that coding and decoding spend."""
        reaches = zip(self.encode_reach, self.factor, self.decode_reach, strict=True)
        return tuple(e + f * d for e, f, d in reaches)

    @property
    def bits(self) -> float:
        """Bits of one latent cell."""
        return 32.0 * self.kept + self.bottleneck.bits

    def _features(self, field: torch.Tensor) -> torch.Tensor:
        """What the bottleneck is given."""
        linear = self.project(crop(field, self.encode_reach))
        for halve, blocks in zip(self.down, self.down_blocks, strict=True):
            field = halve(field)
            for block in blocks.children():
                field = block(field, None)
        return linear + self.to_latent(field)

    def _with_means(self, field: torch.Tensor, coded: torch.Tensor) -> torch.Tensor:
        if not self.kept:
            return coded
        return torch.cat((self._means(crop(field, self.encode_reach)), coded), 1)

    def _means(self, field: torch.Tensor) -> torch.Tensor:
        """Means over the patches, (N, C, *(cells / factor))."""
        return POOLS[len(self.factor)](field, self.factor)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """(N, latent, *(cells + 2 decode_reach)) to (N, channels, *(cells * factor))."""
        linear = self.lift(crop(latent[:, self.kept :], self.decode_reach))
        field, alive = self.from_latent(latent), self.decode_reach
        stages = list(zip(self.up, self.up_blocks, self.strides, strict=True))[::-1]
        for (double, blocks, stride), wanted in zip(stages, self.margins[1:], strict=True):
            depth = len(list(blocks.children()))
            for block in blocks.children():
                field = block(field, None)
            field = double(field)
            alive = tuple((m - depth) * s for m, s in zip(alive, stride, strict=True))
            field = crop(field, [a - w for a, w in zip(alive, wanted, strict=True)])
            alive = wanted
        made = linear + self.paint(nn.functional.gelu(field))
        return self.keep(crop(latent, self.decode_reach), made)

    def keep(self, latent: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """Shift `made` (N, channels, *(cells * factor)) to the means in `latent`, with `conserve`.

        latent: (N, latent, *cells), of the same cells.
        """
        if not self.kept:
            return made
        return made + self.enlarge(latent[:, : self.kept] - self._means(made))

    def enlarge(self, latent: torch.Tensor) -> torch.Tensor:
        """(N, K, *cells) repeated to (N, K, *(cells * factor))."""
        for axis, f in enumerate(self.factor, 2):
            latent = latent.repeat_interleave(f, axis)
        return latent

    def forward(self, field: torch.Tensor) -> torch.Tensor:
        """Return the coded and decoded field (N, C, *core) of a field (N, C, *cells).

        Spends encode_reach + factor * decode_reach at both ends of each axis.
        """
        return self.decode(self.encode(field))

    @torch.no_grad()
    def start_bottleneck(self, fields: torch.Tensor) -> None:
        """Start the bottleneck with the latents of `fields` (N, C, *cells), with their ring."""
        self.bottleneck.start(torch.cat([self._features(field[None]) for field in fields]))

    @torch.no_grad()
    def start_linear(self, fields: torch.Tensor) -> None:
        """Set the linear maps to the principal components of the patches of `fields`.

        fields: (N, channels, *cells), cells a multiple of factor. The latents then have mean 0
        and variance 1 (components without variance stay at their small size).
        """
        if self.kept:  # the means of patches have channels of their own
            fields = fields - self.enlarge(self._means(fields))
        patches = _patches(fields, self.factor).double()
        mean = patches.mean(0)
        covariance = torch.cov((patches - mean).T)
        variance, vectors = torch.linalg.eigh(covariance)
        latent = self.project.out_channels
        vectors = vectors.flip(1)[:, :latent]
        spread = variance.flip(0)[:latent].clamp_min(1e-8 * float(variance[-1])).sqrt()
        shape = (latent, fields.shape[1], *self.factor)
        self.project.weight.copy_((vectors / spread).T.reshape(shape))
        assert self.project.bias is not None and self.lift.bias is not None
        self.project.bias.copy_(-(mean @ vectors) / spread)
        self.lift.weight.copy_((vectors * spread).T.reshape(shape))
        self.lift.bias.copy_(mean.reshape(fields.shape[1], -1).mean(1))


def _patches(fields: torch.Tensor, factor: Sequence[int]) -> torch.Tensor:
    """(N, C, *cells) -> (patches, C * prod(factor))."""
    axes = len(factor)
    for axis, f in enumerate(factor, 2):
        fields = fields.unfold(axis, f, f)
    order = [0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes)]
    return fields.permute(order).flatten(0, axes).flatten(1)
