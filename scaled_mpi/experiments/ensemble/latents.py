"""Latents of an ensemble's runs: one small file a run, all coefficients in one array.

    train-0017.latent.h5    latents (T, r) of one tile that is the whole domain, float64

The store writes one dataset a channel, which suits a few channels on many cells. Here one cell
has hundreds of channels, and creating their datasets would take longer than all other work.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from scaled_mpi.compressors.coders import Coder
from scaled_mpi.parallel.arrays import load_arrays, save_arrays
from scaled_mpi.parallel.blocks import Grid
from scaled_mpi.parallel.store import Trajectory

SUFFIX = ".latent.h5"


def write_latents(coder: Coder, run: Trajectory, folder: Path) -> None:
    """Encode every frame of `run` (T, 1, ny, nx) and write `folder`/NAME.latent.h5."""
    codes = np.stack([coder.encode(frame).reshape(-1) for frame in run.read(slice(None))])
    meta = {"times": list(map(float, run.times)), "jump": run.attributes.get("jump", 1)}
    save_arrays(folder / f"{run.name}{SUFFIX}", {"latents": codes}, meta)


def latent_runs(folder: Path, runs: Sequence[Trajectory]) -> list[LatentRun]:
    """Return the latents of stored runs, in their order."""
    return [LatentRun(folder, run) for run in runs]


class LatentRun:
    """Latents (T, r, 1, 1) of one run, with the members of a stored trajectory.

    `grid` has one cell, `shape` is (T, r, 1, 1), `attributes` are the run's. The first use reads
    the file and keeps the latents; it raises `InputError` for a missing or damaged file.
    """

    def __init__(self, folder: Path, run: Trajectory) -> None:
        self.path, self.name = folder / f"{run.name}{SUFFIX}", run.name
        self.attributes = {**run.attributes, "scalars": False}
        self.times = run.times
        grid = run.grid
        spacing = tuple(n * h for n, h in zip(grid.shape, grid.spacing, strict=True))
        self.grid = Grid((1,) * grid.axes, spacing, grid.boundary)

    @cached_property
    def _latents(self) -> np.ndarray:
        arrays, _ = load_arrays(self.path)
        return arrays["latents"].reshape(len(self), -1, *self.grid.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._latents.shape

    def __len__(self) -> int:
        return len(self.times)

    def read(self, frames: int | slice, *, channels: Sequence[int] | None = None) -> np.ndarray:
        """Return `frames`, float64: (T, r, 1, 1), or (r, 1, 1) for a whole number."""
        chosen = self._latents[frames]
        return chosen if channels is None else chosen[..., list(channels), :, :]
