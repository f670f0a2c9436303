"""The kind `forecast`: its stages, its plan, its page."""

from __future__ import annotations

from typing import Any

from scaled_mpi.config import decisive, plain
from scaled_mpi.engine.kind import Kind, Stage
from scaled_mpi.engine.parts import learned_part, weighed_part
from scaled_mpi.experiments.forecast import couple, evaluate, learn, simulate
from scaled_mpi.experiments.forecast.outlook import describe
from scaled_mpi.experiments.forecast.page import page
from scaled_mpi.experiments.forecast.settings import ForecastExperiment


def _simulate_part(experiment: ForecastExperiment, ranks: int) -> dict[str, Any]:
    if experiment.dataset is not None:
        dataset = experiment.dataset
        return {"dataset": plain(dataset), "files": dataset.fingerprint()}
    return {
        "simulator": plain(experiment.system),
        "data": plain(experiment.data) if experiment.learns else None,
        "test": plain(experiment.test),
        "shape": experiment.domain.shape,
        "jump": experiment.surrogate.jump,
        "seed": experiment.seed,
        "frames": experiment.history + experiment.coupling.jumps,
    }


def _compress_part(experiment: ForecastExperiment, ranks: int) -> dict[str, Any]:
    return learned_part(experiment, "compressor", experiment.compressor, ranks)


def _fit_part(experiment: ForecastExperiment, ranks: int) -> dict[str, Any]:
    part = weighed_part(experiment, "surrogate", experiment.surrogate, ranks)
    rivals = {
        name: weighed_part(experiment, f"rivals.{name}", rival, ranks)
        for name, rival in experiment.rivals.items()
    }
    return {**part, "rivals": rivals} if rivals else part


def _couple_part(experiment: ForecastExperiment, ranks: int) -> dict[str, Any]:
    return {"coupling": decisive(experiment.coupling), "tile": experiment.domain.tile}


def _evaluate_part(experiment: ForecastExperiment, ranks: int) -> dict[str, Any]:
    return {"evaluation": plain(experiment.evaluation)}


KIND = Kind(
    name="forecast",
    settings=ForecastExperiment,
    families={
        "simulator": "gray_scott",
        "dataset": "npz",
        "compressor": "identity",
        "surrogate": "stepper",
    },
    stages=(
        Stage("simulate", 2, (), _simulate_part, simulate.work),
        Stage("compress", 1, ("simulate",), _compress_part, learn.compress),
        Stage("fit", 1, ("compress",), _fit_part, learn.fit, shows=True),
        Stage("couple", 2, ("simulate", "compress", "fit"), _couple_part, couple.work, shows=True),
        Stage(
            "evaluate",
            2,
            ("simulate", "compress", "fit", "couple"),
            _evaluate_part,
            evaluate.work,
            again=True,
        ),
    ),
    describe=describe,
    page=page,
)
