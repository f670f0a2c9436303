"""Between a cell-centred grid and the grid of half as many cells an axis.

`restrict` averages the 2^d fine cells of a coarse one and keeps the mean of the field exactly.
`prolong` is the (bi-, tri-)linear interpolation at the fine cell centres, of second order.
"""

from __future__ import annotations

import numpy as np


def restrict(field: np.ndarray) -> np.ndarray:
    """Means over 2 cells an axis: (C, *n) -> (C, *(n / 2)), same type; every n must be even."""
    for axis in range(1, field.ndim):
        if field.shape[axis] % 2:
            raise ValueError(f"shape {field.shape}: an even number of cells an axis is needed")
        even, odd = _along(field, axis, 0, None, 2), _along(field, axis, 1, None, 2)
        field = (even + odd) * field.dtype.type(0.5)
    return field


def prolong(padded: np.ndarray) -> np.ndarray:
    """Linear interpolation of a field (C, *size) with a ring of one cell -> (C, *(2 inner))."""
    near, far = padded.dtype.type(0.75), padded.dtype.type(0.25)
    for axis in range(1, padded.ndim):
        middle = near * _along(padded, axis, 1, -1)
        low = middle + far * _along(padded, axis, 0, -2)
        high = middle + far * _along(padded, axis, 2, None)
        pairs = np.stack([low, high], axis=axis + 1)
        shape = list(low.shape)
        shape[axis] *= 2
        padded = pairs.reshape(shape)
    return padded


def _along(
    field: np.ndarray, axis: int, start: int, stop: int | None, step: int = 1
) -> np.ndarray:
    """The view `start:stop:step` of one axis."""
    return field[(slice(None),) * axis + (slice(start, stop, step),)]
