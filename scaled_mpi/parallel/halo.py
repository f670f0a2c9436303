"""Halo exchange: the ring of w cells around a block, filled from neighbours or by the boundary
condition.

The ring is cut into boxes, one for each offset in {-1, 0, 1}^axes but 0 (faces, edges, corners).
As a ring is never wider than a tile, every box lies in one block. All boxes that one rank needs
from another travel in one message, corners and channels included. Their order is that of the
receiver's offsets. A rank that is its own neighbour copies. Beyond the domain, after the messages
and one axis after another (first axis first):

    periodic    the opposite end
    neumann     even mirror about the face:  ghost = mirror
    dirichlet   odd mirror about the face:   ghost = 2 value - mirror

`fill` is affine in the interior; `add_back` is the exact adjoint (transpose) of its linear part.
It adds the values of the ring to the cells that `fill` reads them from. The plan is arithmetic
(`ring_boxes`), so that every rank of every size is tested in one process; `Halo` adds
the communication.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Blocks, behind, whole_per_axis
from scaled_mpi.parallel.comm import Comm, Request

TAG = 481
Slices = tuple[Any, ...]  # an Ellipsis for the leading axes, then one slice an axis


@dataclass(frozen=True)
class Box:
    """One piece of a ring: `ring` in the receiver's padded array, `core` in that of its source."""

    source: int
    offset: tuple[int, ...]
    ring: Slices
    core: Slices
    shape: tuple[int, ...]


def check_width(blocks: Blocks, width: int | Sequence[int]) -> tuple[int, ...]:
    """The ring width, one entry an axis; InputError if it is wider than a tile."""
    width = whole_per_axis("halo", width, blocks.grid.axes, 0)
    if any(w > t for w, t in zip(width, blocks.tile, strict=True)):
        raise InputError(
            f"halo: {list(width)} is not allowed: wider than a tile. Allowed: at most "
            f"{list(blocks.tile)}"
        )
    return width


def ring_boxes(blocks: Blocks, width: int | Sequence[int], rank: int) -> list[Box]:
    """All boxes that `rank` needs from blocks, its own included, ordered by offset."""
    width = check_width(blocks, width)
    places, size = blocks.coordinates(rank), blocks.block(rank).size
    boxes = []
    for offset in itertools.product(*((-1, 0, 1) if w else (0,) for w in width)):
        if not any(offset):
            continue
        target = [p + o for p, o in zip(places, offset, strict=True)]
        wrapped = [t % s for t, s in zip(target, blocks.split, strict=True)]
        edges = zip(target, wrapped, blocks.grid.boundary, strict=True)
        if any(t != u and not boundary.periodic for t, u, boundary in edges):
            continue
        source = blocks.rank_at(wrapped)
        theirs = blocks.block(source).size
        ring = [_ring(o, n, w) for o, n, w in zip(offset, size, width, strict=True)]
        core = [_core(o, n, w) for o, n, w in zip(offset, theirs, width, strict=True)]
        shape = tuple(s.stop - s.start for s in ring)
        boxes.append(Box(source, offset, (..., *ring), (..., *core), shape))
    return boxes


def _ring(offset: int, size: int, width: int) -> slice:
    """The low ring, the interior or the high ring of a padded axis."""
    start, stop = ((0, width), (width, width + size), (width + size, 2 * width + size))[offset + 1]
    return slice(start, stop)


def _core(offset: int, size: int, width: int) -> slice:
    """The owner's cells under a ring: its high end for a low ring (-1), its low end for a high."""
    start, stop = ((size, size + width), (width, width + size), (width, 2 * width))[offset + 1]
    return slice(start, stop)


def incoming(blocks: Blocks, width: int | Sequence[int], rank: int) -> dict[int, list[Box]]:
    """Boxes that `rank` receives, by sending rank; own copies left out."""
    found: dict[int, list[Box]] = {}
    for box in ring_boxes(blocks, width, rank):
        if box.source != rank:
            found.setdefault(box.source, []).append(box)
    return dict(sorted(found.items()))


def outgoing(blocks: Blocks, width: int | Sequence[int], rank: int) -> dict[int, list[Box]]:
    """Boxes that `rank` sends, by receiving rank, each list in the order of the receiver."""
    # Whom I receive from is whom I send to: offset o leads back by -o.
    found = {
        there: incoming(blocks, width, there)[rank] for there in incoming(blocks, width, rank)
    }
    return dict(sorted(found.items()))


def expected_bytes(
    blocks: Blocks,
    width: int | Sequence[int],
    channels: int,
    itemsize: int,
    rank: int | None = None,
) -> int:
    """Bytes of one exchange that cross ranks, received by `rank` or (None) summed over all ranks.

    It is a closed form, not read off the plan. On each axis let the block have n cells, and its
    ring m cells of any block, of which s belong to the rank itself. Then a rank receives
    prod(n + m) - prod(n + s) cells.
    """
    width = check_width(blocks, width)
    ranks = range(blocks.ranks) if rank is None else (rank,)
    cells = 0
    for one in ranks:
        axes = zip(
            blocks.coordinates(one),
            blocks.block(one).size,
            blocks.split,
            blocks.grid.boundary,
            width,
            strict=True,
        )
        reachable, own = 1, 1
        for place, size, parts, boundary, w in axes:
            sides = 2 if boundary.periodic else (place > 0) + (place < parts - 1)
            reachable *= size + sides * w
            own *= size + (2 * w if boundary.periodic and parts == 1 else 0)
        cells += reachable - own
    return cells * channels * itemsize


def expected_messages(blocks: Blocks, width: int | Sequence[int], rank: int | None = None) -> int:
    """Messages of one exchange: distinct neighbours of `rank`, or (None) summed over all."""
    width = check_width(blocks, width)
    ranks = range(blocks.ranks) if rank is None else (rank,)
    messages = 0
    for one in ranks:
        axes = zip(blocks.coordinates(one), blocks.split, blocks.grid.boundary, width, strict=True)
        reached = 1
        for place, parts, boundary, w in axes:
            near = {place - 1, place, place + 1} if w else {place}
            near = {p % parts for p in near if boundary.periodic or 0 <= p < parts}
            reached *= len(near)
        messages += reached - 1
    return messages


def tile_bytes(blocks: Blocks, width: int | Sequence[int], channels: int, itemsize: int) -> int:
    """`expected_bytes` as if every tile were a rank; the difference is what blocks save."""
    return expected_bytes(replace(blocks, split=blocks.counts), width, channels, itemsize)


class Halo:
    """Exchange for one rank's block, for arrays (..., *block.size) with any leading axes.

    `width` is an int or one entry an axis, at most a tile. `comm` must have exactly `blocks.ranks`
    ranks. The arrays that `__call__` and `add_back` return are views of buffers that the next call
    with the same leading axes overwrites: copy what must last. `messages` and `bytes` count what
    this rank has sent.
    """

    def __init__(
        self, blocks: Blocks, comm: Comm, width: int | Sequence[int], dtype: DTypeLike = np.float32
    ) -> None:
        if comm.size != blocks.ranks:
            raise ValueError(
                f"comm: size {comm.size} is not allowed: each rank owns a block. Allowed: "
                f"{blocks.ranks} ranks"
            )
        self.blocks, self.comm = blocks, comm
        self.block = blocks.block(comm.rank)
        self.width = check_width(blocks, width)
        self.dtype = np.dtype(dtype)
        self.messages = 0
        self.bytes = 0
        self.padded_size = tuple(
            n + 2 * w for n, w in zip(self.block.size, self.width, strict=True)
        )
        self.interior = behind(
            _ring(0, n, w) for n, w in zip(self.block.size, self.width, strict=True)
        )
        self._boxes = ring_boxes(blocks, width, comm.rank)
        self._copies = [box for box in self._boxes if box.source == comm.rank]
        self._incoming = incoming(blocks, width, comm.rank)
        self._outgoing = outgoing(blocks, width, comm.rank)
        self._mirrors = list(self._physical_faces())
        self._padded: dict[tuple[int, ...], np.ndarray] = {}
        self._added: dict[tuple[int, ...], np.ndarray] = {}
        self._traffic: dict[tuple[int, ...], _Traffic] = {}

    def __call__(self, field: np.ndarray) -> np.ndarray:
        """field (..., *size) -> (..., *(size + 2 width)) with the ring filled; collective."""
        lead = self._lead(field, self.block.size)
        padded = self._buffer(self._padded, lead)
        padded[self.interior] = field
        return self.fill(padded)

    def fill(self, padded: np.ndarray) -> np.ndarray:
        """Fill the ring of an array (..., *(size + 2 width)) in place, return it; collective."""
        lead = self._lead(padded, self.padded_size)
        if self._outgoing:
            self._traffic_of(lead).forward(padded)
        for box in self._copies:
            padded[box.ring] = padded[box.core]
        for ring, mirror, value in self._mirrors:
            if value is None:
                padded[ring] = padded[mirror]
            else:
                np.subtract(2 * value, padded[mirror], out=padded[ring])
        return padded

    def add_back(self, padded: np.ndarray) -> np.ndarray:
        """Add what the ring holds to the cells that `fill` fills it from; collective.

        padded (..., *(block.size + 2 width)), left as it is -> interior (..., *block.size). The
        order of additions is that of the offsets, whichever message comes first.
        """
        lead = self._lead(padded, self.padded_size)
        work = self._buffer(self._added, lead)
        np.copyto(work, padded)
        for ring, mirror, value in reversed(self._mirrors):
            work[mirror] += work[ring] if value is None else -work[ring]
            work[ring] = 0
        parcels = self._traffic_of(lead).backward(work) if self._outgoing else {}
        mine = [(box.offset, -1, work[box.ring], box.core) for box in self._copies]
        theirs = [
            (box.offset, rank, parcel, box.core)
            for rank, boxes in self._outgoing.items()
            for box, parcel in zip(boxes, parcels[rank], strict=True)
        ]
        for _, _, values, core in sorted(mine + theirs, key=lambda item: item[:2]):
            work[core] += values
        return work[self.interior]

    def _lead(self, array: np.ndarray, size: tuple[int, ...]) -> tuple[int, ...]:
        axes = len(size)
        if array.shape[-axes:] != size:
            raise ValueError(
                f"field: shape {array.shape} is not allowed: it must end in the block. "
                f"Allowed: (..., {size})"
            )
        if array.dtype != self.dtype:
            raise TypeError(
                f"field: {array.dtype} is not allowed: the halo has another type. Allowed: "
                f"{self.dtype}"
            )
        return array.shape[:-axes]

    def _buffer(
        self, store: dict[tuple[int, ...], np.ndarray], lead: tuple[int, ...]
    ) -> np.ndarray:
        if lead not in store:
            store[lead] = np.zeros((*lead, *self.padded_size), self.dtype)
        return store[lead]

    def _traffic_of(self, lead: tuple[int, ...]) -> _Traffic:
        if lead not in self._traffic:
            self._traffic[lead] = _Traffic(self, lead)
        return self._traffic[lead]

    def _physical_faces(self) -> Iterator[tuple[Slices, Slices, float | None]]:
        """(ring, mirrored cells, Dirichlet value or None) of every face on the domain's edge."""
        places, axes = self.blocks.coordinates(self.comm.rank), len(self.width)
        for axis, (n, w) in enumerate(zip(self.block.size, self.width, strict=True)):
            boundary = self.blocks.grid.boundary[axis]
            if boundary.periodic or not w:
                continue
            value = boundary.value if boundary.kind == "dirichlet" else None
            faces = []
            if places[axis] == 0:
                faces.append((slice(0, w), slice(2 * w - 1, w - 1, -1)))
            if places[axis] == self.blocks.split[axis] - 1:
                faces.append((slice(w + n, 2 * w + n), slice(w + n - 1, n - 1, -1)))
            for ring, mirror in faces:
                yield self._along(axis, axes, ring), self._along(axis, axes, mirror), value

    @staticmethod
    def _along(axis: int, axes: int, part: slice) -> Slices:
        return (..., *(part if a == axis else slice(None) for a in range(axes)))


class _Traffic:
    """Message buffers of one halo for one shape of leading axes, allocated once."""

    def __init__(self, halo: Halo, lead: tuple[int, ...]) -> None:
        self.halo = halo
        count = math.prod(lead)
        self.inbound = {
            rank: self._parcels(boxes, lead, count) for rank, boxes in halo._incoming.items()
        }
        self.outbound = {
            rank: self._parcels(boxes, lead, count) for rank, boxes in halo._outgoing.items()
        }

    def _parcels(
        self, boxes: list[Box], lead: tuple[int, ...], count: int
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """One flat buffer and the views of it that hold one box each."""
        sizes = [count * math.prod(box.shape) for box in boxes]
        flat = np.empty(sum(sizes), self.halo.dtype)
        starts = itertools.accumulate(sizes, initial=0)
        views = [
            flat[a : a + n].reshape(*lead, *box.shape)
            for a, n, box in zip(starts, sizes, boxes, strict=False)
        ]
        return flat, views

    def forward(self, padded: np.ndarray) -> None:
        """Owners' cells into the rings of their neighbours."""
        halo = self.halo
        requests = self._receive(self.inbound)
        for rank, boxes in halo._outgoing.items():
            flat, views = self.outbound[rank]
            for box, view in zip(boxes, views, strict=True):
                view[...] = padded[box.core]
            requests.append(self._send(flat, rank))
        self._wait(requests)
        for rank, boxes in halo._incoming.items():
            for box, view in zip(boxes, self.inbound[rank][1], strict=True):
                padded[box.ring] = view

    def backward(self, padded: np.ndarray) -> dict[int, list[np.ndarray]]:
        """Rings back to their owners: what arrived from each rank, box by box."""
        halo = self.halo
        requests = self._receive(self.outbound)
        for rank, boxes in halo._incoming.items():
            flat, views = self.inbound[rank]
            for box, view in zip(boxes, views, strict=True):
                view[...] = padded[box.ring]
            requests.append(self._send(flat, rank))
        self._wait(requests)
        return {rank: views for rank, (_, views) in self.outbound.items()}

    def _receive(self, buffers: dict[int, tuple[np.ndarray, list[np.ndarray]]]) -> list[Request]:
        return [self.halo.comm.Irecv(flat, rank, TAG) for rank, (flat, _) in buffers.items()]

    def _send(self, flat: np.ndarray, rank: int) -> Request:
        self.halo.messages += 1
        self.halo.bytes += flat.nbytes
        return self.halo.comm.Isend(flat, rank, TAG)

    def _wait(self, requests: list[Request]) -> None:
        requests[0].Waitall(requests)


def gather_field(
    blocks: Blocks, comm: Comm, field: np.ndarray, root: int = 0
) -> np.ndarray | None:
    """The global array on `root` (None elsewhere) from every rank's (..., *block.size);
    collective.

    Holds O(global) memory on one rank: for tests and small pictures only.
    """
    parts = comm.gather(np.ascontiguousarray(field), root=root)
    if parts is None:
        return None
    lead = field.shape[: field.ndim - blocks.grid.axes]
    whole = np.empty((*lead, *blocks.grid.shape), field.dtype)
    for rank, part in enumerate(parts):
        where: Slices = (..., *blocks.block(rank).slices)
        whole[where] = part
    return whole
