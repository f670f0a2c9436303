"""One jump of a field by a local network: from a tile and its reach to its core one jump on.

Two networks, both local operators of the same reach. The first knows nothing of the future,

    v = crop(u(t)) + scale * N(past frames, their mask; condition).

The second makes neighbours agree. It reads v on the tile itself and the neighbours' values of the
halo one jump on. It corrects v where the two do not fit together,

    u = v + AGREEMENT * scale * A(past frames, their mask; v on the core, the future on the halo).

A Schwarz sweep changes the halo in A's input and nothing else. So v is the same in every sweep,
and the iteration cannot drift from it. A is trained on the error of v alone and needs few weights.
One network that reads the future beside everything else learns this badly.

A network with `noises` reads so many more channels, of white noise: another draw is another sample
of the possible change. Without them all draws are the same.

Everything is in normalised units (mean 0, spread 1 for each channel), so that a 0 is neutral in a
cell that is not known. `scale` is the spread of one jump's change, so that N is of order 1. Of
several past frames the newest is read as it is, the others as changes in units of `scale`. Motion
is in the small differences of large, nearly equal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from scaled_mpi.learning.networks.convolution import LocalNetwork, crop

AGREEMENT = 0.1  # the size of a correction beside that of a jump's change


class JumpNetwork(nn.Module):
    """Past frames of tile + reach -> the tile one jump later.

    `masked` networks take the mask of known cells, and have the second network, of `agreement`
    channels. For others everything within reach is known. `change` is (C,). Further keys are those
    of `LocalNetwork`.
    """

    scale: torch.Tensor

    def __init__(
        self,
        channels: int,
        memory: int,
        reach: Sequence[int],
        change: Sequence[float],
        *,
        masked: bool,
        agreement: int = 32,
        noises: int = 0,
        **network: Any,
    ) -> None:
        super().__init__()
        self.reach, self.masked = tuple(reach), masked
        inputs = memory * channels
        self.network = LocalNetwork(inputs + masked + noises, channels, reach, **network)
        self.agreement: LocalNetwork | None = None
        if masked:
            self.agreement = LocalNetwork(
                inputs + channels + 2, channels, reach, **{**network, "width": agreement}
            )
        scale = torch.tensor(tuple(change), dtype=torch.float32)
        self.register_buffer("scale", scale.view(-1, *(1,) * len(reach)), persistent=False)

    def alone(
        self,
        window: torch.Tensor,
        condition: torch.Tensor | None,
        mask: torch.Tensor | None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """v (B, C, *tile): the jump from the window (B, M, C, *(tile + 2 reach)) alone."""
        newest, known = window[:, -1], self._past(window)
        if self.masked:
            mask = torch.ones_like(newest[:, :1]) if mask is None else mask
            known = torch.cat((known * mask, mask), 1)
        if noise is not None:
            known = torch.cat((known, noise), 1)
        return crop(newest, self.reach) + self.scale * self.network(known, condition)

    def agreed(
        self,
        own: torch.Tensor,
        window: torch.Tensor,
        condition: torch.Tensor | None,
        mask: torch.Tensor,
        future: torch.Tensor,
        future_mask: torch.Tensor,
    ) -> torch.Tensor:
        """u (B, C, *tile) from v = `own` and the future (B, C, *(tile + 2 reach)) of the halo."""
        ring = [width for r in reversed(self.reach) for width in (r, r)]
        # The second network learns from what the first has left; it does not pull at the first.
        seen = nn.functional.pad(own.detach(), ring) + future * future_mask
        where = nn.functional.pad(torch.ones_like(own[:, :1]), ring) + future_mask
        known = torch.cat((self._past(window) * mask, mask, seen, where), 1)
        assert self.agreement is not None
        return own + AGREEMENT * self.scale * self.agreement(known, condition)

    def _past(self, window: torch.Tensor) -> torch.Tensor:
        """The newest frame and the changes that led to it, (B, M C, *cells), newest last."""
        changes = (window[:, 1:] - window[:, :-1]) / self.scale
        return torch.cat((changes, window[:, -1:]), 1).flatten(1, 2)

    def forward(
        self,
        window: torch.Tensor,
        condition: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        future: torch.Tensor | None = None,
        future_mask: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """window (B, M, C, *(tile + 2 reach)) newest last -> (B, C, *tile).

        Masks are (B, 1, *(tile + 2 reach)), 1 where known; a missing `mask` is 1 everywhere.
        `future` (B, C, *(tile + 2 reach)) is 0 on the tile itself; without it the first network
        jumps alone. Values under a mask of 0 do not matter. noise: (B, noises, *(tile + 2 reach)).
        """
        own = self.alone(window, condition, mask, noise)
        if future is None or future_mask is None or not self.masked:
            return own
        if mask is None:
            mask = torch.ones_like(window[:, -1, :1])
        return self.agreed(own, window, condition, mask, future, future_mask)
