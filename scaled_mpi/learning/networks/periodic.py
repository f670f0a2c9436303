"""Convolutions on periodic fields: a residual network for scores, an isotropic one for flows.

Both are smooth (SiLU), since training differentiates the divergence of a flow once more. Nothing
is normalised over cells, so that they stay local operators.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def circular(channels: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution of odd kernel that wraps around, its taps `dilation` cells apart."""
    return nn.Conv2d(
        channels,
        outputs,
        kernel,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        padding_mode="circular",
    )


class ResidualField(nn.Module):
    """(B, channels, Y, X) -> the same shape: one residual block a width, then a 1-wide layer.

    `dilations`, one a width like `kernels`, see further for the same work; none are all 1.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        kernels: Sequence[int],
        dilations: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.enter = circular(channels, widths[0], 3)
        taps = zip(kernels, dilations or [1] * len(kernels), strict=True)
        pairs = list(zip([widths[0], *widths[:-1]], widths, strict=True))
        self.near = nn.ModuleList(
            circular(a, b, *tap) for (a, b), tap in zip(pairs, taps, strict=True)
        )
        self.mix = nn.ModuleList(nn.Conv2d(b, b, 1) for _, b in pairs)
        self.pass_on = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairs)
        self.leave = nn.Conv2d(widths[-1], channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels, Y, X), periodic."""
        y = self.enter(x)
        for near, mix, pass_on in zip(self.near, self.mix, self.pass_on, strict=True):
            y = pass_on(y) + mix(nn.functional.silu(near(nn.functional.silu(y))))
        return self.leave(nn.functional.silu(y))


class IsotropicConvolution(nn.Module):
    """3 x 3, wrapped, with one weight each for the centre, the sides and the corners."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        rings = torch.zeros(3, 3, 3)
        rings[0, 1, 1] = 1.0
        rings[1, [0, 1, 1, 2], [1, 0, 2, 1]] = 0.25
        rings[2, [0, 0, 2, 2], [0, 2, 0, 2]] = 0.25
        self.register_buffer("rings", rings, persistent=False)
        self.weight = nn.Parameter(torch.randn(outputs, channels, 3) * channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, Y, X) -> (B, outputs, Y, X)."""
        kernel = torch.einsum("oir,ryx->oiyx", self.weight, self.rings.to(self.weight.dtype))
        x = nn.functional.pad(x, (1, 1, 1, 1), "circular")
        return nn.functional.conv2d(x, kernel, self.bias)


class IsotropicFlow(nn.Module):
    """(B, channels, Y, X) -> a field of the same shape that turns and mirrors with its input.

    `centred` takes the mean over cells from each channel: to raise all cells alike keeps a density
    of patterns nearly, and is no dynamics.
    """

    def __init__(self, channels: int, width: int, centred: bool = False) -> None:
        super().__init__()
        self.centred = centred
        self.layers = nn.Sequential(
            IsotropicConvolution(channels, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels, Y, X), periodic."""
        made = self.layers(x)
        return made - made.mean((2, 3), keepdim=True) if self.centred else made


class Dense(nn.Module):
    """(B, dims) -> (B, dims) by layers that see everything; for densities of few dimensions."""

    def __init__(self, dims: int, width: int, layers: int = 3) -> None:
        super().__init__()
        sizes = [dims, *(width,) * layers]
        parts = [
            part
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
            for part in (nn.Linear(a, b), nn.SiLU())
        ]
        self.layers = nn.Sequential(*parts, nn.Linear(width, dims))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, dims)."""
        return self.layers(x)
