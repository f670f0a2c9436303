"""Coarse spaces: symmetric, definite, exact on what they span, constants handled."""

import numpy as np
import pytest

pytest.importorskip("petsc4py")

from scaled_mpi.coupling.coarse import CoarseSpace
from scaled_mpi.coupling.solving import Coarse
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import first_ranks, world
from scaled_mpi.parallel.petsc import LinearSystem
from scaled_mpi.problems import Darcy
from scaled_mpi.problems.coefficients import LogNormal
from scaled_mpi.problems.tile_matrices import TileOperators

SPACES = [Coarse(), Coarse(kind="geneo", least=2, most=3)]
EDGES = ["dirichlet", "neumann", "periodic", ("periodic", "dirichlet")]


@pytest.fixture(params=SPACES, ids=["hats", "geneo"])
def spec(request):
    return request.param


@pytest.mark.mpi
@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_galerkin_matrix(spec, edge):
    problem = Darcy(boundary=edge, coefficient=LogNormal(contrast=100, length=3))
    grid = problem.grid((32, 24))
    blocks = make_blocks(grid, (8, 8), world().size)
    comm = first_ranks(world(), blocks.ranks)
    stencil = problem.stencil(blocks, comm, 1)
    operators = TileOperators(stencil, blocks, comm, 2)
    with (
        LinearSystem(stencil, blocks, comm) as system,
        CoarseSpace(system, operators, spec) as space,
    ):
        matrix = space.matrix.toarray()
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-9 * abs(matrix).max())
        lowest = np.linalg.eigvalsh(matrix)[:2] / abs(matrix).max()
        assert lowest[1] > 1e-9
        if system.singular and spec.kind == "hats":
            assert abs(lowest[0]) < 1e-12
        elif not system.singular:
            assert lowest[0] > 1e-9
        weights = np.sin(1.0 + np.arange(space.vectors))
        spanned = space.basis.prolong(weights)
        if system.singular:
            spanned -= space.correct(np.zeros_like(spanned))  # collective, and 0
        found = space.correct(system.multiply(spanned))
        difference = found - spanned
        if system.singular:  # known up to a constant; that of a GenEO space is not in its span
            difference -= difference.mean() if comm.size == 1 else difference.ravel()[0]
        scale = np.abs(spanned).max()
        if not (system.singular and spec.kind == "geneo"):
            np.testing.assert_allclose(difference, 0, atol=1e-7 * scale)


@pytest.mark.mpi
def test_hats_add_up_to_one_away_from_dirichlet_faces():
    problem = Darcy(boundary=("periodic", "neumann"))
    blocks = make_blocks(problem.grid((16, 24)), (8, 8), world().size)
    comm = first_ranks(world(), blocks.ranks)
    stencil = problem.stencil(blocks, comm, 1)
    operators = TileOperators(stencil, blocks, comm, 2)
    with (
        LinearSystem(stencil, blocks, comm) as system,
        CoarseSpace(system, operators, Coarse()) as space,
    ):
        np.testing.assert_allclose(space.basis.prolong(np.ones(space.vectors)), 1.0)


@pytest.mark.mpi
def test_blending_weights_add_up_to_one_and_tiles_are_parts_of_the_matrix():
    problem = Darcy(boundary=("periodic", "dirichlet"))
    blocks = make_blocks(problem.grid((16, 24)), (8, 8), world().size)
    comm = first_ranks(world(), blocks.ranks)
    stencil = problem.stencil(blocks, comm, 1)
    operators = TileOperators(stencil, blocks, comm, 3)
    ones = np.ones((len(operators), *operators.window))
    np.testing.assert_allclose(operators.blended(ones), 1.0)
    local = np.random.default_rng(comm.rank).normal(size=ones.shape)
    by_matrix = [operators.matrix(i) @ part.ravel() for i, part in enumerate(local)]
    np.testing.assert_allclose(
        operators.apply(local).reshape(len(operators), -1), by_matrix, atol=1e-9
    )
    field = np.random.default_rng(9).normal(size=(16, 24))[blocks.block(comm.rank).slices]
    np.testing.assert_array_equal(operators.owned(operators.cut(field)), field)
