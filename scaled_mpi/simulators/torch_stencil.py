"""The Gray-Scott stencil in torch, for a GPU: the equations and the order of `stencil`.

A state that lives on a device is advanced there, `simulator.advance(tensor, steps, exchange)`,
with a `DeviceHalo` as the exchange of one process that owns the whole grid. Bits are promised a
device kind: on a CPU they are the compiled kernel's to 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from types import EllipsisType

import numpy as np
import torch

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Boundary, Grid, behind, whole_per_axis

TINY = {torch.float32: 1e-16, torch.float64: 1e-150}  # as in `stencil`


def empty_like(field: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape, type and device, rows contiguous."""
    return torch.empty(field.shape, dtype=field.dtype, device=field.device)


@torch.no_grad()
def sweep(
    padded: torch.Tensor,
    target: torch.Tensor,
    corner: Sequence[int],
    place: Sequence[int],
    size: Sequence[int],
    steps: int,
    numbers: Sequence[float],
) -> None:
    """As `stencil.sweep`: write `size` cells, `steps` steps later, into `target` (2, *shape)."""
    field = padded[_box([c - steps for c in corner], [n + 2 * steps for n in size])]
    low, high = numbers[-2:]
    for _ in range(steps):
        inner = field[_box([1] * len(size), [n - 2 for n in field.shape[1:]])]
        field = (inner + change(field, numbers, len(size))).clamp_(low, high)
        field[1].masked_fill_(field[1].abs() < TINY[field.dtype], 0.0)
    target[_box(place, size)] = field


def change(species: torch.Tensor, numbers: Sequence[float], axes: int) -> torch.Tensor:
    """What one step adds to the inner cells, before the clamp; gradients pass.

    (2, ..., *(cells + 2)) -> (2, ..., *cells) on `axes` axes; between them may be samples.
    """
    inner = [n - 2 for n in species.shape[-axes:]]
    a_u, a_v, dt, f, g = numbers[:5]
    u, v = species[_box([1] * axes, inner)]
    (around_u, around_v), ends = _neighbours(species, inner), 2.0 * axes
    r = dt * ((u * v) * v)
    return torch.stack(
        (
            (a_u * (around_u - ends * u) - r) + f * (1.0 - u),
            (a_v * (around_v - ends * v) + r) - g * v,
        )
    )


def on_device(
    states: np.ndarray, device: str, work: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """`work` on a device, of states (N, C, *shape) -> an array (N, C, *shape).

    Errors: `InputError` where this machine has no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"patterns.device: {device} is not allowed: this machine has none. Allowed: cpu"
        )
    return work(torch.from_numpy(states).to(device)).cpu().numpy()


@torch.no_grad()
def march_periodic(states: torch.Tensor, steps: int, numbers: Sequence[float]) -> torch.Tensor:
    """`steps` steps of many whole periodic grids (N, 2, Y, X) on their device -> new tensor.

    Every pass over the buffers costs, so u + (a lap u - f u) is gathered as
    (1 - 4 a - f) u + a sum u. After many steps the cells equal those of `sweep` to rounding.
    """
    a_u, a_v, dt, f, g, low, high = numbers
    grid = Grid(tuple(states.shape[2:]), (1.0, 1.0), (Boundary("periodic"),) * 2)
    halo = DeviceHalo(grid, 1)
    padded = halo(states)
    field = padded[:, :, 1:-1, 1:-1]
    (u, v), around = field.unbind(1), torch.empty_like(states)
    reaction = torch.empty_like(states[:, 0])
    rates, kept = (
        states.new_tensor(pair).view(1, 2, 1, 1)
        for pair in ([a_u, a_v], [1.0 - 4.0 * a_u - f, 1.0 - 4.0 * a_v - g])
    )
    for step in range(steps):
        if step:
            halo.fill(padded)
        torch.add(padded[:, :, :-2, 1:-1], padded[:, :, 2:, 1:-1], out=around)
        around.add_(padded[:, :, 1:-1, :-2]).add_(padded[:, :, 1:-1, 2:])
        torch.mul(u, v, out=reaction).mul_(v)
        field.mul_(kept).addcmul_(around, rates)
        u.sub_(reaction, alpha=dt).add_(f)
        v.add_(reaction, alpha=dt)
        field.clamp_(low, high)
    v.masked_fill_(v.abs() < TINY[states.dtype], 0.0)
    return field.clone()


def _neighbours(field: torch.Tensor, inner: list[int]) -> torch.Tensor:
    """Sum over the 2 d neighbours of the inner cells, (2, ..., *inner)."""

    def pair(axis: int) -> torch.Tensor:
        low, high = ([1 if a != axis else at for a in range(len(inner))] for at in (0, 2))
        return field[_box(low, inner)] + field[_box(high, inner)]

    return reduce(add, map(pair, range(len(inner))))


def _box(start: Sequence[int], size: Sequence[int]) -> tuple[EllipsisType | slice, ...]:
    return behind(slice(a, a + n) for a, n in zip(start, size, strict=True))


class DeviceHalo:
    """The exchange of one process for tensors (..., *grid.shape): wraps and mirrors on the device.

    `width` is an int or one entry an axis; the rules of the boundaries are those of
    `parallel.halo`. What it returns is a new tensor at each call.
    """

    def __init__(self, grid: Grid, width: int | Sequence[int]) -> None:
        self.grid = grid
        self.width = whole_per_axis("halo", width, grid.axes, 0)

    def __call__(self, field: torch.Tensor) -> torch.Tensor:
        """(..., *shape) -> (..., *(shape + 2 width)) with the ring filled."""
        axes = self.grid.axes
        padded = field.new_empty(
            (
                *field.shape[:-axes],
                *(n + 2 * w for n, w in zip(self.grid.shape, self.width, strict=True)),
            )
        )
        interior = (slice(w, w + n) for n, w in zip(self.grid.shape, self.width, strict=True))
        padded[behind(interior)] = field
        return self.fill(padded)

    def fill(self, padded: torch.Tensor) -> torch.Tensor:
        """Fill the ring of a tensor (..., *(shape + 2 width)) in place and return it."""
        rules = zip(self.grid.shape, self.width, self.grid.boundary, strict=True)
        for axis, (n, w, boundary) in enumerate(rules):
            dim = padded.ndim - self.grid.axes + axis
            low, high = padded.narrow(dim, 0, w), padded.narrow(dim, w + n, w)
            first, last = padded.narrow(dim, w, w), padded.narrow(dim, n, w)
            if boundary.periodic:
                low.copy_(last)
                high.copy_(first)
                continue
            for ring, cells in ((low, first), (high, last)):
                mirror = cells.flip(dim)
                odd = boundary.kind == "dirichlet"
                ring.copy_(2 * boundary.value - mirror if odd else mirror)
        return padded
