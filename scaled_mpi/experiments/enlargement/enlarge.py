"""Patterns on a large domain from denoisers that were learned on small boxes.

`dataset` simulates small boxes and `truth` large ones, `fit` trains the denoiser of windows and
that of block means and measures how far the latter is believed, `generate` makes
`METHOD.fields.h5`, samples (S, 2, Y, X) in the simulator's units, all from the same noise:

    pasted     every tile alone, no halo: what costs no exchange
    crop, average, window, collage        the fusions of `coupling/generation.py`
    coarse     crop with the coarse score correction
    weighed    the same, weighed by wavenumber and noise level (`coupling/gains.py`)
    untiled    the network of windows on the whole domain, in one piece
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.coupling.gains import Gains, gain_sums
from scaled_mpi.coupling.generation import CoarseCorrection, TiledDenoiser, block_means
from scaled_mpi.datasets.snapshots import SnapshotSet, write_index
from scaled_mpi.engine.chunks import write_missing
from scaled_mpi.engine.context import Context
from scaled_mpi.learning.given_weights import taken
from scaled_mpi.learning.samplers import CellNoise, Denoise, sample
from scaled_mpi.learning.settings import Session
from scaled_mpi.learning.training import on_team
from scaled_mpi.parallel.arrays import load_arrays, save_arrays
from scaled_mpi.parallel.blocks import Blocks, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, quiet_barrier, shares
from scaled_mpi.parallel.halo import gather_field
from scaled_mpi.parallel.keys import FirstRun
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.streams import cell_indices
from scaled_mpi.simulators.running import final_states
from scaled_mpi.surrogates.denoiser import Boxes, fit_means, fit_windows

SMALL, LARGE = "boxes", "truth"  # the two sets of a data set
CHUNK = 8  # boxes a file
TOGETHER = 4  # boxes that gains are measured on at once
SCALES = "scales.h5"


def dataset(context: Context) -> None:
    """Simulate the boxes to learn from; collective."""
    boxes = context.experiment.boxes
    _simulate(context, SMALL, boxes.shape, range(boxes.samples))


def truth(context: Context) -> None:
    """Simulate large boxes, and as many more as are generated: what so few are known to."""
    boxes, made = context.experiment.boxes, context.experiment.generation
    runs = range(FirstRun.TEST, FirstRun.TEST + boxes.truth + made.samples)
    _simulate(context, LARGE, made.shape, runs)


def _simulate(context: Context, name: str, shape: tuple[int, int], runs: range) -> None:
    """Every file of a set that is not there, a file by one rank."""
    experiment, starts = context.experiment, range(0, len(runs), CHUNK)
    if context.comm.rank == 0:
        experiment.simulator.warm(2)
    quiet_barrier(context.comm)
    write_missing(
        context,
        name,
        [(name, n, runs[start : start + CHUNK]) for n, start in enumerate(starts)],
        lambda _, some: final_states(
            experiment.simulator,
            shape,
            [(experiment.seed, run) for run in some],
            experiment.boxes.steps,
        ),
        lambda _, some: {"set": name, "first": some.start},
    )
    if context.comm.rank == 0:
        whole = (len(runs), len(experiment.simulator.channels), *shape)
        digest = write_index(context.folder, name, len(starts), whole, {"chunk": CHUNK})
        context.facts.record(f"dataset.sha256.{name}", digest)
    context.say(f"  {len(runs)} boxes of {' x '.join(map(str, shape))} cells")


def fit(context: Context) -> None:
    """Both denoisers, one after the other, then the scales and gains."""
    experiment, block = context.experiment, context.experiment.generation.block
    scales, lesson = _lesson(context)
    coarse_spread = block * float(block_means(lesson[0], 2, block).std(dtype=np.float64))
    takes = {
        "windows": experiment.windows.take_as(experiment.schedule),
        "coarse": experiment.coarse.take_as(experiment.schedule, coarse_spread, periodic=True),
    }
    boxes = Boxes(*lesson)
    for name, one in (
        (
            "windows",
            partial(
                fit_windows,
                experiment.windows,
                experiment.schedule,
                boxes,
                experiment.generation.extents,
            ),
        ),
        (
            "coarse",
            partial(
                fit_means, experiment.coarse, experiment.schedule, boxes, block, coarse_spread
            ),
        ),
    ):
        folder = context.folder / name
        on_root(context.comm, partial(folder.mkdir, exist_ok=True))
        if taken(getattr(experiment, name), name, folder, context.comm, takes[name]) is not None:
            continue
        on_team(
            context.comm,
            getattr(experiment, name).training,
            partial(_train, context, name, folder, one),
        )
    quiet_barrier(context.comm)
    learned = Learned(experiment, context.folder, coarse_spread)
    gains = measure_gains(context, learned, lesson[1])
    if context.comm.rank == 0:
        save_arrays(
            context.folder / SCALES,
            {**scales, "times": gains.times, "gains": gains.values},
            {"coarse": coarse_spread, "cells": gains.cells},
        )


def _lesson(context: Context) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Mean and spread (2, 1, 1) of the boxes, and these normalised: to learn from, held out.

    Errors: `InputError` where no pattern is left.
    """
    stored = SnapshotSet(context.inputs["dataset"], SMALL)
    boxes = stored.read(0, len(stored))
    border = len(boxes) - context.experiment.boxes.held_out
    mean, spread = (
        one(boxes[:border], axis=(0, 2, 3), dtype=np.float64)[:, None, None]
        for one in (np.mean, np.std)
    )
    if not spread.min() > 0.0:
        raise InputError(
            f"boxes.steps: {context.experiment.boxes.steps} given; fewer are allowed, or another "
            "simulator.density: all boxes are uniform then"
        )
    boxes = ((boxes - mean) / spread).astype(np.float32)
    return {"mean": mean, "spread": spread}, (boxes[:border], boxes[border:])


def _train(context: Context, name: str, folder: Path, one: Any, team: Any) -> None:
    events = context.events(folder, f"{context.folder.stem}-{name}")
    result = one(Session(team, folder, events, context.experiment.seed))
    if team.rank == 0:
        context.facts.record(f"denoiser.loss.{name}", result.best_loss)
        context.facts.record(f"denoiser.throughput.{name}", result.throughput, "samples/s")
        context.facts.record(f"time.train.{name}", result.seconds, "s")
        context.say(
            f"  {name}: loss {result.best_loss:.4g} after {result.steps} steps in "
            f"{result.seconds:.0f} s, {result.throughput:.0f} samples a second"
        )


class Learned:
    """The trained denoisers of a folder, as functions of arrays."""

    def __init__(self, experiment: Any, folder: Path, coarse_spread: float) -> None:
        self.experiment, self.folder = experiment, folder
        self._windows = experiment.windows.load(folder / "windows", experiment.schedule)
        self._means = experiment.coarse.load(
            folder / "coarse", experiment.schedule, coarse_spread, periodic=True
        )

    def window(self, extent: tuple[int, ...]) -> Denoise:
        """The denoiser of windows of any extent that it was trained on."""
        return self._windows

    def coarse(self, means: np.ndarray, t: float) -> np.ndarray:
        """Block means of a periodic field, denoised; their noise has the spread sigma / block."""
        block = self.experiment.generation.block
        return self._means(block * means, t) / block

    def whole(self) -> Denoise:
        """The denoiser of windows on a periodic domain."""
        return self.experiment.windows.load(
            self.folder / "windows", self.experiment.schedule, periodic=True
        )

    def tiled(self, blocks: Blocks, comm: Any, fusion: str, halo: int) -> TiledDenoiser:
        """The denoiser of a domain from those of its windows; collective."""
        overlap = self.experiment.generation.overlap
        return TiledDenoiser(blocks, comm, fusion, self.window, halo=halo, overlap=overlap)


def measure_gains(context: Context, learned: Learned, boxes: np.ndarray) -> Gains:
    """How far the coarse denoiser is believed, from normalised boxes; collective.

    Boxes are taken `TOGETHER` at once, by one rank, so that no bit depends on the ranks.
    """
    experiment = context.experiment
    spec, schedule, shape = experiment.generation, experiment.schedule, boxes.shape[2:]
    blocks = make_blocks(Grid(shape), spec.tile, 1)
    local = learned.tiled(blocks, SerialComm(), "crop", spec.halo)
    cells = cell_indices(blocks.block(0), shape)
    times = np.linspace(0.0, 1.0, spec.gains + 2)[1:-1]  # at 1 neither knows anything
    starts = range(0, len(boxes), TOGETHER)
    found = []
    for place in shares(len(starts), context.comm.size)[context.comm.rank]:
        some = range(starts[place], min(starts[place] + TOGETHER, len(boxes)))
        true = block_means(boxes[some.start : some.stop], 2, spec.block)
        noises = [CellNoise(experiment.seed, cells, boxes.shape[1], n) for n in some]
        for k, t in enumerate(times):
            noisy = schedule.alpha(t) * boxes[some.start : some.stop] + schedule.sigma(t) * (
                np.stack([noise(k) for noise in noises])
            )
            near = block_means(local(noisy, t), 2, spec.block)
            far = learned.coarse(block_means(noisy, 2, spec.block), t)
            found += [(k, gain_sums(*three)) for three in zip(true, near, far, strict=True)]
    everything = sum(context.comm.allgather(found), [])
    sums = [[part for at, part in everything if at == k] for k in range(len(times))]
    return Gains.of(times, sums, min(shape) // spec.block)


def methods(experiment: Any) -> tuple[str, ...]:
    """What is generated, in order."""
    return ("pasted", "untiled", "coarse", "weighed", *experiment.generation.fusions)


def generate(context: Context) -> None:
    """Every method that is not there yet; collective."""
    experiment, spec = context.experiment, context.experiment.generation
    arrays, told = load_arrays(context.inputs["fit"] / SCALES)
    blocks, comm = context.blocks(Grid(spec.shape), spec.tile)
    if comm is not None:
        learned = Learned(experiment, context.inputs["fit"], told["coarse"])
        gains = Gains(arrays["times"], arrays["gains"], told["cells"])
        for method in methods(experiment):
            path = context.folder / f"{method}.fields.h5"
            if comm.bcast(path.exists()):
                continue
            begun = time.perf_counter()
            made = _generated(experiment, method, learned, gains, (blocks, comm))
            if comm.rank == 0:
                made = (arrays["mean"] + arrays["spread"] * made).astype(np.float32)
                seconds = time.perf_counter() - begun
                save_arrays(path, {"fields": made}, {"method": method, "seconds": seconds})
                context.say(f"  {method}: {len(made)} fields in {seconds:.0f} s")
    quiet_barrier(context.comm)


def _generated(
    experiment: Any, method: str, learned: Learned, gains: Gains, where: tuple[Blocks, Any]
) -> np.ndarray | None:
    """Normalised samples (S, 2, Y, X) on rank 0, None elsewhere; collective."""
    spec, (blocks, comm) = experiment.generation, where
    if method == "untiled":
        return _untiled(experiment, learned, comm)
    fusion = method if method in spec.fusions else "crop"
    denoise: Denoise = learned.tiled(blocks, comm, fusion, 0 if method == "pasted" else spec.halo)
    if method in ("coarse", "weighed"):
        gain = gains if method == "weighed" else None
        denoise = CoarseCorrection(denoise, learned.coarse, spec.block, gain)
    cells = cell_indices(blocks.block(comm.rank), spec.shape)
    made = sample(
        denoise,
        _noise(experiment, cells, range(spec.samples)),
        experiment.schedule,
        spec.steps,
        spec.sampler,
    )
    return gather_field(blocks, comm, np.ascontiguousarray(made, np.float32))


def _untiled(experiment: Any, learned: Learned, comm: Any) -> np.ndarray | None:
    """Each sample by one rank, whole."""
    spec = experiment.generation
    cells = np.arange(np.prod(spec.shape)).reshape(spec.shape)
    denoise, made = learned.whole(), []
    for number in shares(spec.samples, comm.size)[comm.rank]:
        noise = _noise(experiment, cells, range(number, number + 1))
        field = sample(denoise, noise, experiment.schedule, spec.steps, spec.sampler)
        made.append(field.astype(np.float32))
    parts = comm.gather(made)
    return None if parts is None else np.concatenate([one for part in parts for one in part])


def _noise(experiment: Any, cells: np.ndarray, samples: range) -> Callable[[int], np.ndarray]:
    """Noise of several samples together, (S, 2, *cells.shape), the same for every method."""
    channels = len(experiment.simulator.channels)
    fields = [CellNoise(experiment.seed, cells, channels, n) for n in samples]
    return lambda k: np.stack([one(k) for one in fields])
