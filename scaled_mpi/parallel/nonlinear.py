"""PETSc's nonlinear solvers, and the linear solve of a Newton step; see `petsc.py`.

States are arrays of any shape, one a rank; PETSc sees them flat, rank by rank. Everything here is
collective over the communicator that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.petsc import (
    Apply,
    AsPreconditioner,
    Course,
    PETSc,
    Watch,
    petsc_comm,
)

Derivative = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (state, direction) -> product
LINEAR_MOST = 200  # iterations of the linear solve of one Newton step


def solve_nonlinear(
    method: str,
    start: np.ndarray,
    residual: Apply,
    derivative: Derivative,
    precondition: Apply,
    comm: Comm,
    *,
    atol: float,
    most: int,
    linear_rtol: float = 1e-3,
    refresh: Callable[[np.ndarray], None] | None = None,
    watch: Watch | None = None,
) -> Course:
    """Solve F(U) = 0 from `start` until ||F|| <= atol or `most` iterations.

    `newton`: line search, flexible GMRES on the derivative's product, preconditioned; before each
    linear solve `refresh(state)` may make the preconditioner anew, and `watch(iteration, norm)`
    sees its residuals. `anderson` and `ngmres`: U - M^-1 F(U) is the nonlinear preconditioner, and
    `watch` sees ||F||. Nothing stops on the update.
    """
    shape, course = start.shape, []
    with ExitStack() as stack:
        snes = PETSc.SNES().create(petsc_comm(comm))
        stack.callback(snes.destroy)
        x = PETSc.Vec().createMPI((start.size, None), comm=petsc_comm(comm))
        stack.callback(x.destroy)
        f = x.duplicate()
        stack.callback(f.destroy)
        x.array[:] = start.ravel()

        def function(_: Any, at: Any, out: Any) -> None:
            out.array[:] = residual(at.array_r.reshape(shape)).ravel()

        snes.setFunction(function, f)
        snes.setTolerances(rtol=0.0, atol=atol, stol=0.0, max_it=most)

        def monitor(_: Any, iteration: int, norm: float) -> None:
            course.append(norm)
            if watch is not None and method != "newton":
                watch(iteration, norm)

        snes.setMonitor(monitor)
        if method == "newton":
            product = _Product(derivative, shape)
            matrix = _shell(product, f, comm, stack)

            def linearise(_: Any, at: Any, *matrices: Any) -> None:
                product.state = at.array_r.reshape(shape).copy()
                if refresh is not None:
                    refresh(product.state)

            snes.setJacobian(linearise, matrix)
            snes.setType("newtonls")
            _flexible(snes.getKSP(), precondition, shape, linear_rtol, watch)
        else:
            snes.setType(method)
            inner = snes.getNPC()
            inner.setType("python")
            inner.setPythonContext(_Sweep(residual, precondition, shape))
            snes.setNPCSide(PETSc.PC.Side.RIGHT)
        snes.solve(None, x)
        return Course(
            x.array_r.reshape(shape).copy(),
            tuple(course),
            snes.getIterationNumber(),
            snes.getConvergedReason(),
        )


def solve_linear(
    product: Apply,
    right: np.ndarray,
    precondition: Apply,
    comm: Comm,
    *,
    rtol: float,
    watch: Watch | None = None,
) -> Course:
    """Solve J W = right by flexible GMRES, until ||J W - right|| <= rtol ||right||."""
    shape, course = right.shape, []

    def see(iteration: int, norm: float) -> None:
        course.append(norm)
        if watch is not None:
            watch(iteration, norm)

    with ExitStack() as stack:
        b = PETSc.Vec().createMPI((right.size, None), comm=petsc_comm(comm))
        stack.callback(b.destroy)
        x = b.duplicate()
        stack.callback(x.destroy)
        b.array[:] = right.ravel()
        ksp = PETSc.KSP().create(petsc_comm(comm))
        stack.callback(ksp.destroy)
        ksp.setOperators(_shell(_Product(lambda _, way: product(way), shape), b, comm, stack))
        _flexible(ksp, precondition, shape, rtol, see)
        ksp.solve(b, x)
        return Course(
            x.array_r.reshape(shape).copy(),
            tuple(course),
            ksp.getIterationNumber(),
            ksp.getConvergedReason(),
        )


def _flexible(
    ksp: Any, precondition: Apply, shape: tuple[int, ...], rtol: float, watch: Watch | None
) -> None:
    ksp.setType("fgmres")
    ksp.setGMRESRestart(LINEAR_MOST)  # indefinite Jacobians stall at every restart
    ksp.setTolerances(rtol=rtol, max_it=LINEAR_MOST)
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(AsPreconditioner(precondition, shape))
    if watch is not None:
        ksp.setMonitor(lambda _, iteration, norm: watch(iteration, norm))


def _shell(product: _Product, like: Any, comm: Comm, stack: ExitStack) -> Any:
    matrix = PETSc.Mat().createPython(
        (like.getSizes(), like.getSizes()), product, petsc_comm(comm)
    )
    stack.callback(matrix.destroy)
    matrix.setUp()
    return matrix


class _Product:
    """A matrix context: the product of the derivative at `state`."""

    def __init__(self, derivative: Derivative, shape: tuple[int, ...]) -> None:
        self.derivative, self.shape = derivative, shape
        self.state: np.ndarray | None = None

    def mult(self, _: Any, x: Any, y: Any) -> None:
        y.array[:] = self.derivative(self.state, x.array_r.reshape(self.shape)).ravel()


class _Sweep:
    """A SNES context: one preconditioned correction."""

    def __init__(self, residual: Apply, precondition: Apply, shape: tuple[int, ...]) -> None:
        self.residual, self.precondition, self.shape = residual, precondition, shape

    def solve(self, snes: Any, right: Any, x: Any) -> None:
        rest = self.residual(x.array_r.reshape(self.shape))
        if right is not None:
            rest = rest - right.array_r.reshape(self.shape)
        x.array[:] -= self.precondition(rest).ravel()
        after = snes.getFunction()[0]  # the outer method reads it, and does not compute it itself
        snes.computeFunction(x, after)
        snes.setFunctionNorm(after.norm())
        snes.setConvergedReason(PETSc.SNES.ConvergedReason.CONVERGED_ITS)
