"""Contracts of the simulators: the members that generic code asks for, and one error line.

A simulator is a frozen object whose fields are its YAML keys. It never knows MPI: it receives a
block and an exchange that fills its halo. `Simulator` advances fields on a grid;
`ParticleSimulator` advances particles between the blocks of a grid. Everything further is
optional; `running` holds the default of each:

    grid(shape) -> Grid                 spacing 1, periodic
    condition: dict[str, float]         {}: no parameter tells its runs apart
    steps_per_exchange: int             1: the ring of an exchange is one reach wide
    warm(axes)                          nothing to compile
    cheaper(span, axes) -> {name: Cheaper}         {}: no cheaper self is compared
    advance_batch(states, steps)        many whole grids (N, C, *shape), one after another
    advance_members(states, steps, exchange, kicks)  an ensemble (N, C, *size), likewise
    noise: float, noise_every: int, kicks(...), check_steps(key, steps)     0: no noise
    rates(fields)                       du/dt of a torch tensor, for the loss term `residual`
    diffusion, rest, reaction(...), reaction_derivative(...), shifted_reaction(...)
                                        the parts of an implicit step, see `Reacting`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from scaled_mpi.config import InputError, Spec
from scaled_mpi.parallel.blocks import Block, Blocks, Grid
from scaled_mpi.parallel.comm import Comm

Array: TypeAlias = Any  # of numpy; where a simulator has torch kernels also a torch tensor


class Exchange(Protocol):
    """Fills the ring of `width` cells, one entry an axis, around a block."""

    @property
    def width(self) -> Sequence[int]:
        """Cells of the ring on each axis."""

    def __call__(self, field: Array) -> Array:
        """(..., *size) -> (..., *(size + 2 width)), valid until the next call."""

    def fill(self, padded: Array) -> Array:
        """Fill the ring of (..., *(size + 2 width)) in place and return the array."""


class Simulator(Protocol):
    """Fields on a grid that advance in time: three methods and three properties.

    A state is an array (C, *size); `fields(state)` is again a state, since forecasts restart from
    stored fields. The values of a cell depend on the seed and on its place in the grid alone.
    """

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the C fields."""

    @property
    def time_step(self) -> float:
        """Time of one step, in the simulator's unit."""

    @property
    def reach_per_step(self) -> int:
        """Cells of halo that one step uses."""

    def initial(self, block: Block, grid: Grid, seed: tuple[int, int]) -> np.ndarray:
        """The initial state (C, *block.size); seed: (the experiment's, number of the run)."""

    def advance(self, state: np.ndarray, steps: int, exchange: Exchange) -> np.ndarray:
        """A new state (C, *size) after `steps` steps; `state` keeps its values.

        `exchange` is an `Exchange` whose ring is at least `reach_per_step` wide.
        """

    def fields(self, state: np.ndarray) -> np.ndarray:
        """The fields (C, *size) of a state."""


class ParticleSimulator(Protocol):
    """Particles in a box; states are the particles of one rank."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the fields that particles are counted into."""

    @property
    def time_step(self) -> float:
        """Time of one step, in the simulator's unit."""

    def blocks(self, shape: Sequence[int], ranks: int, least: int = 1) -> Blocks:
        """The split of the box, cut into `shape` cells, among `ranks` ranks."""

    def exchange(self, blocks: Blocks, comm: Comm) -> Any:
        """The object that moves particles between blocks."""

    def initial(self, exchange: Any, seed: tuple[int, int]) -> Any:
        """The initial state; collective."""

    def advance(self, flock: Any, steps: int, exchange: Any) -> Any:
        """A new state after `steps` steps; collective."""


class Reacting(Protocol):
    """dU/dt = D laplace U + R(U) of two species, R within a cell: what implicit steps ask for."""

    @property
    def diffusion(self) -> tuple[float, float]:
        """D of each species, length^2/time."""

    @property
    def rest(self) -> tuple[float, float]:
        """Values of both species at which R vanishes."""

    def reaction(self, state: np.ndarray) -> np.ndarray:
        """R(U), (2, *size), 1/time, of U (2, *size)."""

    def reaction_derivative(self, state: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """R'(U) W, (2, *size), 1/time, of U and W (2, *size)."""

    def shifted_reaction(self, state: np.ndarray, shift: float) -> np.ndarray:
        """shift - R'(U) of U (2, *size): the entries (2, 2, *size) of each cell, 1/time."""


class Cheaper(NamedTuple):
    """A cheaper self of a simulator: `steps` of its steps cover the span that was asked for."""

    steps: int
    simulator: Simulator
    coarsening: int = 1  # cells of the grid for one of its cells, an axis: 1 or 2


FIELDS = ("channels", "time_step", "reach_per_step", "initial", "advance", "fields")
PARTICLES = ("channels", "time_step", "blocks", "exchange", "initial", "advance")
REACTING = ("diffusion", "rest", "reaction", "reaction_derivative", "shifted_reaction")


def member_violations(member: object) -> list[str]:
    """What the class of a simulator lacks of both contracts, one line each; it is not built."""
    name = getattr(member, "__name__", type(member).__name__)
    if not isinstance(member, type) or not issubclass(member, Spec):
        return [f"{name}: a class that inherits from scaled_mpi.config.Spec is needed"]
    kind = member.model_fields.get("kind")
    lacking = [] if kind is not None and isinstance(kind.default, str) else ["kind"]
    if missing(member, PARTICLES):
        lacking += missing(member, FIELDS)
    return [f"{name}: {one} is missing" for one in lacking]


def missing(simulator: object, needed: Sequence[str]) -> list[str]:
    """Those of `needed` that a simulator, an object or its class, does not have, in order."""
    keys = getattr(simulator, "model_fields", {}) if isinstance(simulator, type) else {}
    return [name for name in needed if not hasattr(simulator, name) and name not in keys]


def require(simulator: object, needed: Sequence[str] = FIELDS, key: str = "simulator") -> None:
    """Errors: `InputError` naming the members that the simulator lacks of a contract."""
    lacking = missing(simulator, needed)
    if lacking:
        kind = getattr(simulator, "kind", type(simulator).__name__)
        raise InputError(
            f"{key}.kind: {kind} is not allowed: it has no {', '.join(lacking)}. "
            f"Allowed: simulators with {', '.join(needed)}"
        )
