"""Implicit steps of a time-dependent problem, by every method, with exact and learned tiles.

Facts with the places `method`, `solver` (of the tiles: exact, learned) and `dt` (the length of the
step):

    implicit.iterations     a text if the step did not converge
    implicit.linear         applications of the preconditioner
    implicit.pseudo         pseudo-transient steps
    implicit.root           a text: the start from which the method converged
    implicit.residual, implicit.fallback (tiles), implicit.time
    implicit.error          VRMSE against the explicit simulator at the same time
    implicit.convergence    a history, with the place `iteration`

Facts with the places `method` and `dt` alone: `implicit.error` of persistence and surrogate,
`implicit.time` of explicit and surrogate, and `implicit.guess` of none, simulator and surrogate.
The last is ||F|| of backward Euler at a guess over ||F|| of no change. Facts of all steps:
`residual.true` (the largest), `fallback.tiles` (the most).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaled_mpi.coupling.solving import NotConverged
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.elliptic.settings import EllipticExperiment, Implicit
from scaled_mpi.local_solvers.exact import ExactSolver
from scaled_mpi.local_solvers.solvers import LocalSolver
from scaled_mpi.metrics import pair_sums, scores_from_sums
from scaled_mpi.parallel.blocks import Blocks, make_blocks
from scaled_mpi.parallel.comm import Comm, first_ranks, largest
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.store import TrajectoryWriter
from scaled_mpi.simulators.running import halo_width

if TYPE_CHECKING:
    from scaled_mpi.coupling.implicit import ImplicitStep, Stepped

Solvers = Callable[[], tuple[LocalSolver, LocalSolver]]  # new local solvers, one a species


def work(context: Context[EllipticExperiment], implicit: Implicit) -> None:
    """Compute a state, then step from it with every length, set of tiles and method."""
    experiment = context.experiment
    grid = implicit.simulator.grid(experiment.shape(implicit.lattice))
    blocks = make_blocks(grid, experiment.domain.tile, context.comm.size)
    comm = first_ranks(context.comm, blocks.ranks)
    if comm is None:
        return

    def learned() -> tuple[LocalSolver, LocalSolver]:
        folder = context.inputs["fit"]
        return experiment.local_solver.load(folder), experiment.local_solver.load(folder)

    sets: dict[str, Solvers] = {"exact": lambda: (ExactSolver(), ExactSolver())}
    if getattr(experiment.local_solver, "kind", "") == "learned":
        sets["learned"] = learned
    share = _Share(context, implicit, blocks, comm)
    truth = _Truth(share)
    steps = _Steps(share, truth.old)
    for dt in implicit.dts:
        true, guess = truth.at(dt)
        for name, solvers in sets.items():
            steps.advance(dt, name, solvers, true, guess)
    steps.finish()


@dataclass(frozen=True)
class _Share:
    """The implicit steps on the ranks that own a block."""

    context: Context[EllipticExperiment]
    implicit: Implicit
    blocks: Blocks
    comm: Comm

    def error(self, state: np.ndarray, true: np.ndarray) -> float:
        return error(state, true, self.blocks, self.comm)

    def write(self, name: str, state: np.ndarray) -> None:
        channels = self.implicit.simulator.channels
        write(self.context.folder, name, state, channels, self.blocks, self.comm)


class _Truth:
    """The explicit simulator: the first state (`old`) and its later states."""

    def __init__(self, share: _Share) -> None:
        from scaled_mpi.simulators import warm

        self.share, implicit, blocks, comm = share, share.implicit, share.blocks, share.comm
        self.simulator = implicit.simulator
        warm(self.simulator, comm, blocks.grid.axes)
        self.exchange = Halo(blocks, comm, halo_width(self.simulator, blocks))
        self.forecaster, frames, spacing = None, 1, 0
        if implicit.guess.path is not None:
            from scaled_mpi.experiments.elliptic.guess import GuessForecaster

            self.forecaster = GuessForecaster(implicit, blocks, comm)
            frames, spacing = self.forecaster.frames, self.forecaster.spacing
        state = self.simulator.initial(
            blocks.block(comm.rank), blocks.grid, (share.context.experiment.seed, 0)
        )
        begin = max(0, implicit.burn_in - (frames - 1) * spacing)
        self.past = [self._advance(state, begin)]
        for _ in range(frames - 1):
            self.past.append(self._advance(self.past[-1], spacing))
        self.old = self.past[-1].astype(np.float64)

    def _advance(self, state: np.ndarray, steps: int) -> np.ndarray:
        return self.simulator.advance(state, steps, self.exchange)

    def at(self, dt: float) -> tuple[np.ndarray, np.ndarray | None]:
        """The simulator's state after dt, and the configured guess of it; float64. Collective."""
        begun = time.perf_counter()
        true = self._advance(self.past[-1], self.share.implicit.steps(dt)).astype(np.float64)
        self._timed("explicit", dt, begun)
        guesses = {"none": self.old, "simulator": true}
        self.share.write(f"explicit_dt{dt:g}", true)
        self._error("persistence", dt, self.old, true)
        if self.forecaster is not None:
            begun = time.perf_counter()
            forecast = self.forecaster(self.past, dt)
            if forecast is not None:
                guesses["surrogate"] = forecast
                self._timed("surrogate", dt, begun)
                self._error("surrogate", dt, forecast, true)
        self._distances(dt, guesses)
        kind = self.share.implicit.guess.kind
        return true, guesses.get(kind) if kind != "none" else None

    def _distances(self, dt: float, guesses: dict[str, np.ndarray]) -> None:
        from scaled_mpi.coupling.linearised import ReactionRates

        rates = ReactionRates(self.simulator, self.share.blocks, self.share.comm)
        none = rates.size(rates(self.old)) or 1.0
        for kind, guess in guesses.items():
            far = rates.size((guess - self.old) / dt - rates(guess)) / none
            self.share.context.facts.record("implicit.guess", far, method=kind, dt=dt)

    def _timed(self, name: str, dt: float, begun: float) -> None:
        seconds = largest(self.share.comm, time.perf_counter() - begun)
        self.share.context.facts.record("implicit.time", seconds, "s", method=name, dt=dt)

    def _error(self, name: str, dt: float, state: np.ndarray, true: np.ndarray) -> None:
        value = self.share.error(state, true)
        self.share.context.facts.record("implicit.error", value, method=name, dt=dt)
        self.share.context.say(f"  dt {dt:g}, {name}: error {value:.3g}")


class _Steps:
    """Steps from one state, their errors and cost."""

    def __init__(self, share: _Share, old: np.ndarray) -> None:
        from scaled_mpi.coupling.linearised import ReactionRates

        self.share, self.old = share, old
        self.solving = share.context.experiment.solving
        self.rates = ReactionRates(share.implicit.simulator, share.blocks, share.comm)
        self.residual, self.fallback = 0.0, 0

    def advance(
        self,
        dt: float,
        tiles: str,
        solvers: Solvers,
        true: np.ndarray,
        guess: np.ndarray | None,
    ) -> None:
        """One step of length `dt` by every method; the first method's state is stored."""
        from scaled_mpi.coupling.implicit import SCHEMES, ImplicitStep

        def make(old: np.ndarray, length: float, scale: float | None) -> ImplicitStep:
            return ImplicitStep(self.rates, old, length, solvers(), self.solving, scale)

        scheme = SCHEMES[self.share.implicit.scheme]
        for place, method in enumerate(self.share.implicit.methods):
            try:
                step = scheme(make, self.rates, self.old, dt, method, guess)
            except NotConverged as failed:
                self._record(
                    method, tiles, dt, {"iterations": "not converged", "residual": failed.residual}
                )
                continue
            self._converged(method, tiles, dt, step, true)
            if place == 0:
                self.share.write(f"{tiles}_dt{dt:g}", step.state)

    def _converged(
        self, method: str, tiles: str, dt: float, step: Stepped, true: np.ndarray
    ) -> None:
        self.residual = max(self.residual, step.residual)
        self.fallback = max(self.fallback, step.fallback_tiles)
        self._record(
            method,
            tiles,
            dt,
            {
                "iterations": step.iterations,
                "linear": step.linear,
                "pseudo": step.pseudo,
                "root": step.root,
                "residual": step.residual,
                "fallback": step.fallback_tiles,
                "error": self.share.error(step.state, true),
                "time": largest(self.share.comm, step.seconds),
            },
        )
        for iteration, residual in enumerate(step.history):
            self.share.context.facts.record(
                "implicit.convergence",
                residual,
                "",
                method=method,
                solver=tiles,
                dt=dt,
                iteration=iteration,
            )

    def _record(
        self, method: str, tiles: str, dt: float, numbers: Mapping[str, float | str]
    ) -> None:
        facts, units = self.share.context.facts, {"time": "s", "fallback": "tiles"}
        where = {"method": method, "solver": tiles, "dt": dt}
        for name, value in numbers.items():
            facts.record(f"implicit.{name}", value, units.get(name, ""), **where)
        line = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in numbers.items()
        )
        self.share.context.say(f"  dt {dt:g}, {method}, {tiles} tiles: {line}")

    def finish(self) -> None:
        """Record the facts of all steps."""
        facts = self.share.context.facts
        facts.record("residual.true", self.residual)
        facts.record("residual.tolerance", self.solving.tolerance)
        facts.record("fallback.tiles", self.fallback, "tiles")


def error(state: np.ndarray, true: np.ndarray, blocks: Blocks, comm: Comm) -> float:
    """Return the VRMSE of states, blocks (2, Y, X) of this rank, the mean over the species.

    It covers the whole domain. Collective.
    """
    mine = []
    for index in blocks.tiles(comm.rank):
        box = (slice(None), *blocks.local_slices(comm.rank, index))
        mine.append((index, pair_sums(state[box], true[box])))
    every = sorted(
        (entry for part in comm.allgather(mine) for entry in part), key=lambda entry: entry[0]
    )
    return float(scores_from_sums([sums for _, sums in every]).vrmse.mean())


def write(
    folder: Path,
    name: str,
    state: np.ndarray,
    channels: Sequence[str],
    blocks: Blocks,
    comm: Comm,
) -> None:
    """Write a state, the block (2, Y, X) of this rank, as a trajectory. Collective."""
    with TrajectoryWriter(folder, name, blocks, comm, channels, dtype=np.float64) as writer:
        writer.append(0.0, state)
