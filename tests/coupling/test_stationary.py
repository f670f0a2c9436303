"""Schwarz sweeps: all forms find the solution; Anderson is quicker; the floor and its cure."""

import numpy as np
import pytest

pytest.importorskip("petsc4py")

from scaled_mpi.coupling.anderson import Anderson
from scaled_mpi.coupling.certified import Prepared
from scaled_mpi.coupling.solving import Coarse, Solving
from scaled_mpi.coupling.stationary import Sweeper, floor, iterate, products
from scaled_mpi.local_solvers.exact import ExactSolver
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import gather_field
from scaled_mpi.problems import Darcy, Poisson
from scaled_mpi.problems.coefficients import LogNormal


class Biased(ExactSolver):
    """Exact solutions times a smooth frozen error of relative size `eps`, its own in each tile."""

    exact = False

    def __init__(self, eps, seed=0):
        super().__init__()
        self.eps, self.seed = eps, seed

    def prepare(self, operators):
        super().prepare(operators)
        from scipy.ndimage import gaussian_filter

        fields = [
            gaussian_filter(
                np.random.default_rng([self.seed, *index]).normal(size=operators.window), 4.0
            )
            for index in operators.tiles
        ]
        self.factor = np.stack([1 + self.eps * field / field.std() for field in fields])

    def correct(self, residual):
        return self.factor * super().correct(residual)


def prepared(problem, cells, tile, solver=None, comm=None, overlap=2, coarse="hats"):
    comm = comm or SerialComm()
    blocks = make_blocks(problem.grid((cells, cells)), (tile, tile), comm.size)
    comm = first_ranks(comm, blocks.ranks)
    stencil, load = problem.stencil(blocks, comm, 1), problem.load(blocks, comm, 1)
    spec = Solving(overlap=overlap, coarse=Coarse(kind=coarse), tolerance=1e-12, smooths=0)
    return Prepared(stencil, blocks, comm, solver or ExactSolver(), spec), load


@pytest.mark.mpi
@pytest.mark.parametrize("form", ["residual", "solution"])
@pytest.mark.parametrize("combination", ["owned", "blended", "coloured"])
@pytest.mark.parametrize("edge", ["dirichlet", ("periodic", "dirichlet")], ids=str)
def test_every_form_finds_the_solution(form, combination, edge):
    problem = Darcy(boundary=edge, coefficient=LogNormal(contrast=10, length=4))
    ready, load = prepared(problem, 24, 8, comm=world())
    with ready:
        exact = ready.solve(load).solution
        swept = iterate(
            Sweeper(ready, form, combination, True), load, tolerance=1e-9, most=150, depth=8
        )
        assert swept.converged and swept.sweeps == len(swept.residuals)
        whole = gather_field(ready.blocks, ready.comm, swept.solution - exact)
    if whole is not None:
        assert np.abs(whole).max() < 1e-6 * np.abs(exact).max()


def test_colours_need_fewer_sweeps_and_anderson_fewer_still():
    ready, load = prepared(Poisson(), 64, 16)
    with ready:

        def sweeps(combination, depth, coarse=False):
            found = iterate(
                Sweeper(ready, "residual", combination, coarse),
                load,
                tolerance=1e-6,
                most=600,
                depth=depth,
            )
            assert found.converged
            return found.sweeps

        plain, coloured = sweeps("owned", 0), sweeps("coloured", 0)
        quick, two_level = sweeps("owned", 10), sweeps("owned", 10, True)
    assert coloured < 0.7 * plain
    assert quick < 0.3 * plain
    assert two_level < 0.8 * quick


def test_anderson_solves_a_linear_fixed_point_in_as_many_steps_as_it_has_unknowns():
    random = np.random.default_rng(0)
    matrix = 0.9 * np.linalg.qr(random.normal(size=(6, 6)))[0]
    right = random.normal(size=6)
    anderson = Anderson(6, lambda a, b: a @ b.T)
    u = np.zeros(6)
    for _ in range(8):
        u = anderson.next(u, matrix @ u + right)
    np.testing.assert_allclose(u, np.linalg.solve(np.eye(6) - matrix, right), atol=1e-8)


@pytest.mark.mpi
def test_products_do_not_depend_on_the_split():
    grid = Poisson().grid((24, 16))
    whole = np.random.default_rng(0).normal(size=(3, 24, 16))
    blocks = make_blocks(grid, (4, 4), world().size)
    comm = first_ranks(world(), blocks.ranks)
    part = whole[(slice(None), *blocks.block(comm.rank).slices)]
    alone = products(whole, whole, make_blocks(grid, (4, 4), 1), SerialComm())
    np.testing.assert_array_equal(products(part, part, blocks, comm), alone)
    np.testing.assert_allclose(alone, np.einsum("ixy,jxy->ij", whole, whole))


def floor_of(problem, eps, coarse):
    ready, load = prepared(problem, 128, 16, Biased(eps), coarse=coarse)
    with ready:
        exact = ready.system.solve(load, "gamg", rtol=1e-12, method="cg").solution
        return floor(ready, load, exact, most=150)


def test_the_floor_of_a_solution_form_and_its_cure():
    one, two = (floor_of(Poisson(), 1e-2, coarse) for coarse in ("none", "hats"))
    assert 2e-3 < one.local < 2e-2 and one.local == two.local
    assert two.ratio < 1.3 < one.ratio
    assert two.residual > 1e-6  # a floor, not an answer


def test_in_a_medium_of_high_contrast_the_cure_is_an_enriched_space():
    medium = Darcy(coefficient=LogNormal(contrast=1e3, length=6))
    one, two, rich = (floor_of(medium, 1e-2, coarse) for coarse in ("none", "hats", "geneo"))
    assert rich.ratio < 1.1 and rich.ratio < two.ratio < one.ratio
