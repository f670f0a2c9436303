"""The noise of stochastic operators: keyed by the cell of the domain, whoever draws it."""

import numpy as np
import pytest

from scaled_mpi.coupling.chance import Chance
from scaled_mpi.parallel.blocks import Blocks, Boundary, Grid, make_blocks


def whole_noise(boundary, reach=(3, 3), member=0, jump=5):
    grid = Grid((16, 24), 1.0, Boundary(boundary))
    blocks = Blocks(grid, (8, 8), (1, 1))
    return blocks, Chance(blocks, 0, reach, 2, 7, member).draw(jump)


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_a_ring_is_what_a_halo_would_bring(boundary):
    _, padded = whole_noise(boundary)
    core = padded[:, 3:-3, 3:-3]
    mode = {"periodic": "wrap", "neumann": "symmetric"}[boundary]
    np.testing.assert_array_equal(padded, np.pad(core, ((0, 0), (3, 3), (3, 3)), mode=mode))


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_every_rank_draws_its_part_of_the_same_noise(ranks):
    alone, padded = whole_noise("periodic")
    blocks = make_blocks(alone.grid, 8, ranks)
    for rank in range(blocks.ranks):
        chance = Chance(blocks, rank, (3, 3), 2, 7)
        drawn = chance.draw(5)
        for view in chance.windows.views:
            own = padded[(..., *alone.local_slices(0, view.index, 3))]
            np.testing.assert_array_equal(chance.cut(view.index, drawn), own)


def test_members_and_jumps_have_noise_of_their_own_and_it_is_standard_normal():
    fields = [whole_noise("periodic", (0, 0), m, j)[1] for m in (0, 1) for j in (1, 2)]
    table = np.stack([field.ravel() for field in fields])
    assert np.abs(np.corrcoef(table) - np.eye(4)).max() < 0.12
    assert abs(table.mean()) < 0.1 and abs(table.std() - 1) < 0.06
