"""A small experiment whose fields and facts are known in closed form."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

METHODS = {
    "surrogate": 0.04,
    "wide_halo": 0.03,
    "nosweep": 0.07,
    "persistence": 0.5,
    "simulator_half_grid": 0.1,
}


def trajectory(frames: np.ndarray, times: np.ndarray) -> SimpleNamespace:
    """What the report asks of a stored trajectory."""
    channels = ("u", "v")[: frames.shape[1]]
    return SimpleNamespace(
        shape=frames.shape, times=times, channels=channels, read=lambda frame: frames[frame]
    )


@pytest.fixture
def pair() -> Callable[..., tuple[Any, Any]]:
    """Truth with frames at t = 0, 10, ... and a prediction that begins at t = 20, off by 0.1."""

    def make(shape: tuple[int, ...] = (32, 48), jumps: int = 6) -> tuple[Any, Any]:
        times = 10.0 * np.arange(jumps + 2)
        axis = np.linspace(0, 2 * np.pi, shape[-1], endpoint=False)
        wave = np.stack([np.sin(axis - 0.1 * time) for time in times])
        wave = wave.reshape(len(times), 1, *([1] * (len(shape) - 1)), shape[-1])
        field = np.broadcast_to(wave, (len(times), 1, *shape))
        truth = np.concatenate([0.5 + 0 * field, field], axis=1)
        return trajectory(truth, times), trajectory(truth[2:] + 0.1, times[2:])

    return make


@pytest.fixture
def facts() -> list[dict[str, Any]]:
    """Facts of a finished coupled job of 6 jumps."""
    found: list[dict[str, Any]] = []

    def add(name: str, value: Any, unit: str = "", stage: str = "evaluate", **place: Any) -> None:
        found.append(
            {
                "name": name,
                "value": value,
                "unit": unit,
                "stage": stage,
                "ranks": 2,
                "tiles": 6,
                **place,
            }
        )

    for method, first in METHODS.items():
        for lead in range(1, 7):
            add("vrmse.lead", first * 2.0 ** (lead - 1), method=method, lead=lead)
        add(f"vrmse.jump1.{method}", first)
        add("time.jump", first, "s", stage="couple", method=method)
    add("time.jump", 0.002, "s", stage="couple", method="simulator")
    for method in ("surrogate", "simulator"):
        for lead in (1, 6):
            add("seam.lead", 1.0 + 0.01 * lead, method=method, lead=lead)
            for k in range(1, 17):
                add("spectrum", 1.0 / k**2, method=method, lead=lead, k=k / 32)
    for jump in range(1, 7):
        add("sweeps.jump", 2 + jump % 2, "sweeps", stage="couple", jump=jump)
        for sweep in range(2, 3 + jump % 2):
            add("mismatch", 0.1**sweep, stage="couple", jump=jump, sweep=sweep)
    for name, value, unit in (
        ("sweeps.mean", 2.5, "sweeps"),
        ("sweeps.max", 3, "sweeps"),
        ("mismatch.tolerance", 0.01, ""),
        ("halo.messages", 24, "messages"),
        ("halo.bytes.counted", 12288, "bytes"),
        ("halo.bytes.formula", 12288, "bytes"),
        ("halo.bytes.tiles", 3 * 2**20, "bytes"),
        ("time.couple", 4.0, "s"),
    ):
        add(name, value, unit, stage="couple")
    add("seam.index", 1.0042)
    add("time.surrogate.jump", 0.04, "s")
    add("time.simulator.jump", 0.002, "s")
    add("breakeven", math.inf, "jumps")
    return found


@pytest.fixture
def events() -> list[dict[str, Any]]:
    """Events of a training of 5 epochs."""
    losses = [
        {
            "moment": "on_epoch_end",
            "epoch": e,
            "step": 10 * (e + 1),
            "train_loss": 0.5**e,
            "val_loss": 0.6**e,
        }
        for e in range(5)
    ]
    return [{"moment": "on_start"}, *losses, {"moment": "on_train_end"}]
