"""Elliptic problems: order 2 on known solutions, symmetry, splits that do not matter, refusals."""

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.problems import MEMBERS, Darcy, Poisson, coefficients, manufactured
from scaled_mpi.problems.stencil_rows import diffusion_stencil

KINDS = [
    ("dirichlet",) * 2,
    ("neumann", "dirichlet"),
    ("periodic", "neumann"),
    ("periodic",) * 2,
    ("dirichlet",),
    ("dirichlet", "periodic", "neumann"),
]


def dense(stencil, grid):
    """The matrix of a whole grid on one rank, row by row from unit vectors."""
    size = int(np.prod(grid.shape))
    columns = []
    for cell in range(size):
        unit = np.zeros(size)
        unit[cell] = 1
        ring = np.pad(unit.reshape(grid.shape), 1, mode="wrap")
        columns.append(stencil.apply(ring).ravel())
    return np.stack(columns, axis=1)


def unit_grid(kinds, cells):
    return Grid((cells,) * len(kinds), 1 / cells, tuple(Boundary(kind) for kind in kinds))


def solve_known(kinds, cells, reaction=0.0):
    grid = unit_grid(kinds, cells)
    blocks = make_blocks(grid, (cells,) * len(kinds), 1)
    stencil = diffusion_stencil(manufactured.coefficient(grid), blocks, 0, reaction)
    f = manufactured.source(grid, reaction).ravel()
    matrix, exact = dense(stencil, grid), manufactured.solution(grid).ravel()
    if stencil.singular:
        found = np.linalg.lstsq(matrix, f - f.mean(), rcond=None)[0]
        return found - found.mean() - (exact - exact.mean())
    return np.linalg.solve(matrix, f) - exact


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("reaction", [0.0, 3.0])
def test_order_two(kinds, reaction):
    coarse, fine = (8, 16) if len(kinds) < 3 else (5, 10)
    errors = [np.sqrt(np.mean(solve_known(kinds, n, reaction) ** 2)) for n in (coarse, fine)]
    assert 1.7 < np.log2(errors[0] / errors[1]) < 2.6


@pytest.mark.parametrize("kinds", KINDS[:5])
def test_symmetric_and_definite(kinds):
    grid = unit_grid(kinds, 6)
    blocks = make_blocks(grid, grid.shape, 1)
    stencil = diffusion_stencil(manufactured.coefficient(grid), blocks, 0)
    matrix = dense(stencil, grid)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    lowest = np.linalg.eigvalsh(matrix)[:2]
    assert lowest[1] > 1e-6
    assert stencil.singular == ("dirichlet" not in kinds)
    assert (abs(lowest[0]) < 1e-10) == stencil.singular


def test_layers_are_exact():
    """Across layers the harmonic average gives the exact piecewise linear profile."""
    grid = Grid((12,), 1.0, (Boundary("dirichlet", 2.0),))
    k = np.where(np.arange(14) < 7, 1.0, 50.0)
    stencil = diffusion_stencil(k, make_blocks(grid, (12,), 1), 0)
    exact = np.full(12, 2.0)
    np.testing.assert_allclose(np.linalg.solve(dense(stencil, grid), stencil.lifted), exact)


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["log_normal", "two_phase", "channels", "constant"])
@pytest.mark.parametrize("edge", ["dirichlet", "periodic"])
def test_field_does_not_depend_on_the_split(kind, edge):
    member = {
        "log_normal": coefficients.LogNormal,
        "two_phase": coefficients.TwoPhase,
        "channels": coefficients.Channels,
        "constant": coefficients.Constant,
    }[kind]
    problem, comm = Darcy(coefficient=member(), boundary=edge), world()
    grid = problem.grid((32, 48))
    alone, blocks = (make_blocks(grid, (8, 8), size) for size in (1, comm.size))
    whole = problem.coefficient_values(alone, SerialComm(), 5)
    block = blocks.block(comm.rank)
    part = tuple(slice(a, b + 2) for a, b in zip(block.start, block.stop, strict=True))
    np.testing.assert_array_equal(problem.coefficient_values(blocks, comm, 5), whole[part])
    np.testing.assert_allclose(
        problem.source.values(grid, blocks, comm.rank, 5),
        problem.source.values(grid, alone, 0, 5)[block.slices],
        rtol=1e-13,
        atol=1e-13,
    )
    if edge == "periodic":
        np.testing.assert_array_equal(whole[0], whole[-2])


def test_statistics_of_the_fields():
    grid = Darcy(boundary="periodic").grid((512, 512))
    box = [(-1, 513), (-1, 513)]
    g = coefficients.gaussian_field(grid, box, 1, (8.0, 8.0))
    assert abs(g.mean()) < 0.1 and abs(g.std() - 1) < 0.1
    lagged = np.mean(g * np.roll(g, 8, axis=0)) / np.mean(g * g)
    assert abs(lagged - np.exp(-0.25)) < 0.05
    k = coefficients.LogNormal(contrast=1e3).values(grid, box, 1, SerialComm())
    inner = k[1:-1, 1:-1]
    np.testing.assert_allclose(inner.max() / inner.min(), 1e3)
    k = coefficients.TwoPhase(contrast=1e4, fraction=0.3).values(grid, box, 1, SerialComm())
    assert set(np.unique(k)) == {1.0, 1e4} and abs(np.mean(k > 1) - 0.3) < 0.03


def test_singular_load_has_mean_zero():
    problem = Poisson(boundary="neumann")
    grid = problem.grid((16, 16))
    f = problem.load(make_blocks(grid, (8, 8), 1), SerialComm(), 3)
    assert abs(f.mean()) < 1e-14


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_tile_that_does_not_conduct_is_refused(value):
    grid = Poisson().grid((16, 16))
    k = np.ones((18, 18))
    k[10, 4] = value
    with pytest.raises(InputError, match=r"coefficient: .* in tile \(1, 0\)"):
        diffusion_stencil(k, make_blocks(grid, (8, 8), 1), 0)


def test_members_name_themselves():
    assert all(member().kind == name for name, member in MEMBERS.items())
