"""The kind `gaussian`: its stage, its plan, its page."""

from __future__ import annotations

import math
from typing import Any

from scaled_mpi.config import plain
from scaled_mpi.engine.kind import Kind, Stage
from scaled_mpi.engine.plan import times
from scaled_mpi.experiments.gaussian import generate
from scaled_mpi.experiments.gaussian.page import page
from scaled_mpi.experiments.gaussian.settings import GaussianExperiment
from scaled_mpi.parallel.blocks import make_blocks


def _generate_part(experiment: GaussianExperiment, ranks: int) -> dict[str, Any]:
    return {
        "generation": plain(experiment.generation),
        "schedule": plain(experiment.schedule),
        "seed": experiment.seed,
    }


def describe(experiment: GaussianExperiment, ranks: int) -> list[str]:
    """Return the lines of a dry run."""
    lines = []
    for domain in experiment.generation.domains:
        blocks = make_blocks(domain.grid, domain.tile, ranks)
        lines.append(
            f"  domain      {times(domain.shape)} cells = {math.prod(blocks.counts)} tiles of "
            f"{times(domain.tile)}, {len(domain.lengths)} correlation lengths; {blocks.ranks} of "
            f"{ranks} ranks"
        )
    return lines


KIND = Kind(
    name="gaussian",
    settings=GaussianExperiment,
    families={"schedule": "vp"},
    stages=(Stage("generate", 1, (), _generate_part, generate.work),),
    describe=describe,
    page=page,
)
