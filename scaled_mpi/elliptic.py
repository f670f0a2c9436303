"""Experiments without time: one elliptic problem on more and more tiles, one network frozen.

    residuals -> fit -> solve -> report

A file with a key `problem` is such an experiment. Every block below is one of its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, apply_overrides, parse
from scaled_mpi.coupling.solving import Coarse, Harvest, Solving
from scaled_mpi.local_solvers import Exact, Learned
from scaled_mpi.problems import Darcy, Poisson
from scaled_mpi.simulators.gray_scott import GrayScott

FAMILIES = {"problem": "poisson", "local_solver": "learned"}
Problem = Annotated[Poisson | Darcy, Field(discriminator="kind")]
LocalSolver = Annotated[Exact | Learned, Field(discriminator="kind")]


class TileCounts(Spec):
    """The domains: `lattices` gives tiles an axis, each a solve; N in facts is their number."""

    tile: tuple[PositiveInt, ...] = (32, 32)
    lattices: tuple[PositiveInt, ...] = Field((2, 4, 8, 16), min_length=1)


class Comparison(Spec):
    """What is measured beside the certified solve.

    `onelevel`: most iterations of Schwarz without a coarse space (0: not run). `exact`: also the
    two-level method with exact local solves. `asm`: PETSc's one-level Schwarz on the same tiles,
    exact LU, GMRES restart 30; `gamg`: conjugate gradients with PETSc's multigrid. `reference`:
    also an answer of another method, direct where there is one, on the largest domain. `floor`:
    tiles an axis at which solution-form coupling is measured (0: not), each local answer refined
    `refinements` times, with hats and with the space `coarse`.
    """

    onelevel: NonNegativeInt = 150
    exact: bool = True
    asm: bool = True
    gamg: bool = True
    reference: bool = True
    floor: NonNegativeInt = 8
    refinements: NonNegativeInt = 1
    coarse: Coarse = Coarse(kind="geneo", least=2, most=2)


class Implicit(Spec):
    """Steps of backward Euler, in place of the solve of `problem`.

    `simulator` makes the state: `burn_in` of its own steps on `lattice` tiles an axis. From it one
    implicit step of each length of `dts` is taken, by each of `methods` and with exact and learned
    tiles.
    """

    simulator: GrayScott = GrayScott()
    burn_in: NonNegativeInt = 2000
    lattice: PositiveInt = 4
    dts: tuple[float, ...] = Field((2.0, 5.0, 10.0), min_length=1)
    methods: tuple[Literal["newton", "anderson", "ngmres"], ...] = ("newton", "anderson")


class EllipticExperiment(Spec):
    """`learn_from`: the problems whose residuals train the local solver, one after another."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    title: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    problem: Problem
    learn_from: tuple[Problem, ...] = ()
    domain: TileCounts = TileCounts()
    harvest: Harvest = Harvest()
    local_solver: LocalSolver = Learned()
    solving: Solving = Solving()
    comparison: Comparison = Comparison()
    implicit: Implicit | None = None
    launch: Literal["local"] = "local"
    machine: str | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> EllipticExperiment:
        widest = min(self.domain.tile) // 2
        if self.solving.overlap > widest:
            raise InputError(
                f"solving.overlap: {self.solving.overlap} given; at most half a tile, {widest}, "
                "is allowed"
            )
        return self

    @property
    def lessons(self) -> tuple[Problem, ...]:
        """The problems to learn from: `learn_from`, or the problem itself."""
        return self.learn_from or (self.problem,)

    def shape(self, lattice: int) -> tuple[int, ...]:
        """Cells of the domain with so many tiles an axis."""
        return tuple(lattice * t for t in self.domain.tile)


def load_elliptic(tree: Mapping[str, Any], overrides: Iterable[str]) -> EllipticExperiment:
    """The experiment of a file's tree. Errors: `InputError`, one line."""
    experiment = parse(EllipticExperiment, apply_overrides(tree, overrides, FAMILIES))
    for problem in (experiment.problem, *experiment.learn_from):
        problem.grid(experiment.shape(1))  # refuses boundaries of another number of axes
    return experiment
