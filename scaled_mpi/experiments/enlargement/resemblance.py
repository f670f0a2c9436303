"""How like the simulator's patterns the generated ones are, and the page's arrays.

Facts, with the place `method`, of species v: all names of `scaled_mpi/likeness.py`, and
`dynamics.rate.ratio`: how far the simulator moves both species in `STEPS` steps from there, over
how far it moves the truth. Methods are those of `enlarge.py` and two that cost nothing to
compare with: `gaussian`, Gaussian fields of the covariance of the truth, and `again`, as many
other fields of the simulator, whose differences are those of chance. Without a place
`cov.error.tiled`, `cov.error.beyond` and `variance.ratio` are those of `coarse`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scaled_mpi.datasets.snapshots import SnapshotSet
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.enlargement.enlarge import LARGE, methods
from scaled_mpi.learning.gaussian import lookalike
from scaled_mpi.learning.samplers import CellNoise
from scaled_mpi.likeness import Statistics, differences, statistics
from scaled_mpi.parallel.arrays import load_arrays, save_arrays
from scaled_mpi.parallel.comm import quiet_barrier
from scaled_mpi.simulators.running import advance_batch

ARRAYS = "likeness.h5"
STEPS = 10  # of the simulator, over which its rate is taken
SHOWN = 1  # species v
HEADLINES = ("cov.error.tiled", "cov.error.beyond", "variance.ratio")
BEST = "coarse"


def evaluate(context: Context) -> None:
    """All methods against the truth, on rank 0; the others wait."""
    if context.comm.rank == 0:
        _compare(context)
    quiet_barrier(context.comm)


def _compare(context: Context) -> None:
    experiment = context.experiment
    tile, count = experiment.generation.tile, experiment.generation.samples
    stored = SnapshotSet(context.inputs["truth"], LARGE)
    truth = stored.read(0, len(stored) - count)
    known = statistics(truth[:, SHOWN], tile)
    rate = _rate(experiment.simulator, truth[:count])
    arrays = _arrays("truth", known, truth)
    for method in ("again", "gaussian", *methods(experiment)):
        made = _fields(context, method, stored, truth)
        found = statistics(made[:, SHOWN], tile)
        facts = differences(found, known, tile)
        facts["dynamics.rate.ratio"] = _rate(experiment.simulator, made) / rate
        for name, value in facts.items():
            context.facts.record(name, value, method=method)
        if method == BEST:
            for name in HEADLINES:
                context.facts.record(name, facts[name])
        arrays |= _arrays(method, found, made)
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


def _fields(context: Context, method: str, stored: SnapshotSet, truth: np.ndarray) -> np.ndarray:
    """Fields (S, 2, Y, X) of one method."""
    experiment, count = context.experiment, context.experiment.generation.samples
    if method == "again":
        return stored.read(len(truth), len(stored))
    if method == "gaussian":
        cells = np.arange(np.prod(truth.shape[2:])).reshape(truth.shape[2:])
        noise = [CellNoise(experiment.seed, cells, truth.shape[1], n)(0) for n in range(count)]
        return lookalike(truth, np.stack(noise))
    made, told = load_arrays(context.inputs["generate"] / f"{method}.fields.h5")
    context.facts.record("time.method", told["seconds"], "s", method=method)
    return made["fields"]


def _rate(system: Any, states: np.ndarray) -> float:
    """Root mean square change of states (n, 2, Y, X) in `STEPS` steps."""
    states = np.ascontiguousarray(states, np.float32)
    return float(np.sqrt(np.mean((advance_batch(system, states, STEPS) - states) ** 2)))


def _arrays(method: str, found: Statistics, fields: np.ndarray) -> dict[str, np.ndarray]:
    return {
        f"{method}.curve": found.curve,
        f"{method}.spectrum": found.spectrum,
        f"{method}.quantiles": found.quantiles,
        f"{method}.sample": fields[0, SHOWN].astype(np.float32),
    }
