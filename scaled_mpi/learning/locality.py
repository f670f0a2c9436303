"""Whether a local operation is local: cut windows must give the cut answer.

A local operator (surrogate, coder) promises the whole domain's answer on a tile, if it sees the
cells within its reach around the tile. The check cuts one window in two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TOLERANCE = 1e-4  # of the largest value; a cut changes the order of float32 sums

Operation = Callable[..., np.ndarray]


def cut_violations(
    apply: Operation, inputs: Sequence[tuple[np.ndarray, int]], shape: tuple[int, ...]
) -> list[str]:
    """Return differences from a local operation, one line each; none for a local one.

    `inputs`: arrays (..., *cells) and the reach on the first axis of cells; `apply(*arrays)` must
    return `shape`, (channels, *cells), in the type of the first array. Each array is cut in the
    middle of its first axis of cells, with the reach on both sides.
    """
    axes = len(shape) - 1
    arrays = [array for array, _ in inputs]
    try:
        whole, again = apply(*_copies(arrays)), apply(*_copies(arrays))
        halves = [
            apply(*_copies([_half(array, reach, axes, part) for array, reach in inputs]))
            for part in (0, 1)
        ]
    except Exception as error:  # whatever a stranger's class raises
        return [f"raises {type(error).__name__}: {' '.join(str(error).split())}"]
    if np.shape(whole) != shape:
        return [f"returns {np.shape(whole)}; {shape} is needed"]
    found = []
    if whole.dtype != arrays[0].dtype:
        found.append(f"returns {whole.dtype}; {arrays[0].dtype} is needed")
    if not np.isfinite(whole).all():
        found.append("returns values that are not finite")
    if not np.array_equal(whole, again, equal_nan=True):
        found.append("differs between two equal calls")
    joined = np.concatenate(halves, axis=1)
    if joined.shape != shape:
        found.append(f"returns {np.shape(halves[0])} for half a tile; half of {shape} is needed")
    elif not np.abs(joined - whole).max() <= TOLERANCE * max(1.0, float(np.abs(whole).max())):
        seam = float(np.abs(joined - whole).max())
        found.append(f"differs by {seam:.1e} between two tiles and the whole: the reach is larger")
    return found


def _half(array: np.ndarray, reach: int, axes: int, part: int) -> np.ndarray:
    cells = array.shape[-axes]
    half = (cells - 2 * reach) // 2
    span = slice(part * half, part * half + half + 2 * reach)
    box: tuple[Any, ...] = (..., span, *[slice(None)] * (axes - 1))
    return array[box]


def _copies(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Contiguous copies, so that an operation that writes into its arguments changes no other."""
    return [np.array(array, order="C") for array in arrays]
