"""Initial states of Gray-Scott, painted into any block: the same bits whatever the split.

Every rank draws the same list of spots from streams keyed by (seed, run), and paints those that
touch its block. Overlapping spots combine by their maximum, which does not depend on the order,
and a spot is computed whole before it is cut.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from scaled_mpi.parallel import streams
from scaled_mpi.parallel.blocks import Block, Grid
from scaled_mpi.parallel.keys import Stream

REST = (1.0, 0.0)  # u, v where nothing happens
INSIDE = (0.5, 0.25)  # u, v in a disc
DENSITY_CELLS = 128 * 128
DISCS = 5.0  # for each DENSITY_CELLS
DISC_RADII = (3, 7)  # cells, both included
BUMPS = (10.0, 100.0)  # for each DENSITY_CELLS, drawn for each run and species
BUMP_HEIGHTS = (1 / 3, 1.0)
BUMP_WIDTHS = (2.6, 3.7)  # standard deviation in cells
BUMP_CUT = 6.0  # standard deviations; exp(-18) is below half a unit of float32's last place
NODE_CELLS = 4  # cells between the nodes of the noise


@dataclass(frozen=True)
class Canvas:
    """Where to paint, and from which streams: one block of a grid, (seed, run)."""

    block: Block
    grid: Grid
    seed: tuple[int, int]

    def draw(self, stream: int, count: int, draws: int) -> np.ndarray:
        """Uniform numbers (draws, count)."""
        return streams.uniform(*self.seed, np.arange(count), draws=draws, stream=stream)

    def places(self, cells: np.ndarray, axis: int) -> np.ndarray:
        """Local index in the block of global cells; -1 where the block does not hold the cell."""
        if self.grid.boundary[axis].periodic:
            cells = cells % self.grid.shape[axis]
        local = cells - self.block.start[axis]
        return np.where((local >= 0) & (local < self.block.size[axis]), local, -1)


def uniform(canvas: Canvas, density: float | None, rates: tuple[float, float]) -> np.ndarray:
    """The rest state everywhere, float64 (2, *block.size)."""
    return _blend(REST, REST, np.zeros(canvas.block.size))


def discs(canvas: Canvas, density: float | None, rates: tuple[float, float]) -> np.ndarray:
    """u = 0.5, v = 0.25 inside discs (intervals, balls) of radius 3 to 7 cells, rest outside.

    Returns float64 (2, *block.size). The centre is a cell, so that the disc lies inside the
    domain. A cell belongs to a disc when its centre is at most a radius away. Radii shrink where
    the domain is narrower than 15.
    """
    grid = canvas.grid
    count = spot_count(grid, DISCS if density is None else density)
    draws = canvas.draw(Stream.START_SPOTS_U, count, 1 + grid.axes)
    low, high = DISC_RADII
    fits = (min(grid.shape) - 1) // 2
    radii = np.minimum(low + np.floor(draws[0] * (high - low + 1)).astype(int), fits)
    centres = [
        radii + np.floor(draw * (n - 2 * radii)).astype(int)
        for draw, n in zip(draws[1:], grid.shape, strict=True)
    ]
    painted = np.zeros(canvas.block.size)
    for radius, *centre in zip(radii.tolist(), *(c.tolist() for c in centres), strict=True):
        offsets = np.arange(-radius, radius + 1)
        places = [canvas.places(c + offsets, axis) for axis, c in enumerate(centre)]
        squares = [offsets**2] * grid.axes
        _paint(painted, squares, places, partial(_disc, radius))
    return _blend(REST, INSIDE, painted)


def _disc(radius: int, square: np.ndarray) -> np.ndarray:
    """1 within the radius, else 0, of squared distances in cells; any shape."""
    return (square <= radius * radius).astype(float)


def _bump(height: float, width: float, square: np.ndarray) -> np.ndarray:
    """A Gaussian of squared distances in cells; any shape."""
    return height * np.exp(-square / (2 * width * width))


def gaussians(canvas: Canvas, density: float | None, rates: tuple[float, float]) -> np.ndarray:
    """u = 1 - bumps, v = other bumps, of height 1/3 to 1 and width 2.6 to 3.7 cells.

    Returns float64 (2, *block.size). Sizes and numbers, in cells, are those of the clusters of
    The Well. Overlapping bumps combine by the maximum and need no global scaling. A bump wraps
    around a periodic axis and is cut by the end of any other.
    """
    low, high = BUMPS
    wanted = low + (high - low) * canvas.draw(Stream.START_COUNTS, 1, 2)[:, 0]
    counts = [spot_count(canvas.grid, d if density is None else density) for d in wanted.tolist()]
    u, v = (
        _bumps(canvas, s, n)
        for s, n in zip((Stream.START_SPOTS_U, Stream.START_SPOTS_V), counts, strict=True)
    )
    return np.stack([REST[0] - u, REST[1] + v])


def _bumps(canvas: Canvas, stream: int, count: int) -> np.ndarray:
    """The upper envelope of a exp(-d^2 / 2 s^2) over `count` bumps, (*block.size) in [0, 1]."""
    grid = canvas.grid
    draws = canvas.draw(stream, count, 2 + grid.axes)
    heights = BUMP_HEIGHTS[0] + (BUMP_HEIGHTS[1] - BUMP_HEIGHTS[0]) * draws[0]
    widths = BUMP_WIDTHS[0] + (BUMP_WIDTHS[1] - BUMP_WIDTHS[0]) * draws[1]
    painted = np.zeros(canvas.block.size)
    for height, width, *centre in zip(
        heights.tolist(), widths.tolist(), *(d.tolist() for d in draws[2:]), strict=True
    ):
        reach = math.ceil(BUMP_CUT * width)
        squares, places = [], []
        for axis, (part, n) in enumerate(zip(centre, grid.shape, strict=True)):
            first = math.floor(part * n) - reach
            cells = np.arange(first, first + 2 * reach + 1)
            squares.append((cells + 0.5 - part * n) ** 2)
            places.append(canvas.places(cells, axis))
        _paint(painted, squares, places, partial(_bump, height, width))
    return painted


def noise(canvas: Canvas, density: float | None, rates: tuple[float, float]) -> np.ndarray:
    """A steady state + smooth noise: linear between random values at nodes 4 cells apart.

    Returns float64 (2, *block.size). The noise is half the room that the steady state leaves in
    [0, 1] (`steady_state`), the one in which v lives on where it exists. Else the state is rest,
    and v becomes |v|.
    """
    means = steady_state(*rates)
    lives = means[1] > 0
    rooms = [0.9 * min(m, 1 - m) if lives else 1.0 for m in means]
    u, v = (m + 0.5 * r * (n - 0.5) for m, r, n in zip(means, rooms, _nodes(canvas), strict=True))
    return np.stack([np.minimum(u, 1.0), np.abs(v)])


def steady_state(F: float, k: float) -> tuple[float, float]:
    """(u, v) of the homogeneous state with the most v: u = (1 - w) / 2, v = F (1 + w) / 2 (F + k).

    w = sqrt(1 - 4 (F + k)^2 / F); where it is not real, only rest is steady.
    """
    inside = 1 - 4 * (F + k) ** 2 / F if F else -1.0
    if inside <= 0:
        return REST
    w = math.sqrt(inside)
    return (1 - w) / 2, F * (1 + w) / (2 * (F + k))


def _nodes(canvas: Canvas) -> np.ndarray:
    """Noise in [0, 1] of both species, (2, *block.size)."""
    grid, block = canvas.grid, canvas.block
    nodes = [max(1, round(n / NODE_CELLS)) for n in grid.shape]
    corners, weights = [], []
    for axis, (n, count) in enumerate(zip(grid.shape, nodes, strict=True)):
        place = (np.arange(block.start[axis], block.stop[axis]) + 0.5) / n * count - 0.5
        low = np.floor(place).astype(int)
        ends = [low, low + 1]
        periodic = grid.boundary[axis].periodic
        corners.append([e % count if periodic else np.clip(e, 0, count - 1) for e in ends])
        weights.append([1 - (place - low), place - low])
    total = np.zeros((2, *block.size))
    for which in itertools.product((0, 1), repeat=grid.axes):
        index, weight = np.zeros((), int), np.ones(())
        for axis, end in enumerate(which):
            index = index[..., None] * nodes[axis] + corners[axis][end]
            weight = weight[..., None] * weights[axis][end]
        total += weight * streams.uniform(*canvas.seed, index, draws=2, stream=Stream.START_NODES)
    return total


def spot_count(grid: Grid, density: float) -> int:
    """Spots of a domain: `density` for each 128^2 cells, at least one."""
    return max(1, round(density * math.prod(grid.shape) / DENSITY_CELLS))


def _blend(outside: Sequence[float], inside: Sequence[float], part: np.ndarray) -> np.ndarray:
    """(2, *size): `outside` where part is 0, `inside` where it is 1."""
    return np.stack([a + (b - a) * part for a, b in zip(outside, inside, strict=True)])


def _paint(
    painted: np.ndarray,
    squares: Sequence[np.ndarray],
    places: Sequence[np.ndarray],
    profile: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Put the maximum of what is there and a spot; `squares` are squared distances an axis."""
    if any((place < 0).all() for place in places):
        return
    distance = np.zeros(())
    for square in squares:
        distance = distance[..., None] + square
    values = profile(distance)
    kept = [np.flatnonzero(place >= 0) for place in places]
    there = np.ix_(*(place[keep] for place, keep in zip(places, kept, strict=True)))
    # A bump wider than a periodic domain meets a cell more than once, hence `at`.
    np.maximum.at(painted, there, values[np.ix_(*kept)])


STARTS = {"discs": discs, "gaussians": gaussians, "noise": noise, "uniform": uniform}
