"""Local problems by sparse LU factors: the yardstick of the learned solver, and its fallback."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from scaled_mpi.config import Spec
from scaled_mpi.problems.tiles import TileOperators


class Exact(Spec):
    """Sparse LU (SuperLU) of every tile; nothing is learned."""

    kind: Literal["exact"] = "exact"

    def load(self, folder: Path | None = None) -> ExactSolver:
        """The solver; `folder` is not read."""
        return ExactSolver()


class ExactSolver:
    """Factors of all tiles of a rank."""

    exact = True

    def __init__(self) -> None:
        self.factors: list[Any] = []

    def prepare(self, operators: TileOperators) -> None:
        """Factorise all tiles."""
        self.factors = [factorise(operators, tile) for tile in range(len(operators))]

    def correct(self, residual: np.ndarray) -> np.ndarray:
        """A_i^-1 r_i, float64 (n, *window)."""
        return np.stack([
            factor.solve(part.ravel()).reshape(part.shape)
            for factor, part in zip(self.factors, residual, strict=True)
        ])


def factorise(operators: TileOperators, tile: int) -> Any:
    """SuperLU of one tile's A_i; `.solve` takes a flat right-hand side."""
    from scipy.sparse.linalg import splu

    return splu(operators.matrix(tile), permc_spec="MMD_AT_PLUS_A",
                options={"SymmetricMode": True})
