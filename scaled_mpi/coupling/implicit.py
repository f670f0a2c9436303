"""Implicit steps of two reacting species, far over the explicit limit, by Newton or Anderson.

    dU/dt = f(U)            (f and the preconditioner of its linearisation: `linearised.py`)

`backward_euler`, order 1:   (U - U_0) / dt = f(U)
`tr_bdf2`, order 2 (Bank et al. 1985, IEEE Trans. Electron Devices 32), with g = 2 - sqrt 2 a
    trapezoid to t + g dt and a backward difference over it, both with the same matrix:

    U_g = U_0 + (g dt / 2) (f(U_0) + f(U_g))
    U   = (U_g - (1 - g)^2 U_0) / (g (2 - g)) + (g dt / 2) f(U)

So every solve is  F(U) = (U - C) / h - f(U) = 0  with some constant C and length h.

`newton`: SNES with line search and flexible GMRES, the two-level preconditioner made anew at every
iterate. The root of a long step may lie behind states where F' is singular, and a line search ends
there. Then, one after the other until Newton converges, it begins

    direct            at the guess
    continued         at the root of a shorter step, h doubled again and again from h / 16 on: the
                      root that belongs to the old state, if its branch does not turn back
    pseudo-transient  on the flow dU/ds = -F(U) from the guess, in steps (1 / d - F'(U))^-1 with d
                      such that no concentration moves by much more than `LARGEST` (Kelley, Keyes
                      1998, SIAM J. Numer. Anal. 35): a state that attracts this flow
    rest              at the simulator's state of rest, where nothing reacts

For long steps of a pattern that moves F has several roots. `Stepped.root` says how the one that
is given was found, and its error against the simulator what it is worth.

`anderson`, `ngmres`: the sweep U + M^-1 F(U) as nonlinear preconditioner, M made at the guess;
without globalisation. Every variant stops on ||F||, recomputed; never on the update.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scaled_mpi.coupling.linearised import Linearised, ReactionRates
from scaled_mpi.coupling.solving import NotConverged, Solving
from scaled_mpi.local_solvers.solvers import LocalSolver
from scaled_mpi.parallel.comm import largest
from scaled_mpi.parallel.nonlinear import Nonlinear, solve_linear, solve_nonlinear
from scaled_mpi.parallel.petsc import KrylovCourse

GAMMA = 2 - math.sqrt(2)
WORSE = 2.0  # ||F|| of a guess over that of no change, above which it is not used
AT_REST = 1e-7  # ||f|| over ||D laplace|| ||U|| of a state where only rounding is left to solve

ROOTS = ("direct", "continued", "pseudo-transient", "rest")  # ways to one; see above
DIRECT_MOST = 15  # Newton's iterations before another way is tried
NEWTON_MOST = 60  # Newton's iterations at the end of another way
SWEEPS_MOST = 200  # of Anderson and NGMRES
HANDOVER = 1e-2  # relative ||F|| at which a way ends, and Newton takes over
SHORTEST = 32.0  # the whole length over that which continuation begins at
PART_MOST = 8  # Newton's iterations for one length on the way
LEAST_FACTOR = 1.05  # between two lengths, under which the branch counts as turning back
PSEUDO_MOST = 60  # pseudo-transient steps
LARGEST = 0.4  # change of a concentration that one aims at
FASTEST, SLOWEST = 4.0, 0.3  # what its length is multiplied by, at most and at least

Begin = Callable[[], tuple[np.ndarray | None, list[float]]]  # a state, ||F|| on the way to it


@dataclass(frozen=True)
class Stepped:
    """One implicit step: the new state, and ||F(U)|| over ||f(U_0)||, that of no change."""

    state: np.ndarray  # (2, *block.size)
    residual: float
    root: str  # of ROOTS: where the method began when it converged
    iterations: int  # of the nonlinear method, in all
    linear: int  # applications of the preconditioner
    pseudo: int  # pseudo-transient steps
    history: tuple[float, ...]
    fallback_tiles: int
    seconds: float


class ImplicitStep:
    """F(U) = (U - old) / length - f(U) = 0 on my block; a context manager.

    `solvers` are two local solvers, one a species. `scale` is what ||F|| is measured by; default:
    that of no change, ||f(old)||. Of a state at rest it is raised over what rounding leaves.
    """

    def __init__(
        self,
        rates: ReactionRates,
        old: np.ndarray,
        length: float,
        solvers: tuple[LocalSolver, LocalSolver],
        spec: Solving,
        scale: float | None = None,
    ) -> None:
        self.rates, self.old, self.length, self.spec = rates, old, length, spec
        self.comm, self.blocks = rates.comm, rates.blocks
        at_rest = AT_REST * rates.size(old) * float(rates.diffusion[0].diagonal.flat[0])
        self.scale = max(scale or rates.size(self.residual(old)), at_rest) or 1.0
        self.preconditioner = Linearised(rates, solvers, spec)

    def __enter__(self) -> ImplicitStep:
        return self

    def __exit__(self, *error: object) -> None:
        self.preconditioner.close()

    def residual(self, state: np.ndarray) -> np.ndarray:
        """F(U), (2, *block.size), of U (2, *block.size); collective."""
        return self._residual(state, self.length)

    def _residual(self, state: np.ndarray, length: float) -> np.ndarray:
        return (state - self.old) / length - self.rates(state)

    def jacobian(self, state: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """F'(U) W, (2, *block.size), of U and W (2, *block.size); collective."""
        return self._jacobian(state, direction, self.length)

    def _jacobian(self, state: np.ndarray, direction: np.ndarray, length: float) -> np.ndarray:
        return direction / length - self.rates.derivative(state, direction)

    def relative(self, state: np.ndarray) -> float:
        """||F(U)|| over the scale, U (2, *block.size); collective."""
        return self.rates.size(self.residual(state)) / self.scale

    def solve(
        self, method: str = "newton", guess: np.ndarray | None = None, *, most: int | None = None
    ) -> Stepped:
        """U with ||F(U)|| <= tolerance times the scale; raises NotConverged otherwise. Collective.

        `guess` (2, *block.size) is where to begin, for example a surrogate's forecast. The old
        state replaces a guess that is missing, not finite or much farther off. `most`: iterations
        of SNES at a time.
        """
        begun, self.preconditioner.applications = time.perf_counter(), 0
        start = self.old if guess is None or not self._usable(guess) else guess
        history: list[float] = []
        pseudo = iterations = 0
        for root, limit, begin in self._ways(method, start):
            state, sizes = begin()
            pseudo += len(sizes) if root == "pseudo-transient" else 0
            course = None if state is None else self._course(method, state, most or limit)
            history += sizes
            iterations += len(sizes)
            if course is None:
                continue
            history += course.residuals
            iterations += course.iterations
            reached = self.relative(course.solution)
            if reached <= self.spec.tolerance:
                return Stepped(
                    course.solution,
                    reached,
                    root,
                    iterations,
                    self.preconditioner.applications,
                    pseudo,
                    tuple(r / self.scale for r in history),
                    self.preconditioner.fallback,
                    time.perf_counter() - begun,
                )
        raise NotConverged(iterations, reached, self.spec.tolerance)

    def _ways(self, method: str, start: np.ndarray) -> list[tuple[str, int, Begin]]:
        """Name, iterations of SNES at its end, and beginning of each way, in order."""
        if method != "newton":
            return [(ROOTS[0], SWEEPS_MOST, lambda: (start, []))]
        rest = np.empty_like(start)
        for part, value in zip(rest, self.rates.simulator.rest, strict=True):
            part[...] = value
        begins: tuple[Begin, ...] = (
            lambda: (start, []),
            self._continued,
            lambda: self._pseudo_transient(start),
            lambda: (rest, []),
        )
        limits = (DIRECT_MOST, NEWTON_MOST, NEWTON_MOST, NEWTON_MOST)
        return list(zip(ROOTS, limits, begins, strict=True))

    def _course(
        self,
        method: str,
        start: np.ndarray,
        most: int,
        length: float | None = None,
        tolerance: float | None = None,
    ) -> KrylovCourse:
        """One run of SNES from `start`, for a step of another length if one is given."""
        length, tolerance = length or self.length, tolerance or self.spec.tolerance

        def refresh(state: np.ndarray) -> None:
            self.preconditioner.refresh(state, 1 / length)

        if method != "newton":
            refresh(start)
        system = Nonlinear(
            lambda state: self._residual(state, length),
            lambda state, way: self._jacobian(state, way, length),
            self.preconditioner,
            refresh,
            self.preconditioner.watch,
        )
        atol = tolerance * self.scale
        return solve_nonlinear(system, method, start, self.comm, atol=atol, most=most)

    def _continued(self) -> tuple[np.ndarray | None, list[float]]:
        """The root that steps of growing length lead to; None where that branch turns back."""
        state, done, factor = self.old, self.length / SHORTEST, 2.0
        sizes: list[float] = []
        while factor > LEAST_FACTOR:
            length = min(self.length, done * factor)
            course = self._course("newton", state, PART_MOST, length, HANDOVER)
            sizes += course.residuals[1:]
            if not course.residuals[-1] <= HANDOVER * self.scale:
                factor = math.sqrt(factor)
                continue
            state, done, factor = course.solution, length, min(2.0, factor * 1.5)
            if done >= self.length:
                return state, sizes
        return None, sizes

    def _pseudo_transient(self, state: np.ndarray) -> tuple[np.ndarray, list[float]]:
        """A state from which Newton can go on, or the last one; ||F|| after each step."""
        force = self.residual(state)
        sizes: list[float] = []
        pace = LARGEST / max(largest(self.comm, float(np.abs(force).max())), 1e-300)
        for _ in range(PSEUDO_MOST):
            change = self._damped(state, force, pace)
            moved = largest(self.comm, float(np.abs(change).max()))
            if not moved <= LARGEST / SLOWEST:  # also where it is not finite
                pace *= SLOWEST
                continue
            pace *= np.clip(LARGEST / max(moved, 1e-300), SLOWEST, FASTEST)
            pace = min(pace, self.length)  # longer ones would not be damped at all
            state = state + change
            force = self.residual(state)
            sizes.append(self.rates.size(force))
            if sizes[-1] <= HANDOVER * self.scale:
                break
        return state, sizes

    def _damped(self, state: np.ndarray, force: np.ndarray, pace: float) -> np.ndarray:
        """-(1 / pace + F'(U))^-1 F(U), to a tenth; collective."""
        self.preconditioner.refresh(state, 1 / self.length + 1 / pace)
        found = solve_linear(
            lambda way: way / pace + self.jacobian(state, way),
            -force,
            self.preconditioner,
            self.comm,
            rtol=0.1,
            watch=self.preconditioner.watch,
        )
        return found.solution

    def _usable(self, guess: np.ndarray) -> bool:
        return bool(self.relative(guess) <= WORSE * self.relative(self.old))


Make = Callable[..., ImplicitStep]  # (old, length, scale) -> a step to enter


def backward_euler(
    make: Make,
    rates: ReactionRates,
    old: np.ndarray,
    dt: float,
    method: str,
    guess: np.ndarray | None = None,
) -> Stepped:
    """One step of length dt from `old` (2, *block.size), order 1; see the module. Collective."""
    with make(old, dt, None) as step:
        return step.solve(method, guess)


def tr_bdf2(
    make: Make,
    rates: ReactionRates,
    old: np.ndarray,
    dt: float,
    method: str,
    guess: np.ndarray | None = None,
) -> Stepped:
    """One step of length dt from `old` (2, *block.size), order 2; see the module. Collective."""
    rate, part = rates(old), GAMMA * dt / 2
    scale = rates.size(rate) or 1.0
    near = old if guess is None else old + GAMMA * (guess - old)
    with make(old + part * rate, part, scale) as step:
        first = step.solve(method, near)
    far = (first.state - (1 - GAMMA) ** 2 * old) / (GAMMA * (2 - GAMMA))
    with make(far, part, scale) as step:
        last = step.solve(method, guess)
    return replace(
        last,
        residual=max(first.residual, last.residual),
        root=max((first.root, last.root), key=ROOTS.index),
        iterations=first.iterations + last.iterations,
        linear=first.linear + last.linear,
        pseudo=first.pseudo + last.pseudo,
        history=first.history + last.history,
        fallback_tiles=max(first.fallback_tiles, last.fallback_tiles),
        seconds=first.seconds + last.seconds,
    )


SCHEMES = {"backward_euler": backward_euler, "tr_bdf2": tr_bdf2}
