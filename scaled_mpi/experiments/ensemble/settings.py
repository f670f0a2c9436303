"""Experiments on ensembles: many runs of a particle system, their densities, and forecasts.

    simulate -> compress -> fit -> forecast -> evaluate -> report

Every block below is one of the file's keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from scaled_mpi.compressors.pod import Pod
from scaled_mpi.config import InputError, Spec, undecisive
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.learning.given_weights import with_counted_steps
from scaled_mpi.parallel.keys import FirstRun
from scaled_mpi.simulators.vicsek import Vicsek
from scaled_mpi.surrogates.mvar import Mvar
from scaled_mpi.surrogates.stepper import Stepper

FAMILIES = {"simulator": "vicsek", "compressor": "pod", "surrogate": "mvar", "rival": "stepper"}
KINDS = ("train", "test")
Start = Literal["uniform", "gaussian_cluster", "ring", "two_clusters"]


class Members(Spec):
    """`training` and `test` runs of `duration`, member i from start i modulo their number.

    `test_duration` is the duration of the test runs if it differs.

    A frame is stored every `save_every` steps, the first at time 0. `source` names an existing
    tree of NPZ files, read instead of simulating; `models` imports its POD and MVAR too.
    """

    training: PositiveInt = 100
    test: PositiveInt = 20
    starts: tuple[Start, ...] = Field(
        default=("uniform", "gaussian_cluster", "ring", "two_clusters"), min_length=1
    )
    duration: PositiveFloat = 2.0
    test_duration: PositiveFloat | None = None
    save_every: PositiveInt = 1
    source: str | None = None
    models: bool = False


class DensityMap(Spec):
    """The grid of the density, and the standard deviation of its Gaussian filter in cells."""

    shape: tuple[PositiveInt, PositiveInt] = (64, 64)
    bandwidth: Annotated[float, Field(ge=0)] = 2.0


class Forecasting(Spec):
    """`limit`: runs of the simulator from the true state that are averaged (0: none).

    `band`: forecasts with drawn residuals, for a band (0: none). `tolerance`: relative error
    that ends the horizon, over `window` frames.
    """

    limit: NonNegativeInt = 64
    band: NonNegativeInt = 0
    tolerance: PositiveFloat = 0.10
    window: PositiveInt = 10


class Transition(Spec):
    """Vicsek's sweep: mean polarization by noise and number of particles, at one density.

    Each of `sizes` is a number of particles in a periodic square of `density`, radius 1 and dt 1.
    Each of `noises` is the width of the uniform noise in radians. The polarization is averaged
    over `steps` steps after `burn_in`.
    """

    sizes: tuple[PositiveInt, ...] = (40, 100)
    noises: tuple[Annotated[float, Field(ge=0)], ...] = (0.1, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
    density: PositiveFloat = 4.0
    speed: PositiveFloat = 0.03
    burn_in: NonNegativeInt = 300
    steps: PositiveInt = 600


@dataclass(frozen=True, order=True)
class Member:
    """One run of an ensemble."""

    kind: str
    number: int

    @property
    def name(self) -> str:
        """Name of the member's files."""
        return f"{self.kind}-{self.number:04d}"

    @property
    def run(self) -> int:
        """Number of the run among all runs of a seed."""
        return self.number + (FirstRun.TEST if self.kind == "test" else 0)


class EnsembleExperiment(ExperimentSpec):
    """One ensemble experiment, every key typed. `launch` and `machine` never enter a hash."""

    kind: Literal["ensemble"] = "ensemble"
    launch: Literal["local", "dask", "slurm", "pbs", "htcondor"] = undecisive("local")
    simulator: Vicsek = Vicsek()
    ensemble: Members = Members()
    density: DensityMap = DensityMap()
    compressor: Pod = Pod(factor=(64, 64))
    surrogate: Mvar = Mvar()
    rival: Stepper | None = None
    forecast: Forecasting = Forecasting()
    transition: Transition | None = None

    @model_validator(mode="after")
    def _fits(self) -> EnsembleExperiment:
        _check(self)
        return self

    def at(self, root: Path) -> EnsembleExperiment:
        """Return the experiment with its tree of NPZ files below `root`."""
        if self.ensemble.source is None:
            return self
        source = str(root / self.ensemble.source)
        ensemble = self.ensemble.model_copy(update={"source": source})
        return self.model_copy(update={"ensemble": ensemble})

    def with_steps(self) -> EnsembleExperiment:
        """Return the experiment with the epochs of its rival as steps."""
        if self.rival is None:
            return self
        wraps = [self.simulator.boundaries == "periodic"] * 2
        runs, shape = self.ensemble.training, self.density.shape
        rival = with_counted_steps(self.rival, runs, self.frames, shape, wraps)
        return self.model_copy(update={"rival": rival})

    @property
    def frames(self) -> int:
        """Number of frames of a training run, including time 0."""
        return self.frames_of("train")

    def frames_of(self, kind: str) -> int:
        """Return the number of frames of a run of one kind, including time 0."""
        duration = self.ensemble.duration
        if kind == "test" and self.ensemble.test_duration is not None:
            duration = self.ensemble.test_duration
        return round(duration / self.simulator.dt) // self.ensemble.save_every + 1

    def members(self) -> list[Member]:
        """Return all members, in order."""
        return [Member(kind, number) for kind in KINDS for number in range(self.count(kind))]

    def count(self, kind: str) -> int:
        """Return the number of members of one kind."""
        return self.ensemble.training if kind == "train" else self.ensemble.test

    def system(self, member: Member) -> Vicsek:
        """Return the simulator of a member, with its own start."""
        starts = self.ensemble.starts
        return self.simulator.model_copy(update={"start": starts[member.number % len(starts)]})

    def select(self, text: str) -> list[Member]:
        """Return the members of `train:17`, `test:0-4` or `train`. Errors: `InputError`."""
        match = re.fullmatch(r"(train|test)(?::(\d+)(?:-(\d+))?)?", text)
        count = self.count(match[1]) if match else 0
        first = int(match[2]) if match and match[2] else 0
        alone = first if match and match[2] else count - 1
        last = int(match[3]) if match and match[3] else alone
        if not match or not first <= last < count:
            raise InputError(
                f"--member: {text} is not allowed: there is no such member. Allowed: members and "
                f"ranges of train:0-{self.count('train') - 1} and test:0-{self.count('test') - 1}"
            )
        return [Member(match[1], number) for number in range(first, last + 1)]


def _check(experiment: EnsembleExperiment) -> None:
    """Checks that no single block can make. Errors: `InputError`."""
    shortest = min(map(experiment.frames_of, KINDS))
    if shortest <= experiment.surrogate.memory:
        raise InputError(
            f"ensemble.duration: {experiment.ensemble.duration} is not allowed: it has {shortest} "
            "frames. Allowed: durations of more frames than surrogate.memory = "
            f"{experiment.surrogate.memory}"
        )
    shape, factor = experiment.density.shape, experiment.compressor.factor
    if (factor if isinstance(factor, tuple) else (factor, factor)) != shape:
        raise InputError(
            f"compressor.factor: {factor} is not allowed: an ensemble has one tile. Allowed: "
            f"{list(shape)}, the density.shape"
        )
    if experiment.ensemble.models and experiment.ensemble.source is None:
        raise InputError(
            "ensemble.models: true is not allowed: there is no ensemble.source. Allowed: false, "
            "or true with a source"
        )
    rival = experiment.rival
    if rival is not None and (rival.jump != 1 or rival.memory > experiment.surrogate.memory):
        raise InputError(
            f"rival.jump, rival.memory: {rival.jump}, {rival.memory} is not allowed: the rival "
            "forecasts the frames of the surrogate. Allowed: jump 1, and memory at most "
            f"surrogate.memory = {experiment.surrogate.memory}"
        )
    if experiment.surrogate.jump != 1 or experiment.surrogate.reach not in (0, (0, 0)):
        raise InputError(
            f"surrogate.jump, surrogate.reach: {experiment.surrogate.jump}, "
            f"{experiment.surrogate.reach} is not allowed: an ensemble has one tile and stores "
            "every frame. Allowed: jump 1 and reach 0"
        )
