"""The whole experiment as one object: the members of all families joined, and checked together.

One YAML file is one experiment. Every block below is one of its keys; every field one key of the
block. Lengths are in cells and times in simulator steps, one entry an axis where a tuple stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from scaled_mpi import compressors, datasets, simulators, surrogates
from scaled_mpi.config import InputError, Spec, choice, parse, undecisive
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.learning.given_weights import Part, with_counted_steps
from scaled_mpi.parallel.blocks import Grid, whole_per_axis
from scaled_mpi.simulators.contract import require
from scaled_mpi.simulators.running import check_steps, grid_of, noisy

if TYPE_CHECKING:  # the contracts that every member keeps to
    from scaled_mpi.compressors.coders import Compressor as AnyCompressor
    from scaled_mpi.datasets.runs import TrajectoryFiles as AnyDataset
    from scaled_mpi.simulators.contract import Simulator
    from scaled_mpi.surrogates.operators import Surrogate as AnySurrogate

    class AnySimulator(Spec, Simulator):
        """A block of YAML that is a simulator."""
else:
    AnySimulator = choice(simulators.MEMBERS)
    AnyDataset = choice(datasets.MEMBERS)
    AnyCompressor = choice(compressors.MEMBERS)
    AnySurrogate = choice(surrogates.MEMBERS)

RIVAL = re.compile(r"[a-z][a-z_]{0,31}")
TAKEN = (
    "surrogate",
    "wide_halo",
    "halo8",  # the name of wide_halo in version 0.1
    "plain",
    "nosweep",
    "untiled",
    "simulator",
    "persistence",
    "linear",
    "quadratic",
    "reference",
)
HISTORY = 3  # frames before the forecast that quadratic extrapolation needs

FAMILIES = {
    "simulator": "gray_scott",
    "dataset": "npz",
    "compressor": "identity",
    "surrogate": "stepper",
}


class Domain(Spec):
    """The large domain that is forecast: its shape, and the tiles it is cut into."""

    shape: tuple[PositiveInt, ...] | None = None
    tile: tuple[PositiveInt, ...] = (64, 64)


class Data(Spec):
    """The runs that a surrogate learns from: `runs` small domains, `frames` of each stored.

    A frame is stored every `surrogate.jump` steps, the first after `burn_in` steps. `vary` gives
    lists of values to keys of the simulator; run i takes entry i modulo the list's length.
    """

    runs: PositiveInt = 24
    shape: tuple[PositiveInt, ...] = (128, 128)
    burn_in: NonNegativeInt = 500
    frames: PositiveInt = 60
    vary: dict[str, tuple[str | float, ...]] = {}


class Test(Spec):
    """The run on the large domain that forecasts are compared with; stored from `burn_in` on.

    `members` further runs, of a simulator with noise, start where the forecast does.
    """

    burn_in: NonNegativeInt = 1000
    members: NonNegativeInt = 0


class Coupling(Spec):
    """Coupling of the tiles. `halo` is in cells of the surrogate's grid.

    With a halo under the surrogate's reach each jump is swept until the interface mismatch is
    below `tolerance`. There are at most `sweeps` sweeps; with `fixed` all of them run. The march
    is saved every `checkpoint` jumps. Variants are compared over the first `compare` jumps. A
    stochastic surrogate makes `members` forecasts, `untiled` of them also in one piece.
    """

    halo: NonNegativeInt | tuple[NonNegativeInt, ...] = 4
    jumps: PositiveInt = 40
    sweeps: PositiveInt = 8
    tolerance: PositiveFloat = 0.02
    fixed: bool = False
    checkpoint: PositiveInt = undecisive(5)
    compare: PositiveInt = 10
    members: PositiveInt = 1
    untiled: NonNegativeInt = 0


class Evaluation(Spec):
    """`stationary`: frames that vary less than this are left out of the mean, and counted."""

    stationary: PositiveFloat = 1e-6


class ForecastExperiment(ExperimentSpec):
    """One experiment, every key typed. `launch` and `machine` never enter a hash.

    `rivals` are further surrogates, by name, that learn from the same data and are coupled and
    scored beside `surrogate`.
    """

    kind: Literal["forecast"] = "forecast"
    launch: Literal["local"] = undecisive("local")
    simulator: AnySimulator | None = None
    dataset: AnyDataset | None = None
    domain: Domain = Domain()
    data: Data = Data()
    test: Test = Test()
    compressor: AnyCompressor = compressors.MEMBERS["identity"]()
    surrogate: AnySurrogate = surrogates.MEMBERS["stepper"]()
    rivals: dict[str, AnySurrogate] = {}
    coupling: Coupling = Coupling()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _fits(self) -> ForecastExperiment:
        check(self)
        return self

    def at(self, root: Path) -> ForecastExperiment:
        """Return the experiment with the files of its dataset below `root`."""
        if self.dataset is None:
            return self
        files = {
            "train": tuple(str(root / path) for path in self.dataset.train),
            "test": tuple(str(root / path) for path in self.dataset.test),
        }
        dataset = self.dataset.model_copy(update=files)
        return self.model_copy(update={"dataset": dataset})

    def with_steps(self) -> ForecastExperiment:
        """Return the experiment with epochs as steps: of the compressor, surrogate and rivals."""
        parts = [self.compressor, self.surrogate, *self.rivals.values()]
        if all(part.epochs() is None for part in parts):
            return self
        runs, frames, grid = self._learned_runs()
        periodic = [edge.periodic for edge in grid.boundary]
        latent = [n // f for n, f in zip(grid.shape, self.factor, strict=True)]

        def resolved(part: Part, shape: Sequence[int]) -> Part:
            return with_counted_steps(part, runs, frames, shape, periodic)

        return self.model_copy(
            update={
                "compressor": resolved(self.compressor, grid.shape),
                "surrogate": resolved(self.surrogate, latent),
                "rivals": {name: resolved(one, latent) for name, one in self.rivals.items()},
            }
        )

    def _learned_runs(self) -> tuple[int, int, Grid]:
        """Number of training runs, frames and grid of one; those of files like the first."""
        if self.dataset is None:
            return self.data.runs, self.data.frames, self.training_grid()
        runs, _ = self.dataset.plan()
        return len(runs), len(runs[0].frames), runs[0].grid

    @property
    def system(self) -> AnySimulator:
        """The simulator. Errors: `InputError` for an experiment with a dataset."""
        if self.simulator is None:
            raise InputError(
                "simulator: null is not allowed: a dataset has no equation. Allowed: a simulator"
            )
        return self.simulator

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells of the large domain. Errors: `InputError` with a dataset, whose files know it."""
        if self.domain.shape is None:
            raise InputError(
                "domain.shape: None is not allowed: nothing else sets the size of the large "
                "domain. Allowed: its cells, one number an axis"
            )
        return self.domain.shape

    @property
    def axes(self) -> int:
        """Number of axes of the domain."""
        return len(self.domain.tile)

    @property
    def halo(self) -> tuple[int, ...]:
        """Halo of the coupling, one entry an axis, in cells of the surrogate's grid."""
        return whole_per_axis("coupling.halo", self.coupling.halo, self.axes, 0)

    @property
    def reach(self) -> tuple[int, ...]:
        """Reach of the surrogate, one entry an axis, in cells of its grid."""
        return whole_per_axis("surrogate.reach", self.surrogate.reach, self.axes, 0)

    @property
    def factor(self) -> tuple[int, ...]:
        """Cells of the field an axis for one cell of the surrogate's grid."""
        return self.compressor.cells(self.axes)

    @property
    def history(self) -> int:
        """Frames known before the forecast: for the surrogate, or for quadratic extrapolation."""
        return max(HISTORY, self.surrogate.memory)

    @property
    def learns(self) -> bool:
        """Whether training runs are needed: not where all weights are finished ones."""
        members = (self.surrogate, *self.rivals.values())
        finished = all(one.weights is not None for one in members)
        return not finished or (
            self.compressor.kind != "identity" and self.compressor.weights is None
        )

    def runs(self) -> list[AnySimulator]:
        """The simulator of every training run, with the keys that `data.vary` changes."""
        system = self.system
        known = type(system).model_fields
        for key, values in self.data.vary.items():
            if key not in known or not values:
                raise InputError(
                    f"data.vary.{key}: {list(values)} is not allowed: no key of the simulator, or "
                    f"no values. Allowed: a non-empty list for {', '.join(sorted(known))}"
                )
        tree = system.model_dump(exclude_unset=True)
        return [
            parse(
                type(system),
                {**tree, **{key: v[run % len(v)] for key, v in self.data.vary.items()}},
            )
            for run in range(self.data.runs)
        ]

    def training_grid(self) -> Grid:
        """The grid of a training run."""
        return grid_of(self.system, self.data.shape)

    def test_grid(self) -> Grid:
        """The grid of the large domain (of a simulator; a dataset's is in its files)."""
        return grid_of(self.system, self.shape)


def is_forecast(experiment: ExperimentSpec) -> TypeGuard[ForecastExperiment]:
    """Whether an experiment is of this kind."""
    return experiment.kind == "forecast"


def check(experiment: ForecastExperiment) -> None:
    """Check the blocks of an experiment against each other.

    Errors: `InputError` with key, value, and the allowed values.
    """
    if (experiment.simulator is None) == (experiment.dataset is None):
        raise InputError(
            "simulator, dataset: both or none is not allowed: a simulator makes the data, "
            "a dataset reads them from files. Allowed: exactly one of them"
        )
    tile = experiment.domain.tile
    if experiment.simulator is not None:
        require(experiment.simulator)
        check_tiles(experiment, experiment.shape)
        shape = experiment.data.shape
        if len(shape) != experiment.axes:
            raise InputError(
                f"data.shape: {list(shape)} is not allowed: domain.tile has {experiment.axes} "
                f"axes. Allowed: {experiment.axes} axes"
            )
        experiment.runs()
        _check_noise(experiment)
    elif experiment.domain.shape is not None:
        raise InputError(
            f"domain.shape: {list(experiment.domain.shape)} is not allowed: the files of "
            "the dataset decide it. Allowed: none"
        )
    for t, f, h, r in zip(tile, experiment.factor, experiment.halo, experiment.reach, strict=True):
        if t % f:
            raise InputError(
                f"domain.tile: {list(tile)} is not allowed: the compressor's factor does not "
                f"divide it. Allowed: multiples of {f}"
            )
        if max(h, r) > t // f:
            key, given = ("coupling.halo", h) if h > t // f else ("surrogate.reach", r)
            raise InputError(
                f"{key}: {given} is not allowed: it is wider than a tile. Allowed: at most "
                f"{t // f} cells of the surrogate's grid"
            )
        if h < r and experiment.surrogate.needs_whole_reach():
            raise InputError(
                f"coupling.halo: {h} is not allowed: the surrogate has no masks and reaches {r} "
                f"cells. Allowed: {r} or more, or a surrogate with masks"
            )
    _check_decoder(experiment)
    _check_rivals(experiment)


def _check_decoder(experiment: ForecastExperiment) -> None:
    """Whether the compressor's decoder reaches no further than the next tile."""
    reach = experiment.compressor.decode_reach(experiment.axes)
    tiles = [t // f for t, f in zip(experiment.domain.tile, experiment.factor, strict=True)]
    if any(r > t for r, t in zip(reach, tiles, strict=True)):
        raise InputError(
            f"compressor: a decoder that reaches {list(reach)} latent cells is not allowed: "
            f"that is more than a tile. Allowed: at most {tiles} (domain.tile, or depth, "
            "steps of the decoder)"
        )


def _check_noise(experiment: ForecastExperiment) -> None:
    """Whether noise falls evenly into all spans, and there is some where an ensemble is asked."""
    simulator, noise = experiment.system, noisy(experiment.system)
    spans = {
        "data.burn_in": experiment.data.burn_in,
        "test.burn_in": experiment.test.burn_in,
        "surrogate.jump": experiment.surrogate.jump,
    }
    for key, steps in spans.items() if noise else ():
        check_steps(simulator, key, steps)
    if experiment.test.members and not noise:
        raise InputError(
            f"test.members: {experiment.test.members} is not allowed: all would be alike "
            "without simulator.noise. Allowed: 0"
        )


def _check_rivals(experiment: ForecastExperiment) -> None:
    """Names that no other trajectory bears, and jumps of one length."""
    for name, rival in experiment.rivals.items():
        taken = name in TAKEN or name.startswith("simulator_")
        if not RIVAL.fullmatch(name) or taken:
            raise InputError(
                f"rivals: {name} is not allowed: not of small letters and _, or in use. "
                f"Allowed: other names than {', '.join(TAKEN)}, simulator_*"
            )
        if rival.jump != experiment.surrogate.jump or rival.memory > experiment.history:
            raise InputError(
                f"rivals.{name}: jump {rival.jump}, memory {rival.memory} is not allowed: "
                "rivals are compared at equal times. Allowed: jump "
                f"{experiment.surrogate.jump}, memory at most {experiment.history}"
            )


def check_tiles(experiment: ForecastExperiment, shape: tuple[int, ...]) -> None:
    """Check that the tiles divide a domain of this shape. Errors: `InputError`."""
    tile = experiment.domain.tile
    if len(shape) != len(tile) or any(n % t for n, t in zip(shape, tile, strict=True)):
        raise InputError(
            f"domain.tile: {list(tile)} is not allowed: it does not divide the domain "
            f"{list(shape)} exactly. Allowed: divisors, one an axis"
        )
