"""One jump of a field by a local network: from what a tile knows to its core one jump later.

    u(t + jump) = crop(u(t)) + scale * N(past frames, mask, future halo, its mask; condition)

Everything is in normalised units (mean 0, spread 1 for each channel), so that the 0 of a cell that
is not known is neutral; `scale` is the spread of one jump's change, so that N is of order 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from scaled_mpi.learning.networks.convolution import LocalNetwork, crop


class JumpNetwork(nn.Module):
    """Past frames of tile + reach -> the tile one jump later.

    `masked` networks also take the mask of known cells and the future halo; others are told that
    everything within reach is known. `change` is (C,). Further keys are those of `LocalNetwork`.
    """

    def __init__(
        self, channels: int, memory: int, reach: Sequence[int], change: Sequence[float],
        *, masked: bool, **network: Any,
    ) -> None:
        super().__init__()
        self.reach, self.masked = tuple(reach), masked
        inputs = memory * channels + (channels + 2 if masked else 0)
        self.network = LocalNetwork(inputs, channels, reach, **network)
        scale = torch.tensor(tuple(change), dtype=torch.float32)
        self.register_buffer(
            "scale", scale.view(-1, *(1,) * len(reach)), persistent=False
        )

    def forward(
        self,
        window: torch.Tensor,
        condition: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        future: torch.Tensor | None = None,
        future_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """window (B, M, C, *(tile + 2 reach)) newest last -> (B, C, *tile).

        Masks are (B, 1, *(tile + 2 reach)), 1 where known; a missing `mask` is 1 and a missing
        `future` (B, C, *(tile + 2 reach)) is 0 everywhere. Values under a mask of 0 do not matter.
        """
        newest, known = window[:, -1], window.flatten(1, 2)
        if self.masked:
            if mask is None:
                mask = torch.ones_like(newest[:, :1])
            if future is None or future_mask is None:
                future = torch.zeros_like(newest)
                future_mask = torch.zeros_like(newest[:, :1])
            known = torch.cat((known * mask, mask, future * future_mask, future_mask), 1)
        return crop(newest, self.reach) + self.scale * self.network(known, condition)
