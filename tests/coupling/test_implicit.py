"""Implicit Gray-Scott: the Jacobian, all variants at one root, order 1 in time, any ranks."""

import numpy as np
import pytest

pytest.importorskip("petsc4py")
pytest.importorskip("numba")

from scaled_mpi.coupling.implicit import ImplicitStep, march
from scaled_mpi.coupling.solving import NotConverged, Solving
from scaled_mpi.local_solvers.exact import ExactSolver
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import gather_field
from scaled_mpi.simulators import GrayScott

SIMULATOR = GrayScott()
SPEC = Solving(overlap=2, tolerance=1e-9)


def state_of(grid):
    y, x = np.meshgrid(*(grid.centres(axis) / grid.extent[axis] for axis in (0, 1)),
                       indexing="ij")
    bump = np.exp(-40 * ((x - 0.5) ** 2 + (y - 0.4) ** 2))
    return np.stack([1 - 0.5 * bump, 0.25 * bump])


def step_of(comm, dt, cells=32):
    blocks = make_blocks(SIMULATOR.grid((cells, cells)), (8, 8), comm.size)
    comm = first_ranks(comm, blocks.ranks)
    old = state_of(blocks.grid)[(slice(None), *blocks.block(comm.rank).slices)]
    solvers = (ExactSolver(), ExactSolver())
    return lambda state=old: ImplicitStep(SIMULATOR, blocks, comm, state, dt, solvers, SPEC)


def test_jacobian_is_the_derivative():
    with step_of(SerialComm(), 10.0)() as step:
        random = np.random.default_rng(0)
        state, way = step.old + 0.01 * random.normal(size=(2, *step.old.shape))
        by_differences = (step.residual(state + 1e-6 * way)
                          - step.residual(state - 1e-6 * way)) / 2e-6
        np.testing.assert_allclose(step.jacobian(state, way), by_differences, atol=1e-7)


@pytest.mark.mpi
@pytest.mark.parametrize(
    "method, dt",
    [("newton", 1.0), ("newton", 10.0), ("anderson", 1.0), ("ngmres", 1.0)],
)
def test_variants_find_the_same_state_on_any_ranks(method, dt):
    with step_of(world(), dt)() as step:
        found = step.solve(method)
        whole = gather_field(step.blocks, step.comm, found.state)
    assert found.residual <= 1e-9
    if whole is not None:
        with step_of(SerialComm(), dt)() as alone:
            again = alone.solve("newton")
        np.testing.assert_allclose(whole, again.state, atol=1e-6)


def test_order_one_in_time():
    explicit = state_of(SIMULATOR.grid((32, 32)))
    with step_of(SerialComm(), 1.0)() as tool:
        for _ in range(160):
            explicit = explicit - 0.05 * (tool.residual(explicit) - (explicit - tool.old))
    errors = []
    for steps in (4, 8):
        taken = march(step_of(SerialComm(), 8.0 / steps), state_of(SIMULATOR.grid((32, 32))),
                      steps, "newton")
        errors.append(np.abs(taken[-1].state - explicit).max())
    assert 1.6 < errors[0] / errors[1] < 2.4


def test_a_guess_is_used_only_where_it_helps():
    with step_of(SerialComm(), 10.0)() as step:
        plain = step.solve()
        near = step.solve(guess=plain.state + 1e-7)
        wild = step.solve(guess=np.full_like(plain.state, np.nan))
    assert near.iterations < plain.iterations
    assert wild.iterations == plain.iterations
    np.testing.assert_allclose(near.state, plain.state, atol=1e-6)


def test_a_failure_is_a_clear_one():
    with step_of(SerialComm(), 10.0)() as step, pytest.raises(NotConverged):
        step.solve(most=1)
