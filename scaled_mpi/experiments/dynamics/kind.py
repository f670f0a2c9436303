"""The kind `dynamics`: its stages, its plan, its page."""

from __future__ import annotations

from typing import Any

from scaled_mpi.config import plain
from scaled_mpi.engine.kind import Kind, Stage
from scaled_mpi.engine.parts import learned_part
from scaled_mpi.experiments.dynamics import dataset, few_dimensions, study
from scaled_mpi.experiments.dynamics.page import page
from scaled_mpi.experiments.dynamics.settings import DynamicsExperiment
from scaled_mpi.surrogates.score import fingerprints

FLOAT = 4  # bytes of a stored number


def _dataset_part(experiment: DynamicsExperiment, ranks: int) -> dict[str, Any]:
    return {"patterns": plain(experiment.patterns), "seed": experiment.seed}


def _score_part(experiment: DynamicsExperiment, ranks: int) -> dict[str, Any]:
    return {**_weights_part(experiment, "score", ranks), "held_out": experiment.held_out}


def _flow_part(experiment: DynamicsExperiment, ranks: int) -> dict[str, Any]:
    return _weights_part(experiment, "flow", ranks)


def _weights_part(experiment: DynamicsExperiment, kind: str, ranks: int) -> dict[str, Any]:
    """The keys that decide a model of patterns: its training, or its files of weights."""
    member = getattr(experiment, kind)
    part = learned_part(experiment, kind, member, ranks)
    part["member"]["weights"] = fingerprints(member, kind, experiment.patterns.presets)
    return part


def _cases_part(experiment: DynamicsExperiment, ranks: int) -> dict[str, Any]:
    cases = experiment.cases
    return {"cases": cases and plain(cases), "seed": experiment.seed}


def _directions_part(experiment: DynamicsExperiment, ranks: int) -> dict[str, Any]:
    return {
        "evaluation": plain(experiment.evaluation),
        "kernels": plain(experiment.kernels),
        "seed": experiment.seed,
    }


def describe(experiment: DynamicsExperiment, ranks: int) -> list[str]:
    """Return the lines of a dry run."""
    spec = experiment.patterns
    values = len(spec.presets) * spec.samples * 2 * spec.height * spec.width
    chunks = len(spec.chunks())
    return [
        f"  patterns    {', '.join(spec.presets)}: {spec.samples} samples of 2 x {spec.height} x "
        f"{spec.width} cells after {spec.steps} steps, {values / 2 * spec.steps:.2g} cell updates",
        f"  files       {chunks} of at most {spec.chunk} samples, dealt to {min(chunks, ranks)} "
        f"of {ranks} ranks; {FLOAT * values / 1e9:.2g} GB",
    ]


KIND = Kind(
    name="dynamics",
    settings=DynamicsExperiment,
    families={"score": "single"},
    stages=(
        Stage("dataset", 1, (), _dataset_part, dataset.work),
        Stage("score", 1, ("dataset",), _score_part, study.learn_score),
        Stage("flow", 1, ("dataset", "score"), _flow_part, study.learn_flow),
        Stage("cases", 2, (), _cases_part, few_dimensions.work),
        Stage(
            "evaluate",
            2,
            ("dataset", "score", "flow"),
            _directions_part,
            study.evaluate,
            again=True,
        ),
    ),
    describe=describe,
    page=page,
)
