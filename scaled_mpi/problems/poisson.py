"""Poisson's equation, -laplace u + reaction u = f."""

from __future__ import annotations

from typing import Literal

from scaled_mpi.problems.coefficients import Constant
from scaled_mpi.problems.elliptic import Elliptic


class Poisson(Elliptic):
    """See `Elliptic` for the keys; the coefficient is 1."""

    kind: Literal["poisson"] = "poisson"

    @property
    def coefficient(self) -> Constant:
        """k = 1."""
        return Constant()
