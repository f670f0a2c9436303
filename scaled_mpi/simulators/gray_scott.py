"""The Gray-Scott reaction-diffusion system in one, two or three axes.

    du/dt = Du lap u - u v^2 + F (1 - u)
    dv/dt = Dv lap v + u v^2 - (F + k) v

(Gray and Scott 1984, https://doi.org/10.1016/0009-2509(84)87017-7). Space: cell-centred, the
Laplacian of 2 d + 1 points, second order. Time: explicit Euler, first order. In the pattern form
both species are clamped to [0, 1] after each step.

With `noise` s > 0 the rate of v fluctuates in every cell on its own: + s v dW in the sense of Ito.
W is a Wiener process of the cell. `noise_every` steps take a time T. After them v is multiplied by

    exp(s sqrt(T) N - s^2 T / 2),      N standard normal,

the exact solution of dv = s v dW (Lie and Trotter's splitting). It keeps v's sign and its mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, parse
from scaled_mpi.parallel.blocks import Block, Boundary, Grid
from scaled_mpi.simulators import starts
from scaled_mpi.simulators.contract import Array, Cheaper, Exchange
from scaled_mpi.simulators.kernels import kernels_of, like, march
from scaled_mpi.simulators.noise import Kicks
from scaled_mpi.simulators.patterns import CUSTOM, FAMILIES, diffusivities

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Kind = Literal["periodic", "neumann", "dirichlet"]

DEEPEST_HALO = 8  # steps between two exchanges
SAFETY = 0.9  # of the linear limit: room for the reaction, which adds up to v^2 to the stiffness


class GrayScott(Spec):
    """Gray-Scott: channels u, v; reach 1 cell a step; stable for dt <= dx^2 / (2 d max(Du, Dv)).

    A named `pattern` of the family `parameters` sets F, k (1/time), Du, Dv (length^2/time), dt,
    dx, clamp and start. Each key but F and k may differ from its pattern. F and k together stand
    in place of a pattern. `start` is the initial state (see `starts`), `density` its number of
    spots for each 128^2 cells. The default is 5 discs, or 10 to 100 gaussians, drawn for each
    run. `boundaries`: one for all axes or one an axis; `boundary_value` is the value of both
    species on a dirichlet face. Errors: `InputError`.
    """

    kind: Literal["gray_scott"] = "gray_scott"
    parameters: Literal["pattern", "the_well"] = "pattern"
    # None until `_resolve` takes the value from the pattern, so that no object ever has it.
    pattern: str = None  # type: ignore[assignment]
    F: Rate = None  # type: ignore[assignment]
    k: Rate = None  # type: ignore[assignment]
    Du: Rate = None  # type: ignore[assignment]
    Dv: Rate = None  # type: ignore[assignment]
    dt: Length = None  # type: ignore[assignment]
    dx: Length = None  # type: ignore[assignment]
    clamp: bool = None  # type: ignore[assignment]
    start: Literal["discs", "gaussians", "noise", "uniform"] = None  # type: ignore[assignment]
    density: Length | None = None
    boundaries: Kind | tuple[Kind, ...] = "periodic"
    boundary_value: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    noise: Rate = 0.0  # s, 1 / sqrt(time)
    noise_every: PositiveInt = 10  # steps

    @model_validator(mode="after")
    def _resolve(self) -> GrayScott:
        """Fill in what the pattern says, without marking it as given by the user."""
        family = FAMILIES[self.parameters]
        pattern = self._named_pattern()
        F, k = family.rates.get(pattern, (self.F, self.k))
        for key, given, named in (("F", self.F, F), ("k", self.k, k)):
            if given is not None and given != named:
                raise InputError(
                    f"simulator.{key}: {given} is not allowed: pattern {pattern} has {key} = "
                    f"{named}. Allowed: a pattern, or F and k with pattern {CUSTOM}"
                )
        Du, Dv = diffusivities(self.parameters, pattern)
        defaults: dict[str, object] = {
            "Du": Du,
            "Dv": Dv,
            "dt": family.dt,
            "dx": family.dx,
            "clamp": family.clamp,
            "start": family.start,
        }
        values: dict[str, object] = {"pattern": pattern, "F": F, "k": k}
        values |= {key: value for key, value in defaults.items() if getattr(self, key) is None}
        self.__dict__.update(values)
        self._check_step(2)
        return self

    def _named_pattern(self) -> str:
        rates = FAMILIES[self.parameters].rates
        pattern = self.pattern
        if pattern is None:
            alone = self.F is None and self.k is None
            pattern = FAMILIES[self.parameters].first if alone else CUSTOM
        if pattern != CUSTOM and pattern not in rates:
            raise InputError(
                f"simulator.pattern: {pattern!r} is not allowed: unknown with parameters "
                f"{self.parameters}. Allowed: {', '.join([*rates, CUSTOM])}"
            )
        if pattern == CUSTOM and (self.F is None or self.k is None):
            missing = "F" if self.F is None else "k"
            raise InputError(f"simulator.{missing}: missing. Needed: a pattern, or both F and k")
        return pattern

    def _check_step(self, axes: int) -> None:
        limit = self.largest_stable_step(axes)
        if self.dt > limit:
            raise InputError(
                f"simulator.dt: {self.dt} is not allowed: not stable on {axes} axes. Allowed: at "
                f"most dx^2 / ({2 * axes} max(Du, Dv)) = {limit:.6g}"
            )

    @property
    def channels(self) -> tuple[str, str]:
        """Names of the fields: the two species."""
        return ("u", "v")

    @property
    def condition(self) -> dict[str, float]:
        """What tells this run from another of the same system, in 1/time."""
        return {"F": self.F, "k": self.k}

    @property
    def reach_per_step(self) -> int:
        """Cells of halo that one step uses."""
        return 1

    @property
    def steps_per_exchange(self) -> int:
        """Steps between two exchanges that still pay."""
        return DEEPEST_HALO

    @property
    def time_step(self) -> float:
        """dt, in the unit of time of the parameters."""
        return self.dt

    @property
    def stability_limit(self) -> float:
        """The largest stable step on two axes."""
        return self.largest_stable_step()

    def largest_stable_step(self, axes: int = 2) -> float:
        """The limit of explicit Euler for the diffusion: dx^2 / (2 axes max(Du, Dv))."""
        fastest = max(self.Du, self.Dv)
        return self.dx**2 / (2 * axes * fastest) if fastest else math.inf

    def boundary(self, axes: int) -> tuple[Boundary, ...]:
        """The condition of each of `axes` axes. Errors: `InputError` if they do not fit."""
        kinds = self.boundaries
        kinds = (kinds,) * axes if isinstance(kinds, str) else kinds
        if len(kinds) != axes:
            raise InputError(
                f"simulator.boundaries: {list(kinds)} is not allowed: the grid has {axes} axes. "
                "Allowed: one for all axes, or one for each"
            )
        self._check_step(axes)
        values = (self.boundary_value if kind == "dirichlet" else 0.0 for kind in kinds)
        return tuple(Boundary(kind, value) for kind, value in zip(kinds, values, strict=True))

    def grid(self, shape: Sequence[int]) -> Grid:
        """The grid of `shape` cells with this system's spacing and boundary."""
        shape = tuple(shape)
        return Grid(shape, (self.dx,) * len(shape), self.boundary(len(shape)))

    def initial(
        self,
        block: Block,
        grid: Grid,
        seed: int | tuple[int, int],
        dtype: type[np.floating] = np.float32,
    ) -> np.ndarray:
        """The initial state (2, *block.size), the same values whatever the split.

        seed: one number, or (seed, run) so that the runs of an ensemble differ.
        """
        self._check_step(grid.axes)
        key = seed if isinstance(seed, tuple) else (seed, 0)
        canvas = starts.Canvas(block, grid, key)
        state = starts.STARTS[self.start](canvas, self.density, (self.F, self.k))
        return state.astype(dtype)

    def advance(
        self,
        state: Array,
        steps: int,
        exchange: Exchange,
        kicks: Callable[[], np.ndarray] | None = None,
    ) -> Array:
        """`steps` steps of (2, *size) -> a new state.

        exchange(state) returns the state with a ring of exchange.width cells. As many steps as
        the ring is wide go between two exchanges. Where an axis is dirichlet it is one step,
        since a mirror image there does not obey the equation. A torch tensor is advanced where it
        lives, by torch. With noise `kicks()` returns N (*size), see `noise.Kicks`, and `steps`
        must be a multiple of `noise_every`.
        """
        if not self.noise:
            return _march((self,), state, steps, exchange)
        return advance_together((self,), state[None], steps, exchange, kicks)[0]

    def advance_members(
        self,
        states: Array,
        steps: int,
        exchange: Exchange,
        kicks: Callable[[], np.ndarray] | None = None,
    ) -> Array:
        """`steps` steps of an ensemble (N, 2, *size), rings in common messages -> new states."""
        return advance_together([self] * len(states), states, steps, exchange, kicks)

    def advance_batch(self, states: Array, steps: int) -> Array:
        """`steps` steps of many whole periodic grids (N, 2, Y, X); see the free function."""
        return advance_batch(self, states, steps)

    def rates(self, fields: Array) -> Array:
        """du/dt and dv/dt of a torch tensor (N, 2, *(cells + 2)) at its inner cells, no clamp."""
        from scaled_mpi.simulators.torch_stencil import change

        made = change(fields.movedim(1, 0), self._numbers(), fields.ndim - 2)
        return made.movedim(0, 1) / self.dt

    @property
    def diffusion(self) -> tuple[float, float]:
        """Du, Dv, length^2/time."""
        return self.Du, self.Dv

    @property
    def rest(self) -> tuple[float, float]:
        """u, v of the state without a reaction."""
        return 1.0, 0.0

    def reaction(self, state: np.ndarray) -> np.ndarray:
        """R(U) of U (2, *size), 1/time: the right-hand side without diffusion."""
        u, v = state
        made = u * v**2
        return np.stack([-made + self.F * (1 - u), made - (self.F + self.k) * v])

    def reaction_derivative(self, state: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """R'(U) W of U and W (2, *size), 1/time."""
        (u, v), (a, b) = state, direction
        made = v**2 * a + 2 * u * v * b
        return np.stack([-made - self.F * a, made - (self.F + self.k) * b])

    def shifted_reaction(self, state: np.ndarray, shift: float) -> np.ndarray:
        """shift - R'(U) in each cell of U (2, *size), 1/time: entries (2, 2, *size)."""
        u, v = state
        gain, loss = 2 * u * v, v**2
        first, second = shift + loss + self.F, shift + self.F + self.k - gain
        return np.stack([np.stack([first, gain]), np.stack([-loss, second])])

    def kicks(
        self,
        block: Block,
        grid: Grid,
        seed: tuple[int, int],
        members: Sequence[int] | None = None,
        steps: int = 0,
    ) -> Kicks | None:
        """What forces a run, or the members of an ensemble, after `steps` steps; None: nothing."""
        if not self.noise:
            return None
        return Kicks(block, grid.shape, seed, members, steps // self.noise_every)

    def check_steps(self, key: str, steps: int) -> None:
        """Errors: `InputError` where noise does not fall into a span of `steps` evenly."""
        if self.noise and steps % self.noise_every:
            raise InputError(
                f"{key}: {steps} is not allowed: noise acts every {self.noise_every} steps "
                f"(simulator.noise_every). Allowed: multiples of {self.noise_every}"
            )

    def fields(self, state: np.ndarray) -> np.ndarray:
        """The fields of a state (2, *size): the state itself."""
        return state

    def warm(self, axes: int) -> None:
        """Compile the kernels of `axes` axes, or load them from the cache."""
        from scaled_mpi.simulators import stencil

        stencil.warm(axes)

    def with_largest_step(self, span: float, axes: int = 2) -> tuple[int, GrayScott]:
        """(steps, system) to cover `span` in the fewest equal stable steps; without noise."""
        fastest = max(
            4 * axes * self.Du / self.dx**2 + self.F,
            4 * axes * self.Dv / self.dx**2 + self.F + self.k,
        )
        steps = max(1, math.ceil(span * fastest / (2 * SAFETY) - 1e-9)) if fastest else 1
        # A system exists only where its step is stable on two axes, whatever its grid.
        steps = max(steps, math.ceil(span / self.largest_stable_step(2) - 1e-9))
        return steps, self._changed(dt=span / steps, noise=0.0)

    def cheaper(self, span: float, axes: int) -> dict[str, Cheaper]:
        """Over a time `span`: at the largest stable step, on the grid and on the half grid."""
        half = self.on_half_grid().with_largest_step(span, axes)
        return {
            "large_step": Cheaper(*self.with_largest_step(span, axes)),
            "half_grid": Cheaper(*half, coarsening=2),
        }

    def on_half_grid(self) -> GrayScott:
        """The same system with half as many cells an axis, without noise; see `grids`."""
        return self._changed(dx=2 * self.dx, noise=0.0)

    def _changed(self, **changes: object) -> GrayScott:
        return parse(type(self), {**self.model_dump(mode="json"), **changes})

    def _numbers(self) -> tuple[float, ...]:
        """What the kernels take: a_u, a_v, dt, f, g, low, high."""
        low, high = (0.0, 1.0) if self.clamp else (-math.inf, math.inf)
        scale = self.dt / self.dx**2
        rates = self.dt * self.F, self.dt * (self.F + self.k)
        return scale * self.Du, scale * self.Dv, self.dt, *rates, low, high

    def _kick(self, states: Array, normal: np.ndarray) -> None:
        """Multiply v of (N, 2, *size) by its random factor, in place."""
        span = self.noise_every * self.dt
        factor = np.exp(self.noise * math.sqrt(span) * normal - 0.5 * self.noise**2 * span)
        v = states[:, 1]
        forced = v * like(factor.reshape(v.shape), v)
        v[...] = forced.clip(0.0, 1.0) if self.clamp else forced

    def _deep(self) -> bool:
        """Whether several steps may go between two exchanges: no axis is dirichlet."""
        kinds = (self.boundaries,) if isinstance(self.boundaries, str) else self.boundaries
        return "dirichlet" not in kinds


def advance_together(
    simulators: Sequence[GrayScott],
    states: Array,
    steps: int,
    exchange: Exchange,
    kicks: Callable[[], np.ndarray] | None = None,
) -> Array:
    """`steps` steps of several runs (N, 2, *size), run i by simulators[i] -> new states.

    The rings of all runs travel in the same messages, so that an ensemble of small runs costs no
    more messages than one run. With noise, alike in all runs, `kicks()` gives N (N, *size).
    """
    if len(simulators) != len(states):
        raise ValueError(f"{len(simulators)} simulators for {len(states)} states")
    noisy = {(one.noise, one.noise_every) for one in simulators if one.noise}
    if not noisy or steps <= 0:
        return _march(simulators, states, steps, exchange)
    if len(noisy) > 1 or kicks is None or not all(one.noise for one in simulators):
        raise ValueError("with noise, runs of one noise and their kicks are needed")
    first = simulators[0]
    first.check_steps("steps", steps)
    for _ in range(steps // first.noise_every):
        states = _march(simulators, states, first.noise_every, exchange)
        first._kick(states, kicks())
    return states


def advance_batch(simulator: GrayScott, states: Array, steps: int) -> Array:
    """`steps` steps of many whole periodic grids (N, 2, Y, X) of one system -> new states.

    NumPy arrays are advanced by compiled code, with the bits of `GrayScott.advance`; a torch
    tensor where it lives. Errors: ValueError for a boundary that is not periodic.
    """
    if any(boundary.kind != "periodic" for boundary in simulator.boundary(2)):
        raise ValueError(f"boundaries {simulator.boundaries}: periodic ones are needed in a batch")
    return kernels_of(states).march_periodic(states, steps, simulator._numbers())


def _march(simulators: Sequence[GrayScott], state: Array, steps: int, exchange: Exchange) -> Array:
    deep = all(one._deep() for one in simulators)
    return march([one._numbers() for one in simulators], deep, state, steps, exchange)
