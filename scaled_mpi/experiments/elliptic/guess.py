"""A forecast by the stepper of another experiment, as the guess of an implicit step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.coupling.schwarz import March, Sweeping
from scaled_mpi.experiments.elliptic.settings import Implicit
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.surrogates.results import FinishedForecast, finished_forecast

SAME = ("F", "k", "Du", "Dv", "dx", "boundaries")  # equal keys of the stepper's simulator


class GuessForecaster:
    """The stepper of the results folder guess.path on the tiles of `blocks`.

    A forecast starts from `frames` states, `spacing` steps of implicit.simulator apart.
    Errors: `InputError` for a folder without a stepper, or with a stepper of another system.
    """

    def __init__(self, implicit: Implicit, blocks: Blocks, comm: Comm) -> None:
        experiment = finished_forecast("implicit.guess.path", implicit.guess.path or "")
        _check(experiment, implicit)
        self.operator = experiment.surrogate.load(experiment.weights)
        self.jump = experiment.surrogate.jump * experiment.simulator.dt
        self.spacing, self.frames = implicit.steps(self.jump), self.operator.memory
        if any(r > t for r, t in zip(self.operator.reach, blocks.tile, strict=True)):
            raise InputError(
                f"domain.tile: {list(blocks.tile)} is not allowed: the stepper of "
                f"implicit.guess.path reaches further. Allowed: at least its reach, "
                f"{list(self.operator.reach)}"
            )
        condition = self.operator.condition(implicit.simulator.condition)
        # A halo as wide as the reach needs no sweeps, so no mismatch is ever scaled.
        self._march = March(
            self.operator,
            Halo(blocks, comm, tuple(self.operator.reach)),
            condition=condition,
            scale=np.ones(len(implicit.simulator.channels)),
            sweeping=Sweeping(most=1),
        )

    def __call__(self, past: Sequence[np.ndarray], dt: float) -> np.ndarray | None:
        """Return the state (2, *block.size) after the whole jumps in dt; None if dt has none.

        `past` are states (2, *block.size), the oldest first. The result is float64. Collective.
        """
        count, state = int(dt / self.jump * (1 + 1e-9)), None
        frames = [np.asarray(frame, np.float32) for frame in past]
        for jump in self._march.jumps(frames, count):
            state = jump.field
        return None if state is None else state.astype(np.float64)


def _check(experiment: FinishedForecast, implicit: Implicit) -> None:
    """InputError unless the experiment has a stepper of the same system on plain fields."""
    folder, simulator = experiment.folder, experiment.simulator
    for block, kind, allowed in (
        ("surrogate", experiment.surrogate.kind, "stepper"),
        ("compressor", experiment.compressor, "identity"),
    ):
        if kind != allowed:
            raise InputError(
                f"implicit.guess.path: {folder} is not allowed: its {block} is {kind}. "
                f"Allowed: {block} {allowed}"
            )
    if simulator.kind != implicit.simulator.kind:
        raise InputError(
            f"implicit.guess.path: {folder} is not allowed: it was trained on {simulator.kind}. "
            "Allowed: gray_scott"
        )
    for name in SAME:
        trained, needed = getattr(simulator, name), getattr(implicit.simulator, name)
        if trained != needed:
            raise InputError(
                f"implicit.guess.path: {folder} is not allowed: it was trained with {name} = "
                f"{trained}. Allowed: {needed}"
            )
