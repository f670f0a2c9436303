"""The members of an ensemble: each a run of its own, in files of its own, done once.

A run is simulated, or read from a tree of NPZ files (`ensemble.source`).

    train-0017.particles.h5    positions and velocities (T, N, 2), order parameters, times
    train-0017.json, ...       the density as a trajectory; its index comes last
    ledger/train-0017.log      one line a start and one at the end, with the sha256

A member with an index is done and skipped; a killed member leaves none and starts anew. The
contents of a member's files depend on the experiment and the member alone, never on the process.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.engine.artefacts import Artefact
from scaled_mpi.engine.kind import Found
from scaled_mpi.experiments.ensemble.import_npz import MemberFrames, read_member
from scaled_mpi.experiments.ensemble.settings import KINDS, EnsembleExperiment, Member
from scaled_mpi.files import sha256
from scaled_mpi.parallel.arrays import save_arrays
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.particles import Particles
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.simulators.density import Density, filter_radius, order_parameters
from scaled_mpi.simulators.vicsek import Flock, Vicsek

ORDERS = ("polarization", "mean_speed", "nematic", "speed_std")


class MemberRun:
    """One member simulated on this process alone: frames of particles and of density."""

    def __init__(self, experiment: EnsembleExperiment, seed: int, member: Member) -> None:
        self.system = experiment.system(member)
        comm = SerialComm()
        self.save_every = experiment.ensemble.save_every
        self.blocks = self.blocks_of(experiment, self.system)
        self.exchange = self.system.exchange(self.blocks, comm)
        self.density = Density(self.blocks, comm, experiment.density.bandwidth)
        self.flock = self.system.initial(self.exchange, (seed, member.run))
        frames = experiment.frames_of(member.kind)
        self.times = [frame * self.save_every * self.system.dt for frame in range(frames)]

    @staticmethod
    def blocks_of(experiment: EnsembleExperiment, system: Vicsek) -> Blocks:
        """Return the density's grid as one block, with tiles at least as wide as the filter."""
        least = filter_radius(experiment.density.bandwidth)
        return system.blocks(experiment.density.shape, 1, least)

    def frames(self) -> Iterable[tuple[Flock, np.ndarray]]:
        """Yield (particles, density (1, ny, nx)) of every stored frame."""
        yield self.flock, self.density(self.flock.particles)
        yield from self.onward(len(self.times) - 1)

    def onward(self, frames: int) -> Iterable[tuple[Flock, np.ndarray]]:
        """Yield (particles, density (1, ny, nx)) of `frames` further frames."""
        for _ in range(frames):
            self.flock = self.system.advance(self.flock, self.save_every, self.exchange)
            yield self.flock, self.density(self.flock.particles)

    def resumed(self, position: np.ndarray, velocity: np.ndarray, frame: int, seed: int) -> None:
        """Continue from positions and velocities (N, 2) of a stored frame, with other noise."""
        particles = Particles(np.arange(len(position)), position, {"velocity": velocity})
        self.flock = Flock(particles, frame * self.save_every, seed)


def write_member(experiment: EnsembleExperiment, folder: Path, member: Member) -> dict[str, Any]:
    """Write one member, unless it is done; return its name, its index file and its sha256.

    Errors: any error of the simulator; the ledger then has a start and no end.
    """
    if not is_done(folder, member):
        _note(folder, member, "start")
        _write(experiment, folder, member)
        _note(folder, member, "done")
    path = folder / f"{member.name}.json"
    return {"member": member.name, "path": str(path), "sha256": sha256(path)}


def is_done(folder: Path, member: Member) -> bool:
    """Return whether a member has an index and all files in it; damaged ones do not count."""
    try:
        Trajectory(folder, member.name)
    except InputError:
        return False
    return (folder / f"{member.name}.particles.h5").is_file()


def _write(experiment: EnsembleExperiment, folder: Path, member: Member) -> None:
    if experiment.ensemble.source is not None:
        frames = read_member(experiment, member)
    else:
        frames = _simulated(experiment, member)
    meta = {"start": frames.start, "seed": frames.seed, "run": frames.run}
    arrays = {
        "positions": frames.positions,
        "velocities": frames.velocities,
        "times": np.array(frames.times),
        "orders": _orders(frames),
    }
    save_arrays(folder / f"{member.name}.particles.h5", arrays, meta)
    system = experiment.system(member)
    with TrajectoryWriter(
        folder,
        member.name,
        MemberRun.blocks_of(experiment, system),
        SerialComm(),
        system.channels,
        dtype=np.float64,
        attributes={**meta, "jump": 1, "condition": {}},
    ) as writer:
        for moment, field in zip(frames.times, frames.fields, strict=True):
            writer.append(moment, field)


def _simulated(experiment: EnsembleExperiment, member: Member) -> MemberFrames:
    """All frames of a simulated run."""
    run = MemberRun(experiment, experiment.seed, member)
    positions, velocities, fields = [], [], []
    for flock, field in run.frames():
        positions.append(flock.particles.position)
        velocities.append(flock.particles.payload["velocity"])
        fields.append(field)
    return MemberFrames(
        times=run.times,
        positions=np.stack(positions),
        velocities=np.stack(velocities),
        fields=fields,
        start=run.system.start,
        seed=experiment.seed,
        run=member.run,
    )


def _orders(frames: MemberFrames) -> np.ndarray:
    """(T, len(ORDERS)) of every frame."""
    rows = []
    for position, velocity in zip(frames.positions, frames.velocities, strict=True):
        particles = Particles(np.arange(len(position)), position, {"velocity": velocity})
        orders = order_parameters(particles, SerialComm())
        rows.append([orders[name] for name in ORDERS])
    return np.array(rows)


def _note(folder: Path, member: Member, what: str) -> None:
    """Append one line to the member's own ledger; a short append is whole or absent."""
    path = folder / "ledger" / f"{member.name}.log"
    path.parent.mkdir(exist_ok=True)
    line = {"what": what, "time": time.time(), "host": platform.node(), "process": os.getpid()}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def ledger(folder: Path, members: Iterable[Member]) -> dict[str, dict[str, Any]]:
    """Return the state of each member (done, started, waiting), its starts and its ends."""
    book = {}
    for member in members:
        path = folder / "ledger" / f"{member.name}.log"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        starts = sum('"start"' in line for line in lines)
        ends = sum('"done"' in line for line in lines)
        state = "done" if is_done(folder, member) else "started" if starts else "waiting"
        book[member.name] = {"state": state, "starts": starts, "ends": ends}
    return book


def make_members(
    experiment: EnsembleExperiment, found: Found, wanted: str, say: Callable[[str], None]
) -> None:
    """Write the members named by `wanted`, such as train:17, and print the path of each.

    Several processes may work in one artefact's folder at a time: a member's files are its own.
    Errors: `InputError` for an unknown member.
    """
    chosen, artefact = experiment.select(wanted), found["simulate"]
    folder = _folder(artefact)
    if not artefact.done:
        folder.mkdir(parents=True, exist_ok=True)
    for member in chosen:
        written = write_member(experiment, folder, member)
        say(f"{written['member']} {written['sha256'][:12]} {written['path']}")


def show_members(
    experiment: EnsembleExperiment, found: Found, wanted: str, say: Callable[[str], None]
) -> None:
    """Print the state of all members; writes nothing."""
    folder = _folder(found["simulate"])
    book = ledger(folder, experiment.members())
    for kind in KINDS:
        states = [entry["state"] for name, entry in book.items() if name.startswith(kind)]
        counts = (f"{states.count(word)} {word}" for word in ("done", "started", "waiting"))
        say(f"{kind}: {', '.join(counts)} of {len(states)}")
    starts = sum(entry["starts"] for entry in book.values())
    repeated = sum(entry["ends"] > 1 for entry in book.values())
    say(f"starts: {starts}; members recorded twice: {repeated}; {folder}")


def _folder(artefact: Artefact) -> Path:
    return artefact.path if artefact.done else artefact.partial
