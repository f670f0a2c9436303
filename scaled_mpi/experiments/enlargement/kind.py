"""The kind `enlargement`: its stages, its plan, its page."""

from __future__ import annotations

import math
from typing import Any

from scaled_mpi.config import plain
from scaled_mpi.engine.kind import Kind, Stage
from scaled_mpi.engine.parts import learned_part
from scaled_mpi.engine.plan import times
from scaled_mpi.experiments.enlargement import enlarge, resemblance
from scaled_mpi.experiments.enlargement.page import page
from scaled_mpi.experiments.enlargement.settings import EnlargementExperiment
from scaled_mpi.parallel.blocks import Grid, make_blocks


def _boxes_part(experiment: EnlargementExperiment, ranks: int) -> dict[str, Any]:
    boxes = experiment.boxes
    return {
        "simulator": plain(experiment.simulator),
        "seed": experiment.seed,
        "shape": boxes.shape,
        "samples": boxes.samples,
        "steps": boxes.steps,
    }


def _large_part(experiment: EnlargementExperiment, ranks: int) -> dict[str, Any]:
    generation = experiment.generation
    return {
        "simulator": plain(experiment.simulator),
        "seed": experiment.seed,
        "shape": generation.shape,
        "samples": experiment.boxes.truth + generation.samples,
        "steps": experiment.boxes.steps,
    }


def _denoisers_part(experiment: EnlargementExperiment, ranks: int) -> dict[str, Any]:
    generation = experiment.generation
    return {
        **{
            key: learned_part(experiment, key, getattr(experiment, key), ranks)
            for key in ("windows", "coarse")
        },
        "extents": generation.extents,
        "tile": generation.tile,
        "halo": generation.halo,
        "block": generation.block,
        "gains": generation.gains,
        "held_out": experiment.boxes.held_out,
        "schedule": plain(experiment.schedule),
    }


def _generate_part(experiment: EnlargementExperiment, ranks: int) -> dict[str, Any]:
    return {
        "generation": plain(experiment.generation),
        "schedule": plain(experiment.schedule),
        "seed": experiment.seed,
    }


def _evaluate_part(experiment: EnlargementExperiment, ranks: int) -> dict[str, Any]:
    return {}


def describe(experiment: EnlargementExperiment, ranks: int) -> list[str]:
    """Return the lines of a dry run."""
    boxes, spec = experiment.boxes, experiment.generation
    blocks = make_blocks(Grid(spec.shape), spec.tile, ranks)
    return [
        f"  learned     from {boxes.samples} boxes of {times(boxes.shape)} cells, windows of "
        + ", ".join(map(times, spec.extents)),
        f"  domain      {times(spec.shape)} cells = {math.prod(blocks.counts)} tiles of "
        f"{times(spec.tile)}, {spec.samples} samples; {blocks.ranks} of {ranks} ranks",
    ]


KIND = Kind(
    name="enlargement",
    settings=EnlargementExperiment,
    families={"schedule": "vp", "simulator": "gray_scott"},
    stages=(
        Stage("dataset", 1, (), _boxes_part, enlarge.dataset),
        Stage("truth", 1, (), _large_part, enlarge.truth),
        Stage("fit", 1, ("dataset",), _denoisers_part, enlarge.fit, shows=True),
        Stage("generate", 1, ("fit",), _generate_part, enlarge.generate),
        Stage(
            "evaluate",
            1,
            ("truth", "fit", "generate"),
            _evaluate_part,
            resemblance.evaluate,
            again=True,
        ),
    ),
    describe=describe,
    page=page,
)
