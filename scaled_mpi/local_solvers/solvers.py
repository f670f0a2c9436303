"""The two contracts of a local solver: the block of YAML, and the solver that it loads.

A solver works on the windows of all n tiles of a rank in one batch. `prepare` sees the matrices
A_i once, `correct` then returns corrections z_i of residuals r_i with A_i z_i near r_i:

    class Jacobi(LocalSolver):
        def prepare(self, operators):
            self.diagonal = operators.diagonal

        def correct(self, residual):
            return residual / self.diagonal

A correction is homogeneous on the window's edge and scales with its residual. It may be wrong: the
certified solve checks every answer and replaces wrong ones by exact factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.given_weights import TrainedPart
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.plugins import block_violations, missing
from scaled_mpi.problems.tile_matrices import TileOperators

SCALE = 1024.0  # a power of two: a linear solver's answer scales by it to a few roundings
TOLERANCE = 1e-3  # relative, of answers in float32


class LocalSolver(Protocol):
    """A loaded solver of all tiles' local problems; `exact`: whether it makes no error."""

    exact: bool = False

    def prepare(self, operators: TileOperators) -> None:
        """Read the matrices of all n tiles, once a matrix. Errors: `InputError` for others."""
        ...

    def correct(self, residual: np.ndarray) -> np.ndarray:
        """Return the corrections z, float64 (n, *window), of residuals (n, *window)."""
        ...


class LocalSolverSpec(TrainedPart):
    """The block of YAML of a local solver; its fields are its keys. A member adds `kind`.

    `weights`: a results folder or a shipped name, in place of a training.
    """

    if TYPE_CHECKING:

        @property
        def kind(self) -> str:
            """Name of the member in YAML."""

    def fit(
        self, source: Path, comm: Comm, folder: Path, events: EventLog | None, seed: int
    ) -> None:
        """Fit to the residuals in `source` and leave the weights in `folder`; collective."""

    def load(self, folder: Path | None = None) -> LocalSolver:
        """Return the solver of a folder that `fit` filled. Errors: `InputError`."""
        raise TypeError(f"{type(self).__name__}: load is missing")

    def _check_taken(self, folder: Path, source: Path, seen: Mapping[str, Any] | None) -> None:
        """Raise `InputError` where no solver can be loaded."""
        load_local_solver(self, folder)

    def learns(self) -> bool:
        """Return whether `fit` has to run, on residuals that are harvested for it."""
        return self.weights is None and type(self).fit is not LocalSolverSpec.fit


def load_local_solver(spec: LocalSolverSpec, folder: Path | None = None) -> LocalSolver:
    """Return the solver of a folder, with the contract checked.

    Errors: `InputError` for a folder that cannot be used, and one line that names each missing
    attribute of the solver.
    """
    return checked_solver(spec.load(folder))


def checked_solver(solver: LocalSolver) -> LocalSolver:
    """Return `solver` if it has every attribute of the contract. Errors: `InputError`."""
    absent = missing(solver, ("prepare", "correct", "exact"))
    if absent:
        raise InputError(
            f"local_solver: {type(solver).__name__} is not allowed: {'; '.join(absent)}. "
            "Allowed: a class that inherits from scaled_mpi.local_solvers.solvers.LocalSolver"
        )
    return solver


def member_violations(member: object) -> list[str]:
    """Return faults of the class of a local solver's block, one line each; it is not built."""
    return block_violations(member, LocalSolverSpec, ("load",))


def violations(solver: LocalSolver, operators: TileOperators, seed: int = 0) -> list[str]:
    """Return violations of the contract by a solver, one line each; none for one that keeps it.

    `operators`: the matrices of a few tiles, n of them. Corrections of random residuals (n,
    *window) are checked for shape, type and scale; those of an exact solver solve A z = r.
    """
    try:
        checked_solver(solver)
    except InputError as error:
        return [str(error)]
    name = type(solver).__name__
    shape = (len(operators), *operators.window)
    residual = np.random.default_rng(seed).standard_normal(shape)
    try:
        solver.prepare(operators)
        z, scaled = solver.correct(residual.copy()), solver.correct(SCALE * residual)
        nothing = solver.correct(np.zeros(shape))
    except Exception as error:  # whatever a stranger's class raises
        return [f"{name}: raises {type(error).__name__}: {' '.join(str(error).split())}"]
    if np.shape(z) != shape:
        return [f"{name}: correct returns {np.shape(z)}; {shape} is needed"]
    found = []
    if z.dtype != np.float64:
        found.append(f"{name}: correct returns {z.dtype}; float64 is needed")
    if not np.isfinite(z).all():
        return [*found, f"{name}: correct returns values that are not finite"]
    size = TOLERANCE * float(np.abs(z).max())
    if not np.abs(scaled / SCALE - z).max() <= size or np.abs(nothing).max() > size:
        found.append(f"{name}: a correction does not scale with its residual")
    defect = float(np.abs(operators.apply(z) - residual).max())
    if solver.exact and not defect <= 1e-6 * float(np.abs(residual).max()):
        found.append(f"{name}: exact, but A z differs from r by {defect:.1e}")
    return found
