"""Simulators: states that advance. To add one: one file, one line in `BUILT_IN`.

`contract.Simulator` is the contract of fields on a grid, `contract.ParticleSimulator` of flocks.
Generic code runs a member through the free functions of `running`. A package adds one by the
entry-point group `scaled_mpi.simulators`.
"""

from __future__ import annotations

from scaled_mpi.config import Spec
from scaled_mpi.plugins import joined
from scaled_mpi.simulators.contract import member_violations
from scaled_mpi.simulators.gray_scott import GrayScott
from scaled_mpi.simulators.running import warm
from scaled_mpi.simulators.vicsek import Vicsek

BUILT_IN: dict[str, type[Spec]] = {"gray_scott": GrayScott, "vicsek": Vicsek}

__all__ = ["BUILT_IN", "GrayScott", "Vicsek", "warm"]

MEMBERS: dict[str, type[Spec]]  # served by `__getattr__`


def __getattr__(name: str) -> dict[str, type[Spec]]:
    """Serve `MEMBERS`: the built-in members, and those that installed packages add."""
    return joined(globals(), name, "scaled_mpi.simulators", member_violations)
