"""The kind `elliptic`: its stages, its plan, its page."""

from __future__ import annotations

import math
from typing import Any

from scaled_mpi.config import plain
from scaled_mpi.engine.kind import Kind, Stage
from scaled_mpi.engine.parts import learned_part
from scaled_mpi.engine.plan import times
from scaled_mpi.experiments.elliptic import collect, solve
from scaled_mpi.experiments.elliptic.page import page
from scaled_mpi.experiments.elliptic.settings import EllipticExperiment, Implicit
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.halo import expected_bytes


def _residuals_part(experiment: EllipticExperiment, ranks: int) -> dict[str, Any]:
    if not experiment.local_solver.learns():
        return {}
    solving = plain(experiment.solving)
    for key in ("coarse", "gain"):  # set by the harvest itself
        del solving[key]
    return {
        "problems": [plain(problem) for problem in experiment.lessons],
        "seed": experiment.seed,
        "tile": experiment.domain.tile,
        "harvest": plain(experiment.harvest),
        "solving": solving,
    }


def _local_fit_part(experiment: EllipticExperiment, ranks: int) -> dict[str, Any]:
    part = learned_part(experiment, "local_solver", experiment.local_solver, ranks)
    part["member"].pop("device", None)  # decides where the solver runs, not its weights
    return part


def _solve_part(experiment: EllipticExperiment, ranks: int) -> dict[str, Any]:
    return {
        "problem": plain(experiment.problem),
        "domain": plain(experiment.domain),
        "solving": plain(experiment.solving),
        "comparison": plain(experiment.comparison),
        "implicit": experiment.implicit and _implicit_part(experiment.implicit),
        "seed": experiment.seed,
    }


def _implicit_part(implicit: Implicit) -> dict[str, Any]:
    """The keys that decide the steps; a guessing surrogate counts by its weights."""
    part = plain(implicit)
    part["guess"]["path"] = implicit.guess.fingerprint()
    return part


def describe(experiment: EllipticExperiment, ranks: int) -> list[str]:
    """Return the lines of a dry run."""
    lines = [
        f"  problem     {experiment.problem.kind}, tiles of {times(experiment.domain.tile)}, "
        f"overlap {experiment.solving.overlap}, coarse space {experiment.solving.coarse.kind}"
    ]
    for lattice in experiment.domain.lattices:
        grid = experiment.problem.grid(experiment.shape(lattice))
        blocks = make_blocks(grid, experiment.domain.tile, ranks)
        crossing = expected_bytes(blocks, experiment.solving.overlap, 1, 8)
        lines.append(
            f"  domain      {times(grid.shape)} cells = {math.prod(blocks.counts)} tiles; "
            f"{blocks.ranks} of {ranks} ranks, {crossing} bytes a halo exchange"
        )
    return lines


KIND = Kind(
    name="elliptic",
    settings=EllipticExperiment,
    families={"problem": "poisson", "local_solver": "learned"},
    stages=(
        Stage("residuals", 1, (), _residuals_part, collect.work),
        Stage("fit", 1, ("residuals",), _local_fit_part, collect.fit, shows=True),
        Stage("solve", 2, ("residuals", "fit"), _solve_part, solve.work),
    ),
    describe=describe,
    page=page,
)
