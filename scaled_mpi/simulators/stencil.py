"""The compiled Gray-Scott stencil: k steps of a field that carries a ring of k cells.

One explicit Euler step, in exactly this order of operations (`numbers` below; the sum runs over
the 2 d neighbours, opposite ones added first, then the axes in the order Z, Y, X):

    r  = dt ((u v) v)
    u' = u + ((a_u (sum u - 2d u) - r) + f (1 - u))        a_u = dt Du / dx^2,  f = dt F
    v' = v + ((a_v (sum v - 2d v) + r) - g v)              a_v = dt Dv / dx^2,  g = dt (F + k)

followed by a clamp to [low, high] that lets NaN through, and |v| < TINY becomes 0. Ahead of a
front v falls by an order of magnitude a cell; without TINY it and v^2 soon are denormal numbers,
whose arithmetic made fields with empty places 3 to 30 times slower. The rest state v = 0 is
stable, so nothing grows out of what is dropped, and u, of order 1, cannot tell.

As opposite neighbours are added first, a mirrored field stays mirrored to the last bit.
`fastmath=False` and the absence of fused multiply-adds make the bits those of numpy, on every
machine and for every split.

In two axes the k steps run as one wave over the rows (time skewing: McCalpin and Wonnacott 1999;
Wellein et al. 2009, https://doi.org/10.1109/COMPSAC.2009.82): behind row y of step 1 follows row
y - 1 of step 2, and so on. Only three rows of each step between are kept, in a scratch array that
stays in the cache, so that memory is read and written once for k steps instead of k times; long
rows are cut into strips, whose overlap of k cells is computed twice.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

STRIP = 1024  # cells of a row at a time: 3 rows x 2 channels x 8 steps are 200 kB of float32

_OPTIONS: dict[str, Any] = {
    "nogil": True, "fastmath": False, "error_model": "numpy", "cache": True,
}
# Inlined by numba, not left to LLVM: a call with eight arrays costs more than a short row.
_INLINE: dict[str, Any] = {**_OPTIONS, "cache": False, "inline": "always"}

# Below it v is 0; its square is still a normal number.
TINY = {np.dtype(np.float32): 1e-16, np.dtype(np.float64): 1e-150}

Corner = tuple[int, ...]


def empty_like(field: np.ndarray) -> np.ndarray:
    """An array of the same shape and type, rows contiguous."""
    return np.empty(field.shape, field.dtype)


def sweep(
    padded: np.ndarray, target: np.ndarray, corner: Corner, place: Corner, size: Corner,
    steps: int, numbers: tuple[float, ...],
) -> None:
    """Put `size` cells, `steps` steps later, into `target` from `place` on.

    padded (2, *shape) holds the cells from `corner` on and at least `steps` more on every side;
    target (2, *shape) may be any other array. numbers = (a_u, a_v, dt, f, g, low, high).
    """
    kind = padded.dtype.type
    constants = tuple(kind(n) for n in (*numbers, TINY[padded.dtype], 0, 1, 2 * len(size)))
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


def warm(axes: int) -> None:
    """Compile, or load from the cache, the kernels of `axes` axes."""
    for dtype in (np.float32, np.float64):
        padded = np.zeros((2, *(4,) * axes), dtype)
        one, two = (1,) * axes, (2,) * axes
        sweep(padded, np.zeros_like(padded), one, one, two, 1, (0.0,) * 7)


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
    new_u, new_v = target[0, place[0]:], target[1, place[0]:]
    for x in range(size[0]):
        new_u[x], new_v[x] = _cell(
            u[x + 1], v[x + 1], u[x] + u[x + 2], v[x] + v[x + 2], c
        )


@numba.njit(**_INLINE)
def _row(un, uc, us, vn, vc, vs, new_u, new_v, count, c):
    """One row from the row north, itself and the row south, each from one cell further west."""
    for x in range(count):
        new_u[x], new_v[x] = _cell(
            uc[x + 1], vc[x + 1],
            (un[x + 1] + us[x + 1]) + (uc[x] + uc[x + 2]),
            (vn[x + 1] + vs[x + 1]) + (vc[x] + vc[x + 2]), c,
        )


@numba.njit(**_OPTIONS)
def _wave(source, target, corner, place, size, steps, strip, c):
    rows, between = size[0], max(steps - 1, 1)
    scratch = np.empty((between, 3, 2, min(strip, size[1]) + 2 * steps), source.dtype)
    for x0 in range(0, size[1], strip):
        width = min(strip, size[1] - x0)
        west, east = corner[1] + x0 - steps, corner[1] + x0 + width + steps
        out = place[1] + x0
        for front in range(1 - steps, rows + steps - 1):
            for step in range(1, steps + 1):
                y, margin = front - (step - 1), steps - step
                if y < -margin or y >= rows + margin:
                    continue
                if step == 1:
                    n = corner[0] + y - 1
                    un, vn = source[0, n, west:east], source[1, n, west:east]
                    uc, vc = source[0, n + 1, west:east], source[1, n + 1, west:east]
                    us, vs = source[0, n + 2, west:east], source[1, n + 2, west:east]
                else:
                    old = scratch[step - 2]
                    un, vn = old[(y - 1) % 3, 0], old[(y - 1) % 3, 1]
                    uc, vc = old[y % 3, 0], old[y % 3, 1]
                    us, vs = old[(y + 1) % 3, 0], old[(y + 1) % 3, 1]
                if step == steps:
                    new_u = target[0, place[0] + y, out:out + width]
                    new_v = target[1, place[0] + y, out:out + width]
                else:
                    new_u, new_v = scratch[step - 1, y % 3, 0], scratch[step - 1, y % 3, 1]
                _row(un, uc, us, vn, vc, vs, new_u, new_v, width + 2 * margin, c)


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
            new_u = target[0, place[0] + z, place[1] + y, place[2]:]
            new_v = target[1, place[0] + z, place[1] + y, place[2]:]
            for x in range(size[2]):
                p = x + 1
                new_u[x], new_v[x] = _cell(
                    u[p], v[p],
                    ((ub[p] + ut[p]) + (un[p] + us[p])) + (u[x] + u[x + 2]),
                    ((vb[p] + vt[p]) + (vn[p] + vs[p])) + (v[x] + v[x + 2]), c,
                )
