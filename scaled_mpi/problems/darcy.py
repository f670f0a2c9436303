"""Darcy's law and mass balance, -div(k grad u) + reaction u = f: pressure u in a medium k."""

from __future__ import annotations

from typing import Literal

from scaled_mpi.problems.coefficients import Coefficient, LogNormal
from scaled_mpi.problems.elliptic import Elliptic


class Darcy(Elliptic):
    """See `Elliptic` for the other keys; `coefficient` is the permeability over the viscosity."""

    kind: Literal["darcy"] = "darcy"
    coefficient: Coefficient = LogNormal()
