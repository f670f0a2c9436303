"""Errors of stored forecasts, tile by tile: the same numbers on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scaled_mpi.metrics import Scores, extrapolate, pair_sums, scores_from_sums
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.trajectory import Trajectory

EXTRAPOLATIONS = ("persistence", "linear", "quadratic")

Box = tuple[slice, ...]
Read = Callable[[int, Box], np.ndarray]  # (lead from 1, box) -> (C, *box)


@dataclass(frozen=True)
class TileGather:
    """Gathers one array a tile from all ranks, in the order of the tiles."""

    blocks: Blocks
    comm: Comm

    @cached_property
    def boxes(self) -> list[Box]:
        """The boxes of this rank's tiles, one slice an axis."""
        return [self.blocks.tile_slices(index) for index in self.blocks.tiles(self.comm.rank)]

    def __call__(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the arrays of all tiles, of any shape, from those of this rank; collective."""
        parts = self.comm.allgather(list(values))
        pairs = [
            pair
            for rank, part in enumerate(parts)
            for pair in zip(self.blocks.tiles(rank), part, strict=True)
        ]
        return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]


def lead_scores(gather: TileGather, read: Read, truth: Read, leads: int) -> Iterator[Scores]:
    """Yield the scores of leads 1 ... `leads`, each an array (C,); collective."""
    for lead in range(1, leads + 1):
        sums = [pair_sums(read(lead, box), truth(lead, box)) for box in gather.boxes]
        yield scores_from_sums(gather(sums))


def extrapolations(gather: TileGather, truth: Trajectory, start: int) -> dict[str, Read]:
    """Return the predictors that cost nothing, by name, from frames up to `start` of the truth.

    Errors: `ValueError` where `start` has fewer than two frames before it.
    """
    if start < len(EXTRAPOLATIONS) - 1:
        raise ValueError(f"frame {start}: {len(EXTRAPOLATIONS) - 1} frames before it are needed")
    known = range(start - len(EXTRAPOLATIONS) + 1, start + 1)
    frames = {_corner(box): [truth.read(f, box) for f in known] for box in gather.boxes}

    def reader(order: int) -> Read:
        return lambda lead, box: extrapolate(frames[_corner(box)], lead, order)

    return {name: reader(order) for order, name in enumerate(EXTRAPOLATIONS)}


def _corner(box: Box) -> tuple[int, ...]:
    """Slices as a dictionary key."""
    return tuple(part.start for part in box)
