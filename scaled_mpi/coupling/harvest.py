"""Local problems as they occur in running solves, for a learned solver to be trained on.

The solves use exact local solutions times (1 + roughness e), e a smooth random field of unit
variance. So the errors of an imperfect solver are among the examples before any network exists.
Every solve runs on one rank, the solves are dealt to the ranks, and so the examples do not depend
on the number of ranks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.coupling.certified import Prepared
from scaled_mpi.coupling.solving import Coarse, Harvest, Solving
from scaled_mpi.local_solvers.exact import ExactSolver, sparse_factor
from scaled_mpi.local_solvers.residuals import write_residuals
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import Comm, SerialComm, shares
from scaled_mpi.parallel.keys import FirstRun
from scaled_mpi.problems.tile_matrices import TileOperators

SMOOTHNESS = 4.0  # cells, standard deviation of the smoothing that makes e


def harvest(
    spec: Harvest,
    problems: tuple[Any, ...],
    tile: tuple[int, ...],
    solving: Solving,
    folder: Path,
    comm: Comm,
    seed: int,
) -> int:
    """Solve problem i mod len(problems) for i in range(solves); write what the tiles met.

    Returns how many local problems were written by all ranks; collective.
    """
    written = 0
    for number in shares(spec.solves, comm.size)[comm.rank]:
        problem = problems[number % len(problems)]
        written += _one(spec, problem, tile, solving, folder, number, seed + FirstRun.LESSONS)
    return sum(comm.allgather(written))


def _one(
    spec: Harvest,
    problem: Any,
    tile: tuple[int, ...],
    solving: Solving,
    folder: Path,
    number: int,
    seed: int,
) -> int:
    alone = SerialComm()
    blocks = make_blocks(problem.grid(tuple(spec.tiles * t for t in tile)), tile, 1)
    stencil = problem.stencil(blocks, alone, seed + number)
    load = problem.load(blocks, alone, seed + number)
    rough = RoughSolver(spec.roughness, seed + number)
    # Always the same coarse space, so that problems that differ in theirs share one network.
    solving = solving.model_copy(update={"gain": 0.0, "coarse": Coarse()})
    with Prepared(stencil, blocks, alone, rough, solving) as ready:
        ready.solve(load)
        write_residuals(folder, number, ready.operators, rough.residuals, rough.tiles)
    return len(rough.tiles)


class RoughSolver(ExactSolver):
    """Exact local solutions made imperfect; keeps every residual it is given, of norm 1."""

    exact = False

    def __init__(self, roughness: float, seed: int) -> None:
        super().__init__()
        self.roughness, self.random = roughness, np.random.default_rng(seed)
        self.residuals: list[np.ndarray] = []
        self.tiles: list[int] = []

    def prepare(self, operators: TileOperators) -> None:
        """Factorise all tiles; always the same way, since the last bits of examples count."""
        self.factors = [sparse_factor(operators, tile) for tile in range(len(operators))]

    def correct(self, residual: np.ndarray) -> np.ndarray:
        """Imperfect A_i^-1 r_i, float64 (n, *window)."""
        from scipy.ndimage import gaussian_filter

        for tile, part in enumerate(residual):
            size = np.linalg.norm(part)
            if size > 0:
                self.residuals.append((part / size).astype(np.float32))
                self.tiles.append(tile)
        z = super().correct(residual)
        smoothing = (0.0, *[SMOOTHNESS] * (z.ndim - 1))
        error = gaussian_filter(self.random.normal(size=z.shape), smoothing)
        return z * (1 + self.roughness * error / max(error.std(), 1e-300))
