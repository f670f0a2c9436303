"""Backward Euler for Gray-Scott at steps far over the explicit limit, by Newton or Anderson.

    F(U) = (U - U_old) / dt - D laplace U - R(U) = 0,   U = (u, v)
    R    = (-u v^2 + f (1 - u),  u v^2 - (f + k) v)

The linear preconditioner is the two-level Schwarz method of `certified.py` on each species, one
after the other (block Gauss-Seidel of the Jacobian, frozen at the start of the step):

    du = A_u^-1 r_u,   A_u = 1/dt + v^2 + f     - Du laplace
    dv = A_v^-1 (r_v + v^2 du),   A_v = 1/dt + f + k - 2 u v + 2 u v^3 / (1/dt + v^2 + f)
                                        - Dv laplace

where the last part of A_v is what eliminating u leaves, cell by cell. Where v grows faster than
1/dt the matrix is indefinite: exact local solvers take it as it is, for a learned one, which knows
definite matrices alone, the part without derivatives is kept positive (Newton's Krylov method
makes up for it, a bare sweep need not). `newton`: line search, flexible GMRES
with this preconditioner. `anderson`, `ngmres`: one sweep U - M^-1 F(U) as the nonlinear
preconditioner. All need a dt, or a guess, from which the root is not far: where v grows much
faster than 1/dt (in a developed pattern from about dt = 20 on) the Jacobian is singular on the
way, they do not converge, and that is raised. Every variant stops on ||F||, recomputed; never on
the update.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaled_mpi.coupling.certified import Prepared
from scaled_mpi.coupling.solving import NotConverged, Solving
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.petsc import solve_nonlinear
from scaled_mpi.problems.elliptic import norm
from scaled_mpi.problems.stencil import diffusion_stencil

LEAST = 0.1  # of 1/dt: what the part of A_v without derivatives is kept above


@dataclass(frozen=True)
class Stepped:
    """One implicit step: the new state, and ||F(U)|| over ||F(guess of no change)||."""

    state: np.ndarray  # (2, *block.size)
    residual: float
    iterations: int  # of the nonlinear method
    linear: int  # applications of the preconditioner
    history: tuple[float, ...]
    fallback_tiles: int
    seconds: float


class ImplicitStep:
    """One step of length `dt` from `old`, float64 (2, *block.size); a context manager.

    `simulator` has F, k, Du, Dv; its grid is that of `blocks`. `solvers` are two local solvers,
    one a species, as each is prepared for its own matrix.
    """

    def __init__(
        self, simulator: Any, blocks: Blocks, comm: Any, old: np.ndarray, dt: float,
        solvers: tuple[Any, Any], spec: Solving,
    ) -> None:
        self.simulator, self.blocks, self.comm, self.dt = simulator, blocks, comm, dt
        self.old, self.spec, self.applications = old, spec, 0
        self.indefinite = all(solver.exact for solver in solvers)
        self.ring = Halo(blocks, comm, 1, np.float64)
        ones = np.ones([n + 2 for n in old.shape[1:]])
        self.diffusion = tuple(
            diffusion_stencil(rate * ones, blocks, comm.rank)
            for rate in (simulator.Du, simulator.Dv)
        )
        self._stack = ExitStack()
        with ExitStack() as stack:
            self.species = tuple(
                stack.enter_context(Prepared(
                    diffusion_stencil(rate * ones, blocks, comm.rank, reaction), blocks, comm,
                    solver, spec,
                ))
                for rate, reaction, solver in zip(
                    (simulator.Du, simulator.Dv), self._reactions(old), solvers, strict=True
                )
            )
            self._stack = stack.pop_all()

    def __enter__(self) -> ImplicitStep:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _reactions(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The parts of A_u and A_v without derivatives."""
        (u, v), s = state, self.simulator
        first = 1 / self.dt + v**2 + s.F
        second = 1 / self.dt + s.F + s.k - 2 * u * v + 2 * u * v**3 / first
        return first, second if self.indefinite else np.maximum(second, LEAST / self.dt)

    def _diffused(self, state: np.ndarray) -> np.ndarray:
        """-D laplace of both species; one exchange."""
        padded = self.ring(state)
        return np.stack([stencil.apply(part) for stencil, part in
                         zip(self.diffusion, padded, strict=True)])

    def residual(self, state: np.ndarray) -> np.ndarray:
        """F(U), (2, *block.size); collective."""
        (u, v), s = state, self.simulator
        made = u * v**2
        reaction = np.stack([-made + s.F * (1 - u), made - (s.F + s.k) * v])
        lifted = np.stack([stencil.lifted for stencil in self.diffusion])
        return (state - self.old) / self.dt + self._diffused(state) - lifted - reaction

    def jacobian(self, state: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """F'(U) W, (2, *block.size); collective."""
        (u, v), (a, b), s = state, direction, self.simulator
        made = v**2 * a + 2 * u * v * b
        reaction = np.stack([-made - s.F * a, made - (s.F + s.k) * b])
        return direction / self.dt + self._diffused(direction) - reaction

    def precondition(self, rest: np.ndarray) -> np.ndarray:
        """About F'(U_old)^-1 times a residual; collective."""
        self.applications += 1
        first, second = (ready.preconditioner for ready in self.species)
        du = first(np.ascontiguousarray(rest[0]))
        return np.stack([du, second(rest[1] + self.old[1] ** 2 * du)])

    def size(self, field: np.ndarray) -> float:
        """Euclidean norm over both species and the whole domain; collective."""
        return float(np.hypot(*(norm(part, self.blocks, self.comm) for part in field)))

    def solve(
        self, method: str = "newton", guess: np.ndarray | None = None, *, most: int = 60
    ) -> Stepped:
        """U with ||F(U)|| <= tolerance ||F(U_old)||; raises NotConverged otherwise. Collective.

        `guess` (2, *block.size) is where to begin, for example a surrogate's forecast; default:
        the old state.
        """
        begun, self.applications = time.perf_counter(), 0
        scale = self.size(self.residual(self.old)) or 1.0
        start = self.old if guess is None or not self._helps(guess) else guess
        course = solve_nonlinear(
            method, start, self.residual, self.jacobian, self.precondition, self.comm,
            atol=self.spec.tolerance * scale, most=most,
        )
        reached = self.size(self.residual(course.solution)) / scale
        if not reached <= self.spec.tolerance:
            raise NotConverged(course.iterations, reached, self.spec.tolerance)
        exact = sum(len(ready.preconditioner.exact) for ready in self.species)
        return Stepped(
            course.solution, reached, course.iterations, self.applications,
            tuple(r / scale for r in course.residuals), sum(self.comm.allgather(exact)),
            time.perf_counter() - begun,
        )

    def _helps(self, guess: np.ndarray) -> bool:
        """Whether a guess is finite and nearer to a root than no change at all."""
        found = self.size(self.residual(guess))
        return bool(found < self.size(self.residual(self.old)))


def march(
    step: Callable[[np.ndarray], ImplicitStep], state: np.ndarray, steps: int, method: str
) -> list[Stepped]:
    """`steps` implicit steps, each from the last; `step(old)` prepares one. Collective."""
    taken = []
    for _ in range(steps):
        with step(state) as ready:
            taken.append(ready.solve(method))
        state = taken[-1].state
    return taken
