"""Anderson acceleration, type II, of any fixed point u = G(u) on a decomposed domain.

With f_k = G(u_k) - u_k, and dU, dF the last `depth` differences of u and f,

    gamma   = argmin || f_k - dF gamma ||
    u_{k+1} = u_k + f_k - (dU + dF) gamma

(Walker and Ni 2011, SIAM J. Numer. Anal. 49). The products are sums over tiles, rounded once, so
that the weights do not depend on the number of ranks. Differences that are nearly dependent are
dropped, the oldest first; after an f that doubled all of them are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

CONDITION = 1e13  # of the products' matrix, the square of that of dF
GROWTH = 2.0

Products = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Anderson:
    """The memory of one iteration; `products(a, b)` gives a_i . b_j over the whole domain.

    a (m, *block.size), b (n, *block.size) -> (m, n), the same on every rank. Depth 0 is the plain
    iteration.
    """

    def __init__(self, depth: int, products: Products) -> None:
        self.depth, self.products = depth, products
        self._du: list[np.ndarray] = []
        self._df: list[np.ndarray] = []
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self.size = math.inf  # of the last f

    def next(self, u: np.ndarray, g: np.ndarray) -> np.ndarray:
        """u_{k+1} from u_k and G(u_k); collective. `size` is then ||G(u_k) - u_k||."""
        f = g - u
        size = math.sqrt(float(self.products(f[None], f[None])[0, 0]))
        if size > GROWTH * self.size:
            self._du, self._df, self._last = [], [], None
        self.size = size
        if self._last is not None and self.depth:
            self._du = [*self._du, u - self._last[0]][-self.depth :]
            self._df = [*self._df, f - self._last[1]][-self.depth :]
        self._last = (u, f)
        if not self._df:
            return g
        differences = np.stack(self._df)
        products = self.products(differences, np.concatenate([differences, f[None]]))
        gram, right = products[:, :-1], products[:, -1]
        while len(gram) and not np.linalg.cond(gram) < CONDITION:
            gram, right = gram[1:, 1:], right[1:]
            self._du, self._df = self._du[1:], self._df[1:]
        if not len(gram):
            return g
        gamma = np.linalg.solve(gram, right)
        return g - sum(w * (du + df) for w, du, df in zip(gamma, self._du, self._df, strict=True))
