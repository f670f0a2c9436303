"""Compare the statistics of generated patterns with the simulator's; the page's arrays.

Facts of species v with the place `method`: all names of `scaled_mpi/likeness.py`; the band of
`spectrum.error` is the place `band`. The fact `dynamics.rate.ratio`, of both species: the
simulator's root mean square change in `STEPS` steps from the fields, over its change from the
truth. Methods are the methods of `enlarge.py` and two
baselines. `gaussian`: Gaussian fields of the covariance of the truth. `again`: as many other
fields of the simulator, whose differences are the sampling error. The facts `cov.error.tiled`,
`cov.error.beyond` and `variance.ratio` without a place belong to `coarse`.
"""

from __future__ import annotations

import numpy as np

from scaled_mpi.datasets.snapshots import SnapshotSet
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.enlargement.enlarge import LARGE, methods
from scaled_mpi.experiments.enlargement.settings import EnlargementExperiment
from scaled_mpi.learning.gaussian import lookalike
from scaled_mpi.learning.samplers import CellNoise
from scaled_mpi.likeness import BANDS, Statistics, differences, statistics
from scaled_mpi.parallel.arrays import load_arrays, save_arrays
from scaled_mpi.parallel.comm import quiet_barrier
from scaled_mpi.simulators.contract import Simulator
from scaled_mpi.simulators.running import advance_batch

ARRAYS = "likeness.h5"
STEPS = 10  # of the simulator, over which its rate is measured
SHOWN = 1  # species v
HEADLINES = ("cov.error.tiled", "cov.error.beyond", "variance.ratio")
BEST = "coarse"


def evaluate(context: Context[EnlargementExperiment]) -> None:
    """Compare all methods with the truth, on rank 0; collective."""
    if context.comm.rank == 0:
        _compare(context)
    quiet_barrier(context.comm)


def _compare(context: Context[EnlargementExperiment]) -> None:
    experiment = context.experiment
    tile, count = experiment.generation.tile, experiment.generation.samples
    stored = SnapshotSet(context.inputs["truth"], LARGE)
    truth = stored.read(0, len(stored) - count)
    known = statistics(truth[:, SHOWN], tile)
    rate = _rate(experiment.simulator, truth[:count])
    arrays = _arrays("truth", known, truth)
    for method in ("again", "gaussian", *methods(experiment)):
        fields = _fields(context, method, stored, truth)
        moments = statistics(fields[:, SHOWN], tile)
        facts = differences(moments, known, tile)
        facts["dynamics.rate.ratio"] = _rate(experiment.simulator, fields) / rate
        for band in BANDS:
            error = facts.pop(f"spectrum.error.{band}")
            context.facts.record("spectrum.error", error, method=method, band=band)
        for name, value in facts.items():
            context.facts.record(name, value, method=method)
        if method == BEST:
            for name in HEADLINES:
                context.facts.record(name, facts[name])
        arrays |= _arrays(method, moments, fields)
        context.say(
            f"  {method}: covariance error {facts['cov.error.tiled']:.3f}, beyond a tile "
            f"{facts['cov.error.beyond']:.3f}, variance {facts['variance.ratio']:.3f}, of tiles "
            f"{facts['variance.ratio.tiles']:.3f}, seam {facts['seam.index']:.2f}"
        )
    context.facts.record("skewness", known.skewness, method="truth")
    context.facts.record("seam.index", known.seam, method="truth")
    save_arrays(
        context.folder / ARRAYS,
        arrays,
        {
            "tile": list(tile),
            "boxes": list(experiment.boxes.shape),
            "system": f"Gray-Scott, {experiment.simulator.pattern}",
            "samples": count,
        },
    )


def _fields(
    context: Context[EnlargementExperiment], method: str, stored: SnapshotSet, truth: np.ndarray
) -> np.ndarray:
    """Fields (S, 2, Y, X) of one method."""
    experiment, count = context.experiment, context.experiment.generation.samples
    if method == "again":
        return stored.read(len(truth), len(stored))
    if method == "gaussian":
        cells = np.arange(np.prod(truth.shape[2:])).reshape(truth.shape[2:])
        noise = [CellNoise(experiment.seed, cells, truth.shape[1], n)(0) for n in range(count)]
        return lookalike(truth, np.stack(noise))
    arrays, meta = load_arrays(context.inputs["generate"] / f"{method}.fields.h5")
    context.facts.record("time.method", meta["seconds"], "s", method=method)
    return arrays["fields"]


def _rate(system: Simulator, states: np.ndarray) -> float:
    """Root mean square change of states (n, 2, Y, X) in `STEPS` steps."""
    states = np.ascontiguousarray(states, np.float32)
    return float(np.sqrt(np.mean((advance_batch(system, states, STEPS) - states) ** 2)))


def _arrays(method: str, moments: Statistics, fields: np.ndarray) -> dict[str, np.ndarray]:
    return {
        f"{method}.curve": moments.curve,
        f"{method}.spectrum": moments.spectrum,
        f"{method}.quantiles": moments.quantiles,
        f"{method}.sample": fields[0, SHOWN].astype(np.float32),
    }
