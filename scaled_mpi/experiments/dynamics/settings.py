"""Experiments on patterns: a data set of snapshots, their score, and the dynamics behind them.

    dataset -> score -> flow -> evaluate -> report
    (and cases: densities in two and three dimensions, Lorenz among them)

The method is Zhang and Levin's of 2025 (arXiv 2509.17990). From snapshots alone, without time, it
learns a field v that leaves their density p unchanged: div(p v) = 0. Every block below is one of
the file's keys.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from scaled_mpi.config import InputError, Spec, undecisive
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.learning.settings import with_steps_of
from scaled_mpi.parallel.keys import RUNS_A_GROUP
from scaled_mpi.simulators.gray_scott import GrayScott
from scaled_mpi.simulators.patterns import FAMILIES as PATTERNS
from scaled_mpi.simulators.starts import DENSITY_CELLS
from scaled_mpi.surrogates.flow import Flow, Kernels
from scaled_mpi.surrogates.score import DiffusionScore, SingleNoise

FAMILIES = {"score": "single"}
SEEDS = 5  # discs a sample starts from, whatever its size


class Snapshots(Spec):
    """The data set: `samples` final states (2, height, width) of each preset after `steps`.

    A sample starts from five discs. `normalize` maps [0, 1] to [-1, 1]; `chunk` samples make a
    file. `device` cuda simulates on a GPU, with other bits than a CPU.
    """

    presets: tuple[str, ...] = Field(default=("waves", "spirals", "maze", "life"), min_length=1)
    samples: PositiveInt = 8192
    height: Annotated[int, Field(ge=8)] = 128
    width: Annotated[int, Field(ge=8)] = 128
    steps: NonNegativeInt = 2000
    normalize: bool = True
    chunk: PositiveInt = 512
    device: Literal["cpu", "cuda"] = "cpu"

    @field_validator("presets")
    @classmethod
    def _known(cls, presets: tuple[str, ...]) -> tuple[str, ...]:
        known = PATTERNS["pattern"].rates
        for name in presets:
            if name not in known or presets.count(name) > 1:
                raise InputError(
                    f"patterns.presets: {name!r} is not allowed: unknown, or listed twice. "
                    f"Allowed: each at most once of {', '.join(known)}"
                )
        return presets

    def simulator(self, preset: str) -> GrayScott:
        """Return the simulator of a preset, with five discs at its start."""
        density = SEEDS * DENSITY_CELLS / (self.height * self.width)
        return GrayScott(pattern=preset, density=density)

    def run(self, preset: str, sample: int) -> int:
        """Return the run number of a sample of a seed; the same in every selection of presets."""
        return list(PATTERNS["pattern"].rates).index(preset) * RUNS_A_GROUP + sample

    def chunks(self) -> list[tuple[str, int, range]]:
        """Return (preset, number of the file, samples) of every file."""
        count = math.ceil(self.samples / self.chunk)
        return [
            (
                preset,
                number,
                range(number * self.chunk, min((number + 1) * self.chunk, self.samples)),
            )
            for preset in self.presets
            for number in range(count)
        ]


class Directions(Spec):
    """The comparison of fields with the dynamics; see `surrogates/directions.py`.

    `samples` held-out snapshots are compared. `marched` of them follow the stochastic equation for
    `march` steps of `dt` with `eta`, averaged with `memory`, beside `simulated` steps of the
    simulator. `random`: draws of each random baseline. `fitted`: snapshots whose rate a kernel is
    fitted to.
    """

    samples: PositiveInt = 64
    marched: PositiveInt = 8
    march: PositiveInt = 200
    dt: PositiveFloat = 0.01
    eta: PositiveFloat = 0.1
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.9
    simulated: PositiveInt = 20
    random: PositiveInt = 10
    fitted: PositiveInt = 8


class Cases(Spec):
    """Densities in few dimensions, whose flows are learned in `steps` steps and measured.

    `noise` is the width of the densities in the plane. `horizon` is the time over which exponents
    are measured, `separation` the number of steps of 0.1 of the published protocol.
    """

    names: tuple[Literal["two_moons", "ring", "two_peaks", "lorenz"], ...] = (
        "two_moons",
        "ring",
        "two_peaks",
        "lorenz",
    )
    noise: PositiveFloat = 0.1
    steps: PositiveInt = 1000
    horizon: PositiveFloat = 100.0
    separation: Annotated[int, Field(ge=2)] = 5000


class DynamicsExperiment(ExperimentSpec):
    """One experiment on patterns, every key typed; `validation` is the held-out part."""

    kind: Literal["dynamics"] = "dynamics"
    launch: Literal["local"] = undecisive("local")
    patterns: Snapshots = Snapshots()
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    score: Annotated[SingleNoise | DiffusionScore, Field(discriminator="kind")] = SingleNoise()
    flow: Flow = Flow()
    kernels: Kernels = Kernels()
    evaluation: Directions = Directions()
    cases: Cases | None = None

    @model_validator(mode="after")
    def _fits(self) -> DynamicsExperiment:
        _check(self)
        return self

    def with_steps(self) -> DynamicsExperiment:
        """Return the experiment with the epochs of score and flow as steps."""
        samples = self.training_samples
        parts = {key: with_steps_of(getattr(self, key), samples) for key in ("score", "flow")}
        return self.model_copy(update=parts)

    @property
    def held_out(self) -> int:
        """Number of held-out samples of each preset: the last ones."""
        return max(1, round(self.validation * self.patterns.samples))

    @property
    def training_samples(self) -> int:
        """Number of training samples of each preset."""
        return self.patterns.samples - self.held_out


def _check(experiment: DynamicsExperiment) -> None:
    """Checks that no single block can make. Errors: `InputError`."""
    available = experiment.held_out
    if experiment.training_samples < 1:
        raise InputError(
            f"patterns.samples: {experiment.patterns.samples} is not allowed: one sample is held "
            "out. Allowed: at least 2"
        )
    for block in ("score", "flow"):
        getattr(experiment, block).training.check_batch(experiment.training_samples)
    for key in ("samples", "marched", "fitted"):
        count = getattr(experiment.evaluation, key)
        most = experiment.training_samples if key == "fitted" else available
        if count > most:
            part = "trained on" if key == "fitted" else "held out"
            raise InputError(
                f"evaluation.{key}: {count} is not allowed: too few samples are {part}. "
                f"Allowed: at most {most}"
            )
    experiment.score.check_shape((experiment.patterns.height, experiment.patterns.width))
