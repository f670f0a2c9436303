"""Patterns on a large domain from denoisers that were learned on small boxes.

`dataset` simulates small boxes, `truth` large ones. `fit` trains the denoiser of windows and the
denoiser of block means, and measures the weight (gain) of the latter. `generate` writes
`METHOD.fields.h5`, samples (S, 2, Y, X) in the simulator's units, all from the same noise:

    pasted     every tile alone, no halo, no exchange
    crop, average, window, collage        the fusions of `coupling/generation.py`
    coarse     crop with the coarse score correction
    weighed    the same, weighed by wavenumber and noise level (`coupling/gains.py`)
    untiled    the network of windows on the whole domain, in one piece
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.coupling.gains import Gains, gain_sums
from scaled_mpi.coupling.generation import CoarseCorrection, TiledDenoiser, block_means
from scaled_mpi.datasets.snapshots import SnapshotSet, write_index
from scaled_mpi.engine.chunks import write_missing
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.enlargement.settings import EnlargementExperiment
from scaled_mpi.learning.given_weights import taken
from scaled_mpi.learning.samplers import CellNoise, Denoise, sample
from scaled_mpi.learning.settings import Result, Session
from scaled_mpi.learning.training import on_team
from scaled_mpi.parallel.arrays import load_arrays, save_arrays
from scaled_mpi.parallel.blocks import Blocks, Grid, make_blocks
from scaled_mpi.parallel.comm import Comm, SerialComm, quiet_barrier, shares
from scaled_mpi.parallel.halo import gather_field
from scaled_mpi.parallel.keys import FirstRun
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.streams import cell_indices
from scaled_mpi.simulators.running import final_states
from scaled_mpi.surrogates.denoiser import BoxSet, fit_means, fit_windows

SMALL, LARGE = "boxes", "truth"  # the two sets of a data set
CHUNK = 8  # boxes a file
TOGETHER = 4  # boxes that gains are measured on at once
SCALES = "scales.h5"


class DenoiserFit(Protocol):
    """A training of one denoiser on the ranks of a team."""

    def __call__(self, session: Session) -> Result:
        """Train, write the weights and return the outcome; collective over the session."""
        ...


@dataclass(frozen=True)
class DomainShare:
    """The large domain on the ranks that own a block of it."""

    blocks: Blocks
    comm: Comm


@dataclass(frozen=True)
class NormalisedBoxes:
    """Normalised boxes (n, 2, Y, X), float32.

    `mean` and `spread` (2, 1, 1) of the training boxes are in the simulator's units.
    """

    boxes: BoxSet
    mean: np.ndarray
    spread: np.ndarray


def dataset(context: Context[EnlargementExperiment]) -> None:
    """Simulate the small boxes of training and validation; collective."""
    boxes = context.experiment.boxes
    _simulate(context, SMALL, boxes.shape, range(boxes.samples))


def truth(context: Context[EnlargementExperiment]) -> None:
    """Simulate the large boxes, and as many further ones as are generated; collective.

    The further boxes measure the sampling error of so few samples.
    """
    boxes, generation = context.experiment.boxes, context.experiment.generation
    runs = range(FirstRun.TEST, FirstRun.TEST + boxes.truth + generation.samples)
    _simulate(context, LARGE, generation.shape, runs)


def _simulate(
    context: Context[EnlargementExperiment], name: str, shape: tuple[int, int], runs: range
) -> None:
    """Every file of a set that is not there, a file by one rank."""
    experiment, starts = context.experiment, range(0, len(runs), CHUNK)
    if context.comm.rank == 0:
        experiment.simulator.warm(2)
    quiet_barrier(context.comm)
    write_missing(
        context,
        name,
        [(name, n, runs[start : start + CHUNK]) for n, start in enumerate(starts)],
        lambda _, part: final_states(
            experiment.simulator,
            shape,
            [(experiment.seed, run) for run in part],
            experiment.boxes.steps,
        ),
        lambda _, part: {"set": name, "first": part.start},
    )
    if context.comm.rank == 0:
        whole = (len(runs), len(experiment.simulator.channels), *shape)
        digest = write_index(context.folder, name, len(starts), whole, {"chunk": CHUNK})
        context.facts.record("dataset.sha256", digest, set=name)
    context.say(f"  {len(runs)} boxes of {' x '.join(map(str, shape))} cells")


def fit(context: Context[EnlargementExperiment]) -> None:
    """Train both denoisers, then write their scales and gains; collective."""
    experiment, block = context.experiment, context.experiment.generation.block
    lesson = _lesson(context)
    boxes = lesson.boxes
    coarse_spread = block * float(block_means(boxes.learned, 2, block).std(dtype=np.float64))
    schedule, extents = experiment.schedule, experiment.generation.extents
    takes = {
        "windows": experiment.windows.take_as(schedule),
        "coarse": experiment.coarse.take_as(schedule, coarse_spread, periodic=True),
    }
    fits: dict[str, DenoiserFit] = {
        "windows": partial(fit_windows, experiment.windows, schedule, boxes, extents),
        "coarse": partial(fit_means, experiment.coarse, schedule, boxes, block, coarse_spread),
    }
    for name, train in fits.items():
        folder = context.folder / name
        on_root(context.comm, partial(folder.mkdir, exist_ok=True))
        if taken(getattr(experiment, name), name, folder, context.comm, takes[name]) is not None:
            continue
        on_team(
            context.comm,
            getattr(experiment, name).training,
            partial(_train, context, name, folder, train),
        )
    quiet_barrier(context.comm)
    learned = LearnedDenoisers(experiment, context.folder, coarse_spread)
    gains = measure_gains(context, learned, boxes.held_out)
    if context.comm.rank == 0:
        save_arrays(
            context.folder / SCALES,
            {
                "mean": lesson.mean,
                "spread": lesson.spread,
                "times": gains.times,
                "gains": gains.values,
            },
            {"coarse": coarse_spread, "cells": gains.cells},
        )


def _lesson(context: Context[EnlargementExperiment]) -> NormalisedBoxes:
    """Read and normalise the boxes. Errors: `InputError` where no pattern is left."""
    stored = SnapshotSet(context.inputs["dataset"], SMALL)
    boxes = stored.read(0, len(stored))
    border = len(boxes) - context.experiment.boxes.held_out
    axes = (0, 2, 3)
    mean = boxes[:border].mean(axis=axes, dtype=np.float64)[:, None, None]
    spread = boxes[:border].std(axis=axes, dtype=np.float64)[:, None, None]
    if not spread.min() > 0.0:
        raise InputError(
            f"boxes.steps: {context.experiment.boxes.steps} is not allowed: all boxes are uniform "
            "after so many steps. Allowed: fewer steps, or another simulator.density"
        )
    boxes = ((boxes - mean) / spread).astype(np.float32)
    return NormalisedBoxes(BoxSet(boxes[:border], boxes[border:]), mean, spread)


def _train(
    context: Context[EnlargementExperiment],
    name: str,
    folder: Path,
    train: DenoiserFit,
    team: Comm,
) -> None:
    events = context.events(folder, f"{context.folder.stem}-{name}")
    result = train(Session(team, folder, events, context.experiment.seed))
    if team.rank == 0:
        facts = context.facts
        facts.record("denoiser.loss", result.best_loss, network=name)
        facts.record("denoiser.throughput", result.throughput, "samples/s", network=name)
        facts.record("time.train", result.seconds, "s", network=name)
        context.say(
            f"  {name}: loss {result.best_loss:.4g} after {result.steps} steps in "
            f"{result.seconds:.0f} s, {result.throughput:.0f} samples a second"
        )


class LearnedDenoisers:
    """The trained denoisers of a folder, as functions of arrays."""

    def __init__(
        self, experiment: EnlargementExperiment, folder: Path, coarse_spread: float
    ) -> None:
        self.experiment, self.folder = experiment, folder
        self._windows = experiment.windows.load(folder / "windows", experiment.schedule)
        self._means = experiment.coarse.load(
            folder / "coarse", experiment.schedule, coarse_spread, periodic=True
        )

    def window(self, extent: tuple[int, ...]) -> Denoise:
        """Return the denoiser of windows of an extent that the training had."""
        return self._windows

    def coarse(self, means: np.ndarray, t: float) -> np.ndarray:
        """Denoise block means (..., y, x) of periodic fields; same shape.

        Their noise has the standard deviation sigma(t) / block.
        """
        block = self.experiment.generation.block
        return self._means(block * means, t) / block

    def whole(self) -> Denoise:
        """Return the denoiser of windows on a periodic domain."""
        return self.experiment.windows.load(
            self.folder / "windows", self.experiment.schedule, periodic=True
        )

    def tiled(self, blocks: Blocks, comm: Comm, fusion: str, halo: int) -> TiledDenoiser:
        """Return the denoiser of a domain from the denoisers of its windows; collective."""
        overlap = self.experiment.generation.overlap
        return TiledDenoiser(blocks, comm, fusion, self.window, halo=halo, overlap=overlap)


def measure_gains(
    context: Context[EnlargementExperiment], learned: LearnedDenoisers, boxes: np.ndarray
) -> Gains:
    """Measure the gains of the coarse denoiser on normalised boxes (n, 2, Y, X); collective.

    One rank denoises `TOGETHER` boxes at once, so that no bit depends on the number of ranks.
    """
    experiment = context.experiment
    spec, schedule, shape = experiment.generation, experiment.schedule, boxes.shape[2:]
    blocks = make_blocks(Grid(shape), spec.tile, 1)
    local = learned.tiled(blocks, SerialComm(), "crop", spec.halo)
    cells = cell_indices(blocks.block(0), shape)
    times = np.linspace(0.0, 1.0, spec.gains + 2)[1:-1]  # at 1 a sample is noise alone
    starts = range(0, len(boxes), TOGETHER)
    own: list[tuple[int, np.ndarray]] = []
    for place in shares(len(starts), context.comm.size)[context.comm.rank]:
        numbers = range(starts[place], min(starts[place] + TOGETHER, len(boxes)))
        part = boxes[numbers.start : numbers.stop]
        true = block_means(part, 2, spec.block)
        noises = [CellNoise(experiment.seed, cells, boxes.shape[1], n) for n in numbers]
        for k, t in enumerate(times):
            noisy = schedule.alpha(t) * part + schedule.sigma(t) * (
                np.stack([noise(k) for noise in noises])
            )
            near = block_means(local(noisy, t), 2, spec.block)
            far = learned.coarse(block_means(noisy, 2, spec.block), t)
            own += [(k, gain_sums(*three)) for three in zip(true, near, far, strict=True)]
    everything: list[tuple[int, np.ndarray]] = sum(context.comm.allgather(own), [])
    sums = [[part for at, part in everything if at == k] for k in range(len(times))]
    return Gains.of(times, sums, min(shape) // spec.block)


def methods(experiment: EnlargementExperiment) -> tuple[str, ...]:
    """Return the names of the generating methods, in order."""
    return ("pasted", "untiled", "coarse", "weighed", *experiment.generation.fusions)


def generate(context: Context[EnlargementExperiment]) -> None:
    """Generate the samples of every method that has no file yet; collective."""
    experiment, spec = context.experiment, context.experiment.generation
    arrays, meta = load_arrays(context.inputs["fit"] / SCALES)
    blocks, comm = context.blocks(Grid(spec.shape), spec.tile)
    if comm is not None:
        learned = LearnedDenoisers(experiment, context.inputs["fit"], meta["coarse"])
        gains = Gains(arrays["times"], arrays["gains"], meta["cells"])
        for method in methods(experiment):
            path = context.folder / f"{method}.fields.h5"
            if comm.bcast(path.exists()):
                continue
            begun = time.perf_counter()
            samples = _samples(experiment, method, learned, gains, DomainShare(blocks, comm))
            if samples is not None:
                fields = (arrays["mean"] + arrays["spread"] * samples).astype(np.float32)
                seconds = time.perf_counter() - begun
                save_arrays(path, {"fields": fields}, {"method": method, "seconds": seconds})
                context.say(f"  {method}: {len(fields)} fields in {seconds:.0f} s")
    quiet_barrier(context.comm)


def _samples(
    experiment: EnlargementExperiment,
    method: str,
    learned: LearnedDenoisers,
    gains: Gains,
    share: DomainShare,
) -> np.ndarray | None:
    """Normalised samples (S, 2, Y, X) on rank 0, None elsewhere; collective."""
    spec, blocks, comm = experiment.generation, share.blocks, share.comm
    if method == "untiled":
        return _untiled(experiment, learned, comm)
    fusion = method if method in spec.fusions else "crop"
    local = learned.tiled(blocks, comm, fusion, 0 if method == "pasted" else spec.halo)
    denoise: Denoise = local
    if method in ("coarse", "weighed"):
        gain = gains if method == "weighed" else None
        denoise = CoarseCorrection(local, learned.coarse, spec.block, gain)
    cells = cell_indices(blocks.block(comm.rank), spec.shape)
    fields = sample(
        denoise,
        _noise(experiment, cells, range(spec.samples)),
        experiment.schedule,
        spec.steps,
        spec.sampler,
    )
    return gather_field(blocks, comm, np.ascontiguousarray(fields, np.float32))


def _untiled(
    experiment: EnlargementExperiment, learned: LearnedDenoisers, comm: Comm
) -> np.ndarray | None:
    """Each sample by one rank, whole."""
    spec = experiment.generation
    cells = np.arange(np.prod(spec.shape)).reshape(spec.shape)
    denoise = learned.whole()
    fields: list[np.ndarray] = []
    for number in shares(spec.samples, comm.size)[comm.rank]:
        noise = _noise(experiment, cells, range(number, number + 1))
        field = sample(denoise, noise, experiment.schedule, spec.steps, spec.sampler)
        fields.append(field.astype(np.float32))
    parts = comm.gather(fields)
    return None if parts is None else np.concatenate(sum(parts, []))


def _noise(
    experiment: EnlargementExperiment, cells: np.ndarray, samples: range
) -> Callable[[int], np.ndarray]:
    """Noise of several samples together, (S, 2, *cells.shape), the same for every method."""
    channels = len(experiment.simulator.channels)
    fields = [CellNoise(experiment.seed, cells, channels, n) for n in samples]
    return lambda k: np.stack([field(k) for field in fields])
