"""Particles on a decomposed domain: who owns which, migration, and ghosts within a cut-off.

A particle belongs to the rank whose block holds its position (low faces included, high faces not,
the domain's last face excepted). `migrate` sends each to its owner. `ghosts` brings copies of the
particles within `cutoff` of a block, shifted by whole periods so that distances need no minimal
image. The image that a pair sees depends on its positions alone, so displacements have the same
bits on any number of ranks. Sums over neighbours have them too in the order of the ids, in which
all arrays are kept.

Axes are the grid's (Z, Y, X order), lengths its `extent`; an axis that is not periodic is closed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Blocks, Grid
from scaled_mpi.parallel.comm import Comm

TAG = 482
_NONE = np.zeros(0, np.int64)


@dataclass
class Particles:
    """N particles: `ids` (N,) int64, each once on all ranks; `position` (N, d) float64 in the
    grid's units.

    `payload` holds any further arrays by name, first axis N: velocities, headings, kinds.
    """

    ids: np.ndarray
    position: np.ndarray
    payload: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ids = np.asarray(self.ids, np.int64)
        self.position = np.asarray(self.position, np.float64)
        self.payload = {name: np.asarray(values) for name, values in self.payload.items()}
        if self.ids.ndim != 1 or self.position.ndim != 2:
            raise ValueError(
                f"ids, position: {self.ids.shape}, {self.position.shape} is not allowed: "
                "the shapes must agree. Allowed: (N,), (N, d)"
            )
        for name, values in {"position": self.position, **self.payload}.items():
            if len(values) != len(self.ids):
                raise ValueError(
                    f"{name}: length {len(values)} is not allowed: one entry a particle. "
                    f"Allowed: {len(self.ids)}"
                )
        if {"ids", "position"} & self.payload.keys():
            raise ValueError(
                "payload: ids or position is not allowed: these names are in use. Allowed: "
                "other names"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: np.ndarray) -> Particles:
        """Return copies of the particles at `index`, whole numbers (n,) or a mask (N,)."""
        payload = {name: values[index] for name, values in self.payload.items()}
        return Particles(self.ids[index], self.position[index], payload)

    def sorted(self) -> Particles:
        """In the order of the ids; itself if it is already."""
        if np.all(self.ids[1:] > self.ids[:-1]):
            return self
        return self.take(np.argsort(self.ids, kind="stable"))


def wrap(grid: Grid, position: np.ndarray) -> np.ndarray:
    """Positions (N, d) moved by whole periods into [0, extent) on every periodic axis."""
    inside = np.array(position, np.float64)
    for axis, (length, boundary) in enumerate(zip(grid.extent, grid.boundary, strict=True)):
        if boundary.periodic:
            x = inside[:, axis]
            x -= length * np.floor(x / length)
            # Rounding can leave a tiny negative number at the far end, or just below 0.
            x[(x >= length) | (x < 0)] = 0.0
    return inside


def reflect(grid: Grid, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, d) mirrored into [0, extent] on every closed axis, however far they went.

    Also returns the signs (N, d), -1.0 where an odd number of walls was hit: multiply velocities
    by them.
    """
    inside = np.array(position, np.float64)
    signs = np.ones_like(inside)
    for axis, (length, boundary) in enumerate(zip(grid.extent, grid.boundary, strict=True)):
        if not boundary.periodic:
            x = inside[:, axis]
            turned = np.floor(x / length) % 2 == 1
            outside = (x < 0) | (x > length)
            x[outside] -= (2 * length) * np.floor(x[outside] / (2 * length))
            over = x > length
            x[over] = np.clip(2 * length - x[over], 0.0, length)
            signs[turned & outside, axis] = -1.0
    return inside, signs


class ParticleExchange:
    """Migration and ghosts for one rank's block; `comm` must have exactly `blocks.ranks` ranks.

    `cutoff` is the interaction range in the grid's units, at most the length of a tile on every
    axis, so that neighbours suffice. On a periodic axis keep it at or below half the domain, or a
    pair may meet twice. `lower` and `upper` (d,) bound my block. `messages` and `bytes` count the
    traffic that this rank has sent.

    Errors: `ValueError` for another number of ranks, `InputError` for a cutoff out of range.
    """

    def __init__(self, blocks: Blocks, comm: Comm, cutoff: float) -> None:
        if comm.size != blocks.ranks:
            raise ValueError(
                f"comm: size {comm.size} is not allowed: each rank owns a block. Allowed: "
                f"{blocks.ranks} ranks"
            )
        lengths = [t * h for t, h in zip(blocks.tile, blocks.grid.spacing, strict=True)]
        if not 0 < cutoff <= min(lengths) * (1 + 1e-12):
            raise InputError(
                f"cutoff: {cutoff} is not allowed: out of range. Allowed: above 0, at most "
                f"a tile {lengths}"
            )
        self.blocks, self.comm, self.cutoff = blocks, comm, float(cutoff)
        self.edges = block_edges(blocks)
        places = blocks.coordinates(comm.rank)
        self.lower = np.array([e[p] for e, p in zip(self.edges, places, strict=True)])
        self.upper = np.array([e[p + 1] for e, p in zip(self.edges, places, strict=True)])
        self.messages = 0
        self.bytes = 0
        self._images = _images(blocks, comm.rank)
        # Offset o of mine is offset -o of theirs, so the ranks to hear from are those to send to.
        self._neighbours = sorted({rank for rank, _, _ in self._images} - {comm.rank})

    def migrate(self, particles: Particles) -> Particles:
        """Every particle to the rank that owns its position; mine come back by id. Collective.

        Any distance is allowed, so that it also deals out particles that one rank has read.
        Positions must lie in the domain (`wrap`, `reflect`); ValueError names the first that does
        not.
        """
        owners = owner_of(self.blocks, particles)
        leaving = np.flatnonzero(owners != self.comm.rank)
        by_rank = leaving[np.argsort(owners[leaving], kind="stable")]
        ranks, starts = np.unique(owners[by_rank], return_index=True)
        parts = np.split(by_rank, starts[1:]) if len(ranks) else []
        outbound = {
            int(rank): pack(particles.take(part)) for rank, part in zip(ranks, parts, strict=True)
        }
        counts = [0] * self.comm.size
        for rank, records in outbound.items():
            counts[rank] = len(records)
        coming = {rank: n for rank, n in enumerate(self.comm.alltoall(counts)) if n}
        arrived = self._swap(outbound, coming, record_type(particles))
        if not outbound and not arrived:
            return particles.sorted()
        stay = particles.take(owners == self.comm.rank)
        return joined([stay, *(unpack(records) for records in arrived.values())]).sorted()

    def ghosts(self, particles: Particles, names: Sequence[str] | None = None) -> Particles:
        """Copies of the particles of others, and of periodic images of mine, near my block.
        Collective.

        All that lie within `cutoff` of it on every axis, by id and, for several images of one
        particle, by position. `names` picks the payload that travels (default: all).
        """
        chosen = particles.payload.keys() if names is None else names
        payload = {name: particles.payload[name] for name in chosen}
        light = Particles(particles.ids, particles.position, payload)
        mine: list[Particles] = []
        parcels: dict[int, list[np.ndarray]] = {rank: [] for rank in self._neighbours}
        for rank, offset, shift in self._images:
            image = light.take(self._near(light.position, offset))
            image.position += shift
            if rank == self.comm.rank:
                mine.append(image)
            else:
                parcels[rank].append(pack(image))
        outbound = {rank: np.concatenate(parts) for rank, parts in parcels.items()}
        coming = self._announce({rank: len(records) for rank, records in outbound.items()})
        filled = {rank: records for rank, records in outbound.items() if len(records)}
        arrived = self._swap(filled, coming, record_type(light))
        every = joined([light.take(_NONE), *mine, *map(unpack, arrived.values())])
        return every.take(np.lexsort((*every.position.T[::-1], every.ids)))

    def _near(self, position: np.ndarray, offset: tuple[int, ...]) -> np.ndarray:
        """Which of my particles the block at `offset` needs."""
        near = np.ones(len(position), bool)
        # Differences are rounded: what a pair's distance may lose must not hide a ghost.
        reach = self.cutoff + 8 * np.finfo(float).eps * max(self.blocks.grid.extent)
        for axis, side in enumerate(offset):
            if side < 0:
                near &= position[:, axis] <= self.lower[axis] + reach
            elif side > 0:
                near &= position[:, axis] >= self.upper[axis] - reach
        return near

    def _announce(self, counts: dict[int, int]) -> dict[int, int]:
        """Tell each neighbour how many records come; hear how many to expect, zeros left out."""
        told = {rank: np.array([n], np.int64) for rank, n in counts.items()}
        heard = {rank: np.empty(1, np.int64) for rank in counts}
        self._exchange(told, heard)
        return {rank: int(n[0]) for rank, n in heard.items() if n[0]}

    def _swap(
        self, outbound: dict[int, np.ndarray], coming: dict[int, int], record: np.dtype
    ) -> dict[int, np.ndarray]:
        """Send packed records, receive `coming` many from each rank, in the order of the ranks."""
        arrived = {rank: np.empty(n, record) for rank, n in sorted(coming.items())}
        sent = {rank: records.view(np.uint8) for rank, records in outbound.items()}
        self._exchange(sent, {rank: records.view(np.uint8) for rank, records in arrived.items()})
        return arrived

    def _exchange(self, outbound: dict[int, np.ndarray], inbound: dict[int, np.ndarray]) -> None:
        requests = [self.comm.Irecv(buffer, rank, TAG) for rank, buffer in inbound.items()]
        for rank, buffer in outbound.items():
            requests.append(self.comm.Isend(buffer, rank, TAG))
            self.messages += 1
            self.bytes += buffer.nbytes
        if requests:
            requests[0].Waitall(requests)


def block_edges(blocks: Blocks) -> tuple[np.ndarray, ...]:
    """Return the coordinates of the faces between ranks: one array (n,) an axis."""
    return tuple(
        np.concatenate([[0], np.cumsum(sizes)]) * h
        for sizes, h in zip(blocks.ownership(), blocks.grid.spacing, strict=True)
    )


def owner_of(blocks: Blocks, particles: Particles) -> np.ndarray:
    """The rank that owns each particle, int64 (N,); ValueError for one outside the domain."""
    position, extent = particles.position, np.array(blocks.grid.extent)
    lost = ~np.all((position >= 0) & (position <= extent), axis=1)
    if lost.any():
        first = int(np.argmax(lost))
        raise ValueError(
            f"particle {particles.ids[first]}: {position[first].tolist()} is not "
            f"allowed: outside the domain. Allowed: inside {extent.tolist()}"
        )
    rank = np.zeros(len(particles), np.int64)
    for axis, (edges, parts) in enumerate(zip(block_edges(blocks), blocks.split, strict=True)):
        rank = rank * parts + np.searchsorted(edges[1:-1], position[:, axis], side="right")
    return rank


def _images(blocks: Blocks, rank: int) -> list[tuple[int, tuple[int, ...], np.ndarray]]:
    """(rank, offset, shift) of each neighbouring block; `shift` moves my particles to its side."""
    places, grid = blocks.coordinates(rank), blocks.grid
    images = []
    for offset in itertools.product((-1, 0, 1), repeat=grid.axes):
        target = [p + o for p, o in zip(places, offset, strict=True)]
        turns = [t // s for t, s in zip(target, blocks.split, strict=True)]
        closed = any(n and not b.periodic for n, b in zip(turns, grid.boundary, strict=True))
        if closed or not any(offset):
            continue
        there = [t % s for t, s in zip(target, blocks.split, strict=True)]
        shift = -np.array(turns) * np.array(grid.extent)
        images.append((blocks.rank_at(there), offset, shift))
    return images


def record_type(particles: Particles) -> np.dtype:
    """The layout in which one particle travels."""
    arrays = {"ids": particles.ids, "position": particles.position, **particles.payload}
    return np.dtype([(name, values.dtype, values.shape[1:]) for name, values in arrays.items()])


def pack(particles: Particles) -> np.ndarray:
    """Return one record for each particle, (N,)."""
    records = np.empty(len(particles), record_type(particles))
    records["ids"], records["position"] = particles.ids, particles.position
    for name, values in particles.payload.items():
        records[name] = values
    return records


def unpack(records: np.ndarray) -> Particles:
    """Return the particles of records (N,); the inverse of `pack`."""
    names = [name for name in records.dtype.names or () if name not in ("ids", "position")]
    payload = {name: records[name].copy() for name in names}
    return Particles(records["ids"].copy(), records["position"].copy(), payload)


def joined(parts: Sequence[Particles]) -> Particles:
    """All particles of the parts, one after another; every part has the same payload."""
    names = parts[0].payload
    payload = {name: np.concatenate([part.payload[name] for part in parts]) for name in names}
    ids = np.concatenate([part.ids for part in parts])
    return Particles(ids, np.concatenate([part.position for part in parts]), payload)


def gather_particles(comm: Comm, particles: Particles, root: int = 0) -> Particles | None:
    """All particles by id on `root`, None elsewhere; collective, O(global) memory on one rank."""
    records = comm.gather(pack(particles), root=root)
    return None if records is None else joined([unpack(part) for part in records]).sorted()
