"""The kind `ensemble`: its stages, its plan, its page, its flags."""

from __future__ import annotations

import math
from typing import Any

from scaled_mpi.config import plain
from scaled_mpi.engine.kind import Kind, Stage
from scaled_mpi.engine.parts import learned_part
from scaled_mpi.engine.plan import times
from scaled_mpi.experiments.ensemble import assess, forecasts, transition
from scaled_mpi.experiments.ensemble.export_npz import export_npz
from scaled_mpi.experiments.ensemble.import_npz import fingerprint
from scaled_mpi.experiments.ensemble.members import make_members, show_members
from scaled_mpi.experiments.ensemble.page import page
from scaled_mpi.experiments.ensemble.settings import EnsembleExperiment


def _members_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    members = plain(experiment.ensemble)
    source, models = members.pop("source"), members.pop("models")
    part = {
        "simulator": plain(experiment.simulator),
        "ensemble": members,
        "density": plain(experiment.density),
        "seed": experiment.seed,
    }
    if source is not None:  # the contents of its files, in any folder
        part |= {"source": fingerprint(experiment), "models": models}
    return part


def _compress_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    return learned_part(experiment, "compressor", experiment.compressor, ranks)


def _models_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    return learned_part(experiment, "surrogate", experiment.surrogate, ranks)


def _rival_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    rival = experiment.rival
    return {} if rival is None else learned_part(experiment, "rival", rival, ranks)


def _forecast_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    return {"limit": experiment.forecast.limit, "band": experiment.forecast.band}


def _transition_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    sweep = experiment.transition
    return {} if sweep is None else {"sweep": plain(sweep), "seed": experiment.seed}


def _assess_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    return {"forecast": plain(experiment.forecast)}


def describe(experiment: EnsembleExperiment, ranks: int) -> list[str]:
    """Return the lines of a dry run."""
    members, cells = len(experiment.members()), math.prod(experiment.density.shape)
    particles = experiment.simulator.particles
    frames = sum(experiment.frames_of(member.kind) for member in experiment.members())
    stored = frames * 8 * (cells + 4 * particles)
    return [
        f"  members     {experiment.ensemble.training} for training, {experiment.ensemble.test} "
        f"for forecasts; {frames} frames of {particles} particles in all",
        f"  density     {times(experiment.density.shape)} cells",
        f"  ranks       {ranks}, at most {-(-members // ranks)} members each"
        + ("" if experiment.launch == "local" else f"; members as jobs of {experiment.launch}"),
        f"  output      about {stored / 1e6:.0f} MB",
    ]


KIND = Kind(
    name="ensemble",
    settings=EnsembleExperiment,
    families={
        "simulator": "vicsek",
        "compressor": "pod",
        "surrogate": "mvar",
        "rival": "stepper",
    },
    stages=(
        Stage("simulate", 1, (), _members_part, forecasts.simulate),
        Stage("compress", 2, ("simulate",), _compress_part, forecasts.compress),
        Stage("fit", 2, ("simulate", "compress"), _models_part, forecasts.fit, shows=True),
        Stage("rival", 1, ("simulate",), _rival_part, forecasts.train_rival),
        Stage(
            "forecast",
            2,
            ("simulate", "compress", "fit", "rival"),
            _forecast_part,
            forecasts.forecast,
        ),
        Stage("transition", 1, (), _transition_part, transition.work),
        Stage(
            "evaluate",
            2,
            ("simulate", "compress", "forecast"),
            _assess_part,
            assess.work,
            again=True,
        ),
    ),
    describe=describe,
    page=page,
    commands={"member": make_members, "status": show_members},
    exports={"npz": export_npz},
)
