"""Forecasts of a decomposed domain into the store: one loop for every method and member.

    domain = Domain.of(truth, coder, tile, start, comm)
    begun = begin(domain, operator, halo, sweeping, seed)
    course = march_and_store(folder, "surrogate", domain, begun, jumps, save_every=5)

The march is saved every `save_every` jumps. It continues there after a stop, on any number of
ranks, to the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.compressors.coders import Coder
from scaled_mpi.coupling.chance import chance_of
from scaled_mpi.coupling.latent import Coding
from scaled_mpi.coupling.schwarz import Jump, March, Sweeping
from scaled_mpi.parallel.blocks import Blocks, behind, make_blocks
from scaled_mpi.parallel.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from scaled_mpi.parallel.comm import Comm, exact_sum, first_ranks, largest
from scaled_mpi.parallel.halo import Halo, expected_bytes, expected_messages
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.signals import Stopped, stop_agreed
from scaled_mpi.parallel.store import Storage, TrajectoryWriter
from scaled_mpi.parallel.trajectory import Trajectory
from scaled_mpi.progress import Progress
from scaled_mpi.surrogates.operators import Operator


@dataclass(frozen=True)
class TiledDomain:
    """A decomposed domain on one rank: stored frames, blocks, coding, the first known frame.

    Frame `start` of `truth` is the last known one. `span` is the time of one jump; by default the
    time between the last two frames.
    """

    truth: Trajectory
    blocks: Blocks
    comm: Comm
    coding: Coding
    start: int
    span: float | None = None

    @classmethod
    def of(
        cls, truth: Trajectory, coder: Coder, tile: Sequence[int], start: int, comm: Comm
    ) -> TiledDomain | None:
        """Return the domain of this rank; None on a rank without a tile. Collective."""
        blocks = make_blocks(truth.grid, tuple(tile), comm.size)
        owners = first_ranks(comm, blocks.ranks)
        return None if owners is None else cls.on(truth, coder, blocks, owners, start)

    @classmethod
    def on(
        cls, truth: Trajectory, coder: Coder, blocks: Blocks, comm: Comm, start: int
    ) -> TiledDomain:
        """Return the domain of a rank that owns a block of `blocks`."""
        return cls(truth, blocks, comm, Coding(coder, blocks, comm), start)

    @property
    def latent(self) -> Blocks:
        """The blocks of the latent field."""
        return self.coding.latent

    def whole(self) -> TiledDomain | None:
        """Return the same domain as one tile on rank 0, None on the other ranks. Collective."""
        grid = self.blocks.grid
        blocks = replace(self.blocks, tile=grid.shape, split=(1,) * grid.axes)
        comm = first_ranks(self.comm, 1)
        if comm is None:
            return None
        coding = Coding(self.coding.coder, blocks, comm)
        return replace(self, blocks=blocks, comm=comm, coding=coding)

    def time(self, jump: int) -> float:
        """Return the time of a jump, counted from 1: that of the stored frame where there is one.

        Errors: `ValueError` where neither the frames nor `span` tell it.
        """
        times, at = self.truth.times, self.start + jump
        if at < len(times):
            return float(times[at])
        if self.span is None and len(times) < 2:
            raise ValueError("the time of a jump is unknown: one frame and no span")
        span = float(times[-1] - times[-2]) if self.span is None else self.span
        return float(times[-1]) + (at - len(times) + 1) * span

    def deviation(self, field: np.ndarray) -> np.ndarray:
        """Return the standard deviation (c,) of each channel of a latent field (c, *block).

        The same for any split; collective.
        """
        cells = float(np.prod(self.latent.grid.shape))
        deviations = []
        for channel in field.astype(np.float64):
            tiles = [channel[view.core] for view in self.coding.windows.views]
            mean = exact_sum(self.comm, (tile.sum() for tile in tiles)) / cells
            square = exact_sum(self.comm, (((tile - mean) ** 2).sum() for tile in tiles)) / cells
            deviations.append(max(square**0.5, 1e-12))
        return np.array(deviations)

    def hash(self, field: np.ndarray) -> str:
        """Return the SHA-256 of the SHA-256 of all tiles of a field (C, *block), in tile order.

        Equal bits give equal hashes, whichever rank owns a tile; collective.
        """
        rank, own = self.comm.rank, {}
        for index in self.blocks.tiles(rank):
            tile = np.ascontiguousarray(field[behind(self.blocks.local_slices(rank, index))])
            own[index] = hashlib.sha256(tile.tobytes()).hexdigest()
        merged = {key: value for part in self.comm.allgather(own) for key, value in part.items()}
        return hashlib.sha256("".join(merged[key] for key in sorted(merged)).encode()).hexdigest()


@dataclass(frozen=True)
class Begun:
    """A march and the latent frames (memory of (c, *block)) that it starts from."""

    march: March
    frames: list[np.ndarray]


def begin(
    domain: TiledDomain,
    operator: Operator,
    halo: Sequence[int],
    sweeping: Sweeping,
    seed: int = 0,
    member: int = 0,
) -> Begun:
    """Prepare the march of one member of a surrogate from the known frames; collective.

    `halo` is in cells of the latent grid, one entry an axis. `seed` and `member` decide the noise
    of a stochastic operator.
    """
    known = range(domain.start - operator.memory + 1, domain.start + 1)
    frames = [domain.coding.encode(domain.truth, frame) for frame in known]
    march = March(
        operator,
        Halo(domain.latent, domain.comm, tuple(halo), frames[-1].dtype),
        condition=operator.condition(domain.truth.attributes.get("condition", {})),
        scale=domain.deviation(frames[-1]),
        sweeping=sweeping,
        chance=chance_of(operator, domain.latent, domain.comm.rank, seed, member),
    )
    return Begun(march, frames)


@dataclass
class Course:
    """The course of a march: a record of each jump, the traffic of all ranks, the last field.

    `traffic`: bytes and messages, both as counted and by formula, and exchanges.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    traffic: np.ndarray = field(default_factory=lambda: np.zeros(5))
    final: np.ndarray | None = None

    @property
    def seconds(self) -> list[float]:
        """Seconds of each jump."""
        return [record["seconds"] for record in self.records]

    def median_seconds(self, comm: Comm) -> float:
        """Return the median over jumps of the slowest rank's seconds; collective."""
        return largest(comm, float(np.median(self.seconds)))


def march_and_store(
    folder: Path,
    name: str,
    domain: TiledDomain,
    begun: Begun,
    jumps: int,
    save_every: int = 0,
    say: Callable[[str], None] | None = None,
) -> Course:
    """Store the decoded field after each of `jumps` jumps as trajectory `name`; collective.

    With `save_every` the march is saved every so many jumps, and a saved one is continued. A
    request to stop then raises `Stopped` after the next jump.
    """
    saved = _Saved(folder / "march", domain, begun) if save_every else None
    frames, course, done = begun.frames, Course(), 0
    before = course.traffic
    if saved is not None and saved.found:
        frames, course = saved.frames, saved.course
        before, done = course.traffic, len(course.records)
        if say is not None:
            say(f"couple: {done} of {jumps} jumps were saved; going on from there")
    storage = Storage(group=save_every, keep=done) if save_every else None
    writer = TrajectoryWriter(
        folder,
        name,
        domain.blocks,
        domain.comm,
        domain.truth.channels,
        dtype=np.float32,
        attributes=domain.truth.attributes,
        storage=storage,
    )
    label = "couple" if save_every else name
    with writer, Progress(label, jumps, domain.comm.rank, done) as progress:
        for jump in begun.march.jumps(frames, jumps, done + 1):
            course.final = domain.coding.decode(jump.field)
            writer.append(domain.time(jump.number), course.final)
            frames = [*frames[1:], jump.field]
            course.records.append(_record(jump))
            progress.step(note=f"{jump.sweeps} sweeps" if save_every else "")
            if saved is not None and saved.due(jump.number, save_every):
                course.traffic = before + _traffic(begun.march)
                saved.keep(writer, frames, course, jumps)
    if course.final is None:
        course.final = domain.coding.decode(frames[-1])
    if saved is not None:
        saved.remove()
        course.traffic = before + _traffic(begun.march)
    return course


class _Saved:
    """The saved state of a march in a file of its own."""

    def __init__(self, path: Path, domain: TiledDomain, begun: Begun) -> None:
        self.path, self.domain, self.stopping = path, domain, False
        self.frames, self.course = begun.frames, Course()
        saved = load_checkpoint(path, domain.comm, domain.latent)
        self.found = saved is not None
        if saved is not None:
            arrays, scalars = saved
            self.frames = [arrays[f"frame{i}"] for i in range(len(begun.frames))]
            self.course = Course(scalars["records"], np.array(scalars["counts"]))

    def due(self, number: int, every: int) -> bool:
        """Whether jump `number` is saved: every so many jumps, and at a request to stop."""
        self.stopping = stop_agreed(self.domain.comm)
        return self.stopping or number % every == 0

    def keep(
        self, writer: TrajectoryWriter, frames: list[np.ndarray], course: Course, jumps: int
    ) -> None:
        """Save, then raise `Stopped` if a stop was requested. Collective."""
        number, domain = len(course.records), self.domain
        writer.flush()
        save_checkpoint(
            self.path,
            domain.comm,
            domain.latent,
            {f"frame{i}": frame for i, frame in enumerate(frames)},
            {"done": number, "records": course.records, "counts": course.traffic.tolist()},
        )
        if self.stopping:
            raise Stopped(f"couple: stopped after jump {number} of {jumps}")

    def remove(self) -> None:
        """Remove the saved state of a march that has ended; collective."""
        on_root(self.domain.comm, lambda: remove_checkpoint(self.path))


def _record(jump: Jump) -> dict[str, Any]:
    return {
        "jump": jump.number,
        "sweeps": jump.sweeps,
        "seconds": jump.seconds,
        "mismatches": list(jump.mismatches),
    }


def _traffic(march: March) -> np.ndarray:
    """Bytes and messages of all ranks, both as counted and by formula, and exchanges so far."""
    exchange, comm = march.exchange, march.comm
    size = march.blocks, exchange.width, len(march.scale), exchange.dtype.itemsize
    return np.array(
        [
            exact_sum(comm, [exchange.bytes]),
            float(march.exchanges * expected_bytes(*size)),
            exact_sum(comm, [exchange.messages]),
            float(march.exchanges * expected_messages(march.blocks, exchange.width)),
            float(march.exchanges),
        ]
    )
