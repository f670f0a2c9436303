"""The arithmetic of the split: every rank of every size in one process, and bad input by name."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Blocks, Boundary, Grid, choose_split, make_blocks

GRIDS = [((24,), (2,)), ((30, 28), (5, 4)), ((64, 64), (8, 8)), ((12, 10, 8), (3, 5, 2))]
SIZES = [*range(1, 13), 64]


@pytest.mark.parametrize("shape,tile", GRIDS)
@pytest.mark.parametrize("ranks", SIZES)
def test_blocks_cover_the_domain_once(shape, tile, ranks):
    blocks = make_blocks(Grid(shape), tile, ranks)
    owners = np.full(shape, -1)
    for rank in range(blocks.ranks):
        block = blocks.block(rank)
        assert np.all(owners[block.slices] == -1)
        owners[block.slices] = rank
        for tile_index in blocks.tiles(rank):
            assert blocks.owner(tile_index) == rank
            assert np.all(owners[blocks.tile_slices(tile_index)] == rank)
        assert blocks.rank_at(blocks.coordinates(rank)) == rank
    assert owners.min() == 0 and owners.max() == blocks.ranks - 1 <= ranks - 1
    everyones = sorted(t for rank in range(blocks.ranks) for t in blocks.tiles(rank))
    assert everyones == blocks.tiles()
    for axis, sizes in enumerate(blocks.ownership()):
        assert sum(sizes) == shape[axis]
        assert max(sizes) - min(sizes) <= tile[axis]


@pytest.mark.parametrize("counts", [(7,), (4, 4), (8, 8), (2, 9), (1, 5), (3, 2, 4)])
@pytest.mark.parametrize("ranks", SIZES)
def test_the_split_uses_as_many_ranks_as_fit(counts, ranks):
    split = choose_split(counts, ranks)
    every = itertools.product(*(range(1, c + 1) for c in counts))
    assert math.prod(split) == max(p for p in map(math.prod, every) if p <= ranks)
    assert all(s <= c for s, c in zip(split, counts, strict=True))


def test_ties_go_to_the_least_halo():
    closed = (False, False)
    assert choose_split((8, 8), 4, periodic=closed) == (2, 2)
    # On a periodic square four strips have the faces of four quarters, and no corners to send.
    assert choose_split((8, 8), 4) == (4, 1)
    assert choose_split((8, 8), 6) == (3, 2)
    assert choose_split((8, 8), 64) == (8, 8)
    assert choose_split((16, 4), 4) == (4, 1)  # the cuts run along the short axis
    assert choose_split((8, 8), 2, tile=(4, 16)) == (1, 2)
    # One cut of a closed axis costs less than the two of a periodic one.
    assert choose_split((8, 8), 2, periodic=(True, False)) == (1, 2)
    assert choose_split((8, 8), 2) == (2, 1)


def test_uneven_splits_differ_by_one_tile():
    blocks = Blocks(Grid((70, 6)), (10, 2), (3, 2))
    assert blocks.ownership() == ((30, 20, 20), (4, 2))
    block = blocks.block(3)
    assert (block.start, block.size) == ((30, 4), (20, 2))
    assert (block.tile_start, block.tile_count) == ((3, 2), (2, 1))


def test_idle_ranks_own_nothing():
    blocks = make_blocks(Grid((8, 8)), 4, 7)
    assert blocks.ranks == 4
    with pytest.raises(IndexError, match="rank: 5"):
        blocks.block(5)
    with pytest.raises(IndexError, match="outside"):
        blocks.owner((2, 0))


def test_the_latent_grid_has_the_same_tiles_and_ranks():
    grid = Grid((64, 48), (0.5, 1.0), (Boundary(), Boundary("neumann")))
    blocks = make_blocks(grid, (16, 12), 5)
    latent = blocks.coarsen((8, 4))
    assert (latent.grid.shape, latent.tile, latent.split) == ((8, 12), (2, 3), blocks.split)
    assert latent.grid.spacing == (4.0, 4.0) and latent.grid.extent == grid.extent
    assert latent.tiles(1) == blocks.tiles(1)
    assert blocks.coarsen((16, 12)).tile == (1, 1)


def test_local_slices_cut_a_tile_and_its_halo_out_of_the_padded_block():
    blocks = make_blocks(Grid((24, 24)), 4, 4)
    width = (4, 3)
    whole = np.arange(576).reshape(24, 24)
    wide = np.pad(whole, [(w, w) for w in width], mode="wrap")
    for rank in range(4):
        block = blocks.block(rank)
        mine = wide[
            tuple(
                slice(a, b + 2 * w) for a, b, w in zip(block.start, block.stop, width, strict=True)
            )
        ]
        for tile in blocks.tiles(rank):
            piece = mine[blocks.local_slices(rank, tile, (2, 3), width)]
            rows, columns = (
                np.arange(i * 4 - h, i * 4 + 4 + h) % 24 for i, h in zip(tile, (2, 3), strict=True)
            )
            assert np.array_equal(piece, whole[np.ix_(rows, columns)])


def test_centres_lie_half_a_cell_from_the_face():
    grid = Grid((4, 2), (0.25, 3.0))
    assert np.array_equal(grid.centres(0), [0.125, 0.375, 0.625, 0.875])
    assert grid.extent == (1.0, 6.0)


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda: Grid((8, 8, 8, 8)), "shape: "),
        (lambda: Grid((8, 0)), "shape: "),
        (lambda: Grid((8, 8.5)), "shape: "),
        (lambda: Grid((8, 8), -1.0), "spacing: "),
        (lambda: Grid((8, 8), (1.0, 1.0, 1.0)), "spacing: "),
        (lambda: Grid((8, 8), 1.0, (Boundary(),)), "boundary: "),
        (lambda: Grid((8, 8), 1.0, "periodic"), "boundary: "),
        (lambda: Boundary("robin"), "boundary: 'robin'"),
        (lambda: Boundary("dirichlet", math.nan), "boundary value: "),
        (lambda: make_blocks(Grid((8, 8)), 3, 1), "tile: .*divide the grid"),
        (lambda: make_blocks(Grid((8, 8)), (4, 4, 4), 1), "tile: "),
        (lambda: Blocks(Grid((8, 8)), (4, 4), (3, 1)), "split: "),
        (lambda: make_blocks(Grid((8, 8)), 4, 1).coarsen(3), "factor: "),
        (lambda: make_blocks(Grid((8, 8)), 4, 0), "ranks: "),
        (lambda: make_blocks(Grid((8, 8)), 4, 1).local_slices(0, (0, 0), 3, 2), "halo: "),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError, match=f"^{words}"):
        make()


def test_the_arithmetic_starts_no_mpi():
    code = (
        "import sys; from scaled_mpi.parallel import blocks, comm, halo, streams;"
        "sys.exit(any(m in sys.modules for m in ('mpi4py', 'torch', 'petsc4py', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
