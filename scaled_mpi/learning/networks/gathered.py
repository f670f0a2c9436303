"""A network on gathered cells: blocks of `factor` cells an axis become channels of one cell."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from scaled_mpi.learning.networks.convolution import gather, spread


class Gathered(nn.Module):
    """(B, C, *cells) -> the same, by a network of C * factor^axes channels; nothing is lost."""

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor, level: Tensor, condition: Any = None) -> Tensor:
        """`level` (B,) and the condition are the network's own; cells a multiple of `factor`."""
        return spread(self.network(gather(x, self.factor), level, condition), self.factor)
