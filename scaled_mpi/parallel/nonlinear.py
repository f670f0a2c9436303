"""PETSc's nonlinear solvers, and the linear solve of a Newton step; see `petsc.py`.

States are arrays of any shape, one a rank; PETSc sees them flat, rank by rank. Everything here is
collective over the communicator.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.petsc import (
    Apply,
    AsPreconditioner,
    KrylovCourse,
    PETSc,
    Watch,
    petsc_comm,
)

Derivative = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (state, direction) -> product
LINEAR_MOST = 200  # iterations of the linear solve of one Newton step


@dataclass(frozen=True)
class Nonlinear:
    """F(U) = 0: the residual, its derivative, and a preconditioner of the derivative.

    Before each linear solve `refresh(state)` may renew the preconditioner; `watch(iteration,
    norm)` sees the residuals of the method, see `solve_nonlinear`.
    """

    residual: Apply
    derivative: Derivative
    precondition: Apply
    refresh: Callable[[np.ndarray], None] | None = None
    watch: Watch | None = None


def solve_nonlinear(
    system: Nonlinear,
    method: str,
    start: np.ndarray,
    comm: Comm,
    *,
    atol: float,
    most: int,
    linear_rtol: float = 1e-3,
) -> KrylovCourse:
    """Solve F(U) = 0 from `start`, of any shape, until ||F|| <= atol or `most` iterations.

    `newton`: line search, and preconditioned flexible GMRES on the product of the derivative;
    `system.watch` sees the residuals of the linear solves. `anderson` and `ngmres`: U - M^-1 F(U)
    is the nonlinear preconditioner, and `system.watch` sees ||F||. Nothing stops on the update.
    """
    course: list[float] = []
    shape = start.shape
    with ExitStack() as stack:
        snes = PETSc.SNES().create(petsc_comm(comm))
        stack.callback(snes.destroy)
        x = PETSc.Vec().createMPI((start.size, None), comm=petsc_comm(comm))
        stack.callback(x.destroy)
        f = x.duplicate()
        stack.callback(f.destroy)
        x.array[:] = start.ravel()

        def function(_: PETSc.SNES, at: PETSc.Vec, out: PETSc.Vec) -> None:
            out.array[:] = system.residual(at.array_r.reshape(shape)).ravel()

        snes.setFunction(function, f)
        snes.setTolerances(rtol=0.0, atol=atol, stol=0.0, max_it=most)

        def monitor(_: PETSc.SNES, iteration: int, norm: float) -> None:
            course.append(norm)
            if system.watch is not None and method != "newton":
                system.watch(iteration, norm)

        snes.setMonitor(monitor)
        if method == "newton":
            product = _Product(system.derivative, shape)
            matrix = _shell(product, f, comm, stack)

            def linearise(_: PETSc.SNES, at: PETSc.Vec, *matrices: PETSc.Mat) -> None:
                product.state = at.array_r.reshape(shape).copy()
                if system.refresh is not None:
                    system.refresh(product.state)

            snes.setJacobian(linearise, matrix)
            snes.setType("newtonls")
            _flexible(snes.getKSP(), system.precondition, shape, linear_rtol, system.watch)
        else:
            snes.setType(method)
            inner = snes.getNPC()
            inner.setType("python")
            inner.setPythonContext(_Sweep(system.residual, system.precondition, shape))
            snes.setNPCSide(PETSc.PC.Side.RIGHT)
        snes.solve(None, x)
        return KrylovCourse(
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
) -> KrylovCourse:
    """Solve J W = right by flexible GMRES until ||J W - right|| <= rtol ||right||; any shape."""
    course: list[float] = []
    shape = right.shape

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
        return KrylovCourse(
            x.array_r.reshape(shape).copy(),
            tuple(course),
            ksp.getIterationNumber(),
            ksp.getConvergedReason(),
        )


def _flexible(
    ksp: PETSc.KSP, precondition: Apply, shape: tuple[int, ...], rtol: float, watch: Watch | None
) -> None:
    ksp.setType("fgmres")
    ksp.setGMRESRestart(LINEAR_MOST)  # indefinite Jacobians stall at every restart
    ksp.setTolerances(rtol=rtol, max_it=LINEAR_MOST)
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(AsPreconditioner(precondition, shape))
    if watch is not None:
        ksp.setMonitor(lambda _, iteration, norm: watch(iteration, norm))


def _shell(product: _Product, like: PETSc.Vec, comm: Comm, stack: ExitStack) -> PETSc.Mat:
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
        self.state = np.zeros(0)  # set before the first product

    def mult(self, _: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.array[:] = self.derivative(self.state, x.array_r.reshape(self.shape)).ravel()


class _Sweep:
    """A SNES context: one preconditioned correction."""

    def __init__(self, residual: Apply, precondition: Apply, shape: tuple[int, ...]) -> None:
        self.residual, self.precondition, self.shape = residual, precondition, shape

    def solve(self, snes: PETSc.SNES, right: PETSc.Vec | None, x: PETSc.Vec) -> None:
        rest = self.residual(x.array_r.reshape(self.shape))
        if right is not None:
            rest = rest - right.array_r.reshape(self.shape)
        x.array[:] -= self.precondition(rest).ravel()
        after = snes.getFunction()[0]  # the outer method reads it, and does not compute it itself
        snes.computeFunction(x, after)
        snes.setFunctionNorm(after.norm())
        snes.setConvergedReason(PETSc.SNES.ConvergedReason.CONVERGED_ITS)
