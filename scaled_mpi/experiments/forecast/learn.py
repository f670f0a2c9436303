"""Compress and fit: the trainings on the runs of the simulator."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from scaled_mpi.compressors.coders import load_coder
from scaled_mpi.coupling.encoding import (
    TrainingPlace,
    encode_runs,
    fit_compressor,
    fit_surrogate,
    seen_in,
)
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.forecast.settings import ForecastExperiment
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.simulators.running import condition_of
from scaled_mpi.surrogates.operators import Surrogate


def training_runs(folder: Path) -> list[Trajectory]:
    """The stored runs to learn from, in order."""
    names = [name for name in trajectory_names(folder) if name.startswith("train-")]
    return [Trajectory(folder, name) for name in names]


def compress(context: Context[ForecastExperiment]) -> None:
    """Fit the compressor and write the latent fields of all training runs."""
    source, compressor = context.inputs["simulate"], context.experiment.compressor
    runs = training_runs(source)
    begun = time.perf_counter()
    seen = runs or [Trajectory(source, "test-0000")]  # nothing is learned: of identity, the axes
    code = fit_compressor(compressor, seen, _place(context, context.folder))
    if code is not None:
        context.facts.record("weights.sha256", code)
        context.say(f"  compressor: finished weights, {compressor.weights}")
    context.facts.record("time.compress", time.perf_counter() - begun, "s")
    encode_runs(load_coder(compressor, context.folder), runs, context.folder, context.comm)


def fit(context: Context[ForecastExperiment]) -> None:
    """Fit the surrogate and its rivals to the latent fields, or take finished weights."""
    runs = training_runs(context.inputs["compress"])
    _learn(context, "surrogate", context.experiment.surrogate, runs, context.folder)
    for name, rival in context.experiment.rivals.items():
        folder = rival_folder(context.folder, name)
        _learn(context, f"rivals.{name}", rival, runs, folder, method=name)


def _learn(
    context: Context[ForecastExperiment],
    key: str,
    member: Surrogate,
    runs: list[Trajectory],
    folder: Path,
    **place: str,
) -> None:
    begun = time.perf_counter()
    code = fit_surrogate(key, member, runs, _place(context, folder), _seen(context, runs))
    if code is not None:
        context.facts.record("weights.sha256", code, **place)
        context.say(f"  {key}: finished weights, {member.weights}")
    context.facts.record("time.fit", time.perf_counter() - begun, "s", **place)


def _place(context: Context[ForecastExperiment], folder: Path) -> TrainingPlace:
    return TrainingPlace(folder, context.comm, context.events(folder), context.experiment.seed)


def _seen(context: Context[ForecastExperiment], runs: list[Trajectory]) -> dict[str, Any]:
    """Axes, channels and conditions of the fields that a surrogate is to advance."""
    if runs:
        return seen_in(runs[0])
    experiment = context.experiment
    coder = load_coder(experiment.compressor, context.inputs["compress"])
    return {
        "axes": experiment.axes,
        "channels": coder.channels(len(experiment.system.channels)),
        "conditions": condition_of(experiment.system),
    }


def rival_folder(fit: Path, name: str) -> Path:
    """Folder of a rival's weights in the stage `fit`."""
    return fit / "rivals" / name
