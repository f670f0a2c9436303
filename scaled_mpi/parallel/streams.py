"""Random numbers keyed by place: the same values whatever the split into blocks.

Philox4x32-10 is a bijection of 128-bit counters under a 64-bit key. Source: Salmon, Moraes, Dror
and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
https://doi.org/10.1145/2063384.2063405. Here

    key      the seed (64 bit)
    counter  cell, low and high 32 bits | step | stream * 65536 + pair

so that a value depends on (seed, step, cell, stream, draw) and nothing else. One application
yields 128 bits, a pair of draws of 64 bits each; draw j is the same however many draws are asked
for. `cell` is any index that names a place or a thing: a global cell, a particle, a sample of a
data set. Purposes that share a seed take different `stream` numbers; `keys.py` lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from scaled_mpi.parallel.blocks import Block

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_CHUNK = 8192  # cells at a time, so that the dozen work arrays stay in the cache
_PAIRS = 1 << 16


def philox(counter: Sequence[np.ndarray], key: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Return four arrays of 32-bit words, of the same shape as the four of `counter`."""
    c0, c1, c2, c3 = (np.asarray(word, np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (p1 >> _WORD) ^ c1 ^ np.uint64(k0), (p0 >> _WORD) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & _LOW, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def cell_indices(block: Block, shape: Sequence[int]) -> np.ndarray:
    """Return the index of every cell in the global array (C order), int64 (*block.size)."""
    index: np.ndarray = np.zeros((), np.int64)
    for start, stop, n in zip(block.start, block.stop, shape, strict=True):
        index = index[..., None] * n + np.arange(start, stop)
    return index


def uniform(
    seed: int, step: int, cells: np.ndarray, draws: int | None = None, stream: int = 0
) -> np.ndarray:
    """Return uniform numbers in the open interval (0, 1), float64, 52 bits.

    `cells` are whole numbers >= 0 of any shape. The result has the same shape, or (draws, *shape)
    with `draws`. The seed lies in [0, 2^64), step in [0, 2^32), stream in [0, 2^16), draws in
    [1, 2^17].

    Errors: `ValueError` for a number outside its range.
    """
    return _fill(seed, step, cells, draws, stream, np.float64, lambda x, y: (_open(x), _open(y)))


def normal(
    seed: int, step: int, cells: np.ndarray, draws: int | None = None, stream: int = 0
) -> np.ndarray:
    """Return standard normal numbers, float64, by Box and Muller's transform.

    Arguments, shapes and errors are those of `uniform`: cells of any shape, (draws, *shape). Every
    draw costs the same two uniforms; a rejection method would use a varying number.
    """
    return _fill(seed, step, cells, draws, stream, np.float64, _box_muller)


def integers(
    seed: int, step: int, cells: np.ndarray, high: int, draws: int | None = None, stream: int = 0
) -> np.ndarray:
    """Return whole numbers in [0, high), int64, high <= 2^32; biased by less than high / 2^64.

    Arguments, shapes and errors are those of `uniform`: cells of any shape, (draws, *shape).
    """
    if not 1 <= high <= 1 << 32:
        raise ValueError(f"high: {high} is not allowed: out of range. Allowed: 1 to 2^32")
    span = np.uint64(high)

    def scale(bits: np.ndarray) -> np.ndarray:
        # The upper half of the 96-bit product bits * high, in 64-bit arithmetic.
        carry = ((bits & _LOW) * span) >> _WORD
        return (((bits >> _WORD) * span + carry) >> _WORD).astype(np.int64)

    return _fill(seed, step, cells, draws, stream, np.int64, lambda x, y: (scale(x), scale(y)))


def _open(bits: np.ndarray) -> np.ndarray:
    """64 random bits -> (0, 1): midpoints of 2^52 intervals, all exact in float64."""
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _box_muller(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius = np.sqrt(-2.0 * np.log(_open(x)))
    angle = (2.0 * math.pi) * _open(y)
    return radius * np.cos(angle), radius * np.sin(angle)


def _fill(
    seed: int,
    step: int,
    cells: np.ndarray,
    draws: int | None,
    stream: int,
    dtype: type,
    shape_pair: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """`draws` values a cell, two from each application of the bijection."""
    cells = np.asarray(cells)
    count = 1 if draws is None else draws
    _check_key(seed, step, cells, count, stream)
    flat = cells.reshape(-1).astype(np.uint64)
    out: np.ndarray = np.empty((count, flat.size), dtype)
    for pair in range((count + 1) // 2):
        rows = out[2 * pair : 2 * pair + 2]
        for part, x, y in _pairs(seed, step, flat, stream * _PAIRS + pair):
            for row, values in zip(rows, shape_pair(x, y), strict=False):
                row[part] = values
    return out.reshape(cells.shape if draws is None else (count, *cells.shape))


def _pairs(
    seed: int, step: int, cells: np.ndarray, last: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(which cells, 64 bits, 64 bits), a cacheful at a time."""
    key = (seed & 0xFFFFFFFF, seed >> 32)
    for start in range(0, cells.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        some = cells[part]
        halves = (some & _LOW, some >> _WORD)
        words = philox((*halves, np.asarray(step, np.uint64), np.asarray(last, np.uint64)), key)
        yield part, (words[1] << _WORD) | words[0], (words[3] << _WORD) | words[2]


def _check_key(seed: int, step: int, cells: np.ndarray, draws: int, stream: int) -> None:
    limits = {
        "seed": (seed, 0, 1 << 64),
        "step": (step, 0, 1 << 32),
        "stream": (stream, 0, _PAIRS),
        "draws": (draws, 1, 2 * _PAIRS + 1),
    }
    for name, (value, low, high) in limits.items():
        if not low <= value < high:
            raise ValueError(
                f"{name}: {value} is not allowed: out of range. Allowed: [{low}, {high})"
            )
    if cells.dtype.kind not in "iu" or (cells.size and cells.min() < 0):
        raise ValueError(
            f"cells: {cells.dtype} is not allowed: negative or no index. Allowed: whole "
            "numbers >= 0"
        )
