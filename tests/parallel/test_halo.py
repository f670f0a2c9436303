"""Halo exchange against numpy.pad, PETSc's DMDA, its own adjoint and closed formulas."""

import itertools

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Blocks, Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import (
    Halo,
    expected_bytes,
    expected_messages,
    gather_field,
    incoming,
    outgoing,
    ring_boxes,
    tile_bytes,
)

PERIODIC = Boundary("periodic")
NEUMANN = Boundary("neumann")
COLD = Boundary("dirichlet", 0.25)
WARM = Boundary("dirichlet", -1.5)

# shape, tile, width, boundary
CASES = [
    ((24,), (2,), (2,), (PERIODIC,)),
    ((18,), (3,), (2,), (WARM,)),
    ((24, 20), (4, 5), (4, 3), (PERIODIC, PERIODIC)),
    ((24, 20), (4, 5), (3, 5), (PERIODIC, NEUMANN)),
    ((18, 24), (3, 4), (1, 2), (COLD, WARM)),
    ((18, 24), (3, 4), (0, 4), (NEUMANN, COLD)),
    ((8, 12, 6), (2, 2, 3), (2, 1, 3), (PERIODIC, COLD, NEUMANN)),
    ((6, 6, 6), (2, 2, 2), (2, 2, 2), (PERIODIC, PERIODIC, PERIODIC)),
]


def padded_globally(field, width, boundary):
    """The one-rank reference: one axis after another, first axis first."""
    ahead = field.ndim - len(width)
    for axis, (w, condition) in enumerate(zip(width, boundary, strict=True)):
        pad = [(0, 0)] * field.ndim
        pad[ahead + axis] = (w, w)
        mode = "wrap" if condition.periodic else "symmetric"
        wide = np.pad(field, pad, mode=mode)
        if condition.kind == "dirichlet":
            inside = np.pad(np.ones(field.shape, bool), pad)
            wide = np.where(inside, wide, 2 * field.dtype.type(condition.value) - wide)
        field = wide
    return field


def around(field, block, width):
    """What a block with its ring sees of a globally padded array."""
    return field[
        (
            ...,
            *(slice(a, b + 2 * w) for a, b, w in zip(block.start, block.stop, width, strict=True)),
        )
    ]


def on_my_ranks(shape, tile, boundary):
    """Blocks for this job, and the communicator of the ranks that own one (None: idle)."""
    blocks = make_blocks(Grid(shape, 1.0, boundary), tile, world().size)
    return blocks, first_ranks(world(), blocks.ranks)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 12])
def test_the_plan_of_every_rank_equals_the_reference(case, ranks):
    shape, tile, width, boundary = case
    blocks = make_blocks(Grid(shape, 1.0, boundary), tile, ranks)
    field = np.random.default_rng(1).normal(size=(2, *shape))
    reference = padded_globally(field, width, boundary)
    padded = [around(reference, blocks.block(r), width).copy() for r in range(blocks.ranks)]
    for rank, mine in enumerate(padded):
        before = mine.copy()
        for box in ring_boxes(blocks, width, rank):
            mine[box.ring] = np.nan
            assert mine[box.ring].shape[1:] == box.shape
            mine[box.ring] = padded[box.source][box.core]
        assert np.array_equal(mine, before)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [*range(1, 13), 64])
def test_sends_match_receives_and_the_formulas(case, ranks):
    shape, tile, width, boundary = case
    blocks = make_blocks(Grid(shape, 1.0, boundary), tile, ranks)
    plans = [(incoming(blocks, width, r), outgoing(blocks, width, r)) for r in range(blocks.ranks)]
    for rank, (ins, _) in enumerate(plans):
        for source, boxes in ins.items():
            assert plans[source][1][rank] == boxes
        cells = sum(int(np.prod(box.shape)) for boxes in ins.values() for box in boxes)
        assert expected_bytes(blocks, width, 3, 4, rank) == 12 * cells
        assert expected_messages(blocks, width, rank) == len(ins)
    assert sum(len(ins) for ins, _ in plans) == sum(len(outs) for _, outs in plans)


def test_two_periodic_ranks_exchange_one_message_each():
    blocks = Blocks(Grid((16, 16)), (4, 4), (2, 1))
    assert [expected_messages(blocks, 4, rank) for rank in range(2)] == [1, 1]
    assert expected_bytes(blocks, 4, 2, 4) == 2 * (2 * 4 * 24) * 2 * 4
    assert tile_bytes(blocks, 4, 2, 4) == 16 * (12 * 12 - 4 * 4) * 2 * 4


@pytest.mark.parametrize("width", [5, (1, 6), -1, 1.5, (1, 1, 1)])
def test_an_impossible_width_is_named(width):
    with pytest.raises(InputError, match="^halo: "):
        Halo(Blocks(Grid((8, 8)), (4, 4), (1, 1)), SerialComm(), width)


def test_wrong_shape_type_and_communicator_are_refused():
    blocks = Blocks(Grid((8, 8)), (4, 4), (1, 1))
    halo = Halo(blocks, SerialComm(), 2)
    with pytest.raises(ValueError, match="shape"):
        halo(np.zeros((8, 4), np.float32))
    with pytest.raises(TypeError, match="float64"):
        halo(np.zeros((8, 8)))
    with pytest.raises(ValueError, match="size 1 is not allowed.*Allowed: 2"):
        Halo(Blocks(blocks.grid, (4, 4), (2, 1)), SerialComm(), 2)


def test_one_rank_needs_no_mpi():
    shape, tile, width, boundary = CASES[6]
    blocks = Blocks(Grid(shape, 1.0, boundary), tile, (1, 1, 1))
    field = np.random.default_rng(2).normal(size=shape)
    halo = Halo(blocks, SerialComm(), width, np.float64)
    assert np.array_equal(halo(field), padded_globally(field, width, boundary))
    assert (halo.messages, halo.bytes) == (0, 0)


@pytest.mark.mpi
@pytest.mark.ranks6
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lead", [(), (2,), (3, 2)])
@pytest.mark.parametrize("case", CASES)
def test_exchange_equals_numpy_pad(case, lead, dtype):
    shape, tile, width, boundary = case
    blocks, comm = on_my_ranks(shape, tile, boundary)
    if comm is None:
        return
    whole = np.random.default_rng(3).normal(size=(*lead, *shape)).astype(dtype)
    reference = padded_globally(whole, width, boundary)
    halo = Halo(blocks, comm, width, dtype)
    block = halo.block
    mine = whole[(..., *block.slices)]
    for _ in range(2):
        assert np.array_equal(halo(mine), around(reference, block, width))
    ragged = np.full((*lead, *halo.padded_size), np.nan, dtype)
    ragged[halo.interior] = mine
    assert halo.fill(ragged) is ragged
    assert np.array_equal(ragged, around(reference, block, width))

    channels = int(np.prod(lead))
    sent = comm.allgather((halo.messages, halo.bytes))
    assert sum(m for m, _ in sent) == 3 * expected_messages(blocks, width)
    itemsize = np.dtype(dtype).itemsize
    assert sum(b for _, b in sent) == 3 * expected_bytes(blocks, width, channels, itemsize)


@pytest.mark.mpi
@pytest.mark.ranks6
@pytest.mark.parametrize("case", CASES)
def test_add_back_is_the_adjoint_of_fill(case):
    shape, tile, width, boundary = case
    blocks, comm = on_my_ranks(shape, tile, boundary)
    if comm is None:
        return
    halo = Halo(blocks, comm, width, np.float64)
    draw = np.random.default_rng([4, comm.rank])
    x = draw.normal(size=(2, *halo.block.size))
    y = draw.normal(size=(2, *halo.padded_size))
    kept = y.copy()
    constant = halo(np.zeros_like(x)).copy()  # fill is affine where a Dirichlet value is not 0
    left = np.sum((halo(x) - constant) * y)
    right = np.sum(x * halo.add_back(y))
    left, right, size = np.sum(comm.allgather((left, right, np.sum(np.abs(y)))), axis=0)
    assert abs(left - right) < 1e-13 * size
    assert np.array_equal(y, kept)


@pytest.mark.mpi
@pytest.mark.ranks64
def test_one_tile_a_rank():
    """The widest ring of the finest split: every neighbour's whole tile, at up to 64 ranks."""
    shape, tile, width, boundary = (32, 24), (4, 3), (4, 3), (PERIODIC, COLD)
    blocks, comm = on_my_ranks(shape, tile, boundary)
    if comm is None:
        return
    whole = np.random.default_rng(6).normal(size=(2, *shape)).astype(np.float32)
    halo = Halo(blocks, comm, width)
    expected = around(padded_globally(whole, width, boundary), halo.block, width)
    assert np.array_equal(halo(whole[(..., *halo.block.slices)]), expected)
    assert halo.bytes == expected_bytes(blocks, width, 2, 4, comm.rank)
    assert halo.messages == expected_messages(blocks, width, comm.rank)


@pytest.mark.mpi
def test_add_back_counts_how_often_a_cell_is_seen():
    """On a periodic grid every cell within w of a block's edge is seen by the neighbour too."""
    blocks, comm = on_my_ranks((12, 12), (6, 6), (PERIODIC, PERIODIC))
    if comm is None:
        return
    halo = Halo(blocks, comm, 2, np.float64)
    seen = halo.add_back(np.ones(halo.padded_size))
    edges = [np.where((np.arange(n) < 2) | (np.arange(n) >= n - 2), 2, 1) for n in halo.block.size]
    assert np.array_equal(seen, np.multiply.outer(*edges))


@pytest.mark.mpi
@pytest.mark.ranks6
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize(
    "shape,tile", [((24, 15), (4, 5)), ((12, 9, 6), (3, 3, 3)), ((30,), (3,))]
)
def test_exchange_equals_petsc(shape, tile, width):
    """A periodic DMDA with our ownership ranges holds the same ghosts, ranks in our order."""
    PETSc = pytest.importorskip("petsc4py.PETSc")
    blocks, comm = on_my_ranks(shape, tile, (PERIODIC,) * len(shape))
    if comm is None:
        return
    axes = len(shape)
    plain = comm if hasattr(comm, "Isend") else None
    dmda = PETSc.DMDA().create(
        dim=axes,
        dof=2,
        sizes=shape[::-1],
        proc_sizes=blocks.split[::-1],
        ownership_ranges=blocks.ownership()[::-1],
        stencil_width=width,
        boundary_type=("periodic",) * axes,
        stencil_type="box",
        comm=plain,
    )
    halo = Halo(blocks, comm, width, np.float64)
    starts, sizes = dmda.getCorners()
    assert (starts[::-1], sizes[::-1]) == (halo.block.start, halo.block.size)
    whole = np.random.default_rng(5).normal(size=(2, *shape))
    mine = whole[(..., *halo.block.slices)]
    owned, ghosted = dmda.createGlobalVec(), dmda.createLocalVec()
    owned.setArray(np.moveaxis(mine, 0, -1).ravel())
    dmda.globalToLocal(owned, ghosted)
    theirs = np.moveaxis(ghosted.getArray().reshape(*halo.padded_size, 2), -1, 0)
    assert np.array_equal(halo(mine), theirs)
    for thing in (owned, ghosted, dmda):
        thing.destroy()


@pytest.mark.mpi
def test_the_buffers_are_reused_and_gathering_restores_the_whole():
    shape, tile = (24, 24), (4, 4)
    blocks, comm = on_my_ranks(shape, tile, (PERIODIC, NEUMANN))
    if comm is None:
        return
    halo = Halo(blocks, comm, 4)
    whole = np.arange(2 * 24 * 24, dtype=np.float32).reshape(2, *shape)
    first = halo(whole[(..., *halo.block.slices)])
    second = halo(first[halo.interior])
    assert np.shares_memory(first, second)
    gathered = gather_field(blocks, comm, second[halo.interior])
    assert gathered is None if comm.rank else np.array_equal(gathered, whole)


def test_every_offset_of_the_ring_is_planned_once():
    blocks = Blocks(Grid((8, 8, 8)), (4, 4, 4), (2, 2, 2))
    for rank in range(8):
        offsets = [box.offset for box in ring_boxes(blocks, 2, rank)]
        assert offsets == [o for o in itertools.product((-1, 0, 1), repeat=3) if any(o)]
