"""The Python interface: the work of a YAML file, function by function.

    import scaled_mpi as sm

    system = sm.GrayScott(pattern="waves")
    runs = sm.simulate(system, (128, 128), runs=24, frames=60, every=50, burn_in=500)
    truth = sm.simulate(system, (512, 512), frames=43, every=50, burn_in=1000, first=sm.TEST)
    model = sm.fit(sm.Stepper(jump=50), runs)
    forecast = sm.couple(model, truth, tile=(64, 64), halo=4, jumps=40)
    print(sm.score(forecast, truth))

Every function runs on one process or, collectively, on all ranks of a script under mpirun, with
the same bits. Fields are lazy xarray datasets; they lie in `folder`, or in one that goes when
Python ends. The stages of an experiment call the same functions below these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi.compressors import MEMBERS as COMPRESSORS
from scaled_mpi.compressors.coders import Coder, Compressor, load_coder
from scaled_mpi.compressors.identity import IdentityCoder
from scaled_mpi.config import InputError, Spec
from scaled_mpi.coupling.encoding import TrainingPlace, encode_runs, fit_compressor, fit_surrogate
from scaled_mpi.engine.jobs import job_of
from scaled_mpi.experiments import from_tree, kind_of
from scaled_mpi.experiments import load as load_experiment
from scaled_mpi.experiments.forecast.settings import (
    HISTORY,
    ForecastExperiment,
    is_forecast,
)
from scaled_mpi.facts import EventLog
from scaled_mpi.labelled import Describing, as_dataset, as_runs, fields_of
from scaled_mpi.learning.given_weights import Part, with_counted_steps
from scaled_mpi.model import Coupled, Model
from scaled_mpi.opening import Outputs, open_outputs
from scaled_mpi.parallel.blocks import handy_tile, make_blocks
from scaled_mpi.parallel.comm import Comm, first_ranks, world
from scaled_mpi.parallel.keys import FirstRun
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.parallel.verification import TileGather, extrapolations, lead_scores
from scaled_mpi.scratch import check_unused, scratch_folder
from scaled_mpi.shipped import SHIPPED, WEIGHTS, names, weight_folder
from scaled_mpi.simulators import warm
from scaled_mpi.simulators.contract import Simulator, require
from scaled_mpi.simulators.recording import Recording, record_run, record_runs
from scaled_mpi.simulators.running import condition_of, grid_of
from scaled_mpi.surrogates.operators import Operator, Surrogate, load_operator

if TYPE_CHECKING:
    import xarray

    from scaled_mpi.labelled import Fields

TEST = int(FirstRun.TEST)  # the first run of a seed that no training sees


def simulate(
    simulator: Simulator | Sequence[Simulator],
    shape: Sequence[int],
    *,
    runs: int | None = None,
    seed: int = 0,
    first: int = 0,
    comm: Comm | None = None,
    folder: str | Path | None = None,
    **recording: int,
) -> xarray.Dataset:
    """Return runs of a simulator on `shape` cells, float32 and lazy; collective.

    One run has dims (time, [z,] [y,] x), `runs` of them, or a sequence of simulators, have (run,
    time, ...). `recording`: frames (required), every (steps between frames, 1), burn_in (steps
    before the first frame, 0). Run i begins from (seed, first + i). Errors: `InputError` for a
    simulator that lacks part of its contract, and for numbers that are not allowed.
    """
    comm, frames = comm or world(), Recording(**_known(recording, ("frames", "every", "burn_in")))
    many = isinstance(simulator, Sequence)
    systems = list(simulator) if isinstance(simulator, Sequence) else [simulator] * (runs or 1)
    if runs is not None and runs != len(systems) or not systems:
        raise InputError(
            f"runs: {runs} is not allowed: there are {len(systems)} simulators. Allowed: "
            f"{len(systems)}"
        )
    for system in systems:
        require(system)
    place, grid = scratch_folder(folder, comm), grid_of(systems[0], shape)
    warm(systems[0], comm, grid.axes)
    labels = [f"run-{first + run:04d}" for run in range(len(systems))]
    check_unused(place, labels, comm)
    if many or runs is not None:
        record_runs(place, labels.__getitem__, systems, grid, (seed, first), frames, comm)
        comm.Barrier()
        return as_runs([Trajectory(place, label) for label in labels])
    blocks = make_blocks(grid, handy_tile(grid.shape), comm.size)
    owners = first_ranks(comm, blocks.ranks)
    if owners is not None:
        record_run(place, labels[0], systems[0], (blocks, owners), (seed, first), frames)
    comm.Barrier()
    return as_dataset(Trajectory(place, labels[0]))


def fit(
    surrogate: Surrogate,
    runs: Fields,
    *,
    compressor: Compressor | None = None,
    seed: int = 0,
    comm: Comm | None = None,
    folder: str | Path | None = None,
) -> Model:
    """Train a surrogate on runs, through a compressor where one is given; collective.

    `runs`: a dataset with dims ([run,] time, [z,] [y,] x) whose frames are `surrogate.jump` steps
    apart. `surrogate.weights` takes finished weights in place of a training. Errors: `InputError`.
    """
    comm = comm or world()
    place = scratch_folder(folder, comm)
    stored = fields_of(runs, _made(place / "runs", comm), "run", comm)
    compressor = _with_steps(compressor or COMPRESSORS["identity"](), stored[0], len(stored))
    rooms = {name: _made(place / name, comm) for name in ("compress", "fit")}
    spots = {
        name: TrainingPlace(
            room, comm, EventLog(room, f"{name}-{seed}", seed, comm.rank, comm.size), seed
        )
        for name, room in rooms.items()
    }
    fit_compressor(compressor, stored, spots["compress"])
    coder = load_coder(compressor, rooms["compress"])
    encode_runs(coder, stored, rooms["compress"], comm)
    comm.Barrier()
    latent = [Trajectory(rooms["compress"], run.name) for run in stored]
    surrogate = _with_steps(surrogate, latent[0], len(latent))
    fit_surrogate("surrogate", surrogate, latent, spots["fit"])
    run = stored[0]
    span = float(run.times[1] - run.times[0]) if len(run) > 1 else None
    known = Describing(run.channels, run.grid, run.attributes.get("condition", {}))
    operator = load_operator(surrogate, rooms["fit"])
    return Model(operator, coder, surrogate.jump, span, Coupled(), known, seed)


def couple(
    model: Model,
    truth: Fields,
    jumps: int | None = None,
    *,
    start: int | None = None,
    member: int = 0,
    comm: Comm | None = None,
    folder: str | Path | None = None,
    **coupled: Any,
) -> xarray.Dataset:
    """Return the forecast of a model over the tiles of a domain; collective.

    `truth`: fields of the domain, dims (time, [z,] [y,] x). The forecast begins at frame `start`
    (default: the third, or the model's memory). It has `jumps` jumps (default: to the last frame).
    `coupled` are keys of `Coupled`: tile, halo, sweeps, tolerance, fixed. Errors: `InputError`.
    """
    comm = comm or world()
    place = scratch_folder(folder, comm)
    runs = fields_of(truth, place, "truth", comm, model.known)
    if len(runs) != 1:
        raise InputError(
            f"truth: {len(runs)} runs are not allowed: a forecast follows one. Allowed: one run."
        )
    start = max(HISTORY, model.memory) - 1 if start is None else start
    left = len(runs[0]) - start - 1
    if jumps is None and left < 1:
        raise InputError(
            f"jumps: None is not allowed: frame {start} of {len(runs[0])} is the last one. "
            "Allowed: 1 or more."
        )
    return model.march(runs[0], start, jumps or left, place, comm, member, coupled)


def score(forecast: Fields, truth: Fields, *, comm: Comm | None = None) -> xarray.Dataset:
    """Return errors of a forecast by lead, beside the predictors that cost nothing; collective.

    Frames are compared at equal times. Variables vrmse and mae have dims (predictor, lead,
    channel). Predictors are the forecast and, with two frames before it, persistence, linear and
    quadratic extrapolation. VRMSE is the root mean square error over the standard deviation of
    the truth. Errors: `InputError` where no time of the forecast is in the truth.
    """
    import xarray

    comm = comm or world()
    place = scratch_folder(None, comm)
    (made,), (true,) = (
        fields_of(fields, place, name, comm)
        for name, fields in (("forecast", forecast), ("truth", truth))
    )
    start = int(np.searchsorted(true.times, made.times[0])) - 1
    leads = min(len(made), len(true) - start - 1)
    same = slice(start + 1, start + 1 + leads)
    if leads < 1 or start < 0 or not np.allclose(made.times[:leads], true.times[same]):
        raise InputError(
            "forecast: its times are not allowed: the truth has none of them, or none before "
            "them. Allowed: times of frames of the truth."
        )
    blocks = make_blocks(true.grid, handy_tile(true.grid.shape), comm.size)
    owners, found = first_ranks(comm, blocks.ranks), None
    if owners is not None:
        gather = TileGather(blocks, owners)
        readers = {"forecast": lambda lead, box: made.read(lead - 1, box)}
        if start >= 2:
            readers |= extrapolations(gather, true, start)
        found = {
            name: list(
                lead_scores(gather, read, lambda lead, box: true.read(start + lead, box), leads)
            )
            for name, read in readers.items()
        }
    found = comm.bcast(found)
    dims = ("predictor", "lead", "channel")
    return xarray.Dataset(
        {
            key: (dims, np.array([[getattr(s, key) for s in one] for one in found.values()]))
            for key in ("vrmse", "mae")
        },
        {
            "predictor": list(found),
            "lead": np.arange(1, leads + 1),
            "channel": list(true.channels),
        },
    )


def run(
    config: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    preset: str | None = None,
    outputs: str | Path | None = None,
    comm: Comm | None = None,
) -> Outputs:
    """Run an experiment, a YAML file or a tree of keys, and return its results; collective.

    `overrides` maps dotted keys to values, {"coupling.halo": 6}, or lists "coupling.halo=6".
    Finished stages are used again. Errors: `InputError`, `Stopped` at a request to stop.
    """
    comm = comm or world()
    changes = (
        [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        if isinstance(overrides, Mapping)
        else list(overrides)
    )
    if isinstance(config, Mapping):
        experiment = from_tree(config, changes)
    else:
        experiment = load_experiment(config, changes, preset)
    job = job_of(kind_of(experiment), experiment, comm.size, Path(outputs) if outputs else None)

    def say(line: str) -> None:
        if comm.rank == 0:
            print(line, flush=True)

    job.perform(comm, say=say)
    return open_outputs(job.folder)


def load(source: str | Path, rival: str | None = None, device: str | None = None) -> Model:
    """Return the model of a results folder such as outputs/ddm, or of a shipped name.

    `rival` names one of the experiment's rivals. Errors: `InputError` for a folder without a
    trained surrogate.
    """
    folder = weight_folder(str(source))
    experiment = load_experiment(folder / "config.yaml")
    if not is_forecast(experiment):
        raise InputError(
            f"{folder}: a {experiment.kind} has no surrogate of fields. Needed: a forecast."
        )
    shipped = folder.parent == SHIPPED
    if shipped and rival is None:
        rival = folder.name.removeprefix(experiment.name).removeprefix("_") or None
    if rival is not None and rival not in experiment.rivals:
        known = ", ".join(experiment.rivals) or "none"
        raise InputError(f"rival: {rival} is not allowed: unknown. Allowed: {known}.")
    member = experiment.surrogate if rival is None else experiment.rivals[rival]
    if shipped:
        place = scratch_folder(None, world())
        on_root(world(), lambda: member.take(folder / WEIGHTS, place))
        operator = load_operator(member, place, device)
        coder: Coder = IdentityCoder(experiment.axes)
    else:
        weights = folder / "fit" if rival is None else folder / "fit" / "rivals" / rival
        operator = load_operator(member, weights, device)
        coder = load_coder(experiment.compressor, folder / "compress")
    return _model(experiment, folder, member, (operator, coder))


def _model(
    experiment: ForecastExperiment,
    folder: Path,
    member: Surrogate,
    loaded: tuple[Operator, Coder],
) -> Model:
    """The model of an experiment, with its coupling and the fields that it knows."""
    coupling, simulator, (operator, coder) = experiment.coupling, experiment.simulator, loaded
    halo = tuple(
        max(h, r) if member.needs_whole_reach() else h
        for h, r in zip(experiment.halo, operator.reach, strict=True)
    )
    how = Coupled(
        experiment.domain.tile, halo, coupling.sweeps, coupling.tolerance, coupling.fixed
    )
    if simulator is not None:
        span = member.jump * simulator.time_step
        grid = grid_of(simulator, experiment.shape)
        known = Describing(tuple(simulator.channels), grid, condition_of(simulator))
    else:
        truth = Trajectory(folder / "simulate", "test-0000")
        span = float(truth.times[1] - truth.times[0])
        known = Describing(truth.channels, truth.grid, truth.attributes.get("condition", {}))
    return Model(operator, coder, member.jump, span, how, known, experiment.seed)


def _with_steps(part: Part, run: Trajectory, runs: int) -> Part:
    """A block to train with its epochs as steps over `runs` runs like `run`."""
    periodic = [edge.periodic for edge in run.grid.boundary]
    return with_counted_steps(part, runs, len(run), run.grid.shape, periodic)


def _made(folder: Path, comm: Comm) -> Path:
    return scratch_folder(folder, comm)


def _known(given: Mapping[str, int], allowed: Sequence[str]) -> dict[str, int]:
    """Keys of a recording. Errors: `InputError` for another key, or without frames."""
    unknown = [key for key in given if key not in allowed]
    if unknown or "frames" not in given:
        raise InputError(
            f"recording: {', '.join(given) or 'no key'} is not allowed: "
            f"{unknown[0] + ' is unknown' if unknown else 'frames is missing'}. "
            f"Allowed: {', '.join(allowed)}."
        )
    return dict(given)


def member_named(name: str) -> type[Spec]:
    """Return a member of a family by the name of its class. Errors: `AttributeError`."""
    from scaled_mpi import compressors, datasets, simulators, surrogates

    for family in (simulators, surrogates, compressors, datasets):
        for member in family.MEMBERS.values():
            if member.__name__ == name:
                return member
    raise AttributeError(f"module 'scaled_mpi' has no attribute {name!r}")


__all__ = [
    "TEST",
    "Coupled",
    "Model",
    "couple",
    "fit",
    "load",
    "names",
    "run",
    "score",
    "simulate",
]
