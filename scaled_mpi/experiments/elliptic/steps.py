"""Implicit steps of a time-dependent problem, by every method, with exact and learned tiles.

Facts of METHOD with TILES (exact, learned) and a step of length X: `implicit.iterations.METHOD.
TILES.dtX` (text where it did not converge), `implicit.linear.*` (applications of the
preconditioner), `implicit.pseudo.*` (pseudo-transient steps), `implicit.root.*` (text: from where
it was found), `implicit.residual.*`, `implicit.fallback.*` (tiles), `implicit.error.*` (VRMSE
against the explicit simulator at the same time), `implicit.time.*`, `implicit.convergence.*` (a
history, with `iteration`).

Of a length X alone: `implicit.error.persistence.dtX`, `implicit.guess.KIND.dtX` (||F|| of backward
Euler at a guess over that of no change, KIND none, simulator, surrogate), `implicit.error.
surrogate.dtX`, `implicit.time.explicit.dtX`, `implicit.time.surrogate.dtX`. Of all:
`residual.true` (the worst), `fallback.tiles` (the most).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from scaled_mpi.coupling.solving import NotConverged
from scaled_mpi.engine.context import Context
from scaled_mpi.local_solvers import Exact
from scaled_mpi.metrics import pair_sums, scores_from_sums
from scaled_mpi.parallel.blocks import Blocks, make_blocks
from scaled_mpi.parallel.comm import first_ranks, largest
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.store import TrajectoryWriter
from scaled_mpi.simulators.running import halo_width


def work(context: Context) -> None:
    """Make a state, then take one step of every length by every method."""
    experiment, told = context.experiment, context.experiment.implicit
    grid = told.simulator.grid(experiment.shape(told.lattice))
    blocks = make_blocks(grid, experiment.domain.tile, context.comm.size)
    comm = first_ranks(context.comm, blocks.ranks)
    if comm is None:
        return
    sets = {"exact": lambda: (Exact().load(), Exact().load())}
    if experiment.local_solver.kind == "learned":
        sets["learned"] = lambda: tuple(
            experiment.local_solver.load(context.inputs["fit"]) for _ in range(2)
        )
    truth = _Truth(context, blocks, comm)
    steps = _Steps(context, blocks, comm, truth.old)
    for dt in told.dts:
        wanted, guess = truth.at(dt)
        for name, solvers in sets.items():
            steps.take(dt, name, solvers, wanted, guess)
    steps.finish()


class _Truth:
    """The explicit simulator: the state to start from (`old`), and what it comes to."""

    def __init__(self, context: Context, blocks: Blocks, comm: Any) -> None:
        from scaled_mpi.simulators import warm

        self.context, self.blocks, self.comm = context, blocks, comm
        self.told = told = context.experiment.implicit
        self.simulator = told.simulator
        warm(self.simulator, comm, blocks.grid.axes)
        self.exchange = Halo(blocks, comm, halo_width(self.simulator, blocks))
        self.forecaster, frames, spacing = None, 1, 0
        if told.guess.kind == "surrogate":
            from scaled_mpi.experiments.elliptic.guess import Forecaster

            self.forecaster = Forecaster(told, blocks, comm)
            frames, spacing = self.forecaster.frames, self.forecaster.spacing
        state = self.simulator.initial(
            blocks.block(comm.rank), blocks.grid, (context.experiment.seed, 0)
        )
        begin = max(0, told.burn_in - (frames - 1) * spacing)
        self.past = [self._advance(state, begin)]
        for _ in range(frames - 1):
            self.past.append(self._advance(self.past[-1], spacing))
        self.old = self.past[-1].astype(np.float64)

    def _advance(self, state: np.ndarray, steps: int) -> np.ndarray:
        return self.simulator.advance(state, steps, self.exchange)

    def at(self, dt: float) -> tuple[np.ndarray, np.ndarray | None]:
        """The simulator's state after dt, and the configured guess of it; float64. Collective."""
        begun = time.perf_counter()
        wanted = self._advance(self.past[-1], self.told.steps(dt)).astype(np.float64)
        self._timed("explicit", dt, begun)
        guesses = {"none": self.old, "simulator": wanted}
        write(self.context, self.blocks, self.comm, f"explicit_dt{dt:g}", wanted)
        self._error("persistence", dt, self.old, wanted)
        if self.forecaster is not None:
            begun = time.perf_counter()
            made = self.forecaster(self.past, dt)
            if made is not None:
                guesses["surrogate"] = made
                self._timed("surrogate", dt, begun)
                self._error("surrogate", dt, made, wanted)
        self._distances(dt, guesses)
        kind = self.told.guess.kind
        return wanted, guesses.get(kind) if kind != "none" else None

    def _distances(self, dt: float, guesses: dict[str, np.ndarray]) -> None:
        from scaled_mpi.coupling.linearised import Rates

        rates = Rates(self.simulator, self.blocks, self.comm)
        none = rates.size(rates(self.old)) or 1.0
        for kind, guess in guesses.items():
            far = rates.size((guess - self.old) / dt - rates(guess)) / none
            self.context.facts.record(f"implicit.guess.{kind}.dt{dt:g}", far)

    def _timed(self, name: str, dt: float, begun: float) -> None:
        seconds = largest(self.comm, time.perf_counter() - begun)
        self.context.facts.record(f"implicit.time.{name}.dt{dt:g}", seconds, "s")

    def _error(self, name: str, dt: float, state: np.ndarray, wanted: np.ndarray) -> None:
        value = error(state, wanted, self.blocks, self.comm)
        self.context.facts.record(f"implicit.error.{name}.dt{dt:g}", value)
        self.context.say(f"  dt {dt:g}, {name}: error {value:.3g}")


class _Steps:
    """Steps from one state, and what they took."""

    def __init__(self, context: Context, blocks: Blocks, comm: Any, old: np.ndarray) -> None:
        from scaled_mpi.coupling.linearised import Rates

        self.context, self.blocks, self.comm, self.old = context, blocks, comm, old
        self.told, self.spec = context.experiment.implicit, context.experiment.solving
        self.rates = Rates(self.told.simulator, blocks, comm)
        self.residual, self.fallback = 0.0, 0

    def take(
        self, dt: float, tiles: str, solvers: Any, wanted: np.ndarray, guess: np.ndarray | None
    ) -> None:
        """One step of length `dt` by every method; the first method's state is stored."""
        from scaled_mpi.coupling.implicit import SCHEMES, ImplicitStep

        def make(old: np.ndarray, length: float, scale: float | None) -> ImplicitStep:
            return ImplicitStep(self.rates, old, length, solvers(), self.spec, scale)

        advance = SCHEMES[self.told.scheme]
        for place, method in enumerate(self.told.methods):
            try:
                found = advance(make, self.rates, self.old, dt, method, guess)
            except NotConverged as failed:
                self._record(
                    method, tiles, dt, {"iterations": "not converged", "residual": failed.residual}
                )
                continue
            self._found(method, tiles, dt, found, wanted)
            if place == 0:
                write(self.context, self.blocks, self.comm, f"{tiles}_dt{dt:g}", found.state)

    def _found(self, method: str, tiles: str, dt: float, found: Any, wanted: np.ndarray) -> None:
        self.residual = max(self.residual, found.residual)
        self.fallback = max(self.fallback, found.fallback_tiles)
        self._record(
            method,
            tiles,
            dt,
            {
                "iterations": found.iterations,
                "linear": found.linear,
                "pseudo": found.pseudo,
                "root": found.root,
                "residual": found.residual,
                "fallback": found.fallback_tiles,
                "error": error(found.state, wanted, self.blocks, self.comm),
                "time": largest(self.comm, found.seconds),
            },
        )
        for iteration, residual in enumerate(found.history):
            self.context.facts.record(
                f"implicit.convergence.{method}.{tiles}.dt{dt:g}",
                residual,
                "",
                iteration=iteration,
            )

    def _record(self, method: str, tiles: str, dt: float, numbers: dict[str, Any]) -> None:
        units = {"time": "s", "fallback": "tiles"}
        for name, value in numbers.items():
            self.context.facts.record(
                f"implicit.{name}.{method}.{tiles}.dt{dt:g}", value, units.get(name, "")
            )
        said = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in numbers.items()
        )
        self.context.say(f"  dt {dt:g}, {method}, {tiles} tiles: {said}")

    def finish(self) -> None:
        """What holds for all steps."""
        self.context.facts.record("residual.true", self.residual)
        self.context.facts.record("residual.tolerance", self.spec.tolerance)
        self.context.facts.record("fallback.tiles", self.fallback, "tiles")


def error(state: np.ndarray, wanted: np.ndarray, blocks: Blocks, comm: Any) -> float:
    """VRMSE over the whole domain, the mean over the species; collective."""
    boxes = [(..., *blocks.local_slices(comm.rank, index)) for index in blocks.tiles(comm.rank)]
    mine = [
        (index, pair_sums(state[box], wanted[box]))
        for index, box in zip(blocks.tiles(comm.rank), boxes, strict=True)
    ]
    every = sorted(
        (entry for part in comm.allgather(mine) for entry in part), key=lambda entry: entry[0]
    )
    return float(scores_from_sums([sums for _, sums in every]).vrmse.mean())


def write(context: Context, blocks: Blocks, comm: Any, name: str, state: np.ndarray) -> None:
    """One state (2, *block.size) as a trajectory of one frame."""
    channels = context.experiment.implicit.simulator.channels
    with TrajectoryWriter(
        context.folder, name, blocks, comm, channels, dtype=np.float64
    ) as writer:
        writer.append(0.0, state)
