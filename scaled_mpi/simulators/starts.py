"""Initial states, painted into any block: the same bits whatever the split.

Every rank draws the same list of spots from a stream keyed by (seed, run), and paints those that
touch its block. Overlapping spots combine by assignment of one value (discs) or by the maximum
(bumps), neither of which depends on the order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from scaled_mpi.parallel import streams
from scaled_mpi.parallel.blocks import Block, Grid

STREAM = 1  # of the initial state, beside other purposes that share a seed
DENSITY_CELLS = 128 * 128
DISC_RADII = (3, 7)  # cells, both included
BUMP_WIDTHS = (2.0, 5.0)  # standard deviation in cells
BUMP_CUT = 6.0  # standard deviations; exp(-18) is below half a unit of float32's last place


def uniform(block: Block, grid: Grid, seed: tuple[int, int], density: float) -> np.ndarray:
    """Nothing painted: zeros (*block.size), float64."""
    return np.zeros(block.size)


def discs(block: Block, grid: Grid, seed: tuple[int, int], density: float) -> np.ndarray:
    """1 inside discs (balls, intervals) of radius 3 to 7 cells, 0 outside, (*block.size) float64.

    The centre is a cell so that the disc lies inside the domain, and a cell belongs to a disc
    when its centre is at most a radius away. Radii shrink where the domain is narrower than 15.
    """
    count = spot_count(grid, density)
    draws = _draws(seed, count, 1 + grid.axes)
    low, high = DISC_RADII
    fits = (min(grid.shape) - 1) // 2
    radii = np.minimum(low + np.floor(draws[0] * (high - low + 1)).astype(int), fits)
    centres = [
        radii + np.floor(draw * (n - 2 * radii)).astype(int)
        for draw, n in zip(draws[1:], grid.shape, strict=True)
    ]
    painted = np.zeros(block.size)

    for spot in range(count):
        radius = int(radii[spot])
        squares, places = [], []
        for axis, at in enumerate(centres):
            offsets = np.arange(-radius, radius + 1)
            squares.append(offsets**2)
            places.append(_places(int(at[spot]) + offsets, block, grid, axis))
        _paint(painted, squares, places, lambda d2, r=radius: (d2 <= r * r).astype(float))
    return painted


def gaussians(block: Block, grid: Grid, seed: tuple[int, int], density: float) -> np.ndarray:
    """Bumps exp(-d^2 / 2 s^2) anywhere, s of 2 to 5 cells, (*block.size) float64 in [0, 1].

    A bump wraps around a periodic axis and is cut by the end of any other.
    """
    count = spot_count(grid, density)
    draws = _draws(seed, count, 1 + grid.axes)
    low, high = BUMP_WIDTHS
    widths = low + (high - low) * draws[0]
    painted = np.zeros(block.size)
    for spot in range(count):
        width = float(widths[spot])
        reach = math.ceil(BUMP_CUT * width)
        squares, places = [], []
        for axis, n in enumerate(grid.shape):
            centre = float(draws[1 + axis, spot]) * n
            first = math.floor(centre) - reach
            cells = np.arange(first, first + 2 * reach + 1)
            squares.append((cells + 0.5 - centre) ** 2)
            places.append(_places(cells, block, grid, axis))
        _paint(painted, squares, places, lambda d2, s=width: np.exp(-d2 / (2 * s * s)))
    return painted


def spot_count(grid: Grid, density: float) -> int:
    """Spots of a domain: `density` for each 128^2 cells, at least one."""
    return max(1, round(density * math.prod(grid.shape) / DENSITY_CELLS))


def _draws(seed: tuple[int, int], count: int, draws: int) -> np.ndarray:
    return streams.uniform(seed[0], seed[1], np.arange(count), draws=draws, stream=STREAM)


def _places(cells: np.ndarray, block: Block, grid: Grid, axis: int) -> np.ndarray:
    """Local index in the block of global cells; -1 where the block does not hold the cell."""
    if grid.boundary[axis].periodic:
        cells = cells % grid.shape[axis]
    local = cells - block.start[axis]
    return np.where((local >= 0) & (local < block.size[axis]), local, -1)


def _paint(
    painted: np.ndarray,
    squares: list[np.ndarray],
    places: list[np.ndarray],
    profile: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Put the maximum of what is there and a spot; `squares` are squared distances an axis."""
    if any((place < 0).all() for place in places):
        return
    # The profile is computed for the whole spot before it is cut to the block: the same bits
    # wherever the cut falls.
    distance = np.zeros(())
    for square in squares:
        distance = distance[..., None] + square
    values = profile(distance)
    kept = [np.flatnonzero(place >= 0) for place in places]
    there = np.ix_(*(place[keep] for place, keep in zip(places, kept, strict=True)))
    # A bump wider than a periodic domain meets a cell more than once, hence `at`.
    np.maximum.at(painted, there, values[np.ix_(*kept)])


PAINTERS = {"discs": discs, "gaussians": gaussians, "uniform": uniform}
