"""Elliptic problems: coefficients and residuals, no time. To add one: one file, one line."""

from scaled_mpi.problems.darcy import Darcy
from scaled_mpi.problems.poisson import Poisson

MEMBERS = {"poisson": Poisson, "darcy": Darcy}
