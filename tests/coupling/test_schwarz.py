"""The march against the same operator on the whole domain at once."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from scaled_mpi.coupling.schwarz import March, Sweeping
from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import Halo
from tests.coupling.heat import Heat, periodic_truth


def random_field(shape, channels=2, seed=3):
    return np.random.default_rng(seed).random((channels, *shape), dtype=np.float32)


def run(heat, field, tile, halo, jumps, comm, sweeping=None):
    """(final field of all tiles on rank 0, jumps) of a march over this communicator."""
    axes = len(tile)
    grid = Grid(field.shape[1:], (1.0,) * axes, (Boundary("periodic"),) * axes)
    blocks = make_blocks(grid, tile, comm.size)
    part = first_ranks(comm, blocks.ranks)
    if part is None:
        return None, []
    block = blocks.block(part.rank)
    march = March(
        heat,
        Halo(blocks, part, halo),
        condition=np.zeros(0),
        sweeping=sweeping,
        scale=field.std(axis=tuple(range(1, axes + 1))),
    )
    done = list(march.jumps([field[(..., *block.slices)].copy()], jumps))
    parts = part.gather((block.slices, done[-1].field))
    if part.rank:
        return None, done
    whole = np.empty_like(field)
    for slices, values in parts:
        whole[(..., *slices)] = values
    return whole, done


@pytest.mark.parametrize(
    ("shape", "tile"), [((24,), (8,)), ((24, 16), (8, 8)), ((16, 8, 16), (8, 8, 8))]
)
def test_a_halo_as_wide_as_the_reach_is_exact(shape, tile):
    heat, field = Heat(steps=3, r=0.1, axes=len(shape)), random_field(shape)
    found, done = run(heat, field, tile, (3,) * len(shape), 4, SerialComm())
    assert np.array_equal(found, periodic_truth(heat, field, 4))
    assert [jump.sweeps for jump in done] == [1] * 4


def test_sweeps_recover_what_a_narrow_halo_misses():
    # Smooth in space, so that a straight line in time tells nearly what the rim goes through.
    heat = Heat(steps=8, r=0.2)
    field = gaussian_filter(random_field((32, 32)), (0, 2, 2), mode="wrap")
    truth = periodic_truth(heat, field, 1)

    def error(halo, sweeping):
        found, done = run(heat, field, (16, 16), halo, 1, SerialComm(), sweeping)
        return float(np.sqrt(np.mean((found - truth) ** 2))), done[0]

    alone, _ = error((2, 2), Sweeping(most=1))
    swept, jump = error((2, 2), Sweeping(most=12, tolerance=1e-4))
    assert swept < 0.6 * alone
    assert 2 < jump.sweeps <= 12
    assert jump.mismatches[-1] < 1e-4
    assert all(b < a for a, b in zip(jump.mismatches, jump.mismatches[1:], strict=False))


def test_a_fixed_number_of_sweeps_is_taken():
    heat, field = Heat(steps=6), random_field((32, 32))
    _, done = run(heat, field, (16, 16), (2, 2), 2, SerialComm(), Sweeping(3, 1e9, fixed=True))
    assert [jump.sweeps for jump in done] == [3, 3]


def test_a_value_that_is_not_finite_names_its_tile():
    heat, field = Heat(steps=2), random_field((16, 16))
    field[0, 12, 4] = np.nan
    with pytest.raises(FloatingPointError, match=r"jump 1: .* tile \(1, 0\)"):
        run(heat, field, (8, 8), (2, 2), 1, SerialComm())


@pytest.mark.mpi
@pytest.mark.parametrize("halo", [6, 2])
def test_any_number_of_ranks_gives_the_same_bits(halo):
    heat, field = Heat(steps=6), random_field((24, 32))
    sweeping = Sweeping(most=5, tolerance=1e-3)
    found, done = run(heat, field, (8, 8), (halo, halo), 3, world(), sweeping)
    if world().rank == 0:
        alone, serial = run(heat, field, (8, 8), (halo, halo), 3, SerialComm(), sweeping)
        assert np.array_equal(found, alone)
        assert [j.mismatches for j in done] == [j.mismatches for j in serial]


@pytest.mark.mpi
def test_counted_bytes_equal_the_formula():
    from scaled_mpi.parallel.halo import expected_bytes

    comm, heat = world(), Heat(steps=4)
    grid = Grid((16, 16), (1.0, 1.0), (Boundary("periodic"),) * 2)
    blocks = make_blocks(grid, (8, 8), comm.size)
    part = first_ranks(comm, blocks.ranks)
    if part is None:
        return
    march = March(
        heat,
        Halo(blocks, part, (2, 2)),
        condition=np.zeros(0),
        scale=np.ones(2),
        sweeping=Sweeping(4, 1e-9),
    )
    frames = [random_field((16, 16))[(..., *blocks.block(part.rank).slices)].copy()]
    sweeps = sum(jump.sweeps for jump in march.jumps(frames, 2))
    assert march.exchanges == 1 + sweeps
    total = sum(part.allgather(march.exchange.bytes))
    assert total == march.exchanges * expected_bytes(blocks, (2, 2), 2, 4)
