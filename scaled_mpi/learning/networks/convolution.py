"""A residual network of valid convolutions: a local operator whose reach is known exactly.

Cells are first gathered into coarse cells: `factor` an axis become channels, and nothing is lost.
Every 3-wide convolution then spends one coarse cell of reach at each end:

    x_0 = E gather(input)                              (1-wide)
    x_i = crop(x_{i-1}) + P_i gelu(g_i * (W_i x_{i-1}) + s_i)      W_i 3-wide, P_i 1-wide
    output = spread(H gelu(G x_n))                     (1-wide)

Gains g and shifts s are functions of the condition (FiLM, Perez et al. 2018, arXiv 1709.07871),
absent where there is none. Nothing is padded and nothing is normalised over cells. An output cell
depends on the cells within `reach` and on no other, wherever the tile ends. So a large domain in
one piece and the same domain tile by tile have the same numbers. Shifting the input by `factor`
cells shifts the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from scaled_mpi.config import InputError

# Kernels and strides are one number or one an axis.
CONVOLUTIONS: dict[int, Callable[..., nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
POOLS = {1: nn.functional.avg_pool1d, 2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}
# Convolutions of two and three axes are a third faster with the channels innermost.
LAYOUTS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
}


def set_to_zero(layer: nn.Module) -> None:
    """Set the weights and the bias of a layer to 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def gather(x: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, C, *cells) -> (B, C * factor^axes, *(cells / factor)): blocks of cells as channels."""
    axes = x.ndim - 2
    split = [size for cells in x.shape[2:] for size in (cells // factor, factor)]
    x = x.reshape(*x.shape[:2], *split)
    order = [0, 1, *range(3, 3 + 2 * axes, 2), *range(2, 2 + 2 * axes, 2)]
    x = x.permute(order)
    return x.reshape(x.shape[0], -1, *x.shape[2 + axes :])


def spread(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Return the fine field (B, C, *cells) of `gather`'s coarse one."""
    axes = x.ndim - 2
    coarse = x.shape[2:]
    x = x.reshape(x.shape[0], -1, *(factor,) * axes, *coarse)
    order = [0, 1]
    for axis in range(axes):
        order += [2 + axes + axis, 2 + axis]
    x = x.permute(order)
    return x.reshape(*x.shape[:2], *(cells * factor for cells in coarse))


def crop(x: torch.Tensor, widths: Sequence[int]) -> torch.Tensor:
    """Return (..., *cells) without `widths` cells at both ends of each of the last axes."""
    for axis, width in enumerate(widths, x.ndim - len(widths)):
        if width:
            x = x.narrow(axis, width, x.shape[axis] - 2 * width)
    return x


def kernels(reach: Sequence[int], factor: int, depth: int) -> list[tuple[int, ...]]:
    """Kernel of each block, one entry an axis: 3 until the reach of the axis is spent, then 1.

    Errors: `InputError` where the reach is no multiple of `factor` or deeper than the network.
    """
    for cells in reach:
        if cells % factor:
            raise InputError(
                f"surrogate.reach: {cells} is not allowed: no multiple of the resolution. "
                f"Allowed: multiples of {factor}"
            )
        if cells > factor * depth:
            raise InputError(
                f"surrogate.depth: {depth} is not allowed: its blocks reach {factor * depth} "
                f"cells, and {cells} are declared. Allowed: {math.ceil(cells / factor)} or more"
            )
    return [
        tuple(3 if block < cells // factor else 1 for cells in reach) for block in range(depth)
    ]


class ConvolutionBlock(nn.Module):
    """One residual block; spends (kernel - 1) / 2 coarse cells at both ends of each axis."""

    def __init__(self, width: int, kernel: tuple[int, ...], condition: int) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[len(kernel)]
        self.spent = tuple(k // 2 for k in kernel)
        self.near = convolution(width, width, kernel)
        self.mix = convolution(width, width, 1)
        self.act = nn.GELU()
        self.film = nn.Linear(condition, 2 * width) if condition else None
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """(B, width, *cells) -> (B, width, *(cells - 2 spent)); condition (B, condition)."""
        y = self.near(x)
        if self.film is not None:
            gain, shift = self.film(condition).view(len(x), 2, -1, *(1,) * (x.ndim - 2)).unbind(1)
            y = torch.addcmul(y + shift, y, gain)
        return crop(x, self.spent) + self.mix(self.act(y))


class LocalNetwork(nn.Module):
    """(B, inputs, *(core + 2 reach)) -> (B, outputs, *core); zero at its first step.

    `reach` is in cells, one entry an axis and a multiple of `factor`, as must be the core.
    `conditions` scalars, near 0 with spread 1, act on every block.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        reach: Sequence[int],
        *,
        factor: int = 2,
        width: int = 64,
        depth: int = 4,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        axes = len(reach)
        convolution, cells = CONVOLUTIONS[axes], factor**axes
        self.reach, self.factor, self.layout = tuple(reach), factor, LAYOUTS[axes]
        self.enter = convolution(inputs * cells, width, 1)
        features = width // 2 if conditions else 0
        self.condition = None
        if conditions:
            self.condition = nn.Sequential(nn.Linear(conditions, features), nn.GELU())
        self.blocks = nn.ModuleList(
            ConvolutionBlock(width, kernel, features) for kernel in kernels(reach, factor, depth)
        )
        self.leave = nn.Sequential(
            convolution(width, width, 1), nn.GELU(), convolution(width, outputs * cells, 1)
        )
        set_to_zero(self.leave[-1])

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, outputs, *core); `condition` (B, conditions), None for none."""
        x = self.enter(gather(x, self.factor).contiguous(memory_format=self.layout))
        features = self.condition(condition) if self.condition is not None else None
        for block in self.blocks:
            x = block(x, features)
        return spread(self.leave(x), self.factor)
