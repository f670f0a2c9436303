"""A U-Net that runs on a whole field or on tiles with a halo, with the same weights.

    down   blocks, then a convolution of kernel 2 and stride 2, at every level but the coarsest
    up     its transpose, the features of the way down beside it, a 1-wide convolution, blocks
    block  x + C2 silu(norm(f * norm'(C1 silu(norm(x))) + s))      C1, C2 3-wide

(Ronneberger et al. 2015, arXiv 1505.04597. The gain f and shift s are functions of the noise level
and the scalars of the condition: FiLM, Perez et al. 2018, arXiv 1709.07871.) Three paddings share
the weights: `circular` for periodic fields, `replicate` for bounded ones, and `valid`, where every
3-wide convolution spends a cell at both ends. With the norm `cell` the network is a local operator
of known reach. With `valid` a tile that starts at a multiple of `multiple` then has the numbers of
the whole periodic field. The last layer begins at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scaled_mpi.config import InputError
from scaled_mpi.learning.networks.coding import TRANSPOSED
from scaled_mpi.learning.networks.convolution import CONVOLUTIONS, LAYOUTS, crop, set_to_zero
from scaled_mpi.learning.sizes import UNetSize

FREQUENCIES = 8  # of the noise level's features, 1 to 2^7: angles of 0.01 are told apart


class Condition(NamedTuple):
    """Condition of a denoiser: fields (B, K, *cells) beside x_t, and scalars (B, n)."""

    fields: Tensor | None = None
    scalars: Tensor | None = None


class CellNorm(nn.GroupNorm):
    """GroupNorm whose mean and variance are over the channels of a group at one cell."""

    def forward(self, x: Tensor) -> Tensor:
        # Channels last, where they lie side by side: a layer norm of short rows, 3 times faster.
        """Return x (B, K, *cells), normalised at every cell, in the same shape."""
        last = x.movedim(1, -1).unflatten(-1, (self.num_groups, -1))
        normed = nn.functional.layer_norm(last, last.shape[-1:], eps=self.eps).flatten(-2)
        return torch.addcmul(self.bias, normed, self.weight).movedim(-1, 1)


NORMS: dict[str, type[nn.Module]] = {"group": nn.GroupNorm, "cell": CellNorm}


class Convolution(nn.Module):
    """A 3-wide convolution under one of the paddings."""

    def __init__(self, axes: int, inputs: int, outputs: int, padding: str) -> None:
        super().__init__()
        self.layer = CONVOLUTIONS[axes](inputs, outputs, 3)
        self.ring = (1,) * (2 * axes)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *cells) -> (B, outputs, *cells), or two cells fewer an axis if valid."""
        if self.padding != "valid":
            x = nn.functional.pad(x, self.ring, self.padding)
        return self.layer(x)


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity; under `valid` two cells are spent at each end."""

    def __init__(self, axes: int, width: int, features: int, size: UNetSize) -> None:
        super().__init__()
        norm = NORMS[size.norm]
        self.enter = norm(size.groups, width)
        self.first = Convolution(axes, width, width, size.padding)
        self.film = nn.Linear(features, 2 * width)
        self.between = norm(size.groups, width)
        self.second = Convolution(axes, width, width, size.padding)
        for layer in (self.film, self.second.layer):
            set_to_zero(layer)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """x (B, width, *cells), told (B, features)."""
        y = self.first(nn.functional.silu(self.enter(x)))
        gain, shift = self.film(told).view(len(y), 2, -1, *(1,) * (x.ndim - 2)).unbind(1)
        y = torch.addcmul(shift, self.between(y), 1.0 + gain)
        y = self.second(nn.functional.silu(y))
        return _centre(x, y) + y


class Attention(nn.Module):
    """Self-attention over all cells, added to its input; heads of 8 channels."""

    def __init__(self, axes: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.ask = CONVOLUTIONS[axes](width, 3 * width, 1)
        self.answer = CONVOLUTIONS[axes](width, width, 1)
        self.head = math.gcd(8, width)
        set_to_zero(self.answer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, *cells) -> the same."""
        parts = self.ask(self.norm(x)).flatten(2).unflatten(1, (3, -1, self.head))
        query, key, value = parts.transpose(-1, -2).unbind(1)
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        return x + self.answer(seen.transpose(-1, -2).flatten(1, 2).view_as(x))


class UNet(nn.Module):
    """(B, channels, *cells) and a noise level (B,) -> (B, outputs, *cells).

    `fields` channels and `scalars` numbers of a `Condition` are read beside. Cells are a multiple
    of `size.multiple`; under `valid` they are tile + 2 reach, and the tile comes back.
    """

    frequencies: Tensor

    def __init__(
        self,
        axes: int,
        channels: int,
        size: UNetSize,
        *,
        fields: int = 0,
        scalars: int = 0,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.reach = (size.reach,) * axes
        self.multiple = size.multiple
        self.valid, self.layout = size.padding == "valid", LAYOUTS[axes]
        widths, convolution = size.widths, CONVOLUTIONS[axes]
        features = 2 * widths[0]
        self.register_buffer("frequencies", 2.0 ** torch.arange(FREQUENCIES), persistent=False)
        self.tell = nn.Sequential(
            nn.Linear(2 * FREQUENCIES + scalars, features),
            nn.SiLU(),
            nn.Linear(features, features),
            nn.SiLU(),
        )
        self.enter = Convolution(axes, channels + fields, widths[0], size.padding)

        def blocks(width: int) -> nn.ModuleList:
            return nn.ModuleList(
                ResidualBlock(axes, width, features, size) for _ in range(size.blocks)
            )

        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.down_blocks = nn.ModuleList(blocks(width) for width in widths)
        self.down = nn.ModuleList(convolution(a, b, 2, 2) for a, b in pairs)
        self.attention = Attention(axes, widths[-1], size.groups) if size.attention else None
        self.up = nn.ModuleList(TRANSPOSED[axes](b, a, 2, 2) for a, b in pairs)
        self.join = nn.ModuleList(convolution(2 * a, a, 1) for a, _ in pairs)
        self.up_blocks = nn.ModuleList(blocks(width) for width in widths)
        self.norm = NORMS[size.norm](size.groups, widths[0])
        self.leave = convolution(widths[0], channels if outputs is None else outputs, 1)
        set_to_zero(self.leave)

    def forward(self, x: Tensor, level: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, outputs, *cells); `level` (B,) in [0, pi / 2], see `learning/denoising.py`."""
        fields, scalars = condition or Condition()
        told = self._features(level, scalars)
        x = x if fields is None else torch.cat((x, fields), 1)
        core = self._core(x.shape[2:])
        x = self.enter(x.contiguous(memory_format=self.layout))
        skips = []
        for depth, blocks in enumerate(self.down_blocks):
            x = self.down[depth - 1](x) if depth else x
            for block in blocks.children():
                x = block(x, told)
            skips.append(x)
        if self.attention is not None:
            x = self.attention(x)
        for depth in reversed(range(len(skips))):
            if depth < len(self.up):
                x = self.up[depth](x)
                x = self.join[depth](torch.cat((x, _centre(skips[depth], x)), 1))
            for block in self.up_blocks[depth].children():
                x = block(x, told)
        if self.valid:
            x = crop(x, [(n - c) // 2 for n, c in zip(x.shape[2:], core, strict=True)])
        return self.leave(nn.functional.silu(self.norm(x)))

    def _core(self, cells: Sequence[int]) -> list[int]:
        """The cells that come back. Errors: `InputError` where no multiple of `multiple`."""
        core = [n - 2 * r * self.valid for n, r in zip(cells, self.reach, strict=True)]
        if any(n % self.multiple or n <= 0 for n in core):
            raise InputError(
                f"network.widths: {list(core)} cells are not allowed: the network halves them "
                f"too often. Allowed: multiples of {self.multiple}"
            )
        return core

    def _features(self, level: Tensor, scalars: Tensor | None) -> Tensor:
        angles = level[:, None] * self.frequencies.to(level.dtype)
        parts = [angles.sin(), angles.cos()] + ([] if scalars is None else [scalars])
        return self.tell(torch.cat(parts, 1))


def _centre(x: Tensor, like: Tensor) -> Tensor:
    """The middle of x, with the cells of `like`."""
    return crop(x, [(n - m) // 2 for n, m in zip(x.shape[2:], like.shape[2:], strict=True)])
