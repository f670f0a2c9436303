"""Ensembles: the members, the two fits, and forecasts of every test run.

`forecast` writes for each test run test-0003.forecast.h5 with the fields (F, ny, nx) of all
forecast frames, by method:

    surrogate   MVAR with the rank, lag and alpha chosen on held-out training runs
    energy      MVAR as configured, on all modes of the configured energy
    ceiling     the truth through the POD with the chosen rank: the upper bound of latent forecasts
    limit       the simulator from the true particles of the last known frame, averaged over runs
    rival       a network on the density itself, if the experiment has one
    spread      the standard deviation over forecasts with drawn residuals, if `band` is set

and the surrogate's fields also as a trajectory, test-0003.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np

from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.ensemble.import_npz import import_mvar, import_pod
from scaled_mpi.experiments.ensemble.latents import latent_runs, write_latents
from scaled_mpi.experiments.ensemble.members import MemberRun, ledger, write_member
from scaled_mpi.experiments.ensemble.settings import EnsembleExperiment, Member
from scaled_mpi.learning.given_weights import taken
from scaled_mpi.parallel import streams
from scaled_mpi.parallel.arrays import load_arrays, save_arrays
from scaled_mpi.parallel.comm import Comm, SerialComm, member_groups, quiet_barrier, shares
from scaled_mpi.parallel.keys import FirstRun, Stream
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.progress import Progress
from scaled_mpi.surrogates.operators import Operator

ENERGY, RIVAL = "energy", "rival"  # methods; the first also the folder of its fit


def simulate(context: Context[EnsembleExperiment]) -> None:
    """Write all members that are not done, on these ranks or on a cluster; collective."""
    experiment = context.experiment
    members, begun = experiment.members(), time.perf_counter()
    if context.comm.rank == 0:
        experiment.simulator.warm()
    quiet_barrier(context.comm)
    if experiment.launch == "local":
        _, mine = member_groups(len(members), context.comm)
        with Progress("members", len(mine), context.comm.rank) as progress:
            for number in mine:
                write_member(experiment, context.folder, members[number])
                progress.step()
    elif context.comm.rank == 0:
        from scaled_mpi.engine.launch import farm

        farm(
            write_member,
            [(experiment, context.folder, member) for member in members],
            experiment.launch,
            experiment.machine,
            context.say,
        )
    quiet_barrier(context.comm)
    context.facts.record("time.ensemble", time.perf_counter() - begun, "s")
    if context.comm.rank == 0:
        book = ledger(context.folder, members).values()
        done = sum(entry["state"] == "done" for entry in book)
        if done < len(members):
            raise RuntimeError(
                f"{context.folder}: {len(members) - done} of {len(members)} members are not done. "
                "Needed: all members"
            )
        context.facts.record("members.done", done)
        context.facts.record("members.repeated", sum(entry["ends"] > 1 for entry in book))
        context.facts.record("members.starts", sum(entry["starts"] for entry in book))


def _training_runs(context: Context[EnsembleExperiment]) -> list[Trajectory]:
    """The training runs. Errors: `InputError` for a run that is missing or cut short."""
    return [
        Trajectory(context.inputs["simulate"], member.name)
        for member in context.experiment.members()
        if member.kind == "train"
    ]


def compress(context: Context[EnsembleExperiment]) -> None:
    """Fit the POD and encode the training runs, shared by the ranks; collective."""
    experiment, begun = context.experiment, time.perf_counter()
    runs = _training_runs(context)
    if experiment.ensemble.models:
        on_root(context.comm, lambda: import_pod(experiment, context.folder))
    else:
        code = taken(experiment.compressor, "compressor", context.folder, context.comm)
        if code is None:
            with _fitting(context) as comm:
                experiment.compressor.fit(runs, comm, context.folder, None, experiment.seed)
    coder = experiment.compressor.load(context.folder)
    for number in shares(len(runs), context.comm.size)[context.comm.rank]:
        write_latents(coder, runs[number], context.folder)
    quiet_barrier(context.comm)
    context.facts.record("time.compress", time.perf_counter() - begun, "s")


def fit(context: Context[EnsembleExperiment]) -> None:
    """Fit the surrogate with its selection, and without it; collective."""
    experiment = context.experiment
    stored = _training_runs(context)
    # Latents have the members of trajectories that a fit reads.
    runs = cast("list[Trajectory]", latent_runs(context.inputs["compress"], stored))
    begun = time.perf_counter()
    if experiment.ensemble.models:
        on_root(context.comm, lambda: import_mvar(experiment, context.folder))
    elif taken(experiment.surrogate, "surrogate", context.folder, context.comm) is None:
        with _fitting(context) as comm:
            experiment.surrogate.fit(runs, comm, context.folder, None, experiment.seed)
            if experiment.surrogate.selection is not None:
                folder = context.folder / ENERGY
                folder.mkdir(exist_ok=True)
                plain = experiment.surrogate.model_copy(update={"selection": None, "rank": None})
                plain.fit(runs, comm, folder, None, experiment.seed)
    quiet_barrier(context.comm)
    context.facts.record("time.fit", time.perf_counter() - begun, "s")


@contextmanager
def _fitting(context: Context[EnsembleExperiment]) -> Iterator[Comm]:
    """The communicator of a fit: these ranks, or the workers of a cluster."""
    experiment = context.experiment
    if experiment.launch == "local" or context.comm.size > 1:
        yield context.comm
        return
    from scaled_mpi.engine.launch import workers

    with workers(experiment.launch, experiment.machine, context.folder, context.say) as comm:
        yield comm


def train_rival(context: Context[EnsembleExperiment]) -> None:
    """Train the network on the density itself, the longest stage; collective."""
    if context.experiment.rival is None:
        return
    runs = _training_runs(context)
    if taken(context.experiment.rival, "rival", context.folder, context.comm) is None:
        context.experiment.rival.fit(
            runs, context.comm, context.folder, context.events(), context.experiment.seed
        )


def forecast(context: Context[EnsembleExperiment]) -> None:
    """Forecast every test run by every method; ranks share the runs. Collective."""
    experiment = context.experiment
    _, mine = member_groups(experiment.ensemble.test, context.comm)
    forecaster = Forecaster(context)
    begun = time.perf_counter()
    with Progress("forecast", len(mine), context.comm.rank) as progress:
        for number in mine:
            forecaster.write(Member("test", number))
            progress.step()
    quiet_barrier(context.comm)
    context.facts.record("time.forecast", time.perf_counter() - begun, "s")
    context.facts.record("pod.rank", forecaster.coder.rank)
    context.facts.record("pod.energy", forecaster.coder.energy)
    context.facts.record("mvar.rank", forecaster.chosen.rank)
    context.facts.record("mvar.lag", forecaster.chosen.model.lag)
    context.facts.record("mvar.alpha", forecaster.chosen.meta["alpha"])
    context.facts.record("mvar.radius", forecaster.chosen.radius)


class Forecaster:
    """The fitted models of one experiment, applied to test runs."""

    def __init__(self, context: Context[EnsembleExperiment]) -> None:
        self.context, self.experiment = context, context.experiment
        self.coder = self.experiment.compressor.load(context.inputs["compress"])
        folder = context.inputs["fit"]
        self.chosen = self.experiment.surrogate.load(folder)
        self.energy = None
        if (folder / ENERGY).is_dir():
            self.energy = self.experiment.surrogate.load(folder / ENERGY)
        self.rival = None
        if self.experiment.rival is not None:
            self.rival = self.experiment.rival.load(context.inputs["rival"])

    def write(self, member: Member) -> None:
        """Forecast one run by all methods and write the fields."""
        truth = Trajectory(self.context.inputs["simulate"], member.name)
        memory, frames = self.experiment.surrogate.memory, len(truth)
        known = truth.read(slice(0, memory))
        late = truth.read(slice(memory, frames))
        latent = np.stack([self.coder.encode(frame) for frame in known])
        steps = frames - memory
        fields = {
            "surrogate": self._linear(self.chosen, latent, steps),
            "ceiling": np.stack([self._through(frame) for frame in late]),
        }
        if self.energy is not None:
            fields[ENERGY] = self._linear(self.energy, latent, steps)
        if self.experiment.forecast.limit:
            fields["limit"] = self._simulated(member, memory, frames)
        if self.rival is not None:
            fields[RIVAL] = self._network(self.rival, known, steps)
        if self.experiment.forecast.band:
            fields["spread"] = self._band(member, latent, steps)
        folder = self.context.folder
        save_arrays(folder / f"{member.name}.forecast.h5", fields, {"memory": memory})
        blocks = self.experiment.simulator.blocks(truth.grid.shape, 1)
        with TrajectoryWriter(
            folder,
            member.name,
            blocks,
            SerialComm(),
            truth.channels,
            dtype=np.float64,
            attributes=truth.attributes,
        ) as writer:
            for moment, field in zip(truth.times[memory:], fields["surrogate"], strict=True):
                writer.append(moment, field[None])

    def _linear(self, operator: Operator, latent: np.ndarray, steps: int) -> np.ndarray:
        """Fields of a closed loop in the latent space."""
        return self._march(
            latent, steps, lambda window: operator.advance(window, np.ones((1, 1)), np.zeros(0))
        )

    def _march(
        self, latent: np.ndarray, steps: int, advance: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        window, fields = latent, []
        for _ in range(steps):
            newest = advance(window)
            window = np.concatenate([window[1:], newest[None]])
            fields.append(self.coder.decode(newest)[0])
        return np.stack(fields)

    def _through(self, frame: np.ndarray) -> np.ndarray:
        code = self.coder.encode(frame)
        code[self.chosen.rank :] = 0.0
        return self.coder.decode(code)[0]

    def _band(self, member: Member, latent: np.ndarray, steps: int) -> np.ndarray:
        """Standard deviation over forecasts with drawn residuals."""
        operator, drawn = self.chosen, []
        for copy in range(self.experiment.forecast.band):
            draws = iter(range(steps))

            def advance(
                window: np.ndarray, copy: int = copy, draws: Iterator[int] = draws
            ) -> np.ndarray:
                ids = np.arange(operator.rank) + operator.rank * copy
                seed = self.experiment.seed | member.run << 32
                noise = streams.normal(seed, next(draws), ids, stream=Stream.BAND)[:, None, None]
                return operator.advance(window, np.ones((1, 1)), np.zeros(0), noise=noise)

            drawn.append(self._march(latent, steps, advance))
        return np.std(drawn, axis=0)

    def _simulated(self, member: Member, memory: int, frames: int) -> np.ndarray:
        """The mean density of the simulator's own runs from the last known particles."""
        path = self.context.inputs["simulate"] / f"{member.name}.particles.h5"
        particles, _ = load_arrays(path)
        run = MemberRun(self.experiment, self.experiment.seed, member)
        state = particles["positions"][memory - 1], particles["velocities"][memory - 1]
        copies = self.experiment.forecast.limit
        total = np.zeros((frames - memory, *self.experiment.density.shape))
        for copy in range(copies):
            noise = FirstRun.LIMIT + member.number * copies + copy
            run.resumed(*state, memory - 1, self.experiment.seed | noise << 32)
            for counts in total:
                run.flock = run.system.advance(run.flock, run.save_every, run.exchange)
                counts += run.density.counts(run.flock.particles)
        # The filter is linear: it maps mean counts to the mean of filtered counts.
        return np.stack([run.density.smoothed(counts / copies)[0] for counts in total])

    def _network(self, operator: Operator, known: np.ndarray, steps: int) -> np.ndarray:
        """The rival in closed loop, one tile that is the whole box."""
        from scaled_mpi.surrogates.autoregression import ringed

        fields: list[np.ndarray] = []
        wraps = [self.experiment.simulator.boundaries == "periodic"] * 2
        window = known[-operator.memory :]
        for _ in range(steps):
            around = ringed(window, operator.reach, wraps)
            newest = operator.advance(around, np.ones(around.shape[2:]), np.zeros(0))
            newest *= known[-1].sum() / newest.sum()  # no particle is born or dies
            window = np.concatenate([window[1:], newest[None]])
            fields.append(newest[0])
        return np.stack(fields).astype(np.float64)
