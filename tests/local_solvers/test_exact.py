"""Exact factors: banded Cholesky and sparse LU against a dense solve, and which is taken."""

import numpy as np
import pytest
from scipy.sparse.linalg import SuperLU

from scaled_mpi.local_solvers import Exact
from scaled_mpi.local_solvers.exact import Banded, factorise, sparse_factor
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.problems import Darcy
from scaled_mpi.problems.coefficients import LogNormal
from scaled_mpi.problems.tile_matrices import TileOperators


def operators_of(tile, boundary="dirichlet", overlap=2):
    problem = Darcy(coefficient=LogNormal(contrast=1e3, length=3), boundary=boundary)
    shape = tuple(2 * t for t in tile)
    blocks = make_blocks(problem.grid(shape), tile, 1)
    stencil = problem.stencil(blocks, SerialComm(), 1)
    return TileOperators(stencil, blocks, SerialComm(), overlap)


@pytest.mark.parametrize("tile, kind", [((16,), Banded), ((8, 6), Banded), ((4, 8, 10), SuperLU)])
@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
def test_factors_solve_the_tile(tile, kind, boundary):
    operators = operators_of(tile, boundary)
    for index in (0, len(operators) - 1):
        right = np.random.default_rng(index).normal(size=operators.window).ravel()
        exact = np.linalg.solve(operators.matrix(index).toarray(), right)
        factor = factorise(operators, index)
        assert isinstance(factor, kind)
        for one in (factor, sparse_factor(operators, index)):
            np.testing.assert_allclose(one.solve(right), exact, atol=1e-9 * np.abs(exact).max())


def test_a_matrix_that_is_not_definite_is_solved_too():
    operators = operators_of((8, 6))
    operators.diagonal[0, 5, 5] *= -1
    factor = factorise(operators, 0)
    assert not isinstance(factor, Banded)
    right = np.ones(operators.diagonal[0].size)
    np.testing.assert_allclose(operators.matrix(0) @ factor.solve(right), right, atol=1e-9)


def test_all_tiles_in_one_call():
    operators, solver = operators_of((8, 6)), Exact().load()
    solver.prepare(operators)
    residual = np.random.default_rng(0).normal(size=(len(operators), *operators.window))
    z = solver.correct(residual)
    np.testing.assert_allclose(operators.apply(z), residual, atol=1e-9)
