"""A denoiser's network of one resolution: the residual blocks of `convolution.py` and the noise.

    F(x_t, level, condition) = LocalNetwork(pad(x_t, fields); sin and cos of the level, scalars)

A window is continued beyond its ends by its outermost cells, so that the output has the cells of
the input. Away from the ends an output cell depends on `depth` cells in each direction. Nothing is
normalised. Where near cells decide most of a jump, it learns a jump in a third of the U-Net's
steps, each of them cheaper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scaled_mpi.learning.networks.convolution import LocalNetwork
from scaled_mpi.learning.networks.unet import FREQUENCIES, Condition
from scaled_mpi.learning.sizes import NetworkBlocks


class BlockNetwork(nn.Module):
    """(B, channels, *cells) and a noise level (B,) -> (B, channels, *cells).

    `fields` channels and `scalars` numbers of a `Condition` are read beside.
    """

    frequencies: Tensor

    def __init__(
        self, axes: int, channels: int, size: NetworkBlocks, *, fields: int = 0, scalars: int = 0
    ) -> None:
        super().__init__()
        self.network = LocalNetwork(
            channels + fields,
            channels,
            (size.depth,) * axes,
            factor=1,
            width=size.width,
            depth=size.depth,
            conditions=2 * FREQUENCIES + scalars,
        )
        self.ring = (size.depth,) * (2 * axes)
        self.register_buffer("frequencies", 2.0 ** torch.arange(FREQUENCIES), persistent=False)

    def forward(self, x: Tensor, level: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the same shape as x; `level` (B,) in [0, pi / 2], see `learning/denoising.py`."""
        fields, scalars = condition or Condition()
        x = x if fields is None else torch.cat((x, fields), 1)
        angles = level[:, None] * self.frequencies.to(level.dtype)
        told = [angles.sin(), angles.cos()] + ([] if scalars is None else [scalars])
        return self.network(nn.functional.pad(x, self.ring, "replicate"), torch.cat(told, 1))
