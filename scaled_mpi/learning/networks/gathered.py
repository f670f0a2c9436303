"""A network on gathered cells, and a smoothing filter as the first denoiser of smooth fields.

    F(x, a) = N(x, h, a) - cos(a) h        h = (x - S x) / (sin(a) + 0.05)

x is scaled to variance 1, a is the angle of the noise level, tan a = sigma / alpha. S is the
binomial filter of 5 cells an axis. It removes little noise from a smooth field. In x this noise is
a small part of large numbers; h shows it to the network in units of its own size. The term of h is
the network's answer until it learns a better one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scaled_mpi.learning.networks.convolution import gather, spread

BINOMIAL = (0.0625, 0.25, 0.375, 0.25, 0.0625)
LEAST = 0.05  # added to the noise's share, so that h stays bounded


class Gathered(nn.Module):
    """(B, C, *cells) -> the same, by a network of C * factor^axes channels; nothing is lost."""

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor, level: Tensor, condition: object = None) -> Tensor:
        """`level` (B,) and the condition are the network's own; cells a multiple of `factor`."""
        return spread(self.network(gather(x, self.factor), level, condition), self.factor)


class Filtered(Gathered):
    """The same with h beside x: a network of 2 C * factor^2 channels that answers half as many.

    Two axes; `padding`, circular or replicate, fills the cells beyond the ends.
    """

    kernel: Tensor

    def __init__(self, network: nn.Module, factor: int, padding: str) -> None:
        super().__init__(network, factor)
        self.padding = padding
        line = torch.tensor(BINOMIAL)
        self.register_buffer("kernel", torch.outer(line, line)[None, None], persistent=False)

    def forward(self, x: Tensor, level: Tensor, condition: object = None) -> Tensor:
        """x (B, C, Y, X) -> the same."""
        wide = nn.functional.pad(x, (2, 2, 2, 2), self.padding)
        kernel = self.kernel.expand(x.shape[1], -1, -1, -1)
        smooth = nn.functional.conv2d(wide, kernel, groups=x.shape[1])
        share = level.view(-1, 1, 1, 1)
        detail = (x - smooth) / (share.sin() + LEAST)
        made = super().forward(torch.cat((x, detail), 1), level, condition)
        return made - share.cos() * detail
