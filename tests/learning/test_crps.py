"""The fair CRPS as a loss: closed form for Gaussians, unbiased, and aware of dependence."""

import math

import numpy as np
import pytest

from scaled_mpi import metrics


def drawn(count, cells=200_000, spread=1.0, seed=0):
    import torch

    generator = torch.Generator().manual_seed(seed)
    members = spread * torch.randn((1, count, cells), generator=generator, dtype=torch.float64)
    truth = torch.randn((1, cells), generator=generator, dtype=torch.float64)
    return members, truth


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_the_fair_crps_of_gaussians_is_the_closed_form_for_any_number_of_members(count, spread):
    from scaled_mpi.learning.crps import almost_fair_crps

    members, truth = drawn(count, spread=spread)
    # E|X - Y| - E|X - X'| / 2 with X of spread s, Y of spread 1.
    exact = math.sqrt(2 * (1 + spread**2) / math.pi) - spread / math.sqrt(math.pi)
    found = float(almost_fair_crps(members, truth, alpha=1.0))
    assert found == pytest.approx(exact, abs=0.006)
    assert found == pytest.approx(metrics.crps(members[0].numpy(), truth[0].numpy()), rel=1e-12)


def test_alpha_0_is_the_crps_of_the_finite_ensemble():
    from scaled_mpi.learning.crps import almost_fair_crps

    members, truth = (one.numpy() for one in drawn(4, cells=1000))
    pairs = np.abs(members[0][:, None] - members[0][None]).mean((0, 1))
    by_hand = np.mean(np.abs(members[0] - truth[0]).mean(0) - 0.5 * pairs)
    made = drawn(4, cells=1000)
    assert float(almost_fair_crps(*made, alpha=0.0)) == pytest.approx(by_hand, rel=1e-12)


def test_the_right_spread_scores_best():
    from scaled_mpi.learning.crps import almost_fair_crps

    scores = {}
    for spread in (0.6, 0.8, 1.0, 1.25, 1.6):
        scores[spread] = float(almost_fair_crps(*drawn(4, spread=spread), alpha=0.95))
    assert min(scores, key=scores.get) == 1.0


def test_means_over_blocks_see_how_cells_vary_together():
    """Members of the right cells that vary as one are worse by the score of the blocks alone."""
    import torch

    from scaled_mpi.learning.crps import crps_of_scales

    generator = torch.Generator().manual_seed(1)
    truth = torch.randn((64, 1, 16, 16), generator=generator)
    apart = torch.randn((64, 4, 1, 16, 16), generator=generator)
    as_one = torch.randn((64, 4, 1, 1, 1), generator=generator).expand(apart.shape)
    cells = [float(crps_of_scales(one, truth, (1,))) for one in (apart, as_one)]
    assert cells[0] == pytest.approx(cells[1], rel=0.06)
    blocks = [float(crps_of_scales(one, truth, (4,))) for one in (apart, as_one)]
    assert blocks[1] > 1.5 * blocks[0]
