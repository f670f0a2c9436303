"""Simulators: states that advance. To add one: one file, one line in `MEMBERS`.

The contract is `contract.Simulator` (fields on a grid) or `contract.Particles`; generic code runs
a member through the free functions of `running`.
"""

from __future__ import annotations

from typing import Any

from scaled_mpi.config import Spec
from scaled_mpi.plugins import block_violations, joined
from scaled_mpi.simulators.contract import FIELDS, missing
from scaled_mpi.simulators.gray_scott import GrayScott
from scaled_mpi.simulators.running import warm
from scaled_mpi.simulators.vicsek import Vicsek

BUILT_IN: dict[str, Any] = {"gray_scott": GrayScott, "vicsek": Vicsek}

__all__ = ["member_violations", "warm"]


def member_violations(member: object) -> list[str]:
    """Return what the class of a simulator lacks, one line each; it is not built."""
    found = block_violations(member, Spec, ())
    if found:
        return found
    name = getattr(member, "__name__", "")
    return [f"{name}: {word} is missing" for word in missing(member, FIELDS)]


def __getattr__(name: str) -> dict[str, Any]:
    """Serve `MEMBERS`: the built-in members, and those that installed packages add."""
    return joined(globals(), name, "scaled_mpi.simulators", member_violations)
