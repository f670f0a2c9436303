"""Random patches of stored runs: training and validation samples of a network that steps in time.

Run, moment, place and symmetry of a sample depend on (seed, step, index in the step) alone. So the
samples are the same for any number of ranks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.parallel.streams import uniform


@dataclass(frozen=True)
class Scale:
    """Normalisation of fields: mean and spread of each channel (C,).

    Also the spread of a channel's change from frame to frame, in units of its spread, and mean and
    spread of each condition (n,).
    """

    mean: np.ndarray
    spread: np.ndarray
    change: np.ndarray
    condition_mean: np.ndarray
    condition_spread: np.ndarray


def condition_names(runs: Sequence[Trajectory]) -> tuple[str, ...]:
    """Names of the conditions that differ between runs.

    Errors: `InputError` where the runs store conditions of different names.
    """
    told = [run.attributes.get("condition", {}) for run in runs]
    if any(one.keys() != told[0].keys() for one in told):
        raise InputError(
            "condition: runs of different names are not allowed: a surrogate reads all of "
            "them. Allowed: the same names in every run"
        )
    return tuple(name for name in told[0] if len({float(one[name]) for one in told}) > 1)


def conditions(runs: Sequence[Trajectory], names: Sequence[str]) -> np.ndarray:
    """Values of the named conditions of every run, (runs, n) float64."""
    rows = [[float(run.attributes["condition"][name]) for name in names] for run in runs]
    return np.array(rows, np.float64).reshape(len(runs), len(names))


def measure(runs: Sequence[Trajectory], names: Sequence[str]) -> Scale:
    """The scale of training runs, in float64 and one run at a time."""
    first, second, change = [], [], []
    for run in runs:
        frames = run.read(slice(None)).astype(np.float64)
        cells = (0, *range(2, frames.ndim))
        first.append(frames.mean(cells))
        second.append((frames**2).mean(cells))
        change.append((np.diff(frames, axis=0) ** 2).mean(cells))
    mean = np.mean(first, 0)
    spread = np.sqrt(np.maximum(np.mean(second, 0) - mean**2, 0.0))
    if not np.isfinite(spread).all():
        raise InputError(
            "data: values that are not finite are not allowed: the training runs hold "
            "some. Allowed: finite values"
        )
    spread = np.where(spread > 0, spread, 1.0)
    moved = np.sqrt(np.mean(change, 0)) / spread
    told = conditions(runs, names)
    return Scale(mean, spread, np.where(moved > 0, moved, 1.0), told.mean(0), told.std(0))


class Patches:
    """Normalised patches (frames, C, *(core + 2 ring)) of runs held in memory as float32.

    `frames` successive frames a patch; `core` and `ring` in cells, one entry an axis. Patches wrap
    around periodic axes; on others their core stays inside and the ring is mirrored as a halo is.
    With `symmetric` each is flipped and, where axes are alike, transposed at random, which is
    right for scalar fields under an isotropic law. `moments` limits the frames used of each run.
    """

    def __init__(
        self,
        runs: Sequence[Trajectory],
        scale: Scale,
        names: Sequence[str],
        *,
        frames: int,
        core: Sequence[int],
        ring: Sequence[int],
        symmetric: bool,
        moments: slice = slice(None),
    ) -> None:
        grid = runs[0].grid
        self.frames, self.core, self.ring = frames, tuple(core), tuple(ring)
        self.periodic = tuple(boundary.periodic for boundary in grid.boundary)
        halo = [0 if p else r for p, r in zip(self.periodic, self.ring, strict=True)]
        self.runs = [_normalised(run, moments, halo, scale) for run in runs]
        shapes = {run.shape[1:] for run in self.runs}
        if len(shapes) > 1:
            raise InputError(
                "data: training runs of different shapes are not allowed: patches have one "
                "shape. Allowed: one shape"
            )
        self.shape = grid.shape
        self.starts = [len(run) - frames + 1 for run in self.runs]
        if min(self.starts) < 1:
            raise InputError(
                f"data.frames: {min(map(len, self.runs))} frames of a run are not allowed: a "
                f"sample spans {frames}. Allowed: {frames} or more to learn from"
            )
        spread = np.where(scale.condition_spread > 0, scale.condition_spread, 1.0)
        values = (conditions(runs, names) - scale.condition_mean) / spread
        self.conditions = values.astype(np.float32)
        self.turns = _turns(self.core, self.ring, grid.spacing) if symmetric else []

    @property
    def distinct(self) -> int:
        """Samples without a cell in common: moments, times patches side by side."""
        places = (max(1, n // core) for n, core in zip(self.shape, self.core, strict=True))
        return sum(self.starts) * math.prod(places)

    def draw(self, seed: int, step: int, samples: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Frames (B, frames, C, *(core + 2 ring)) and conditions (B, n) of the named samples."""
        index = np.asarray(list(samples), np.int64)
        axes = len(self.core)
        numbers = uniform(seed, step, index, draws=3 + 2 * axes, stream=Stream.PATCHES)
        patches, told = [], []
        for number in numbers.T:
            which = int(number[0] * len(self.runs))
            start = int(number[1] * self.starts[which])
            patch = self._patch(which, start, number[3 : 3 + axes])
            patches.append(self._turn(patch, number[2], number[3 + axes :]))
            told.append(self.conditions[which])
        return np.stack(patches), np.stack(told)

    def _patch(self, which: int, start: int, place: np.ndarray) -> np.ndarray:
        spans = []
        for share, core, ring, cells, wraps in zip(
            place, self.core, self.ring, self.shape, self.periodic, strict=True
        ):
            if wraps:
                begin = int(share * cells) - ring
                spans.append(np.arange(begin, begin + core + 2 * ring) % cells)
            else:
                begin = int(share * (cells - core + 1))
                spans.append(np.arange(begin, begin + core + 2 * ring))
        frames = slice(start, start + self.frames)
        box: tuple[Any, ...] = (frames, slice(None), *np.ix_(*spans))
        return self.runs[which][box]

    def _turn(self, patch: np.ndarray, turn: float, flips: np.ndarray) -> np.ndarray:
        if not self.turns:
            return patch
        order = self.turns[int(turn * len(self.turns))]
        patch = patch.transpose(0, 1, *(2 + axis for axis in order))
        box: tuple[Any, ...] = (
            ...,
            *(slice(None, None, -1 if flip < 0.5 else 1) for flip in flips),
        )
        return patch[box]


def _normalised(run: Trajectory, moments: slice, halo: Sequence[int], scale: Scale) -> np.ndarray:
    frames = run.read(moments, halo=halo)
    shape = (-1, *[1] * len(run.grid.shape))
    result = (frames - scale.mean.reshape(shape)) / scale.spread.reshape(shape)
    if not np.isfinite(result).all():
        raise InputError(
            f"data: values that are not finite are not allowed: {run.name} holds some. "
            "Allowed: finite values"
        )
    return result.astype(np.float32)


def _turns(
    core: Sequence[int], ring: Sequence[int], spacing: Sequence[float]
) -> list[tuple[int, ...]]:
    """Permutations of the axes that leave patches and cells of the same shape."""
    kinds = list(zip(core, ring, spacing, strict=True))
    return [
        order
        for order in itertools.permutations(range(len(kinds)))
        if all(
            kinds[a][:2] == kinds[b][:2] and math.isclose(kinds[a][2], kinds[b][2])
            for a, b in enumerate(order)
        )
    ]
