"""A forecast from a stepper that another experiment learned, as the guess of an implicit step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.coupling.schwarz import March, Sweeping
from scaled_mpi.experiments.elliptic.settings import Implicit
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.surrogates.results import FinishedForecast, finished_forecast

SAME = ("F", "k", "Du", "Dv", "dx", "boundaries")  # what a stepper's simulator has to share


class Forecaster:
    """The stepper of a results folder on the tiles of `blocks`; `told` is the implicit block.

    `frames` states, `spacing` steps of told.simulator apart, are what a forecast starts from.
    Errors: `InputError` for a folder without a stepper, or with one of another system.
    """

    def __init__(self, told: Implicit, blocks: Blocks, comm: Any) -> None:
        experiment = finished_forecast("implicit.guess.path", told.guess.path)
        _check(experiment, told)
        self.operator = experiment.surrogate.load(experiment.weights)
        self.jump = experiment.surrogate.jump * experiment.simulator.dt
        self.spacing, self.frames = told.steps(self.jump), self.operator.memory
        if any(r > t for r, t in zip(self.operator.reach, blocks.tile, strict=True)):
            raise InputError(
                f"domain.tile: {list(blocks.tile)} given; at least the reach "
                f"{list(self.operator.reach)} of implicit.guess.path is needed"
            )
        condition = self.operator.condition(told.simulator.condition)
        # A halo as wide as the reach: no sweeps, so that no mismatch is ever scaled.
        self._march = March(
            self.operator,
            blocks,
            comm,
            halo=self.operator.reach,
            condition=condition,
            scale=np.ones(len(told.simulator.channels)),
            sweeping=Sweeping(most=1),
        )

    def __call__(self, past: Sequence[np.ndarray], dt: float) -> np.ndarray | None:
        """The state after the whole jumps in dt, float64 (2, *block.size); None for none.

        Collective.
        """
        count, state = int(dt / self.jump * (1 + 1e-9)), None
        frames = [np.asarray(frame, np.float32) for frame in past]
        for jump in self._march.jumps(frames, count):
            state = jump.field
        return None if state is None else state.astype(np.float64)


def _check(experiment: FinishedForecast, told: Implicit) -> None:
    """InputError unless the experiment has a stepper of the same system on plain fields."""
    key, simulator = f"implicit.guess.path: {experiment.folder}", experiment.simulator
    for block, kind, allowed in (
        ("surrogate", experiment.surrogate.kind, "stepper"),
        ("compressor", experiment.compressor, "identity"),
    ):
        if kind != allowed:
            raise InputError(f"{key}: its {block} is {kind}; {allowed} is allowed")
    if simulator.kind != told.simulator.kind:
        raise InputError(f"{key}: learned from {simulator.kind}; gray_scott is allowed")
    for name in SAME:
        learned, wanted = getattr(simulator, name), getattr(told.simulator, name)
        if learned != wanted:
            raise InputError(f"{key}: learned with {name} = {learned}; {wanted} is needed")
