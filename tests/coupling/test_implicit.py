"""Implicit Gray-Scott: the root of a dense solve, orders in time, long steps, any ranks."""

from functools import partial

import numpy as np
import pytest

pytest.importorskip("petsc4py")
pytest.importorskip("numba")

from scaled_mpi.coupling.implicit import SCHEMES, ImplicitStep
from scaled_mpi.coupling.linearised import Matrix, PairOfTiles, ReactionRates
from scaled_mpi.coupling.solving import NotConverged, Solving
from scaled_mpi.local_solvers.exact import ExactSolver
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import Halo, gather_field
from scaled_mpi.simulators import GrayScott

EXACT = ExactSolver(), ExactSolver()
SPEC = Solving(overlap=2, tolerance=1e-9)


def bump(grid):
    y, x = np.meshgrid(*(grid.centres(axis) / grid.extent[axis] for axis in (0, 1)), indexing="ij")
    bump = np.exp(-40 * ((x - 0.5) ** 2 + (y - 0.4) ** 2))
    return np.stack([1 - 0.5 * bump, 0.25 * bump])


def pattern(simulator, blocks, steps):
    """A developed pattern on the whole domain, made on one rank."""
    alone = make_blocks(blocks.grid, blocks.tile, 1)
    state = simulator.initial(alone.block(0), alone.grid, (1, 0), np.float64)
    return simulator.advance(state, steps, Halo(alone, SerialComm(), 4, np.float64))


class Case:
    """A simulator on 32 x 32 cells, 16 tiles."""

    def __init__(self, comm=None, steps=0, spec=SPEC, solvers=EXACT, cells=32, **simulator):
        self.simulator, self.spec, self.solvers = GrayScott(**simulator), spec, solvers
        comm = comm or SerialComm()
        self.blocks = make_blocks(self.simulator.grid((cells, cells)), (8, 8), comm.size)
        self.comm = first_ranks(comm, self.blocks.ranks)
        self.rates = ReactionRates(self.simulator, self.blocks, self.comm)
        whole = pattern(self.simulator, self.blocks, steps) if steps else bump(self.blocks.grid)
        self.old = whole[(slice(None), *self.blocks.block(self.comm.rank).slices)].copy()

    def make(self, old, length, scale=None):
        return ImplicitStep(self.rates, old, length, self.solvers, self.spec, scale)

    def advance(self, scheme, dt, method="newton", old=None, guess=None):
        old = self.old if old is None else old
        return SCHEMES[scheme](self.make, self.rates, old, dt, method, guess)


def dense(product, shape):
    """The matrix of a linear map of arrays of a shape."""
    size = int(np.prod(shape))
    return np.stack([product(e.reshape(shape)).ravel() for e in np.eye(size)], axis=1)


def test_rates_are_those_of_the_simulator():
    case = Case(dt=0.5)
    exchange = Halo(case.blocks, case.comm, 1, np.float64)
    moved = case.simulator.advance(case.old, 1, exchange)
    np.testing.assert_allclose(case.old + 0.5 * case.rates(case.old), moved, atol=1e-14)


def test_jacobian_is_the_derivative():
    case = Case()
    with case.make(case.old, 10.0) as step:
        random = np.random.default_rng(0)
        state, way = case.old + 0.01 * random.normal(size=(2, *case.old.shape))
        by_differences = (
            step.residual(state + 1e-6 * way) - step.residual(state - 1e-6 * way)
        ) / 2e-6
        np.testing.assert_allclose(step.jacobian(state, way), by_differences, atol=1e-7)


def test_the_tiles_matrices_are_cut_out_of_the_whole_one():
    case = Case()
    matrix = Matrix(case.rates, case.old, 0.1)
    tiles = PairOfTiles(matrix, 2)
    way = np.zeros_like(case.old)
    way[:, 10:14, 10:14] = np.random.default_rng(0).normal(size=(2, 4, 4))  # inside tile (1, 1)
    local, tile = tiles.cut(way), tiles.tiles.index((1, 1))
    wanted = tiles.cut(matrix.multiply(way))[tile]
    np.testing.assert_allclose(tiles.apply(local)[tile], wanted, atol=1e-13)
    flat = tiles.matrix(tile) @ local[tile].ravel()
    np.testing.assert_allclose(flat.reshape(wanted.shape), wanted, atol=1e-13)


def test_the_root_is_that_of_a_dense_newton():
    case = Case(cells=16, spec=Solving(overlap=2, tolerance=1e-11))
    found = case.advance("backward_euler", 5.0)
    with case.make(case.old, 5.0) as step:
        state = case.old
        for _ in range(8):
            matrix = dense(partial(step.jacobian, state), state.shape)
            change = np.linalg.solve(matrix, step.residual(state).ravel())
            state = state - change.reshape(state.shape)
    np.testing.assert_allclose(found.state, state, atol=1e-10)


@pytest.mark.parametrize(
    "scheme, low, high", [("backward_euler", 1.7, 2.3), ("tr_bdf2", 3.3, 4.6)]
)
def test_order_in_time(scheme, low, high):
    case = Case(cells=16, spec=Solving(overlap=2, tolerance=1e-7))
    truth, h = case.old, 0.1
    for _ in range(80):
        a = case.rates(truth)
        b = case.rates(truth + h / 2 * a)
        c = case.rates(truth + h / 2 * b)
        truth = truth + h / 6 * (a + 2 * b + 2 * c + case.rates(truth + h * c))
    errors = []
    for steps in (4, 8):
        state = case.old
        for _ in range(steps):
            state = case.advance(scheme, 8.0 / steps, old=state).state
        errors.append(np.abs(state - truth).max())
    assert low < errors[0] / errors[1] < high


@pytest.mark.mpi
@pytest.mark.parametrize("method, dt", [("newton", 5.0), ("anderson", 1.0), ("ngmres", 1.0)])
def test_variants_find_the_same_state_on_any_ranks(method, dt):
    spec = Solving(overlap=2, tolerance=1e-12)
    case = Case(world(), spec=spec)
    found = case.advance("backward_euler", dt, method)
    whole = gather_field(case.blocks, case.comm, found.state)
    assert found.residual <= 1e-12
    if whole is not None:
        again = Case(spec=spec).advance("backward_euler", dt)
        np.testing.assert_allclose(whole, again.state, atol=1e-10)


MAZE = {"steps": 1500, "spec": Solving(overlap=2, tolerance=2e-11), "pattern": "maze"}


def maze_alone(folder):
    alone = Case(**MAZE).advance("backward_euler", 1000.0)
    assert alone.root == "direct" and alone.state[1].max() > 0.3  # the pattern is there
    np.save(folder / "state.npy", alone.state)


@pytest.mark.mpi
def test_a_thousand_on_a_maze_on_any_ranks(kept):
    case = Case(world(), **MAZE)
    found = case.advance("backward_euler", 1000.0)
    with case.make(case.old, 1000.0) as step:
        assert step.relative(found.state) <= 2e-11
    whole = gather_field(case.blocks, case.comm, found.state)
    if whole is not None:
        alone = np.load(kept("maze", maze_alone) / "state.npy")
        np.testing.assert_allclose(whole, alone, atol=1e-10)


@pytest.mark.parametrize("steps, root", [(1, "continued"), (0, "pseudo-transient")])
def test_where_a_line_search_leads_nowhere_other_ways_do(steps, root):
    case = Case(steps=steps, cells=16, pattern="waves")  # a disc, or a bump, about to spread
    found = case.advance("backward_euler", 20.0)
    assert found.root == root and (found.pseudo > 0) == (root == "pseudo-transient")
    with case.make(case.old, 20.0) as step:
        assert step.relative(found.state) <= SPEC.tolerance
    assert 0.2 < found.state[1].max() < 0.6


class Wrong:
    """A local solver that answers nonsense, or nothing finite."""

    exact = False

    def __init__(self, factor):
        self.factor = factor

    def prepare(self, operators):
        self.diagonal = operators.diagonal
        assert (operators.excess > -1e-12).all()  # only definite matrices are handed to it

    def correct(self, residual):
        return self.factor * residual / self.diagonal


@pytest.mark.parametrize("factor, low", [(np.nan, 16), (-3.0, 4), (0.3, 0)])
def test_poor_local_solvers_cost_tiles_and_not_the_answer(factor, low):
    solvers = Wrong(factor), Wrong(factor)
    case = Case(steps=3000, solvers=solvers, pattern="maze")
    found = case.advance("backward_euler", 100.0)
    wanted = Case(steps=3000, pattern="maze").advance("backward_euler", 100.0)
    np.testing.assert_allclose(found.state, wanted.state, atol=1e-6)
    assert low <= found.fallback_tiles <= 16


def test_a_guess_is_used_only_where_it_helps():
    case = Case()
    plain = case.advance("backward_euler", 5.0)
    near = case.advance("backward_euler", 5.0, guess=plain.state + 1e-7)
    wild = case.advance("backward_euler", 5.0, guess=np.full_like(plain.state, np.nan))
    assert near.iterations < plain.iterations == wild.iterations
    np.testing.assert_allclose(near.state, plain.state, atol=1e-6)


def test_a_failure_is_a_clear_one():
    case = Case()
    with case.make(case.old, 10.0) as step, pytest.raises(NotConverged):
        step.solve("anderson", most=1)


def test_walls_and_physical_units():
    case = Case(parameters="the_well", pattern="maze", boundaries=("neumann", "dirichlet"))
    found = case.advance("tr_bdf2", 20.0)
    with case.make(case.old, 20.0) as step:
        level = step.preconditioner
        level.refresh(found.state, 1e-3)
        random = np.random.default_rng(0).normal(size=case.old.shape)
        assert np.isfinite(level(random)).all()
    assert found.residual <= 1e-9
    assert np.abs(found.state - case.old).max() > 0.05
