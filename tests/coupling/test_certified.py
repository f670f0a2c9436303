"""Certified solves: against dense solves, with poisoned networks, on any number of ranks."""

import gc

import numpy as np
import pytest

pytest.importorskip("petsc4py")

from scaled_mpi.config import InputError
from scaled_mpi.coupling.certified import Prepared, Stall
from scaled_mpi.coupling.solving import Coarse, NotConverged, Solving
from scaled_mpi.local_solvers.exact import ExactSolver
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import gather_field
from scaled_mpi.problems import Darcy, Poisson
from scaled_mpi.problems.coefficients import LogNormal, TwoPhase
from scaled_mpi.problems.elliptic import shared_stencil

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
        serial = alone.solve(load)
    assert serial.iterations == answer.iterations
    if edge != "dirichlet":
        serial_solution = serial.solution - serial.solution.mean()
    else:
        serial_solution = serial.solution
    np.testing.assert_allclose(whole, serial_solution, atol=1e-10 * np.abs(exact).max())


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


class Strengthened:
    """Counts how often it is asked to be stronger."""

    count = 0

    def strengthen(self):
        self.count += 1


@pytest.mark.parametrize(
    "norms, count",
    [
        ([1.0, 0.99, 0.5, 0.499, 0.2], 0),  # now and then an iteration gains little
        ([1.0, 0.99, 0.985, 0.5], 1),
        ([1.0, 1.0, 1.0, 1.0], 2),
    ],
)
def test_tiles_become_exact_after_two_poor_iterations_in_a_row(norms, count):
    preconditioner = Strengthened()
    watch = Stall(preconditioner, 0.02)
    for iteration, norm in enumerate(norms):
        watch(iteration, norm)
    assert preconditioner.count == count


@pytest.mark.mpi
def test_a_tile_that_does_not_conduct_is_refused_on_all_ranks():
    grid = Poisson().grid((16, 16))
    blocks = make_blocks(grid, (4, 4), world().size)
    comm = first_ranks(world(), blocks.ranks)
    whole = np.ones((18, 18))
    whole[5:9, 9:13] = 0.0  # one tile, with the ring that pads the field
    part = tuple(slice(n.start, n.stop + 2) for n in blocks.block(comm.rank).slices)
    with pytest.raises(InputError, match=r"^coefficient: 0.0 in tile \(1, 2\) is not .* > 0$"):
        shared_stencil(whole[part], blocks, comm)


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def test_memory_is_flat_over_a_thousand_solves():
    blocks = make_blocks(SMALL.grid((8, 8)), (4, 4), 1)
    stencil = SMALL.stencil(blocks, SerialComm(), 1)
    load = SMALL.load(blocks, SerialComm(), 1)

    spec = Solving(tolerance=1e-2, overlap=1, smooths=1)

    def some(count):
        for _ in range(count // 5):
            with Prepared(stencil, blocks, SerialComm(), Poisoned("zero"), spec) as ready:
                for _ in range(5):
                    ready.solve(load)
        gc.collect()
        return resident()

    before = some(200)
    assert some(1000) - before < 3e6


def test_objects_of_petsc_are_destroyed():
    ready, load = prepared(SMALL, (16, 16), (8, 8), Solving(overlap=2))
    with ready:
        ready.solve(load)
        owned = [ready.system.matrix, ready.system.lattice.dm, ready.coarse.basis.columns]
        assert all(owned)
    assert not any(owned)


def test_a_failure_is_a_clear_one():
    ready, load = prepared(SMALL, (32, 32), (8, 8), Solving(overlap=2, most=3))
    with ready, pytest.raises(NotConverged, match="true residual .* after 3 iterations") as caught:
        ready.solve(load)
    assert caught.value.iterations == 3 and caught.value.residual > 1e-8
    assert len(caught.value.history) == 4 and caught.value.history[0] == 1


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
