"""Local problems by exact factors: the yardstick of the learned solver, and its fallback.

A tile of one or two axes is a narrow band (40 beside 1600 cells). LAPACK's Cholesky factors such a
band three times faster than a general sparse LU, and a solve is no slower. Wider bands, and
matrices that are not definite, go to SuperLU.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scaled_mpi.local_solvers.solvers import LocalSolver, LocalSolverSpec
from scaled_mpi.problems.tile_matrices import TileOperators

WIDEST = 128  # band in cells up to which a banded factor pays


class Exact(LocalSolverSpec):
    """Factors of every tile; nothing is learned."""

    kind: Literal["exact"] = "exact"

    def load(self, folder: Path | None = None) -> ExactSolver:
        """The solver; `folder` is not read."""
        return ExactSolver()


class ExactSolver(LocalSolver):
    """Factors of all tiles of a rank."""

    exact = True

    def __init__(self) -> None:
        self.factors: list[Any] = []

    def prepare(self, operators: TileOperators) -> None:
        """Factorise all tiles."""
        self.factors = [factorise(operators, tile) for tile in range(len(operators))]

    def correct(self, residual: np.ndarray) -> np.ndarray:
        """A_i^-1 r_i, float64 (n, *window)."""
        return np.stack(
            [
                factor.solve(part.ravel()).reshape(part.shape)
                for factor, part in zip(self.factors, residual, strict=True)
            ]
        )


class Banded:
    """Cholesky factor of a band, as LAPACK's pbtrf leaves it: (band + 1, cells)."""

    def __init__(self, factor: np.ndarray) -> None:
        self.factor = factor

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return A_i^-1 of a flat right-hand side (cells, )."""
        from scipy.linalg.lapack import dpbtrs

        return dpbtrs(self.factor, right, lower=1)[0]


def factorise(operators: TileOperators, tile: int) -> Any:
    """Factors of one tile's A_i; `.solve` takes a flat right-hand side."""
    band = math.prod(operators.window[1:])
    if band <= WIDEST:
        from scipy.linalg.lapack import dpbtrf

        factor, refused = dpbtrf(_lower_band(operators, tile, band), lower=1, overwrite_ab=1)
        if not refused:
            return Banded(factor)
    return sparse_factor(operators, tile)


def sparse_factor(operators: TileOperators, tile: int) -> Any:
    """SuperLU of one tile's A_i; `.solve` takes a flat right-hand side."""
    from scipy.sparse.linalg import splu

    return splu(
        operators.matrix(tile), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}
    )


def _lower_band(operators: TileOperators, tile: int, band: int) -> np.ndarray:
    """A_i as LAPACK stores bands: row k holds the k-th diagonal below the main one, (band + 1, n).

    Column-major, or LAPACK would copy it.
    """
    lower = np.zeros((band + 1, operators.diagonal[tile].size), order="F")
    lower[0] = operators.diagonal[tile].ravel()
    for axis, high in enumerate(operators.high):
        lower[math.prod(operators.window[axis + 1 :])] -= high[tile].ravel()
    return lower
