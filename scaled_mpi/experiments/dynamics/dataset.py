"""The data set of patterns: each rank simulates chunks of samples, on CPUs or on a GPU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from scaled_mpi.datasets.snapshots import write_index
from scaled_mpi.engine.chunks import write_missing
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.dynamics.settings import DynamicsExperiment, Snapshots
from scaled_mpi.parallel.comm import quiet_barrier
from scaled_mpi.simulators.running import final_states


def work(context: Context[DynamicsExperiment]) -> None:
    """Simulate every chunk that has no file yet, each by one rank; collective."""
    spec, seed = context.experiment.patterns, context.experiment.seed
    if context.comm.rank == 0 and spec.device == "cpu":
        spec.simulator(spec.presets[0]).warm(2)
    quiet_barrier(context.comm)
    begun = time.perf_counter()
    written = write_missing(
        context,
        "dataset",
        spec.chunks(),
        lambda preset, samples: simulate(spec, preset, samples, seed),
        lambda preset, samples: _meta(spec, preset, samples),
    )
    _finish(context, written, time.perf_counter() - begun)


def simulate(spec: Snapshots, preset: str, samples: range, seed: int) -> np.ndarray:
    """Return final states (n, 2, height, width) of `samples`, float32, normalised if `spec` is."""
    runs = [(seed, spec.run(preset, sample)) for sample in samples]
    shape = (spec.height, spec.width)
    states = final_states(spec.simulator(preset), shape, runs, spec.steps, spec.device)
    return 2.0 * states - 1.0 if spec.normalize else states


def _meta(spec: Snapshots, preset: str, samples: range) -> dict[str, Any]:
    return {
        "preset": preset,
        "first": samples.start,
        "steps": spec.steps,
        "normalized": spec.normalize,
    }


def _finish(context: Context[DynamicsExperiment], samples: int, seconds: float) -> None:
    """Write the indices; record size and time of the data set."""
    spec = context.experiment.patterns
    if context.comm.rank == 0:
        count = len(spec.chunks()) // len(spec.presets)
        for preset in spec.presets:
            shape = (spec.samples, 2, spec.height, spec.width)
            meta = {"chunk": spec.chunk, "steps": spec.steps, "normalized": spec.normalize}
            digest = write_index(context.folder, preset, count, shape, meta)
            context.facts.record("dataset.sha256", digest, set=preset)
    context.facts.record("time.dataset", seconds, "s")
    context.facts.record("dataset.samples", samples)
    updates = samples * spec.height * spec.width * spec.steps
    if samples:
        rate = updates / seconds
        context.facts.record("dataset.rate", rate, "cell updates/s")
        whole = 4 * 8192 * 128 * 128 * 2000
        context.facts.record(
            "dataset.full.estimate",
            whole / rate,
            "s",
            how="rate of this run, extrapolated to 4 presets x 8192 samples x 2000 steps x 128^2",
        )
        context.say(f"  {samples} samples in {seconds:.1f} s, {rate:.3g} cell updates a second")
