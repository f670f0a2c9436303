"""Solvers of all tiles' local problems A_i z_i = r_i. To add one: one file, one line.

A member's `load(folder)` returns a solver. It calls `prepare(operators)` once a matrix, then
`correct(residual) -> correction`, both (n, *window) for the n tiles of a rank in one batch. Its
`exact` says whether it makes any error.
"""

from __future__ import annotations

from typing import Any

from scaled_mpi.local_solvers.exact import Exact
from scaled_mpi.local_solvers.learned import Learned
from scaled_mpi.local_solvers.solvers import member_violations
from scaled_mpi.plugins import joined

BUILT_IN: dict[str, Any] = {"exact": Exact, "learned": Learned}

MEMBERS: dict[str, Any]  # served by `__getattr__`


def __getattr__(name: str) -> dict[str, Any]:
    """Serve `MEMBERS`: the built-in members, and those that installed packages add."""
    return joined(globals(), name, "scaled_mpi.local_solvers", member_violations)
