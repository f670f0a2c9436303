"""PETSc: the assembled matrix against the stencil, solvers against each other, nothing left."""

import gc

import numpy as np
import pytest

pytest.importorskip("petsc4py")

from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import Halo, gather_field
from scaled_mpi.parallel.petsc import LinearSystem
from scaled_mpi.problems import manufactured
from scaled_mpi.problems.stencil_rows import diffusion_stencil

KINDS = [("dirichlet",) * 2, ("periodic", "neumann"), ("neumann", "dirichlet", "periodic")]


def grid_of(kinds):
    return Grid((12,) * len(kinds), 1 / 12, tuple(Boundary(kind, 0.0) for kind in kinds))


def rows(grid, blocks, rank, reaction=0.0):
    block = blocks.block(rank)
    ring = tuple(slice(a, b + 2) for a, b in zip(block.start, block.stop, strict=True))
    return diffusion_stencil(manufactured.coefficient(grid)[ring], blocks, rank, reaction)


@pytest.mark.mpi
@pytest.mark.parametrize("kinds", KINDS)
def test_product_is_the_stencil(kinds):
    grid = grid_of(kinds)
    blocks = make_blocks(grid, (3,) * len(kinds), world().size)
    comm = first_ranks(world(), blocks.ranks)
    stencil = rows(grid, blocks, comm.rank)
    u = np.random.default_rng(1).normal(size=grid.shape)[blocks.block(comm.rank).slices]
    ring = Halo(blocks, comm, 1, np.float64)
    with LinearSystem(stencil, blocks, comm) as system:
        np.testing.assert_allclose(system.multiply(u), stencil.apply(ring(u)), atol=1e-9)


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["gamg", "jacobi", "direct", "hypre"])
def test_solvers_agree_with_a_dense_solve(name):
    grid = grid_of(("dirichlet", "neumann"))
    blocks = make_blocks(grid, (3, 3), world().size)
    comm = first_ranks(world(), blocks.ranks)
    load = manufactured.source(grid)
    with LinearSystem(
        rows(grid, make_blocks(grid, (3, 3), 1), 0), make_blocks(grid, (3, 3), 1), SerialComm()
    ) as alone:
        matrix = np.stack(
            [alone.multiply(e.reshape(grid.shape)).ravel() for e in np.eye(144)], axis=1
        )
    exact = np.linalg.solve(matrix, load.ravel()).reshape(grid.shape)
    part = blocks.block(comm.rank).slices
    with LinearSystem(rows(grid, blocks, comm.rank), blocks, comm) as system:
        course = system.solve(load[part], name, rtol=1e-12)
    assert course.reason > 0
    np.testing.assert_allclose(course.solution, exact[part], rtol=1e-8, atol=1e-10)
    gathered = gather_field(blocks, comm, course.solution)
    if comm.rank == 0:
        np.testing.assert_allclose(gathered, exact, rtol=1e-8, atol=1e-10)


def test_an_error_in_the_preconditioner_reaches_the_caller():
    grid = grid_of(("dirichlet",))
    blocks = make_blocks(grid, (3,), 1)

    def fail(residual):
        raise ZeroDivisionError("mine")

    with LinearSystem(rows(grid, blocks, 0), blocks, SerialComm()) as system:
        with pytest.raises(ZeroDivisionError, match="mine"):
            system.solve(np.ones(12), fail)


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def test_memory_is_flat_over_a_thousand_solves():
    grid = grid_of(("dirichlet", "dirichlet"))
    blocks = make_blocks(grid, (3, 3), 1)
    stencil, load = rows(grid, blocks, 0), manufactured.source(grid)

    def some(count):
        for _ in range(count):
            with LinearSystem(stencil, blocks, SerialComm()) as system:
                system.solve(load, lambda r: r / stencil.diagonal, rtol=1e-2)
        gc.collect()
        return resident()

    before = some(200)
    assert some(1000) - before < 3e6
