"""Simulators: states that advance. To add one: one file, one line in `MEMBERS`.

The contract is `contract.Simulator` (fields on a grid) or `contract.Particles`; generic code runs
a member through the free functions of `running`.
"""

from __future__ import annotations

from scaled_mpi.simulators.gray_scott import GrayScott
from scaled_mpi.simulators.running import warm
from scaled_mpi.simulators.vicsek import Vicsek

MEMBERS = {"gray_scott": GrayScott, "vicsek": Vicsek}

__all__ = ["MEMBERS", "warm"]
