"""Singular values and right vectors of a tall matrix whose rows lie on many ranks.

The matrix A (m, k) is cut into parts of consecutive rows (`parallel/ordered.py`); no rank ever
holds all of them. Three ways, all with A = U S V':

    gram        eigenvectors of A'A: one sum of k x k numbers. The fastest; singular values below
                about 1e-8 of the first are noise, since squaring halves the digits
                (Sirovich 1987, the method of snapshots)
    tsqr        R factors of the parts, joined one after another, then the SVD of the last R: full
                accuracy (Demmel, Grigori, Hoemmen, Langou 2012, https://doi.org/10.1137/080731992)
    randomized  a sketch of `rank` + 10 vectors, two power iterations: k x l numbers instead of
                k x k (Halko, Martinsson, Tropp 2011, https://doi.org/10.1137/090771806)

The left vectors of a part are its rows times V / S. Results have the same bits on any number of
ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scaled_mpi.parallel import streams
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.ordered import in_order, ordered_sum, share

OVERSAMPLE, POWERS = 10, 2
METHODS = ("gram", "tsqr", "randomized")


@dataclass(frozen=True)
class Tall:
    """Rows of a tall matrix: `rows(part)` is (m_part, columns) float64, for parts of this rank.

    Only `rows` travels where the parts are tasks (`parallel/ordered.py`).
    """

    comm: Comm
    parts: int
    columns: int
    rows: Callable[[int], np.ndarray]

    def gram(self) -> np.ndarray:
        """A'A, (k, k), on every rank."""
        rows = self.rows
        return ordered_sum(self.comm, self.parts, lambda part: _square(rows(part)))

    def energy(self) -> float:
        """The sum of all squares, that is of all squared singular values."""
        rows = self.rows

        def squares(part: int) -> np.ndarray:
            return np.array([np.sum(rows(part) ** 2)])

        return float(ordered_sum(self.comm, self.parts, squares)[0])


def decompose(
    matrix: Tall, method: str, rank: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Singular values (r,) and right vectors (k, r), largest first; collective.

    r = k, for "randomized" the `rank` asked for.
    """
    if method == "gram":
        return _from_gram(matrix)
    if method == "tsqr":
        return _from_triangles(matrix)
    return _from_sketch(matrix, rank or matrix.columns, seed)


def _square(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows


def _from_gram(matrix: Tall) -> tuple[np.ndarray, np.ndarray]:
    from scipy.linalg import eigh

    gram, packed = matrix.gram(), None
    if matrix.comm.rank == 0:
        values, vectors = eigh(gram, overwrite_a=True, check_finite=False, driver="evd")
        packed = np.vstack([np.sqrt(np.maximum(values[::-1], 0.0)), vectors[:, ::-1]])
    packed = share(matrix.comm, packed)
    return packed[0].copy(), packed[1:].copy()


def _triangle(matrix: Tall) -> np.ndarray | None:
    """R of A = QR on rank 0, the parts joined in their order."""
    rows, joined = matrix.rows, None

    def factor(part: int) -> np.ndarray:
        return np.asarray(np.linalg.qr(rows(part), mode="r"))

    for triangle in in_order(matrix.comm, matrix.parts, factor):
        if joined is not None:
            triangle = np.asarray(np.linalg.qr(np.vstack([joined, triangle]), mode="r"))
        joined = triangle
    return joined


def _from_triangles(matrix: Tall) -> tuple[np.ndarray, np.ndarray]:
    triangle, packed = _triangle(matrix), None
    if triangle is not None:
        _, values, vectors = np.linalg.svd(triangle, full_matrices=False)
        packed = np.vstack([values, vectors.T])
    packed = share(matrix.comm, packed)
    return packed[0].copy(), packed[1:].copy()


def _from_sketch(matrix: Tall, rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Find a basis Q (k, l) of the leading row space, then the SVD of A Q."""
    k = matrix.columns
    width, all_rows = min(k, rank + OVERSAMPLE), matrix.rows
    basis = streams.normal(seed, 0, np.arange(k * width), stream=Stream.SKETCH).reshape(k, width)
    for _ in range(1 + POWERS):
        now = basis

        def back(part: int, now: np.ndarray = now) -> np.ndarray:
            rows = all_rows(part)
            return rows.T @ (rows @ now)

        basis, _ = np.linalg.qr(ordered_sum(matrix.comm, matrix.parts, back))
    last = basis
    small = Tall(matrix.comm, matrix.parts, width, lambda part: all_rows(part) @ last)
    values, inner = _from_triangles(small)
    return values[:rank], (basis @ inner)[:, :rank]
