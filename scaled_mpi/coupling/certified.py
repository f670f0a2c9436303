"""Certified two-level Schwarz: a learned tile solver inside a Krylov method that checks it.

One application of the preconditioner to a residual r (Z: coarse basis, R_i: tile + overlap,
R~_i: the tile's own cells, S: local solver):

    c  = Z (Z^T A Z)^-1 Z^T r             what the tiles cannot know of each other
    r1 = r - A c
    z  = sum_i R~_i^T S_i(R_i r1)         all tiles of a rank in one batch; restricted additive
    z += omega D^-1 (r1 - A z)            `smooths` times: networks leave high frequencies
    c + z

S may be nonlinear and may be wrong. The outer method is flexible GMRES (Saad 1993) with right
preconditioning, whose residual is the true one. An answer is accepted on ||b - A u|| / ||b||
recomputed at the end, and on nothing else. Tiles get exact factors, the worst first, and are
counted, where two iterations in a row gain less than 2 % each. (One alone is common at the start
of a hard problem, with exact tiles too.) So does a tile whose correction is not finite or absurd.
In the end the method is the exact two-level one, which converges.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.coupling.coarse import CoarseSpace
from scaled_mpi.coupling.solving import NotConverged, Solving
from scaled_mpi.local_solvers.exact import factorise
from scaled_mpi.local_solvers.solvers import LocalSolver
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.petsc import LinearSystem
from scaled_mpi.problems.elliptic import mean, norm
from scaled_mpi.problems.stencil_rows import Stencil
from scaled_mpi.problems.tile_matrices import TileOperators

TRIES = 3  # solves one after the other, each from the last answer, before giving up
ABSURD = 1e3  # local defect over local residual at which a tile becomes exact at once
POOR = 0.05  # local defect over local residual under which an exact factor would not help
DIVISOR = 4  # of the poor tiles, one in so many becomes exact at a time
PATIENCE = 2  # iterations in a row that gain too little before tiles become exact


@dataclass(frozen=True)
class Certified:
    """An answer that was checked. `residual` is ||b - A u|| / ||b||, recomputed."""

    solution: np.ndarray
    residual: float
    iterations: int
    history: tuple[float, ...]  # relative residuals, iteration 0 first
    fallback_tiles: int  # tiles of all ranks that were given exact factors
    vectors: int  # coarse vectors
    messages: int  # sent by this rank in halo exchanges of the tiles
    bytes: int
    seconds_setup: float
    seconds: float  # of the iterations


class Product(Protocol):
    """A matrix of the whole domain."""

    def multiply(self, vector: np.ndarray) -> np.ndarray:
        """The product with a vector (*block.size); collective."""
        ...


class Correction(Protocol):
    """A coarse space."""

    def correct(self, residual: np.ndarray) -> np.ndarray:
        """The correction of a residual (*block.size); collective."""
        ...


class Factor(Protocol):
    """Exact factors of one tile's matrix."""

    def solve(self, load: np.ndarray) -> np.ndarray:
        """The solution (n,) for a right-hand side (n,), n cells."""
        ...


class Windows(Protocol):
    """The operators of all n tiles of a rank, as `problems.tiles.TileOperators` has them."""

    comm: Comm
    tiles: Any
    window: tuple[int, ...]

    def __len__(self) -> int: ...

    def cut(self, field: np.ndarray) -> np.ndarray:
        """(*block.size) -> (n, *window); collective."""
        ...

    def owned(self, local: np.ndarray) -> np.ndarray:
        """(n, *window) -> (*block.size): the cells that the tiles themselves hold."""
        ...

    def apply(self, local: np.ndarray) -> np.ndarray:
        """The products of the local matrices, (n, *window)."""
        ...


class TwoLevel:
    """The preconditioner; call it with a residual block. `solver` is prepared here."""

    def __init__(
        self,
        system: Product,
        operators: Windows,
        coarse: Correction | None,
        solver: LocalSolver,
        diagonal: np.ndarray,
        spec: Solving,
    ) -> None:
        self.system, self.operators, self.coarse = system, operators, coarse
        self.solver = solver
        self.diagonal, self.spec = diagonal, spec
        self.exact: dict[int, Factor] = {}
        self.defects = np.zeros(len(operators))
        solver.prepare(cast(TileOperators, operators))

    def __call__(self, residual: np.ndarray) -> np.ndarray:
        """The correction of a residual block, float64 (*block.size); collective."""
        answer, rest = np.zeros_like(residual), residual
        if self.coarse is not None:
            answer = self.coarse.correct(residual)
            rest = residual - self.system.multiply(answer)
        z = self.operators.owned(self.local(rest))
        for _ in range(self.spec.smooths):
            z += self.spec.omega * (rest - self.system.multiply(z)) / self.diagonal
        return answer + z

    def local(self, rest: np.ndarray) -> np.ndarray:
        """Corrections of all my tiles, finite, float64 (n, *window); one exchange."""
        residual = self.operators.cut(rest)
        if len(self.exact) == len(self.operators):
            local = np.zeros_like(residual)
        else:
            local = self.solver.correct(residual)
        if self.solver.exact:
            return local
        for absurd in np.flatnonzero(self._absurd(local, residual)):
            self.make_exact(int(absurd))
        for tile, factor in self.exact.items():
            local[tile] = factor.solve(residual[tile].ravel()).reshape(self.operators.window)
            self.defects[tile] = 0.0
        return local

    def _absurd(self, local: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """Which corrections are not finite, or far worse than none at all, bool (n,)."""
        with np.errstate(invalid="ignore", over="ignore"):
            sizes = np.maximum(_norms(residual), 1e-300)
            self.defects = _norms(self.operators.apply(local) - residual) / sizes
            return ~(self.defects <= ABSURD)

    def make_exact(self, tile: int) -> None:
        """Give one of my tiles an exact factor from now on."""
        if tile not in self.exact:
            self.exact[tile] = self.factor(tile)

    def factor(self, tile: int) -> Factor:
        """The exact factor of one of my tiles."""
        return factorise(cast(TileOperators, self.operators), tile)

    def strengthen(self) -> bool:
        """Make the worst of the poor tiles exact; False if there is none. Collective."""
        comm, tiles = self.operators.comm, self.operators.tiles
        mine = [
            (-float(self.defects[i]), index)
            for i, index in enumerate(tiles)
            if self.defects[i] > POOR
        ]
        waiting = sorted(entry for part in comm.allgather(mine) for entry in part)
        chosen = {index for _, index in waiting[: -(-len(waiting) // DIVISOR)]}
        for i, index in enumerate(tiles):
            if index in chosen:
                self.make_exact(i)
        return bool(chosen)


class Prepared:
    """One matrix ready for many right-hand sides; a context manager. Collective.

    `solver` is a local solver (see `local_solvers`). InputError for a matrix that cannot be.
    """

    def __init__(
        self, stencil: Stencil, blocks: Blocks, comm: Comm, solver: LocalSolver, spec: Solving
    ) -> None:
        begun = time.perf_counter()
        self.blocks, self.comm, self.spec = blocks, comm, spec
        self._stack = ExitStack()
        with ExitStack() as stack:
            self.system = stack.enter_context(LinearSystem(stencil, blocks, comm))
            self.operators = TileOperators(stencil, blocks, comm, spec.overlap)
            self.coarse: CoarseSpace | None = None
            if spec.coarse.kind != "none":
                space = CoarseSpace(self.system, self.operators, spec.coarse)
                self.coarse = stack.enter_context(space)
            self.preconditioner = TwoLevel(
                self.system, self.operators, self.coarse, solver, stencil.diagonal, spec
            )
            self._stack = stack.pop_all()
        self.seconds = time.perf_counter() - begun

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def solve(self, load: np.ndarray, start: np.ndarray | None = None) -> Certified:
        """u (*block.size) with ||b - A u|| <= tolerance ||b||, b and u float64. Collective.

        Errors: NotConverged without such u; InputError where the matrix is singular and the load
        has a mean, since there is no answer then.
        """
        size = self._size(load)
        solution = np.zeros_like(load) if start is None else start
        history: list[float] = []
        iterations, begun, halo = 0, time.perf_counter(), self.operators.halo
        sent = halo.messages, halo.bytes
        residual = self.residual(load, solution, size)
        for _ in range(TRIES):
            if residual <= self.spec.tolerance or iterations >= self.spec.most:
                break
            course = self.system.solve(
                load,
                self.preconditioner,
                rtol=0.9 * self.spec.tolerance,
                most=self.spec.most - iterations,
                restart=self.spec.restart,
                start=solution,
                watch=Stall(self.preconditioner, self.spec.gain),
            )
            iterations += course.iterations
            history += [r / size for r in course.residuals]
            if not self._finite(course.solution):
                break
            solution, residual = course.solution, self.residual(load, course.solution, size)
        if not residual <= self.spec.tolerance:
            raise NotConverged(iterations, residual, self.spec.tolerance, tuple(history))
        counts = self.comm.allgather(len(self.preconditioner.exact))
        return Certified(
            solution,
            residual,
            iterations,
            tuple(history) or (residual,),
            sum(counts),
            self.coarse.vectors if self.coarse is not None else 0,
            halo.messages - sent[0],
            halo.bytes - sent[1],
            self.seconds,
            time.perf_counter() - begun,
        )

    def residual(self, load: np.ndarray, solution: np.ndarray, size: float) -> float:
        """||b - A u|| / size of b, u (*block.size), the same for any split; collective."""
        return norm(load - self.system.multiply(solution), self.blocks, self.comm) / size

    def _size(self, load: np.ndarray) -> float:
        """||b||, or 1 where it is 0. InputError where b is not finite or has no answer."""
        size = norm(load, self.blocks, self.comm)
        if not math.isfinite(size):
            raise InputError("right-hand side: not finite. Needed: finite numbers")
        if self.system.singular:
            average = mean(load, self.blocks, self.comm)
            root = size / math.sqrt(math.prod(self.blocks.grid.shape))
            if abs(average) > 0.1 * self.spec.tolerance * root:
                raise InputError(
                    f"right-hand side: mean {average:.3g} is not allowed: without a Dirichlet "
                    "face or a reaction there is no answer. Allowed: a mean of 0"
                )
        return size or 1.0

    def _finite(self, field: np.ndarray) -> bool:
        return all(self.comm.allgather(bool(np.isfinite(field).all())))


class Stall:
    """Watches the residual norms; strengthens the preconditioner where too little is gained."""

    def __init__(self, preconditioner: TwoLevel, gain: float) -> None:
        self.preconditioner, self.gain = preconditioner, gain
        self.last, self.poor = math.inf, 0

    def __call__(self, iteration: int, norm: float) -> None:
        stalled = bool(iteration and self.gain) and norm > (1 - self.gain) * self.last
        self.poor = self.poor + 1 if stalled else 0
        if self.poor >= PATIENCE:
            self.preconditioner.strengthen()
        self.last = norm


def _norms(local: np.ndarray) -> np.ndarray:
    """Euclidean norm of every tile's window, (n,)."""
    return np.linalg.norm(local.reshape(len(local), -1), axis=1)
