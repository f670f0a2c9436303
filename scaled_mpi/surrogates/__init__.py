"""Surrogates: local operators that advance a field by one jump. One file a member."""

from __future__ import annotations

from typing import Any

from scaled_mpi.plugins import joined
from scaled_mpi.surrogates.diffusion import Diffusion
from scaled_mpi.surrogates.mvar import Mvar
from scaled_mpi.surrogates.operators import member_violations
from scaled_mpi.surrogates.probabilistic import Probabilistic
from scaled_mpi.surrogates.stepper import Stepper

BUILT_IN: dict[str, Any] = {
    "stepper": Stepper,
    "probabilistic": Probabilistic,
    "diffusion": Diffusion,
    "mvar": Mvar,
}

MEMBERS: dict[str, Any]  # served by `__getattr__`


def __getattr__(name: str) -> dict[str, Any]:
    """Serve `MEMBERS`: the built-in members, and those that installed packages add."""
    return joined(globals(), name, "scaled_mpi.surrogates", member_violations)
