"""Coarse spaces of the two-level method: what tiles cannot tell each other in one step.

    c = Z (Z^T A Z)^-1 Z^T r

`hats`    Q1 hats on the corners of the tiles, those on a Dirichlet face left out; elsewhere a
          partition of unity. About one vector a tile; enough for media that vary little.
`geneo`   the lowest eigenvectors of  A_i^N v = lambda X A_i X v  on tile + overlap, each times the
          partition of unity X. A_i^N: the tile's own operator, free at its edge.
          For high contrast: every well-conducting part that crosses several tiles costs one
          vector. (Spillane, Dolean, Hauret, Nataf, Pechstein, Scheichl 2014, Numer. Math. 126.)

The Galerkin matrix is made once and factorised on every rank; an application reduces one number a
coarse vector. Where A is singular the constants are also the null space of the coarse matrix. One
coarse dof is then held at 0, and the correction loses its mean.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable

import numpy as np

from scaled_mpi.coupling.solving import Coarse
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.petsc import Basis, Lattice, LinearSystem
from scaled_mpi.problems.elliptic import mean
from scaled_mpi.problems.tile_matrices import TileOperators

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
SHIFT = 1e-9  # of the Neumann matrix, relative to its diagonal: its constants have no inverse


class CoarseSpace:
    """The coarse correction of one system; a context manager. `vectors` counts all of them."""

    def __init__(self, system: LinearSystem, operators: TileOperators, spec: Coarse) -> None:
        from scipy.sparse.linalg import splu

        self.system = system
        rows = _hats(operators) if spec.kind == "hats" else _geneo(operators, spec)
        self.basis = Basis(system, rows)
        self.vectors = self.basis.count
        self.matrix = self.basis.galerkin(system)
        kept = self.vectors - 1 if system.singular else self.vectors
        self._solver = splu(self.matrix[:kept, :kept]) if kept else None
        self._kept = kept

    def __enter__(self) -> CoarseSpace:
        return self

    def __exit__(self, *error: object) -> None:
        self.basis.__exit__(*error)

    def correct(self, residual: np.ndarray) -> np.ndarray:
        """The correction c, float64 (*block.size), of a residual (*block.size); collective."""
        reduced = self.basis.restrict(residual)
        weights = np.zeros(self.vectors)
        if self._solver is not None:
            weights[: self._kept] = self._solver.solve(reduced[: self._kept])
        correction = self.basis.prolong(weights)
        if self.system.singular:
            correction -= mean(correction, self.system.blocks, self.system.comm)
        return correction


def _hats(operators: TileOperators) -> Rows:
    """One hat a corner of the tiles, on the tiles that meet there."""
    blocks, comm = operators.blocks, operators.comm
    width = max(blocks.tile)
    numbers = _numbers(blocks, comm, width)
    vectors = []
    for index in operators.tiles:
        box = blocks.local_slices(comm.rank, index, width)
        along = [_hats_along(blocks, axis, i, width) for axis, i in enumerate(index)]
        hats = [_product(factors) for factors in itertools.product(*along)]
        vectors.append([(numbers[box], hat) for hat in hats])
    return _rows(vectors)


def _hats_along(blocks: Blocks, axis: int, place: int, width: int) -> list[np.ndarray]:
    """The 1-D hats that a tile looks after, on its cells and `width` around them.

    It is that of its upper end, and of its lower end where the domain begins; none on a Dirichlet
    face.
    """
    t, kind = blocks.tile[axis], blocks.grid.boundary[axis].kind
    ends = []
    if place == 0 and kind == "neumann":
        ends.append(0)
    if place < blocks.counts[axis] - 1 or kind != "dirichlet":
        ends.append(t)
    x = np.arange(-width, t + width) + 0.5
    return [np.maximum(0.0, 1 - np.abs(x - end) / t) for end in ends]


def _product(factors: Iterable[np.ndarray]) -> np.ndarray:
    """The outer product of one 1-D array an axis."""
    return functools.reduce(np.multiply.outer, factors)


def _geneo(operators: TileOperators, spec: Coarse) -> Rows:
    """The enriched space: eigenvectors of each tile times the partition of unity."""
    blocks, comm = operators.blocks, operators.comm
    numbers = _numbers(blocks, comm, operators.overlap)
    partition = operators.partition()
    vectors = []
    for tile, index in enumerate(operators.tiles):
        box = blocks.local_slices(comm.rank, index, operators.overlap)
        found = _eigenvectors(operators, tile, partition[tile], spec)
        # Lowest last: of a singular matrix the space's last vector is left out, which must be one
        # that the constants need, or they stay in the span and the coarse matrix has no inverse.
        vectors.append([(numbers[box], vector) for vector in reversed(found)])
    return _rows(vectors)


def _eigenvectors(
    operators: TileOperators, tile: int, weights: np.ndarray, spec: Coarse
) -> list[np.ndarray]:
    """X v of the lowest eigenvalues of one tile, each of largest value 1."""
    from scipy import sparse
    from scipy.sparse.linalg import LinearOperator, eigsh, splu

    inside = operators.inside[tile]
    x = sparse.diags((weights * inside).ravel())
    neumann = operators.matrix(tile, neumann=True)
    neumann = neumann + SHIFT * sparse.diags(operators.diagonal[tile].ravel())
    right = (x @ operators.matrix(tile) @ x).tocsc()
    factor = splu(neumann.tocsc())
    cells = right.shape[0]
    most = min(spec.most, cells - 2)
    # The largest 1 / lambda: the shifted Neumann matrix is the one with an inverse.
    inverse = LinearOperator((cells, cells), factor.solve, dtype=float)
    start = (1.0 + np.arange(cells) % 7) * inside.ravel()
    values, vectors = eigsh(
        right,
        most,
        M=neumann,
        Minv=inverse,
        which="LA",
        v0=start,
        ncv=max(2 * most + 8, 20),
        tol=1e-4,
    )
    order = np.argsort(-values)
    low = 1 / np.maximum(values[order], 1e-300)
    count = int(np.clip(np.sum(low < spec.threshold), min(spec.least, most), most))
    chosen = [x @ vectors[:, i] for i in order[:count]]
    return [(v / np.abs(v).max()).reshape(inside.shape) for v in chosen]


def _numbers(blocks: Blocks, comm: Comm, width: int) -> np.ndarray:
    with Lattice(blocks, comm, width) as lattice:
        return lattice.numbering()


def _rows(vectors: list[list[tuple[np.ndarray, np.ndarray]]]) -> Rows:
    """CSR arrays of the vectors of all tiles; a vector that meets itself is added up."""
    indptr, cells, values = [0], [], []
    for vector in (one for tile in vectors for one in tile):
        numbers, entries = (np.asarray(part).ravel() for part in vector)
        present = (numbers >= 0) & (entries != 0)
        unique, inverse = np.unique(numbers[present], return_inverse=True)
        cells.append(unique)
        values.append(np.bincount(inverse, entries[present], len(unique)))
        indptr.append(indptr[-1] + len(unique))
    if not cells:
        return np.array(indptr), np.zeros(0, np.int64), np.zeros(0)
    return np.array(indptr), np.concatenate(cells), np.concatenate(values)


def vectors_a_tile(space: CoarseSpace, blocks: Blocks) -> float:
    """Mean number of coarse vectors of a tile."""
    return space.vectors / math.prod(blocks.counts)
