"""Experiments without time: one elliptic problem on growing numbers of tiles, one network.

    residuals -> fit -> solve -> report

A file with a key `problem` is such an experiment. Every block below is one of its keys.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from scaled_mpi import local_solvers
from scaled_mpi.config import InputError, Spec, choice, undecisive
from scaled_mpi.coupling.solving import Coarse, Harvest, Solving
from scaled_mpi.engine.artefacts import PROVENANCE
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.learning.settings import check_steps_known
from scaled_mpi.problems import Darcy, Poisson
from scaled_mpi.simulators.gray_scott import GrayScott

FAMILIES = {"problem": "poisson", "local_solver": "learned"}
Problem = Annotated[Poisson | Darcy, Field(discriminator="kind")]
if TYPE_CHECKING:  # the contract that every member keeps to
    from scaled_mpi.local_solvers.solvers import LocalSolverSpec as AnyLocalSolver
else:
    AnyLocalSolver = choice(local_solvers.MEMBERS)


class TileCounts(Spec):
    """The domains: one solve for each number of tiles an axis in `lattices`; N counts tiles."""

    tile: tuple[PositiveInt, ...] = (32, 32)
    lattices: tuple[PositiveInt, ...] = Field(default=(2, 4, 8, 16), min_length=1)


class Comparison(Spec):
    """Methods measured beside the certified solve.

    `onelevel`: most iterations of Schwarz without a coarse space (0: not run). `exact`: also the
    two-level method with exact local solves. `asm`: PETSc's one-level Schwarz on the same tiles,
    exact LU, GMRES restart 30. `gamg`: conjugate gradients with PETSc's multigrid. `reference`:
    also the solution of another method on the largest domain, direct if the matrix is regular.
    `floor`: tiles an axis at which solution-form coupling is measured (0: not). Each of its local
    solutions is refined `refinements` times, with hats and with the space `coarse`.
    """

    onelevel: NonNegativeInt = 150
    exact: bool = True
    asm: bool = True
    gamg: bool = True
    reference: bool = True
    floor: NonNegativeInt = 8
    refinements: NonNegativeInt = 1
    coarse: Coarse = Coarse(kind="geneo", least=2, most=2)


class Guess(Spec):
    """The first iterate of an implicit step: no change, or a forecast of its end.

    `simulator`: the explicit simulator's forecast. `surrogate`: the forecast of the stepper in the
    finished results folder `path`, of the same system and without a compressor. It makes as many
    whole jumps as the step holds; fewer than one are no change.
    """

    kind: Literal["none", "simulator", "surrogate"] = "none"
    path: str | None = None

    @model_validator(mode="after")
    def _path_fits(self) -> Guess:
        if (self.path is None) == (self.kind == "surrogate"):
            raise InputError(
                f"implicit.guess.path: {self.path} is not allowed: a guess of kind {self.kind} "
                f"{'needs a stepper' if self.path is None else 'has no stepper'}. Allowed: "
                f"{'the results folder of a stepper' if self.path is None else 'null'}"
            )
        return self

    def fingerprint(self) -> str | None:
        """Return the hash of the surrogate's weights; None without a surrogate.

        Errors: `InputError` if the folder has no finished fit.
        """
        if self.path is None:
            return None
        try:
            return json.loads((Path(self.path) / "fit" / PROVENANCE).read_bytes())["hash"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"implicit.guess.path: {self.path}: it has no finished fit. Needed: the results "
                "folder of a stepper, such as outputs/ddm"
            ) from error


class Implicit(Spec):
    """Implicit steps in time, in place of the solve of `problem`.

    `simulator` computes the state: `burn_in` of its own steps on `lattice` tiles an axis. From it
    `scheme` takes one step of each length of `dts`, with each of `methods`, exact and learned
    tiles, beginning at `guess`. Each length is a whole number of the simulator's steps, so that
    the simulator gives the truth.
    """

    simulator: GrayScott = Field(default_factory=GrayScott)
    burn_in: NonNegativeInt = 2000
    lattice: PositiveInt = 4
    scheme: Literal["backward_euler", "tr_bdf2"] = "backward_euler"
    dts: tuple[PositiveFloat, ...] = Field(default=(10.0, 100.0, 1000.0), min_length=1)
    methods: tuple[Literal["newton", "anderson", "ngmres"], ...] = Field(
        default=("newton", "anderson"), min_length=1
    )
    guess: Guess = Guess()

    @model_validator(mode="after")
    def _steps_fit(self) -> Implicit:
        for dt in self.dts:
            if not math.isclose(dt, self.steps(dt) * self.simulator.time_step, rel_tol=1e-9):
                raise InputError(
                    f"implicit.dts: {dt:g} is not allowed: it is no whole number of the "
                    f"simulator's steps. Allowed: multiples of {self.simulator.time_step:g}"
                )
        return self

    def steps(self, span: float) -> int:
        """Return the number of the simulator's steps nearest to a time."""
        return round(span / self.simulator.time_step)


class EllipticExperiment(ExperimentSpec):
    """`learn_from`: the problems whose residuals train the local solver, one after another."""

    kind: Literal["elliptic"] = "elliptic"
    launch: Literal["local"] = undecisive("local")
    problem: Problem
    learn_from: tuple[Problem, ...] = ()
    domain: TileCounts = TileCounts()
    harvest: Harvest = Harvest()
    local_solver: AnyLocalSolver = local_solvers.MEMBERS["learned"]()
    solving: Solving = Solving()
    comparison: Comparison = Comparison()
    implicit: Implicit | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> EllipticExperiment:
        widest = min(self.domain.tile) // 2
        if self.solving.overlap > widest:
            raise InputError(
                f"solving.overlap: {self.solving.overlap} is not allowed: it is wider than half a "
                f"tile. Allowed: at most {widest}"
            )
        for problem in (self.problem, *self.learn_from):
            problem.grid(self.shape(1))  # refuses boundaries of another number of axes
        return self

    def with_steps(self) -> EllipticExperiment:
        """Return the experiment; the number of residuals is known after the run alone.

        Errors: `InputError` for epochs.
        """
        training = getattr(self.local_solver, "training", None)
        if training is not None:
            check_steps_known(training)
        return self

    @property
    def lessons(self) -> tuple[Problem, ...]:
        """The problems of the training: `learn_from`, or the problem itself."""
        return self.learn_from or (self.problem,)

    def shape(self, lattice: int) -> tuple[int, ...]:
        """Return the cells of the domain with `lattice` tiles an axis."""
        return tuple(lattice * t for t in self.domain.tile)
