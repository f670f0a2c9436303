"""Checks of a simulator against its contract; `python -m scaled_mpi.check` runs them.

A check returns "" or one sentence that names the fault. All checks run in one process, on a small
grid; those of a split domain use threads in place of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scaled_mpi.config import Spec, parse, plain
from scaled_mpi.parallel.blocks import behind, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.simulators import contract, running
from scaled_mpi.simulators.together import on_threads

SEED = (7, 3)  # of the experiment, and number of the run
LEAST = 12  # cells an axis of the grid, at least

Check = Callable[[Any], str]


class Trial:
    """A simulator of fields on a small grid of `axes` axes: `unit` steps, which noise allows."""

    def __init__(self, simulator: contract.Simulator, axes: int) -> None:
        self.simulator = simulator
        self.unit = getattr(simulator, "noise_every", 1) if running.noisy(simulator) else 1
        self.reach = self.unit * simulator.reach_per_step
        cells = max(LEAST, 4 * self.reach + 4)
        self.grid = running.grid_of(simulator, [cells + 4 * axis for axis in range(axes)])
        self.whole = make_blocks(self.grid, self.grid.shape, 1)
        self.state = self.initial()

    def initial(self) -> np.ndarray:
        """The initial state of the whole grid, (C, *shape)."""
        return self.simulator.initial(self.whole.block(0), self.grid, SEED)

    def advance(self, state: np.ndarray, steps: int, begun: int = 0) -> np.ndarray:
        """`steps` steps of (C, *shape) in one piece, after `begun` earlier ones."""
        march = running.advancing(
            self.simulator, self.whole, SerialComm(), SEED, begun, state.dtype
        )
        return march(state, steps)


def _numbers(trial: Trial) -> str:
    simulator = trial.simulator
    reach, step = simulator.reach_per_step, simulator.time_step
    if not isinstance(reach, int) or isinstance(reach, bool) or reach < 0:
        return f"reach_per_step is {reach!r}; a whole number >= 0 is needed"
    if not (step > 0 and math.isfinite(step)):
        return f"time_step is {step!r}; a number > 0 is needed"
    condition = running.condition_of(simulator)
    wrong = [name for name, value in condition.items() if not np.isfinite(float(value))]
    return f"condition.{wrong[0]} is not finite" if wrong else ""


def _channels(trial: Trial) -> str:
    names = trial.simulator.channels
    if not names or len(set(names)) < len(names) or not all(isinstance(n, str) for n in names):
        return f"channels are {names!r}; different names are needed"
    return ""


def _settings(trial: Trial) -> str:
    simulator: Any = trial.simulator
    if not isinstance(simulator, Spec):
        return "the class does not inherit scaled_mpi.config.Spec, so YAML cannot set its keys"
    kind = type(simulator).model_fields.get("kind")
    if kind is None or not isinstance(kind.default, str):
        return "the key `kind` is missing; `kind: Literal['NAME'] = 'NAME'` is needed"
    again = parse(type(simulator), plain(simulator))
    return "" if again == simulator else "its keys, written and read again, give another object"


def _shape(trial: Trial) -> str:
    fields = np.asarray(trial.simulator.fields(trial.state))
    wanted = (len(trial.simulator.channels), *trial.grid.shape)
    if fields.shape != wanted:
        return f"fields have the shape {fields.shape}; (channels, cells) is {wanted}"
    later = np.asarray(trial.simulator.fields(trial.advance(trial.state, trial.unit)))
    if later.shape != wanted or later.dtype != fields.dtype:
        return f"after a step fields are {later.dtype} {later.shape}, not {fields.dtype} {wanted}"
    return "" if np.isfinite(fields).all() and np.isfinite(later).all() else "values not finite"


def _repeats(trial: Trial) -> str:
    if not np.array_equal(trial.state, trial.initial()):
        return "two initial states of one seed differ"
    twice = [trial.advance(trial.state, trial.unit) for _ in range(2)]
    return "" if np.array_equal(twice[0], twice[1]) else "two runs from one state differ"


def _untouched(trial: Trial) -> str:
    before = trial.state.copy()
    trial.advance(trial.state, 2 * trial.unit)
    same = np.array_equal(before, trial.state)
    return "" if same else "advance changes the state that it receives"


def _additive(trial: Trial) -> str:
    once = trial.advance(trial.state, 5 * trial.unit)
    part = trial.advance(trial.state, 2 * trial.unit)
    parts = trial.advance(part, 3 * trial.unit, 2 * trial.unit)
    if not np.array_equal(trial.advance(trial.state, 0), trial.state):
        return "0 steps change the state"
    return "" if np.array_equal(once, parts) else "5 steps differ from 2 steps and then 3"


def _restarts(trial: Trial) -> str:
    state = trial.advance(trial.state, trial.unit)
    again = np.array(trial.simulator.fields(state))
    ahead = (trial.advance(one, trial.unit, trial.unit) for one in (state, again))
    first, second = (trial.simulator.fields(one) for one in ahead)
    return "" if np.array_equal(first, second) else "a run that restarts from its fields differs"


def _split(trial: Trial) -> str:
    simulator, steps = trial.simulator, 3 * trial.unit
    halves = tuple(n // 2 for n in trial.grid.shape)
    blocks = make_blocks(trial.grid, halves, 2**trial.grid.axes)
    width = running.halo_width(simulator, blocks)
    starts = on_threads(
        blocks, width, lambda rank, _: simulator.initial(blocks.block(rank), trial.grid, SEED)
    )
    if not np.array_equal(starts, trial.state):
        return "the initial state depends on the split into blocks"

    def work(rank: int, exchange: Any) -> np.ndarray:
        part = np.ascontiguousarray(trial.state[behind(blocks.block(rank).slices)])
        if not running.noisy(simulator):
            return simulator.advance(part, steps, exchange)
        noisy: Any = simulator
        return noisy.advance(
            part, steps, exchange, noisy.kicks(blocks.block(rank), trial.grid, SEED, steps=0)
        )

    split = on_threads(blocks, width, work)
    same = np.array_equal(split, trial.advance(trial.state, steps))
    return "" if same else f"{steps} steps on {blocks.ranks} blocks differ from those on one"


def _reach(trial: Trial) -> str:
    centre = tuple(n // 2 for n in trial.grid.shape)
    other = trial.state.copy()
    other[np.ix_(range(len(other)), *([n] for n in centre))] += 0.125
    moved = trial.advance(trial.state, trial.unit) != trial.advance(other, trial.unit)
    places = np.argwhere(moved.any(0))
    far = int(np.abs(places - centre).max()) if len(places) else 0
    if far > trial.reach:
        return f"{trial.unit} steps reach {far} cells; reach_per_step allows {trial.reach}"
    return ""


def _batches(trial: Trial) -> str:
    states = np.stack([trial.state, trial.advance(trial.state, trial.unit)])
    simulator = trial.simulator
    if running.noisy(simulator):
        return ""
    single = np.stack([trial.advance(state, 3) for state in states])
    if all(boundary.periodic for boundary in trial.grid.boundary) and trial.grid.axes == 2:
        if not np.array_equal(running.advance_batch(simulator, states, 3), single):
            return "advance_batch differs from advance"
    blocks = trial.whole
    exchange = running.Halo(
        blocks, SerialComm(), running.halo_width(simulator, blocks), states.dtype
    )
    members = running.advance_members(simulator, states, 3, exchange)
    return "" if np.array_equal(members, single) else "advance_members differs from advance"


def _cheaper(trial: Trial) -> str:
    span = 10 * trial.simulator.time_step
    for name, one in running.cheaper(trial.simulator, span, trial.grid.axes).items():
        lacking = contract.missing(one.simulator, contract.FIELDS)
        if lacking:
            return f"cheaper {name} has no {', '.join(lacking)}"
        if one.coarsening not in (1, 2):
            return f"cheaper {name} coarsens by {one.coarsening}; 1 or 2 is allowed"
        if not math.isclose(one.steps * one.simulator.time_step, span, rel_tol=1e-6):
            return f"cheaper {name}: {one.steps} steps do not cover the span"
    return ""


OF_FIELDS: dict[str, Check] = {
    "channels are names": _channels,
    "numbers are possible": _numbers,
    "keys are written and read": _settings,
    "fields have their shape": _shape,
    "runs repeat": _repeats,
    "a state stays as it is": _untouched,
    "steps add up": _additive,
    "runs restart from fields": _restarts,
    "bits do not depend on the split": _split,
    "reach is honoured": _reach,
    "batches equal single runs": _batches,
    "cheaper selves cover the span": _cheaper,
}


class Flight:
    """A simulator of particles in one block."""

    def __init__(self, simulator: contract.ParticleSimulator, axes: int) -> None:
        self.simulator = simulator
        self.exchange = simulator.exchange(simulator.blocks((8,) * axes, 1), SerialComm())
        self.state = simulator.initial(self.exchange, SEED)

    def advance(self, state: Any, steps: int) -> Any:
        """`steps` steps in one block."""
        return self.simulator.advance(state, steps, self.exchange)


def _numbers_of(state: Any) -> list[np.ndarray]:
    """Ids and values of all particles, in the order of the ids."""
    particles = state.particles
    order = np.argsort(particles.ids)
    payload = [particles.payload[name][order] for name in sorted(particles.payload)]
    return [particles.ids[order], particles.position[order], *payload]


def _same(first: object, second: object) -> bool:
    pairs = zip(_numbers_of(first), _numbers_of(second), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


def _kept(flight: Flight) -> str:
    before, after = flight.state, flight.advance(flight.state, 3)
    ids = [_numbers_of(one)[0] for one in (before, after)]
    if len(set(ids[0].tolist())) < len(ids[0]):
        return "two particles have one id"
    return "" if np.array_equal(ids[0], ids[1]) else "particles are lost or doubled"


def _flights_repeat(flight: Flight) -> str:
    twice = [flight.advance(flight.simulator.initial(flight.exchange, SEED), 3) for _ in range(2)]
    return "" if _same(*twice) else "two runs of one seed differ"


def _flights_add_up(flight: Flight) -> str:
    once = flight.advance(flight.state, 5)
    parts = flight.advance(flight.advance(flight.state, 2), 3)
    return "" if _same(once, parts) else "5 steps differ from 2 steps and then 3"


OF_PARTICLES: dict[str, Check] = {
    "channels are names": _channels,
    "keys are written and read": _settings,
    "particles are kept": _kept,
    "runs repeat": _flights_repeat,
    "steps add up": _flights_add_up,
}


def results(simulator: Any, axes: int = 2) -> Iterator[tuple[str, str]]:
    """(check, fault) of every check of a simulator, the fault "" where it passes."""
    particles = not contract.missing(simulator, contract.PARTICLES)
    lacking = [] if particles else contract.missing(simulator, contract.FIELDS)
    yield "members exist", f"it has no {', '.join(lacking)}" if lacking else ""
    if lacking:
        return
    checks = OF_PARTICLES if particles else OF_FIELDS
    try:
        trial: Any = (Flight if particles else Trial)(simulator, axes)
    except Exception as error:  # a user's class may raise anything; the fault is the answer
        yield "an initial state exists", _words(error)
        return
    for name, check in checks.items():
        try:
            yield name, check(trial)
        except Exception as error:
            yield name, _words(error)


def violations(simulator: Any, axes: int = 2) -> list[str]:
    """One line for each check that a simulator fails, on a grid of `axes` axes."""
    return [f"{name}: {fault}" for name, fault in results(simulator, axes) if fault]


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
