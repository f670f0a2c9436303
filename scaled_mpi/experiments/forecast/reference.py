"""The simulator's cheaper selves: the cost of the same forecast without any learning."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from scaled_mpi.engine.context import Context
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm, largest
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.keys import FirstRun
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.simulators.contract import Cheaper, Simulator
from scaled_mpi.simulators.running import advancing, cheaper, halo_width


def run_references(
    context: Context, truth: Trajectory, blocks: Blocks, comm: Comm, start: int, jumps: int
) -> None:
    """Trajectories and times of the simulator itself, at its largest step, on the half grid."""
    simulator, jump = context.experiment.simulator, context.experiment.surrogate.jump
    state = truth.read_block(start, blocks.block(comm.rank))
    span = jump * simulator.time_step
    run = _Reference(context, truth, blocks, comm, start, jumps)
    run("simulator", simulator, jump, state, stored=False)
    for name, cheap in cheaper(simulator, span, len(blocks.tile)).items():
        if cheap.coarsening == 1:
            run(f"simulator_{name}", cheap.simulator, cheap.steps, state)
        elif all(t % cheap.coarsening == 0 for t in blocks.tile):
            run.on_half_grid(f"simulator_{name}", cheap, state)


class _Reference:
    """Runs one method over the compared jumps: stores what it gives, times what it costs."""

    def __init__(
        self,
        context: Context,
        truth: Trajectory,
        blocks: Blocks,
        comm: Comm,
        start: int,
        jumps: int,
    ) -> None:
        self.context, self.truth, self.blocks, self.comm = context, truth, blocks, comm
        self.start, self.jumps = start, jumps

    def __call__(
        self, method: str, simulator: Simulator, steps: int, state: np.ndarray, stored: bool = True
    ) -> None:
        seed = self.context.experiment.seed, FirstRun.TEST
        advance = advancing(simulator, self.blocks, self.comm, seed, dtype=state.dtype)
        self._run(method, state, lambda now: advance(now, steps), lambda now: now, stored)

    def on_half_grid(self, method: str, cheap: Cheaper, state: np.ndarray) -> None:
        """Half the cells an axis: restrict once, advance there, prolong for the scores."""
        from scaled_mpi.simulators.grids import prolong, restrict

        blocks, coarse = self.blocks.coarsen(2), cheap.simulator
        exchange = Halo(blocks, self.comm, halo_width(coarse, blocks), state.dtype)
        ring = Halo(blocks, self.comm, 1, state.dtype)
        self._run(
            method,
            restrict(state),
            lambda now: coarse.advance(now, cheap.steps, exchange),
            lambda now: prolong(ring(now)),
            True,
        )

    def _run(self, method: str, state: np.ndarray, advance: Any, show: Any, stored: bool) -> None:
        seconds, shown = [], []
        for _ in range(self.jumps):
            begun = time.perf_counter()
            state = advance(state)
            seconds.append(time.perf_counter() - begun)
            if stored:
                shown.append(np.ascontiguousarray(show(state)))
        self.context.facts.record(
            "time.jump", largest(self.comm, float(np.median(seconds))), "s", method=method
        )
        if not stored:
            return
        with TrajectoryWriter(
            self.context.folder,
            method,
            self.blocks,
            self.comm,
            self.truth.channels,
            dtype=state.dtype,
            attributes=self.truth.attributes,
        ) as writer:
            for number, field in enumerate(shown, 1):
                writer.append(self.truth.times[self.start + number], field)
