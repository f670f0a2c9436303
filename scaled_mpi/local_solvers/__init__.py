"""Solvers of all tiles' local problems A_i z_i = r_i. To add one: one file, one line.

A member's `load(folder)` returns a solver: `prepare(operators)` once a matrix, then
`correct(residual) -> correction`, both (n, *window) for the n tiles of a rank in one batch; its
`exact` says whether it makes any error.
"""

from scaled_mpi.local_solvers.exact import Exact
from scaled_mpi.local_solvers.learned import Learned

MEMBERS = {"exact": Exact, "learned": Learned}
