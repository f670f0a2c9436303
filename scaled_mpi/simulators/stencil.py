"""The compiled Gray-Scott stencil: k steps of a field that carries a ring of k cells.

One explicit Euler step has exactly this order of operations (for `numbers` see below). The sum
runs over the 2 d neighbours, opposite ones first, then the axes in the order Z, Y, X:

    r  = dt ((u v) v)
    u' = u + ((a_u (sum u - 2d u) - r) + f (1 - u))        a_u = dt Du / dx^2,  f = dt F
    v' = v + ((a_v (sum v - 2d v) + r) - g v)              a_v = dt Dv / dx^2,  g = dt (F + k)

followed by a clamp to [low, high] that lets NaN through, and |v| < TINY becomes 0. Ahead of a
front v falls by an order of magnitude a cell. Without TINY it and v^2 soon are denormal numbers,
whose arithmetic slows fields with empty places 3 to 30 times. The rest state v = 0 is
stable, so nothing grows out of what is dropped, and u, of order 1, cannot tell.

As opposite neighbours are added first, a mirrored field stays mirrored to the last bit.
`fastmath=False` and the absence of fused multiply-adds make the bits those of numpy, on every
machine and for every split.

In two axes the k steps run as one wave over the rows (time skewing: McCalpin and Wonnacott 1999;
Wellein et al. 2009, https://doi.org/10.1109/COMPSAC.2009.82): behind row y of step 1 follows row
y - 1 of step 2, and so on. A scratch array that stays in the cache keeps three rows of each step
between. So memory is read and written once for k steps instead of k times. Long rows are cut into
strips, whose overlap of k cells is computed twice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np

DEPTH = 4  # steps between two wraps of small periodic grids
BESIDE = 8  # of them lie side by side: long rows cost less a cell than short ones
STRIP = 2048  # cells of a row at a time: 3 rows x 2 species x 15 steps are 0.75 MB of float32

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": False,
    "error_model": "numpy",
    "cache": True,
}
_INLINE: dict[str, Any] = {**_OPTIONS, "cache": False, "inline": "always"}
_CALLED: dict[str, Any] = {**_OPTIONS, "cache": False}

# Below it v is 0; its square is still a normal number.
TINY = {np.dtype(np.float32): 1e-16, np.dtype(np.float64): 1e-150}

_VECTOR = 8  # float32 numbers in 256 bits

Corner = tuple[int, ...]


def empty_like(field: np.ndarray) -> np.ndarray:
    """An array of the same shape and type, rows contiguous."""
    return np.empty(field.shape, field.dtype)


def sweep(
    padded: np.ndarray,
    target: np.ndarray,
    corner: Corner,
    place: Corner,
    size: Corner,
    steps: int,
    numbers: tuple[float, ...],
) -> None:
    """Put `size` cells, `steps` steps later, into `target` from `place` on.

    padded (2, *shape) holds the cells from `corner` on and at least `steps` more on every side;
    target (2, *shape) may be any other array. numbers = (a_u, a_v, dt, f, g, low, high).
    """
    constants = _constants(numbers, padded.dtype, len(size))
    padded = np.ascontiguousarray(padded)
    if len(size) == 2:
        _wave(padded, target, corner, place, size, steps, STRIP, constants)
        return
    step = _step_1d if len(size) == 1 else _step_3d
    source, first = padded, corner
    for left in range(steps - 1, -1, -1):
        grown = tuple(n + 2 * left for n in size)
        if left:
            into, start = np.empty((2, *grown), padded.dtype), (0,) * len(size)
        else:
            into, start = target, place
        step(source, into, tuple(c - left for c in first), start, grown, constants)
        source, first = into, (left,) * len(size)


def march_periodic(states: np.ndarray, steps: int, numbers: tuple[float, ...]) -> np.ndarray:
    """`steps` steps of many whole periodic grids (N, 2, Y, X), wrapped in compiled code.

    The same bits as `sweep` behind an exchange, without a call of Python's for every few steps.
    """
    kind = states.dtype.type
    constants = tuple(kind(n) for n in (*numbers, TINY[states.dtype], 0, 1, 4))
    result = np.empty_like(states, order="C")
    depth = min(DEPTH, *states.shape[2:])
    _march_periodic(np.ascontiguousarray(states), result, steps, depth, BESIDE, STRIP, constants)
    return result


def warm(axes: int, dtype: type[np.floating] = np.float32) -> None:
    """Compile, or load from the cache, the kernel of `axes` axes for one type of number."""
    padded = np.zeros((2, *(4,) * axes), dtype)
    one, two = (1,) * axes, (2,) * axes
    sweep(padded, np.zeros_like(padded), one, one, two, 1, (0.0,) * 7)


@lru_cache(maxsize=64)
def _constants(numbers: tuple[float, ...], dtype: np.dtype, axes: int) -> tuple[Any, ...]:
    """What a cell needs, in the field's own type; kept, since small tiles ask often."""
    return tuple(dtype.type(n) for n in (*numbers, TINY[dtype], 0, 1, 2 * axes))


@numba.njit(**_INLINE)
def _cell(u, v, around_u, around_v, c):
    a_u, a_v, dt, f, g, low, high, tiny, zero, one, ends = c
    r = dt * ((u * v) * v)
    x = u + ((a_u * (around_u - ends * u) - r) + f * (one - u))
    y = v + ((a_v * (around_v - ends * v) + r) - g * v)
    x = low if x < low else (high if x > high else x)
    y = low if y < low else (high if y > high else y)
    y = zero if abs(y) < tiny else y
    return x, y


@numba.njit(**_OPTIONS)
def _step_1d(source, target, corner, place, size, c):
    i = corner[0] - 1
    u, v = source[0, i:], source[1, i:]
    new_u, new_v = target[0, place[0] :], target[1, place[0] :]
    for x in range(size[0]):
        new_u[x], new_v[x] = _cell(u[x + 1], v[x + 1], u[x] + u[x + 2], v[x] + v[x + 2], c)


# Rows are cut out of their arrays here and not in the wave, where the slices would be counted
# references: that cost as much as a row of 400 cells.
@numba.njit(**_CALLED)
def _row(old, north, here, south, west, new, row, column, count, c):
    """`count` cells of a row of `new`, from three rows of `old` from one cell further west on."""
    un, uc, us = old[0, north, west:], old[0, here, west:], old[0, south, west:]
    vn, vc, vs = old[1, north, west:], old[1, here, west:], old[1, south, west:]
    new_u, new_v = new[0, row, column:], new[1, row, column:]
    for x in range(count):
        new_u[x], new_v[x] = _cell(
            uc[x + 1],
            vc[x + 1],
            (un[x + 1] + us[x + 1]) + (uc[x] + uc[x + 2]),
            (vn[x + 1] + vs[x + 1]) + (vc[x] + vc[x + 2]),
            c,
        )


@numba.njit(**_OPTIONS)
def _wave(source, target, corner, place, size, steps, strip, c):
    rows = size[0]
    # Zeros, and room for whole vectors: rows between are computed a little too long, of whatever
    # stands there, which is faster than cell by cell at their end.
    length = min(strip, size[1]) + 2 * steps + _VECTOR
    scratch = np.zeros((2, 3 * max(steps - 1, 1), length), source.dtype)
    for x0 in range(0, size[1], strip):
        width = min(strip, size[1] - x0)
        west, out = corner[1] + x0 - steps, place[1] + x0
        for front in range(1 - steps, rows + steps - 1):
            for step in range(1, steps + 1):
                y, margin = front - (step - 1), steps - step
                if y < -margin or y >= rows + margin:
                    continue
                count, past, now = width + 2 * margin, 3 * (step - 2), 3 * (step - 1)
                here = y % 3
                north = here - 1 if here > 0 else 2
                south = here + 1 if here < 2 else 0
                s, t = corner[0] + y, place[0] + y
                if step == 1 and steps == 1:
                    _row(source, s - 1, s, s + 1, west, target, t, out, count, c)
                elif step == 1:
                    _row(source, s - 1, s, s + 1, west, scratch, now + here, 0, count, c)
                elif step < steps:
                    count = (count + _VECTOR - 1) & -_VECTOR
                    _row(
                        scratch,
                        past + north,
                        past + here,
                        past + south,
                        0,
                        scratch,
                        now + here,
                        0,
                        count,
                        c,
                    )
                else:
                    _row(
                        scratch,
                        past + north,
                        past + here,
                        past + south,
                        0,
                        target,
                        t,
                        out,
                        count,
                        c,
                    )


@numba.njit(**_OPTIONS)
def _step_3d(source, target, corner, place, size, c):
    k, j, i = corner[0], corner[1], corner[2] - 1
    for z in range(size[0]):
        for y in range(size[1]):
            u, v = source[0, k + z, j + y, i:], source[1, k + z, j + y, i:]
            ub, vb = source[0, k + z - 1, j + y, i:], source[1, k + z - 1, j + y, i:]
            ut, vt = source[0, k + z + 1, j + y, i:], source[1, k + z + 1, j + y, i:]
            un, vn = source[0, k + z, j + y - 1, i:], source[1, k + z, j + y - 1, i:]
            us, vs = source[0, k + z, j + y + 1, i:], source[1, k + z, j + y + 1, i:]
            new_u = target[0, place[0] + z, place[1] + y, place[2] :]
            new_v = target[1, place[0] + z, place[1] + y, place[2] :]
            for x in range(size[2]):
                p = x + 1
                new_u[x], new_v[x] = _cell(
                    u[p],
                    v[p],
                    ((ub[p] + ut[p]) + (un[p] + us[p])) + (u[x] + u[x + 2]),
                    ((vb[p] + vt[p]) + (vn[p] + vs[p])) + (v[x] + v[x + 2]),
                    c,
                )


# Every grid of a row of grids has a ring of its own, and what flows in from the next is spent
# with the ring.
@numba.njit(**_OPTIONS)
def _march_periodic(states, result, steps, depth, beside, strip, c):
    rows, columns = states.shape[2], states.shape[3]
    inner, wide = slice(depth, depth + rows), columns + 2 * depth
    for first in range(0, states.shape[0], beside):
        count = min(beside, states.shape[0] - first)
        here = np.zeros((2, rows + 2 * depth, count * wide), states.dtype)
        there = np.zeros_like(here)
        for k in range(count):
            a = k * wide + depth
            here[:, inner, a : a + columns] = states[first + k]
        left = steps
        while left > 0:
            taken = min(left, depth)
            for k in range(count):
                a = k * wide + depth
                b = a + columns
                here[:, inner, a - depth : a] = here[:, inner, b - depth : b]
                here[:, inner, b : b + depth] = here[:, inner, a : a + depth]
            here[:, :depth] = here[:, rows:-depth]
            here[:, -depth:] = here[:, depth : 2 * depth]
            size = (rows, count * wide - 2 * depth)
            _wave(here, there, (depth, depth), (depth, depth), size, taken, strip, c)
            here, there = there, here
            left -= taken
        for k in range(count):
            a = k * wide + depth
            result[first + k] = here[:, inner, a : a + columns]
