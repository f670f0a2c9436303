"""Training and validation parts of stored runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scaled_mpi.parallel.store import Trajectory


class RunPart(NamedTuple):
    """Stored runs, and the frames used of each."""

    runs: Sequence[Trajectory]
    moments: slice


def hold_out(runs: Sequence[Trajectory], count: int, fewest: int = 1) -> tuple[RunPart, RunPart]:
    """Return the part to learn from and the part to validate on.

    The last `count` runs are held out. Of at most `count` runs the last eighth of each is, and at
    least `fewest` frames.
    """
    if len(runs) > count:
        return RunPart(runs[:-count], slice(None)), RunPart(runs[-count:], slice(None))
    border = learned_frames(min(len(run) for run in runs), fewest)
    return RunPart(runs, slice(0, border)), RunPart(runs, slice(border, None))


def learned_frames(frames: int, fewest: int = 1) -> int:
    """Return the frames to learn from, of a run whose last eighth is held out."""
    return frames - max(fewest, frames // 8)
