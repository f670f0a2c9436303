"""A learned solver of A z = r on a tile: a V-cycle whose weights see the coefficients.

With D the diagonal, the scaled matrix B = D^-1/2 A D^-1/2 has a diagonal of 1. Its couplings b =
a_ij / sqrt(d_i d_j), one field an axis, determine it. The solver maps D^-1/2 r to D^1/2 z.

    gates = G(b, log d)                      an ordinary U-Net, once a matrix
    y = V_1(D^-1/2 r);  y += V_p(D^-1/2 r - B y)  for each further pass p

Each V is a V-cycle of convolutions without bias, whose hidden channels are multiplied by gates. It
is *linear* in r, so that it is scale-equivariant by construction. The work that depends on the
matrix alone is done once and kept. Between passes the true local residual is computed, since the
couplings are known. Coarser levels count twice at each change of level, as the inverse of a
second-order operator does (a factor 4 for a doubled spacing).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scaled_mpi.config import InputError

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOLS = {1: nn.functional.avg_pool1d, 2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}
Gates = list[list[Tensor]]


class LocalSolverNetwork(nn.Module):
    """`widths` channels a level of the V-cycles, finest first; `features` of the gates' U-Net.

    Two cells an axis are gathered into channels first: convolutions of few channels waste a
    processor. Windows may have any shape; uncoupled cells pad them to a multiple of 2^levels.
    """

    def __init__(
        self,
        axes: int,
        widths: tuple[int, ...] = (16, 24, 32),
        passes: int = 2,
        features: int = 16,
    ) -> None:
        super().__init__()
        if axes not in CONVOLUTIONS:
            raise InputError(
                f"tile: {axes} axes are not allowed: no convolution has as many. Allowed: 1 to 3"
            )
        self.axes, self.levels = axes, len(widths)
        self.features = _Features(axes, features, widths, passes)
        self.cycles = nn.ModuleList(_Cycle(axes, widths) for _ in range(passes))

    def forward(self, diagonal: Tensor, high: Tensor, residual: Tensor) -> Tensor:
        """z for r; diagonal and residual (n, *window), high (n, axes, *window)."""
        scale, couplings = scaled(diagonal, high)
        return self.solve(self.gates(diagonal, couplings), scale, couplings, residual)

    def gates(self, diagonal: Tensor, couplings: Tensor) -> list[Gates]:
        """Gates of the cycles, a list a pass, from two (n, *window), (n, axes, *window)."""
        cells = tuple(range(1, diagonal.ndim))
        level = torch.log(diagonal)
        level = level - level.mean(cells, keepdim=True)
        told = torch.cat([4 * couplings - 1, level[:, None] / 4], 1)
        return self.features(self._padded(told))

    def solve(
        self, gates: list[Gates], scale: Tensor, couplings: Tensor, residual: Tensor
    ) -> Tensor:
        """z (n, *window) of a residual (n, *window) under the gates of `gates`."""
        right = residual * scale
        size = right.flatten(1).norm(dim=1).clamp_min(1e-30)
        size = size.reshape(-1, *[1] * self.axes)
        right = right / size
        y = torch.zeros_like(right)
        for cycle, gate in zip(self.cycles, gates, strict=True):
            rest = right - apply_scaled(couplings, y)
            step = cycle(self._padded(rest[:, None]), gate)
            y = y + step[(slice(None), 0, *(slice(0, n) for n in right.shape[1:]))]
        return y * scale * size

    def _padded(self, field: Tensor) -> Tensor:
        unit = 2**self.levels
        missing = [(-n) % unit for n in field.shape[2:]]
        if not any(missing):
            return field
        return nn.functional.pad(field, [m for n in reversed(missing) for m in (0, n)])


def scaled(diagonal: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """D^-1/2 (n, *window) and the couplings of the scaled matrix (n, axes, *window)."""
    scale = diagonal.rsqrt()
    beside = [torch.roll(scale, -1, dims=axis + 1) for axis in range(high.shape[1])]
    # The last entry along an axis couples to nothing, so that what rolls in does not matter.
    return scale, high * scale[:, None] * torch.stack(beside, 1)


def apply_scaled(couplings: Tensor, y: Tensor) -> Tensor:
    """B y of the matrix with a diagonal of 1; y (n, *window)."""
    result = y
    for axis in range(couplings.shape[1]):
        flow = couplings[:, axis]
        result = result - flow * torch.roll(y, -1, dims=axis + 1)
        result = result - torch.roll(flow * y, 1, dims=axis + 1)
    return result


class _Features(nn.Module):
    """The U-Net of the coefficients: gates (n, width, *level) around 1 for every block."""

    def __init__(self, axes: int, features: int, widths: tuple[int, ...], passes: int) -> None:
        super().__init__()
        conv = CONVOLUTIONS[axes]
        levels = len(widths)
        self.pool = POOLS[axes]
        self.first = conv(axes + 1, features, 4, stride=2, padding=1)
        self.down = nn.ModuleList(conv(features, features, 3, padding=1) for _ in widths)
        self.up = nn.ModuleList(
            conv(2 * features, features, 3, padding=1) for _ in range(levels - 1)
        )
        self.heads = nn.ModuleList(
            nn.ModuleList(conv(features, 2 * width, 1) for width in widths) for _ in range(passes)
        )

    def forward(self, told: Tensor) -> list[Gates]:
        x, skips = nn.functional.gelu(self.first(told)), []
        for level, block in enumerate(self.down):
            x = self.pool(x, 2) if level else x
            x = x + nn.functional.gelu(block(x))
            skips.append(x)
        found = [x]
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = nn.functional.interpolate(found[-1], scale_factor=2.0)
            found.append(skip + nn.functional.gelu(block(torch.cat([x, skip], 1))))
        found.reverse()
        return [
            [1 + head(x) for head, x in zip(heads.children(), found, strict=True)]
            for heads in self.heads
        ]


class _Cycle(nn.Module):
    """One V-cycle, linear in its input (n, 1, *window): a gated block on the way down and up."""

    def __init__(self, axes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        conv, transposed = CONVOLUTIONS[axes], TRANSPOSED[axes]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.lift = conv(1, widths[0], 4, stride=2, padding=1, bias=False)
        self.before = nn.ModuleList(_Gated(conv, width) for width in widths)
        self.after = nn.ModuleList(_Gated(conv, width) for width in widths)
        self.down = nn.ModuleList(conv(a, b, 2, stride=2, bias=False) for a, b in pairs)
        self.up = nn.ModuleList(
            transposed(b, a, 4, stride=2, padding=1, bias=False) for a, b in pairs
        )
        self.out = transposed(widths[0], 1, 4, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor, gates: list[Tensor]) -> Tensor:
        skips: list[Tensor] = []
        x, halves = self.lift(x), [gate.chunk(2, 1) for gate in gates]
        for level, block in enumerate(self.before):
            x = 2 * self.down[level - 1](x) if level else x
            x = block(x, halves[level][0])
            skips.append(x)
        for level in reversed(range(len(skips))):
            x = self.after[level](
                skips[level] if x is skips[level] else skips[level] + x, halves[level][1]
            )
            if level:
                x = 2 * self.up[level - 1](x)
        return self.out(x)


class _Gated(nn.Module):
    """x + W2 (gate * W1 x), without bias."""

    def __init__(self, conv: type[nn.Module], width: int) -> None:
        super().__init__()
        self.first = conv(width, width, 3, padding=1, bias=False)
        self.second = conv(width, width, 1, bias=False)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return x + self.second(gate * self.first(x))
