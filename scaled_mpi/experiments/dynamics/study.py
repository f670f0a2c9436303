"""Score, flow and their evaluation, one preset after another.

Facts of the evaluation have the places `field` (trainingfree, flow, random or a further field) and
`system` (the preset). `cos` by upstream's protocol: absolute value, better sign, mean over
`marched` snapshots, with the key `spread`. `cos.fair` by the fair protocol, and `stationarity`.
See `surrogates/directions.py`.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scaled_mpi.datasets.snapshots import SnapshotSet
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.dynamics.settings import DynamicsExperiment
from scaled_mpi.learning.settings import Result
from scaled_mpi.learning.training import on_team
from scaled_mpi.parallel.arrays import save_arrays
from scaled_mpi.parallel.comm import Comm, quiet_barrier, shares
from scaled_mpi.parallel.root import on_root
from scaled_mpi.simulators.running import advance_on
from scaled_mpi.surrogates.flow import fit_flow, load_flow
from scaled_mpi.surrogates.score import (
    finished_weights,
    fit_score,
    load_score,
    take_weights,
)

if TYPE_CHECKING:
    from scaled_mpi.surrogates.directions import Contest, Truth

Fact = tuple[str, float, dict[str, Any]]  # name, value, places
SHOWN = 6  # snapshots of a preset on the page
ALIVE = 0.01  # spread of v, in stored units, above which a pattern has not died out


class PresetFit(Protocol):
    """A training of the model of one preset on the ranks of a team."""

    def __call__(self, team: Comm, preset: str) -> Result:
        """Train, write the weights and return the outcome; collective."""
        ...


def learn_score(context: Context[DynamicsExperiment]) -> None:
    """Train one score model a preset; all training ranks work on each. Collective."""
    experiment = context.experiment

    def train(team: Comm, preset: str) -> Result:
        return fit_score(
            experiment.score,
            *_snapshots(context, preset),
            team,
            context.folder / preset,
            context.events(context.folder / preset, f"{context.folder.stem}-{preset}"),
            experiment.seed,
        )

    _for_presets(context, "score", train)


def learn_flow(context: Context[DynamicsExperiment]) -> None:
    """Train one flow a preset, with its score model; collective."""
    experiment = context.experiment

    def train(team: Comm, preset: str) -> Result:
        score = load_score(experiment.score, context.inputs["score"] / preset)
        return fit_flow(
            experiment.flow,
            score,
            *_snapshots(context, preset),
            team,
            context.folder / preset,
            context.events(context.folder / preset, f"{context.folder.stem}-{preset}"),
            experiment.seed,
        )

    _for_presets(context, "flow", train)


def _for_presets(context: Context[DynamicsExperiment], stage: str, train: PresetFit) -> None:
    spec = getattr(context.experiment, stage)

    def work(team: Comm) -> None:
        for preset in context.experiment.patterns.presets:
            folder = context.folder / preset
            folder.mkdir(exist_ok=True)
            source = finished_weights(spec, stage, preset)
            if source is not None:
                on_root(team, partial(take_weights, spec, source, folder))
                continue
            result = train(team, preset)
            if team.rank == 0:
                facts = context.facts
                facts.record(f"{stage}.loss", result.best_loss, system=preset)
                facts.record(f"{stage}.throughput", result.throughput, "samples/s", system=preset)
                facts.record(f"time.{stage}", result.seconds, "s", system=preset)
                context.say(
                    f"  {preset}: loss {result.best_loss:.4g} after {result.steps} steps "
                    f"in {result.seconds:.0f} s, {result.throughput:.0f} samples a second"
                )

    on_team(context.comm, spec.training, work)
    quiet_barrier(context.comm)


def _snapshots(context: Context[DynamicsExperiment], preset: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out snapshots (n, 2, Y, X)."""
    stored = SnapshotSet(context.inputs["dataset"], preset)
    border = context.experiment.training_samples
    return stored.read(0, border), stored.read(border, len(stored))


def evaluate(context: Context[DynamicsExperiment]) -> None:
    """Compare all fields with the dynamics; each rank compares some presets. Collective."""
    presets = context.experiment.patterns.presets
    begun = time.perf_counter()
    own: list[Fact] = []
    for place in shares(len(presets), context.comm.size)[context.comm.rank]:
        own += _compare(context, presets[place])
        context.say(f"  {presets[place]}: compared")
    for name, value, where in sum(context.comm.allgather(own), []):
        context.facts.record(name, value, **where)
    quiet_barrier(context.comm)
    context.facts.record("time.evaluate", time.perf_counter() - begun, "s")


def _compare(context: Context[DynamicsExperiment], preset: str) -> list[Fact]:
    """The facts of one preset; its pictures go into a file."""
    from scaled_mpi.surrogates.directions import DirectionMarch

    spec = context.experiment.evaluation
    learned, held_out = _snapshots(context, preset)
    alive = held_out[:, 1].std(axis=(1, 2)) > ALIVE
    if alive.any():  # a pattern at rest has no direction to compare with
        held_out = held_out[alive]
    lesson = truth(context.experiment, preset, learned[: spec.fitted], 0)
    test = truth(context.experiment, preset, held_out[: spec.samples], spec.marched)
    contest = _contest(context, preset, lesson, test)
    facts: list[Fact] = [
        ("dynamics.size", float(np.sqrt(np.mean(test.rate**2))), {"system": preset}),
        ("dataset.alive", float(alive.mean()), {"system": preset, "count": len(alive)}),
    ]
    for name, (mean, spread) in contest.fair().items():
        facts.append(("cos.fair", mean, {"field": name, "system": preset, "spread": spread}))
    for name, value in contest.residuals().items():
        facts.append(("stationarity", value, {"field": name, "system": preset}))
    along, marched = contest.upstream(DirectionMarch(spec.march, spec.dt, spec.eta, spec.memory))
    for name, values in along.items():
        about = {"spread": float(values.std()), "count": len(values), "best": float(values.max())}
        where = {"field": name, "system": preset, **about}
        facts.append(("cos", float(values.mean()), where))
    save_arrays(
        context.folder / f"{preset}.fields.h5",
        {
            "snapshots": held_out[:SHOWN],
            "rate": test.rate[0],
            "truth": test.moved[0],
            "film.truth": _film(context.experiment, preset, held_out[0]),
            **marched,
            **contest.pictures(),
        },
        {"preset": preset},
    )
    return facts


def _contest(
    context: Context[DynamicsExperiment], preset: str, lesson: Truth, test: Truth
) -> Contest:
    """All fields of a preset, with its trained models."""
    from scaled_mpi.learning.distributed import pick_device
    from scaled_mpi.parallel.comm import SerialComm
    from scaled_mpi.surrogates.directions import Contest

    experiment = context.experiment
    device = pick_device(experiment.score.training, SerialComm())
    return Contest(
        load_score(experiment.score, context.inputs["score"] / preset, str(device)),
        load_flow(experiment.flow, context.inputs["flow"] / preset, str(device)),
        lesson,
        test,
        experiment.kernels.sizes,
        experiment.evaluation.random,
        experiment.seed,
        device,
    )


def truth(
    experiment: DynamicsExperiment, preset: str, snapshots: np.ndarray, marched: int
) -> Truth:
    """Return the simulator's change of snapshots (N, 2, Y, X), in their units.

    Of all snapshots the change in one step; of the first `marched` the change in
    `evaluation.simulated` steps. Steps are in float64, since frozen patterns change little.
    """
    from scaled_mpi.surrogates.directions import Truth

    def change(states: np.ndarray, steps: int) -> np.ndarray:
        return _later(experiment, preset, states, steps) - states

    states = snapshots.astype(np.float64)
    return Truth(
        snapshots, change(states, 1), change(states[:marched], experiment.evaluation.simulated)
    )


def _film(experiment: DynamicsExperiment, preset: str, snapshot: np.ndarray) -> np.ndarray:
    """The simulator's species v (T, Y, X) over as many steps as the marches have."""
    from scaled_mpi.surrogates.directions import FILMED

    states = [snapshot[None]]
    for _ in range(FILMED, experiment.evaluation.march, FILMED):
        states.append(_later(experiment, preset, states[-1], FILMED))
    return np.concatenate(states)[:, -1]


def _later(
    experiment: DynamicsExperiment, preset: str, states: np.ndarray, steps: int
) -> np.ndarray:
    """States after `steps` steps from snapshots (N, 2, Y, X), in their units and precision."""
    spec = experiment.patterns
    system = spec.simulator(preset)
    if not spec.normalize:
        return advance_on("cpu", system, states, steps)
    return 2.0 * advance_on("cpu", system, (states + 1.0) / 2.0, steps) - 1.0
