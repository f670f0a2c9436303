"""Implicit steps of a time-dependent problem, by every method, with exact and learned tiles.

Facts, with the place `dt`: `implicit.iterations.METHOD.TILES` (text where it did not converge),
`implicit.linear.METHOD.TILES` (applications of the preconditioner), `implicit.residual.*`,
`implicit.time.*`; `residual.true` (the worst), `fallback.tiles`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scaled_mpi.coupling.solving import NotConverged
from scaled_mpi.local_solvers import Exact
from scaled_mpi.parallel.blocks import Blocks, make_blocks
from scaled_mpi.parallel.comm import first_ranks, largest
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.store import TrajectoryWriter
from scaled_mpi.pipeline.context import Context


def work(context: Context) -> None:
    """Make a state, then take one step of every length by every method."""
    experiment, told = context.experiment, context.experiment.implicit
    grid = told.simulator.grid(experiment.shape(told.lattice))
    blocks = make_blocks(grid, experiment.domain.tile, context.comm.size)
    comm = first_ranks(context.comm, blocks.ranks)
    if comm is None:
        return
    old = _state(context, blocks, comm)
    sets = {"exact": lambda: (Exact().load(), Exact().load())}
    if experiment.local_solver.kind == "learned":
        sets["learned"] = lambda: tuple(
            experiment.local_solver.load(context.inputs["fit"]) for _ in old
        )
    steps = _Steps(context, blocks, comm, old)
    for dt in told.dts:
        for name, solvers in sets.items():
            steps.take(dt, name, solvers())
    steps.finish()


def _state(context: Context, blocks: Blocks, comm: Any) -> np.ndarray:
    """The simulator's state after its own steps, float64 (2, *block.size)."""
    from scaled_mpi.simulators import warm

    told = context.experiment.implicit
    warm(told.simulator, comm, blocks.grid.axes)
    exchange = Halo(blocks, comm, 8 if min(blocks.tile) >= 8 else 1)
    state = told.simulator.initial(
        blocks.block(comm.rank), blocks.grid, (context.experiment.seed, 0)
    )
    return told.simulator.advance(state, told.burn_in, exchange).astype(np.float64)


class _Steps:
    """Steps from one state, and what they took."""

    def __init__(self, context: Context, blocks: Blocks, comm: Any, old: np.ndarray) -> None:
        self.context, self.blocks, self.comm, self.old = context, blocks, comm, old
        self.residual, self.fallback = 0.0, 0

    def take(self, dt: float, tiles: str, solvers: tuple[Any, Any]) -> None:
        """One step of length `dt` by every method; the first method's state is stored."""
        from scaled_mpi.coupling.implicit import ImplicitStep

        experiment = self.context.experiment
        with ImplicitStep(experiment.implicit.simulator, self.blocks, self.comm, self.old, dt,
                          solvers, experiment.solving) as step:
            for place, method in enumerate(experiment.implicit.methods):
                try:
                    found = step.solve(method)
                except NotConverged as error:
                    self._record(method, tiles, dt, {"iterations": "not converged",
                                                     "residual": error.residual})
                    continue
                self.residual = max(self.residual, found.residual)
                self.fallback = max(self.fallback, found.fallback_tiles)
                self._record(method, tiles, dt, {
                    "iterations": found.iterations, "linear": found.linear,
                    "residual": found.residual, "time": largest(self.comm, found.seconds),
                })
                if place == 0:
                    self._write(f"{tiles}_dt{dt:g}", found.state)

    def _record(self, method: str, tiles: str, dt: float, numbers: dict[str, Any]) -> None:
        for name, value in numbers.items():
            self.context.facts.record(
                f"implicit.{name}.{method}.{tiles}.dt{dt:g}", value, "s" if name == "time" else ""
            )
        said = ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                         for name, value in numbers.items())
        self.context.say(f"  dt {dt:g}, {method}, {tiles} tiles: {said}")

    def _write(self, name: str, state: np.ndarray) -> None:
        with TrajectoryWriter(
            self.context.folder, name, self.blocks, self.comm,
            self.context.experiment.implicit.simulator.channels, dtype=np.float64,
        ) as writer:
            writer.append(0.0, state)

    def finish(self) -> None:
        """What holds for all steps."""
        self.context.facts.record("residual.true", self.residual)
        self.context.facts.record("fallback.tiles", self.fallback, "tiles")
