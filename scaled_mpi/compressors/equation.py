"""The equation behind stored runs, for the loss term `residual`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi import simulators
from scaled_mpi.config import InputError, parse
from scaled_mpi.parallel.store import Trajectory

if TYPE_CHECKING:
    import torch

KEY = "compressor.terms.residual"
FRAMES = 4  # of each run, from which the spread of the rates is taken


def system_of(runs: Sequence[Trajectory], scale: Any) -> Any:
    """The `learning.reconstruction.System` of the simulator that computed `runs`.

    `scale` (`learning.patches.Scale`) normalises their fields. Errors: `InputError` for runs of no
    known equation, or of different ones.
    """
    from scaled_mpi.learning.reconstruction import System

    simulator = _simulator(runs)
    numbers = scale.mean, scale.spread, _spread_of_rates(simulator, runs)
    shape = (-1, *[1] * runs[0].grid.axes)
    return System(simulator.rates, *(_tensor(values.reshape(shape)) for values in numbers))


def _simulator(runs: Sequence[Trajectory]) -> Any:
    told: list[Any] = [run.attributes.get("equation") for run in runs]
    known = [name for name, one in simulators.MEMBERS.items() if hasattr(one, "rates")]
    for run, equation in zip(runs, told, strict=True):
        kind = equation.get("kind") if isinstance(equation, dict) else None
        if kind not in known:
            raise InputError(
                f"{KEY}: the run {run.name} is not allowed: it stores no known equation. "
                f"Allowed: runs of a simulator ({', '.join(known)})"
            )
    if any(equation != told[0] for equation in told):
        raise InputError(
            f"{KEY}: runs of different equations are not allowed: the term has one. "
            "Allowed: runs of one equation"
        )
    return parse(simulators.MEMBERS[told[0]["kind"]], told[0])


def _spread_of_rates(simulator: Any, runs: Sequence[Trajectory]) -> np.ndarray:
    """Standard deviation of each channel's rate of change, (C,)."""
    first, second = [], []
    for run in runs:
        chosen = np.unique(np.linspace(0, len(run) - 1, FRAMES).astype(int))
        fields = [run.read(int(frame), halo=simulator.reach_per_step) for frame in chosen]
        rates = simulator.rates(_tensor(np.stack(fields).astype(np.float64))).numpy()
        cells = (0, *range(2, rates.ndim))
        first.append(rates.mean(cells))
        second.append((rates**2).mean(cells))
    spread = np.sqrt(np.maximum(np.mean(second, 0) - np.mean(first, 0) ** 2, 0.0))
    return np.where(spread > 0, spread, 1.0)


def _tensor(values: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(values)
