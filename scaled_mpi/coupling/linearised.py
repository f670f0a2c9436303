"""The right-hand side of two reacting species, and a two-level preconditioner of its derivative.

    f(U) = D laplace U + R(U),   U = (u, v)     R, R' and D: the simulator's, `contract.Reacting`

    s - f'(U) = | A_u   g  |     A_u = (s - R')_uu - D_u laplace,   g = (s - R')_uv
                | -l   B_v |     B_v = (s - R')_vv - D_v laplace,  -l = (s - R')_vu

with s = 1/dt, or more.

It is preconditioned by the two-level Schwarz method of `certified.py`, on both species together.
The coarse space has hats of each species, and tiles solve both. Where v grows faster than s
the matrix is indefinite. Exact tiles (sparse LU) and the coarse level take it as it is. A learned
solver knows one species and definite matrices alone: it solves first for u, then for v,

    z_u = S(A_u) r_u,   z_v = S(A_v) (r_v + l z_u),   A_v = B_v + g l / (s - R')_uu,

A_v being the matrix that eliminating u leaves, cell by cell, with its diagonal raised to the sum
of the couplings where it is below. Flexible GMRES makes up for the difference. Where it stalls,
the worst tiles get exact factors of the matrix of both, and are counted. For Gray-Scott
g = 2 u v and l = v^2.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any, cast

import numpy as np

from scaled_mpi.coupling.certified import Factor, Stall, TwoLevel
from scaled_mpi.coupling.coarse import CoarseSpace
from scaled_mpi.coupling.solving import Coarse, Solving
from scaled_mpi.local_solvers.exact import ExactSolver, sparse_factor
from scaled_mpi.local_solvers.solvers import LocalSolver
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.petsc import LinearSystem
from scaled_mpi.problems.elliptic import norm
from scaled_mpi.problems.stencil_rows import Stencil, diffusion_stencil
from scaled_mpi.problems.tile_matrices import TileOperators
from scaled_mpi.simulators.contract import Reacting

LEAST = 0.1  # of the diffusion's diagonal: what damped Jacobi divides by, at least


class ReactionRates:
    """f of a reacting simulator on the grid of `blocks`; states are float64 (2, *block.size)."""

    def __init__(self, simulator: Reacting, blocks: Blocks, comm: Comm) -> None:
        self.simulator, self.blocks, self.comm = simulator, blocks, comm
        self.ring = Halo(blocks, comm, 1, np.float64)
        self.ones = np.ones([n + 2 for n in blocks.block(comm.rank).size])
        self.diffusion = (self.stencil(0), self.stencil(1))

    def stencil(self, species: int, reaction: float | np.ndarray = 0.0) -> Stencil:
        """Rows of `reaction` - D laplace of u (0), v (1); reaction a number or (*block.size)."""
        rate = self.simulator.diffusion[species]
        return diffusion_stencil(rate * self.ones, self.blocks, self.comm.rank, reaction)

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """f(U); collective, one exchange."""
        lifted = np.stack([stencil.lifted for stencil in self.diffusion])
        return self.simulator.reaction(state) + lifted - self._diffused(state)

    def derivative(self, state: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """f'(U) W of U and W (2, *block.size); collective, one exchange."""
        reaction = self.simulator.reaction_derivative(state, direction)
        return reaction - self._diffused(direction)

    def _diffused(self, state: np.ndarray) -> np.ndarray:
        """-D laplace of both species."""
        padded = self.ring(state)
        return np.stack(
            [stencil.apply(part) for stencil, part in zip(self.diffusion, padded, strict=True)]
        )

    def size(self, field: np.ndarray) -> float:
        """Euclidean norm of (2, *block.size) over species and the whole domain; collective."""
        first, second = (norm(part, self.blocks, self.comm) for part in field)
        return float(np.hypot(first, second))


class Matrix:
    """s - f'(U) at one state: its product, and the four parts that tiles and hats are made of."""

    def __init__(self, rates: ReactionRates, state: np.ndarray, shift: float) -> None:
        self.rates, self.state, self.shift = rates, state, shift
        (first, self.gain), (left, second) = rates.simulator.shifted_reaction(state, shift)
        self.loss = -left
        self.stencils = rates.stencil(0, first), rates.stencil(1, second)
        self.eliminated = rates.stencil(1, second + self.gain * self.loss / first)
        diffused = rates.diffusion[1].diagonal
        self.diagonal = np.stack(
            [self.stencils[0].diagonal, np.maximum(self.eliminated.diagonal, LEAST * diffused)]
        )

    def multiply(self, direction: np.ndarray) -> np.ndarray:
        """(s - f'(U)) W of W (2, *block.size); collective."""
        return self.shift * direction - self.rates.derivative(self.state, direction)


class PairOfTiles:
    """The matrix on all my tiles, as `TileOperators` has it of one species: arrays (n, 2, *w)."""

    def __init__(self, matrix: Matrix, overlap: int) -> None:
        blocks, comm = matrix.rates.blocks, matrix.rates.comm
        parts = []
        with np.errstate(invalid="ignore"):  # it takes the logarithm of what may be negative here
            for stencil in (*matrix.stencils, matrix.eliminated):
                part = TileOperators(stencil, blocks, comm, overlap)
                part.diagonal = np.where(part.inside, part.diagonal, 1.0)
                parts.append(part)
        self.species, self.eliminated = tuple(parts[:2]), parts[2]
        self.blocks, self.comm, self.tiles = blocks, comm, self.species[0].tiles
        self.window = (2, *self.species[0].window)
        self.gain, self.loss = (self.species[0].cut(part) for part in (matrix.gain, matrix.loss))

    def __len__(self) -> int:
        return len(self.tiles)

    def cut(self, field: np.ndarray) -> np.ndarray:
        """(2, *block) -> (n, 2, *w); two exchanges."""
        return np.stack(
            [part.cut(species) for part, species in zip(self.species, field, strict=True)], axis=1
        )

    def owned(self, local: np.ndarray) -> np.ndarray:
        """What the tiles themselves hold, (n, 2, *w) -> (2, *block)."""
        return np.stack([part.owned(local[:, i]) for i, part in enumerate(self.species)])

    def apply(self, local: np.ndarray) -> np.ndarray:
        """The local matrices' product, (n, 2, *w)."""
        u, v = local[:, 0], local[:, 1]
        return np.stack(
            [self.species[0].apply(u) + self.gain * v, self.species[1].apply(v) - self.loss * u],
            axis=1,
        )

    def matrix(self, tile: int) -> Any:
        """That of one tile as a scipy CSC matrix, u before v."""
        from scipy import sparse

        gain, loss = (sparse.diags(part[tile].ravel()) for part in (self.gain, self.loss))
        return sparse.block_array(
            [[self.species[0].matrix(tile), gain], [-loss, self.species[1].matrix(tile)]],
            format="csc",
        )


class PairOfHats:
    """Coarse correction with hats of both species; a context manager."""

    def __init__(self, matrix: Matrix, tiles: PairOfTiles) -> None:
        from scipy import sparse
        from scipy.sparse.linalg import splu

        with ExitStack() as stack:
            first = stack.enter_context(self._system(matrix, matrix.stencils[0]))
            space = stack.enter_context(CoarseSpace(first, tiles.species[0], Coarse()))
            second, gain, loss = (
                space.basis.galerkin(stack.enter_context(self._system(matrix, stencil)))
                for stencil in (matrix.stencils[1], _diagonal(matrix.gain), _diagonal(matrix.loss))
            )
            whole = sparse.block_array([[space.matrix, gain], [-loss, second]], format="csc")
            self.basis, self._solver = space.basis, splu(whole)
            self._stack = stack.pop_all()

    @staticmethod
    def _system(matrix: Matrix, stencil: Stencil) -> LinearSystem:
        return LinearSystem(stencil, matrix.rates.blocks, matrix.rates.comm)

    def __enter__(self) -> PairOfHats:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def correct(self, residual: np.ndarray) -> np.ndarray:
        """The correction (2, *block.size) of a residual (2, *block.size); collective."""
        reduced = np.concatenate([self.basis.restrict(part) for part in residual])
        weights = self._solver.solve(reduced).reshape(2, -1)
        return np.stack([self.basis.prolong(part) for part in weights])


def _diagonal(values: np.ndarray) -> Stencil:
    nothing = (np.zeros_like(values),) * values.ndim
    return Stencil(values, nothing, nothing, np.zeros_like(values), False)


class ExactPair(ExactSolver):
    """Sparse LU of both species on every tile."""

    def prepare(self, operators: TileOperators) -> None:
        """Factorise all tiles of a `PairOfTiles`."""
        self.factors = [sparse_factor(operators, tile) for tile in range(len(operators))]


class LearnedPair(LocalSolver):
    """One learned solver a species, one after the other; see the module."""

    exact = False

    def __init__(self, solvers: tuple[LocalSolver, LocalSolver]) -> None:
        self.solvers = solvers

    def prepare(self, operators: Any) -> None:
        """Prepare both for their matrices, that of v as the nearest definite one."""
        self.loss, raised = operators.loss, copy.copy(operators.eliminated)
        raised.diagonal = raised.diagonal + np.maximum(-raised.excess, 0.0)
        raised.excess = np.maximum(raised.excess, 0.0)
        for solver, part in zip(self.solvers, (operators.species[0], raised), strict=True):
            solver.prepare(part)

    def correct(self, residual: np.ndarray) -> np.ndarray:
        """z of r, float64 (n, 2, *w)."""
        first, second = self.solvers
        u = first.correct(residual[:, 0])
        return np.stack([u, second.correct(residual[:, 1] + self.loss * u)], axis=1)


class TwoLevelPair(TwoLevel):
    """The preconditioner of both species."""

    def factor(self, tile: int) -> Factor:
        """The exact factor of both species on one of my tiles."""
        return sparse_factor(cast(TileOperators, self.operators), tile)


class Linearised:
    """The preconditioner of s - f'(U); `refresh` before the first use, `close` after the last.

    `solvers` are two local solvers, one a species, or of kind exact. Tiles that were once given
    exact factors keep them at later states; `fallback` counts them.
    """

    def __init__(
        self, rates: ReactionRates, solvers: tuple[LocalSolver, LocalSolver], spec: Solving
    ) -> None:
        exact = all(solver.exact for solver in solvers)
        self.rates, self.applications = rates, 0
        self.solver: LocalSolver = ExactPair() if exact else LearnedPair(solvers)
        self.spec = spec.model_copy(update={"smooths": 0}) if exact else spec
        self._stack = ExitStack()
        self._exact: set[int] = set()
        self._level: TwoLevelPair | None = None

    def refresh(self, state: np.ndarray, shift: float) -> None:
        """Make it anew at a state (2, *block.size), with s = `shift`; collective."""
        self.close()
        matrix = Matrix(self.rates, state.copy(), shift)
        tiles, coarse = PairOfTiles(matrix, self.spec.overlap), None
        if self.spec.coarse.kind != "none":
            coarse = self._stack.enter_context(PairOfHats(matrix, tiles))
        self._level = TwoLevelPair(matrix, tiles, coarse, self.solver, matrix.diagonal, self.spec)
        for tile in sorted(self._exact):
            self._level.make_exact(tile)
        self._stall = Stall(self._level, self.spec.gain)

    def __call__(self, rest: np.ndarray) -> np.ndarray:
        """About (s - f'(U))^-1 times a residual (2, *block.size); collective."""
        self.applications += 1
        assert self._level is not None, "refresh comes first"
        return self._level(rest)

    def watch(self, iteration: int, size: float) -> None:
        """Strengthen it where a Krylov method stalls; collective."""
        self._stall(iteration, size)

    @property
    def fallback(self) -> int:
        """Tiles of all ranks with exact factors in place of the learned solver; collective."""
        self._remember()
        return sum(self.rates.comm.allgather(len(self._exact)))

    def _remember(self) -> None:
        if self._level is not None:
            self._exact.update(self._level.exact)

    def close(self) -> None:
        """Free what PETSc holds."""
        self._remember()
        self._stack.close()
        self._level = None
