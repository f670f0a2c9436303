"""Schwarz sweeps for elliptic problems, as fixed points u = G(u), with and without a coarse level.

What a sweep asks of the local solver S_i, with r = b - A u:

    residual form    u_i = R_i u + S_i(R_i r)                 what is missing
    solution form    u_i = S_i(R_i r + A_i R_i u)             the whole solution, its edge given

The two agree where S_i = A_i^-1. A surrogate of solutions has the second form alone, and no
residual sees its error. The iteration ends at a floor, which grows with the number of tiles.
`coarse` adds Z (Z^T A Z)^-1 Z^T (b - A u) after every sweep. The growth goes, the surrogate's own
error stays (only `certified.py` removes that).

How the tiles' answers become one field:

    owned     each tile's own cells (restricted additive Schwarz)
    blended   a partition of unity over the overlaps
    coloured  one colour of tiles after another, each seeing the last (multiplicative)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaled_mpi.coupling.anderson import Anderson
from scaled_mpi.coupling.certified import Prepared
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm

Form = Literal["residual", "solution"]
Combination = Literal["owned", "blended", "coloured"]


@dataclass(frozen=True)
class Swept:
    """Where an iteration ended: the field, ||b - A u|| / ||b|| after every sweep, and why."""

    solution: np.ndarray
    residuals: tuple[float, ...]
    sweeps: int
    converged: bool  # on the true residual; False at a floor or at the last sweep allowed


class Sweeper:
    """One Schwarz sweep on a prepared system; its local solver and coarse space are used.

    `coarse` needs a prepared coarse space. `refinements`: how often a local answer is improved by
    the solver applied to its own local residual. Call it with u and b of my block.
    """

    def __init__(
        self,
        prepared: Prepared,
        form: Form = "residual",
        combination: Combination = "owned",
        coarse: bool = False,
        refinements: int = 0,
    ) -> None:
        self.refinements = refinements
        self.prepared, self.form, self.combination = prepared, form, combination
        self.coarse = prepared.coarse if coarse else None
        tiles = prepared.operators.tiles
        self.colours = np.array([_colour(index, prepared.blocks) for index in tiles])

    def __call__(self, u: np.ndarray, load: np.ndarray) -> np.ndarray:
        """G(u), float64 (*block.size); collective."""
        system, operators = self.prepared.system, self.prepared.operators
        if self.combination == "coloured":
            # Every rank takes part in every colour, with or without tiles of it.
            for colour in range(3 ** len(operators.window)):
                u = self._one_colour(u, load, colour)
        else:
            rest = load - system.multiply(u)
            local = self.local(u, rest)
            u = (
                operators.owned(local)
                if self.combination == "owned"
                else (operators.blended(local))
            )
        if self.coarse is not None:
            u = u + self.coarse.correct(load - system.multiply(u))
        return u

    def local(self, u: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """The new u_i of all tiles, (n, *window)."""
        operators = self.prepared.operators
        known, residual = operators.cut(u), operators.cut(rest)
        if self.form == "solution":
            return self._answer(residual + operators.apply(known))
        return known + self._answer(residual)

    def _answer(self, right: np.ndarray) -> np.ndarray:
        """S_i of local right-hand sides (n, *window), refined."""
        solver = self.prepared.preconditioner.solver
        answer = solver.correct(right)
        for _ in range(self.refinements):
            answer = answer + solver.correct(right - self.prepared.operators.apply(answer))
        return answer

    def _one_colour(self, u: np.ndarray, load: np.ndarray, colour: int) -> np.ndarray:
        operators = self.prepared.operators
        mine = self.colours == colour
        if not any(operators.comm.allgather(bool(mine.any()))):
            return u
        local = self.local(u, load - self.prepared.system.multiply(u))
        change = local - operators.cut(u)
        change[~mine] = 0.0  # windows of one colour do not overlap, so that sums are exchanges
        return u + operators.summed(change)


def _colour(index: tuple[int, ...], blocks: Blocks) -> int:
    """Base-3 number whose digits alternate along each axis; an odd ring needs a third."""
    number = 0
    for i, count, boundary in zip(index, blocks.counts, blocks.grid.boundary, strict=True):
        odd_end = boundary.periodic and count % 2 and i == count - 1 and count > 1
        number = 3 * number + (2 if odd_end else i % 2)
    return number


def iterate(
    sweeper: Sweeper,
    load: np.ndarray,
    *,
    tolerance: float = 1e-6,
    most: int = 200,
    depth: int = 0,
    start: np.ndarray | None = None,
    still: float = 0.0,
) -> Swept:
    """Sweep until the true residual is under `tolerance`; Anderson with `depth` > 0. Collective.

    `load` and `start` are float64 (*block.size). `still` > 0 also ends it where a sweep changes u
    by less than that, relative to u. This is the floor of a solution form, not convergence.
    """
    prepared = sweeper.prepared
    anderson = Anderson(depth, lambda a, b: products(a, b, prepared.blocks, prepared.comm))
    u = np.zeros_like(load) if start is None else start
    one = load[None]
    size = float(np.sqrt(anderson.products(one, one)[0, 0])) or 1.0
    residuals: list[float] = []
    for _ in range(most):
        u = anderson.next(u, sweeper(u, load))
        residuals.append(prepared.residual(load, u, size))
        if residuals[-1] <= tolerance:
            break
        width = float(np.sqrt(anderson.products(u[None], u[None])[0, 0]))
        if anderson.size <= still * width:
            break
    done = bool(residuals) and residuals[-1] <= tolerance
    return Swept(u, tuple(residuals), len(residuals), done)


def products(a: np.ndarray, b: np.ndarray, blocks: Blocks, comm: Comm) -> np.ndarray:
    """a_i . b_j over the whole domain, (m, n) of (m, *block) and (n, *block); collective.

    Tiles are summed each for itself and then in their order, whoever owns them.
    """
    mine = []
    for index in blocks.tiles(comm.rank):
        part = (slice(None), *blocks.local_slices(comm.rank, index))
        mine.append((index, a[part].reshape(len(a), -1) @ b[part].reshape(len(b), -1).T))
    every = sorted(
        (entry for part in comm.allgather(mine) for entry in part), key=lambda entry: entry[0]
    )
    return np.sum([entry[1] for entry in every], axis=0)


@dataclass(frozen=True)
class Floor:
    """Errors relative to the discrete solution, in the Euclidean norm over all tiles' own cells.

    Both are solution errors of the same cells, norm and reference. `local` is the surrogate's own
    error, under the true right-hand side and, at the edge of each overlap, the true solution.
    `coupled` is the error at the end of the iteration, where edges come from the neighbours.
    """

    solution: np.ndarray  # of the coupled tiles, my block
    local: float
    coupled: float
    sweeps: int
    residual: float

    @property
    def ratio(self) -> float:
        """How much the coupling amplifies the surrogate's own error."""
        return self.coupled / self.local


def floor(
    prepared: Prepared,
    load: np.ndarray,
    exact: np.ndarray,
    *,
    most: int = 120,
    depth: int = 10,
    refinements: int = 0,
) -> Floor:
    """Where a solution-form surrogate ends, with the prepared coarse space, if any. Collective.

    `load` and `exact`, the discrete solution, are float64 (*block.size). The coarse space decides
    how far the error is amplified. Hats suffice for a constant coefficient. A medium of contrast
    1000 has smooth errors that hats cannot see; one eigenvector a tile removes them.
    """
    sweeper = Sweeper(prepared, "solution", "owned", prepared.coarse is not None, refinements)
    rest = np.zeros_like(load)
    alone = prepared.operators.owned(sweeper.local(exact, rest))
    swept = iterate(sweeper, load, tolerance=1e-12, most=most, depth=depth, still=1e-7)
    stack = np.stack([alone - exact, swept.solution - exact, exact])
    sizes = np.sqrt(np.diag(products(stack, stack, prepared.blocks, prepared.comm)))
    local, coupled = float(sizes[0] / sizes[2]), float(sizes[1] / sizes[2])
    return Floor(swept.solution, local, coupled, swept.sweeps, swept.residuals[-1])
