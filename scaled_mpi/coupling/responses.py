"""The covariance that a tiled sampler makes, exactly: its answers to one unit of noise.

Where the denoisers are linear, so is the sampler, x = M z with z standard normal. The covariance
of its samples is M M^T: it needs no samples and has no statistical error. The windows repeat with
the tiles, so the columns of one tile's cells determine M. M is symmetric under mirrors and, where
axes are alike, under their exchange: about 1 / 2^axes / axes! of the columns suffice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaled_mpi.parallel.blocks import Block


@dataclass(frozen=True)
class Symmetry:
    """The cells of a tile that stand for all: `cells` (count, axes), each for `weights` cells."""

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    cells: np.ndarray
    weights: np.ndarray


def symmetry(shape: Sequence[int], tile: Sequence[int]) -> Symmetry:
    """The cells to ask, of a periodic domain of `shape` cells in tiles of `tile`."""
    counts: dict[tuple[int, ...], int] = {}
    alike = _alike(shape, tile)
    for cell in itertools.product(*(range(n) for n in tile)):
        mirrored = tuple(min(i, n - 1 - i) for i, n in zip(cell, tile, strict=True))
        first = min(tuple(mirrored[a] for a in order) for order in alike)
        counts[first] = counts.get(first, 0) + 1
    cells = np.array(sorted(counts))
    return Symmetry(
        tuple(shape), tuple(tile), cells, np.array([counts[tuple(c)] for c in cells], float)
    )


def _alike(shape: Sequence[int], tile: Sequence[int]) -> list[tuple[int, ...]]:
    """Orders of the axes that leave the domain and its tiles as they are."""
    kinds = list(zip(shape, tile, strict=True))
    return [
        order
        for order in itertools.permutations(range(len(kinds)))
        if all(kinds[a] == kinds[b] for a, b in enumerate(order))
    ]


@dataclass(frozen=True)
class Impulses:
    """Noise for `learning.samplers.sample`: one field a cell, 1 in that cell and 0 elsewhere."""

    symmetry: Symmetry
    block: Block

    def __call__(self, k: int) -> np.ndarray:
        """(count, *block.size); of the start alone, since nothing else may be drawn."""
        if k:
            raise ValueError("a stochastic sampler has no one covariance of unit noise")
        made = np.zeros((len(self.symmetry.cells), *self.block.size))
        for field, cell in zip(made, self.symmetry.cells, strict=True):
            own = cell - np.array(self.block.start)
            if np.all(own >= 0) and np.all(own < np.array(self.block.size)):
                field[tuple(own)] = 1.0
        return made


@dataclass(frozen=True)
class Covariance:
    """What was made against what was asked for.

    `error` is the Frobenius norm of the difference over that of the truth, all pairs of cells.
    `ratio` is the mean variance over the true one; `curve` (n,) the covariance by distance along
    an axis.
    """

    error: float
    ratio: float
    curve: np.ndarray


def compare(responses: np.ndarray, truth: np.ndarray, which: Symmetry) -> Covariance:
    """The covariance of responses (n, *shape) to `Impulses` beside the truth (*shape).

    The truth is the covariance of the first cell with all.
    """
    rows = _rows(_every_cell(responses, which), which)
    axes = tuple(range(truth.ndim))
    error = norm = variance = 0.0
    curve = np.zeros(min(which.shape) // 2 + 1)
    for row, cell, weight in zip(rows, which.cells, which.weights, strict=True):
        row = np.roll(row, tuple(-cell), axes)  # the distance from the cell itself
        error += weight * float(np.sum((row - truth) ** 2))
        norm += weight * float(np.sum(truth**2))
        variance += weight * float(row.flat[0] / truth.flat[0])
        curve += weight * _along_axes(row, len(curve))
    total = which.weights.sum()
    return Covariance((error / norm) ** 0.5, variance / total, curve / total)


def curve_of(truth: np.ndarray) -> np.ndarray:
    """The curve (n,) of the truth (*shape), as `Covariance.curve`."""
    return _along_axes(truth, min(truth.shape) // 2 + 1)


def _along_axes(row: np.ndarray, count: int) -> np.ndarray:
    """Mean over axes and both directions, (count,)."""
    lines = []
    for axis in range(row.ndim):
        line = np.moveaxis(row, axis, 0).reshape(row.shape[axis], -1)[:, 0]
        lines += [line[:count], np.roll(line[::-1], 1)[:count]]
    return np.mean(lines, 0)


def _every_cell(responses: np.ndarray, which: Symmetry) -> np.ndarray:
    """Responses to the noise of every cell of the first tile, (*tile, *shape)."""
    place = {tuple(int(i) for i in cell): k for k, cell in enumerate(which.cells)}
    axes = range(len(which.tile))
    whole = np.empty((*which.tile, *which.shape), responses.dtype)
    for cell in itertools.product(*(range(n) for n in which.tile)):
        flips = [a for a in axes if cell[a] > which.tile[a] - 1 - cell[a]]
        mirrored = tuple(which.tile[a] - 1 - cell[a] if a in flips else cell[a] for a in axes)
        order = next(
            order
            for order in _alike(which.shape, which.tile)
            if tuple(mirrored[a] for a in order) in place
        )
        field = responses[place[tuple(mirrored[a] for a in order)]]
        # Axis a of the stored field is axis order[a] of this one.
        field = np.transpose(field, np.argsort(order))
        for a in flips:  # cell i of the first tile becomes cell tile - 1 - i
            field = np.roll(np.flip(field, a), which.tile[a], a)
        whole[cell] = field
    return whole


def _rows(columns: np.ndarray, which: Symmetry) -> np.ndarray:
    """Rows of M M^T of the cells of `which`, (count, *shape), from columns (*tile, *shape)."""
    axes, tile = len(which.tile), which.tile
    counts = [n // t for n, t in zip(which.shape, tile, strict=True)]
    cells = int(np.prod(tile))
    split = [size for pair in zip(counts, tile, strict=True) for size in pair]
    by_tile = columns.reshape(cells, *split)
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2)]
    by_tile = by_tile.transpose(order).reshape(cells, *counts, cells)
    waves = np.fft.rfftn(by_tile, axes=tuple(range(1, axes + 1)))
    chosen = np.ravel_multi_index(tuple(which.cells.T), tile)
    flat = waves.reshape(cells, -1, cells)
    rows = np.stack(
        [flat[:, k, chosen].conj().T @ flat[:, k] for k in range(flat.shape[1])], 1
    ).reshape(len(chosen), *waves.shape[1:])
    found = np.fft.irfftn(rows, s=counts, axes=tuple(range(1, axes + 1)))
    found = found.reshape(len(chosen), *counts, *tile)
    back = [0] + [i for a in range(axes) for i in (1 + a, 1 + axes + a)]
    return found.transpose(back).reshape(len(chosen), *which.shape)
