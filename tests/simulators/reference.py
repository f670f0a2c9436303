"""Oracle of the simulator tests: Gray-Scott on a whole grid in plain numpy."""

from __future__ import annotations

import numpy as np

from scaled_mpi.parallel.blocks import Grid

TINY = {4: 1e-16, 8: 1e-150}  # by bytes a number


def ring(field: np.ndarray, grid: Grid) -> np.ndarray:
    """(2, *shape) with one cell more on every side."""
    for axis, boundary in enumerate(grid.boundary, 1):
        low, high = field.take([0], axis), field.take([-1], axis)
        if boundary.kind == "periodic":
            low, high = high, low
        elif boundary.kind == "dirichlet":
            low, high = 2 * boundary.value - low, 2 * boundary.value - high
        field = np.concatenate([low, field, high], axis)
    return field


def step(field: np.ndarray, grid: Grid, numbers: tuple[float, ...]) -> np.ndarray:
    """One step in the documented order of operations, in the type of the field."""
    kind = field.dtype.type
    a_u, a_v, dt, f, g, low, high = (kind(n) for n in numbers)
    padded = ring(field, grid)
    total = None
    for axis in range(1, grid.axes + 1):
        sides = []
        for shift in (slice(0, -2), slice(2, None)):
            inner = [slice(None)] + [slice(1, -1)] * grid.axes
            inner[axis] = shift
            sides.append(padded[tuple(inner)])
        pair = sides[0] + sides[1]
        total = pair if total is None else total + pair
    (u, v), (around_u, around_v), ends = field, total, kind(2 * grid.axes)
    r = dt * ((u * v) * v)
    x = u + ((a_u * (around_u - ends * u) - r) + f * (kind(1) - u))
    y = v + ((a_v * (around_v - ends * v) + r) - g * v)
    x, y = np.clip(x, low, high), np.clip(y, low, high)
    return np.stack([x, np.where(np.abs(y) < kind(TINY[field.dtype.itemsize]), kind(0), y)])


def march(field: np.ndarray, grid: Grid, numbers: tuple[float, ...], steps: int) -> np.ndarray:
    """`steps` steps of (2, *shape)."""
    for _ in range(steps):
        field = step(field, grid, numbers)
    return field
