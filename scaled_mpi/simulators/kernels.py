"""The march of the Gray-Scott kernels: numba's for numpy arrays, torch's for torch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from scaled_mpi.simulators.contract import Array, Exchange

Numbers = tuple[float, ...]  # a_u, a_v, dt, f, g, low, high of one system, see `stencil`


def march(
    numbers: Sequence[Numbers], deep: bool, state: Array, steps: int, exchange: Exchange
) -> Array:
    """Advance (2, *size), or run i of (N, 2, *size) with numbers[i] -> new state.

    With `deep`, as many steps go between two exchanges as the ring is wide; else one.
    Errors: ValueError where the exchange has no ring.
    """
    kernels = kernels_of(state)
    result = kernels.empty_like(state)
    if steps <= 0:
        result[...] = state
        return result
    width = tuple(exchange.width)
    if min(width) < 1:
        raise ValueError(f"exchange of width {width}: a ring of 1 cell is needed")
    size = tuple(state.shape[-len(width) :])
    depth = min(width) if deep else 1

    def sweep(padded: Array, target: Array, place: tuple[int, ...], count: int) -> None:
        sources, targets = _runs(padded, len(size)), _runs(target, len(size))
        for source, into, values in zip(sources, targets, numbers, strict=True):
            kernels.sweep(source, into, width, place, size, count, values)

    padded, spare = exchange(state), None
    while steps > depth:
        spare = kernels.empty_like(padded) if spare is None else spare
        sweep(padded, spare, width, depth)
        padded, spare = exchange.fill(spare), padded
        steps -= depth
    sweep(padded, result, (0,) * len(size), steps)
    return result


def kernels_of(states: Array) -> ModuleType:
    """The module that steps this kind of array: numba for numpy's, torch for torch's."""
    if isinstance(states, np.ndarray):
        from scaled_mpi.simulators import stencil

        return stencil
    from scaled_mpi.simulators import torch_stencil

    return torch_stencil


def like(values: np.ndarray, field: Array) -> Array:
    """`values` (any shape) as an array of the kind, type and device of `field`."""
    if isinstance(field, np.ndarray):
        return values.astype(field.dtype)
    return field.new_tensor(values)


def _runs(field: Array, axes: int) -> Array:
    """(2, *shape) or (N, 2, *shape) as a view (N, 2, *shape)."""
    return field.reshape(-1, *field.shape[-axes - 1 :])
