"""The contract of a local solver: its smallest implementers in certified solves."""

from typing import Literal

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.local_solvers import MEMBERS, Exact
from scaled_mpi.local_solvers.solvers import (
    LocalSolver,
    LocalSolverSpec,
    load_local_solver,
    member_violations,
    violations,
)
from tests.local_solvers.test_exact import operators_of


class Jacobi(LocalSolver):
    """The diagonal alone: nothing but the contract, and far from exact."""

    def prepare(self, operators):
        self.diagonal = operators.diagonal

    def correct(self, residual):
        return residual / self.diagonal


class Dense(LocalSolver):
    """Dense inverses: exact."""

    exact = True

    def prepare(self, operators):
        self.inverses = [
            np.linalg.inv(operators.matrix(tile).toarray()) for tile in range(len(operators))
        ]

    def correct(self, residual):
        pairs = zip(self.inverses, residual, strict=True)
        return np.stack([(inverse @ part.ravel()).reshape(part.shape) for inverse, part in pairs])


class Diagonal(LocalSolverSpec):
    """The block of YAML that loads it."""

    kind: Literal["diagonal"] = "diagonal"

    def load(self, folder=None):
        return Jacobi()


@pytest.mark.mpi
@pytest.mark.parametrize("solver", [Jacobi, Dense])
def test_the_certified_answer_is_that_of_a_dense_solve(solver):
    pytest.importorskip("petsc4py")
    from scaled_mpi.coupling.solving import Coarse, Solving
    from scaled_mpi.parallel.halo import gather_field
    from tests.coupling.test_certified import SMALL, dense_solution, prepared

    exact, _ = dense_solution(SMALL, (24, 16), (8, 8))
    spec = Solving(tolerance=1e-11, overlap=2, coarse=Coarse(kind="hats"))
    ready, load = prepared(SMALL, (24, 16), (8, 8), spec, solver=solver())
    with ready:
        answer = ready.solve(load)
        whole = gather_field(ready.blocks, ready.comm, answer.solution)
    assert answer.residual <= 1e-11
    if whole is not None:
        np.testing.assert_allclose(whole, exact, atol=1e-8 * np.abs(exact).max())


def test_the_smallest_solver_is_complete():
    operators = operators_of((8, 6))
    assert member_violations(Diagonal) == []
    solver = load_local_solver(Diagonal())
    assert solver.exact is False
    for honest in (solver, Dense(), Exact().load()):
        assert violations(honest, operators) == []


@pytest.mark.parametrize("kind", sorted(MEMBERS))
def test_every_member_keeps_the_contract_of_its_block(kind):
    assert member_violations(MEMBERS[kind]) == []


def test_breaches_are_found():
    class Empty:
        exact = False

        def prepare(self, operators):
            pass

    class Loads(Diagonal):
        def load(self, folder=None):
            return Empty()

    with pytest.raises(InputError, match="local_solver: Empty .* correct is missing"):
        load_local_solver(Loads())

    class Boastful(Jacobi):
        exact = True

    class Bent(Jacobi):
        def correct(self, residual):
            return super().correct(np.tanh(residual))

    operators = operators_of((8, 6))
    assert "A z differs from r" in violations(Boastful(), operators)[0]
    assert "does not scale" in violations(Bent(), operators)[0]
    assert member_violations(LocalSolverSpec)[-1] == "LocalSolverSpec: load is missing"
