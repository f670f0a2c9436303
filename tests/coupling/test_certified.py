"""Certified solves: against dense solves, with poisoned networks, on any number of ranks."""

import numpy as np
import pytest

pytest.importorskip("petsc4py")

from scaled_mpi.config import InputError
from scaled_mpi.coupling.certified import Prepared
from scaled_mpi.coupling.solving import Coarse, NotConverged, Solving
from scaled_mpi.local_solvers.exact import ExactSolver
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import gather_field
from scaled_mpi.problems import Darcy, Poisson
from scaled_mpi.problems.coefficients import LogNormal, TwoPhase

SMALL = Darcy(coefficient=LogNormal(contrast=100, length=3))


class Poisoned:
    """A local solver that went wrong: `kind` says how."""

    exact = False

    def __init__(self, kind):
        self.kind = kind

    def prepare(self, operators):
        self.random = np.random.default_rng(len(operators))

    def correct(self, residual):
        if self.kind == "nan":
            return np.full_like(residual, np.nan)
        if self.kind == "one nan":
            local = residual.copy()
            local[0, 3, 3] = np.nan
            return local
        if self.kind == "huge":
            return 1e200 * residual
        if self.kind == "zero":
            return np.zeros_like(residual)
        if self.kind == "wrong sign":
            return -residual
        return self.random.normal(size=residual.shape) * np.abs(residual).max()


def prepared(problem, shape, tile, spec, solver=None, size=None, seed=1):
    comm = world() if size is None else SerialComm()
    blocks = make_blocks(problem.grid(shape), tile, comm.size)
    comm = first_ranks(comm, blocks.ranks)
    stencil = problem.stencil(blocks, comm, seed)
    load = problem.load(blocks, comm, seed)
    return Prepared(stencil, blocks, comm, solver or ExactSolver(), spec), load


def dense_solution(problem, shape, tile, seed=1):
    with prepared(problem, shape, tile, Solving(overlap=2), size=1, seed=seed)[0] as ready:
        load = problem.load(ready.blocks, SerialComm(), seed)
        units = np.eye(load.size).reshape(load.size, *shape)
        matrix = np.stack([ready.system.multiply(e).ravel() for e in units], axis=1)
    found = np.linalg.lstsq(matrix, load.ravel(), rcond=None)[0].reshape(shape)
    return found, load


@pytest.mark.mpi
@pytest.mark.parametrize("coarse", ["none", "hats", "geneo"])
@pytest.mark.parametrize("edge", ["dirichlet", "neumann", "periodic"])
def test_equals_a_dense_solve_on_any_number_of_ranks(coarse, edge):
    problem = SMALL.model_copy(update={"boundary": edge})
    exact, _ = dense_solution(problem, (24, 16), (8, 8))
    spec = Solving(tolerance=1e-12, overlap=2, coarse=Coarse(kind=coarse))
    ready, load = prepared(problem, (24, 16), (8, 8), spec)
    with ready:
        answer = ready.solve(load)
        comm, blocks = ready.comm, ready.blocks
        whole = comm.bcast(gather_field(blocks, comm, answer.solution))
    if edge != "dirichlet":
        whole, exact = whole - whole.mean(), exact - exact.mean()
    np.testing.assert_allclose(whole, exact, atol=1e-9 * np.abs(exact).max())
    assert answer.residual <= 1e-12 and answer.fallback_tiles == 0
    alone, load = prepared(problem, (24, 16), (8, 8), spec, size=1)
    with alone:
        assert alone.solve(load).iterations == answer.iterations


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["nan", "one nan", "huge", "zero", "wrong sign", "random"])
def test_a_poisoned_network_still_ends_right(kind):
    exact, _ = dense_solution(SMALL, (32, 32), (8, 8))
    spec = Solving(tolerance=1e-10, overlap=2, smooths=1)
    ready, load = prepared(SMALL, (32, 32), (8, 8), spec, Poisoned(kind))
    with ready:
        answer = ready.solve(load)
        part = ready.blocks.block(ready.comm.rank).slices
    assert answer.residual <= 1e-10
    np.testing.assert_allclose(answer.solution, exact[part], atol=1e-7 * np.abs(exact).max())
    if kind == "nan":
        assert answer.fallback_tiles == 16


def test_a_failure_is_a_clear_one():
    ready, load = prepared(SMALL, (32, 32), (8, 8), Solving(overlap=2, most=3))
    with ready, pytest.raises(NotConverged, match="true residual .* after 3 iterations") as caught:
        ready.solve(load)
    assert caught.value.iterations == 3 and caught.value.residual > 1e-8


def test_singular_problems_need_a_balanced_load():
    ready, load = prepared(Poisson(boundary="periodic"), (16, 16), (8, 8), Solving(overlap=2))
    with ready:
        with pytest.raises(InputError, match="mean"):
            ready.solve(load + 1.0)
        with pytest.raises(InputError, match="finite"):
            ready.solve(load * np.nan)
        assert ready.solve(0 * load).iterations == 0


@pytest.mark.parametrize("contrast", [1e4, 1e6])
def test_high_contrast(contrast):
    problem = Darcy(coefficient=TwoPhase(contrast=contrast, length=4))
    spec = Solving(tolerance=1e-8, overlap=2, coarse=Coarse(kind="geneo", least=2))
    ready, load = prepared(problem, (64, 64), (16, 16), spec)
    with ready:
        answer = ready.solve(load)
        rest = load - ready.system.multiply(answer.solution)
    assert np.linalg.norm(rest) <= 1e-8 * np.linalg.norm(load)
    assert answer.iterations <= 30


def test_iterations_stay_flat_with_a_coarse_space_and_grow_without():
    def iterations(cells, kind):
        spec = Solving(coarse=Coarse(kind=kind), smooths=0, gain=0)
        ready, load = prepared(Poisson(), (cells, cells), (16, 16), spec)
        with ready:
            return ready.solve(load).iterations

    one, two = ([iterations(n, kind) for n in (64, 128)] for kind in ("none", "hats"))
    assert one[1] > 1.4 * one[0]
    assert two[1] <= 1.25 * two[0] and two[1] < 20
