"""Gains of two estimates of a mean, against least squares and on exact denoisers."""

import numpy as np
import pytest

from scaled_mpi.coupling.gains import Gains, gain_sums
from scaled_mpi.coupling.generation import CoarseCorrection, TiledDenoiser, block_means
from scaled_mpi.coupling.responses import Impulses, compare, symmetry
from scaled_mpi.learning.gaussian import (
    StationaryDenoiser,
    WindowDenoiser,
    block_covariance,
    field_covariance,
)
from scaled_mpi.learning.samplers import sample
from scaled_mpi.learning.schedules import VariancePreserving
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from tests.fields import gaussian_fields

SCHEDULE = VariancePreserving(zero_terminal_snr=True, sigma_min=0.01)
TILE = (8, 8)


def test_the_gain_is_the_least_squares_mixture_of_two_estimates():
    """Of independent errors with spreads 1 and 2 the second counts a fifth, at every wave."""
    rng = np.random.default_rng(5)
    truth = rng.standard_normal((300, 2, 16, 16))
    local = truth + rng.standard_normal(truth.shape)
    coarse = truth + 2.0 * rng.standard_normal(truth.shape)
    sums = [gain_sums(*three) for three in zip(truth, local, coarse, strict=True)]
    worse = [gain_sums(t, t, c) for t, c in zip(truth, coarse, strict=True)]
    gains = Gains.of(np.array([0.5, 1.0]), [sums, worse], 16)
    np.testing.assert_allclose(gains.values[0, 1:10], 0.2, atol=0.02)
    np.testing.assert_array_equal(gains.values[1], 0.0)
    assert gains.at(0.75, (32, 48))[3, 4] == pytest.approx(0.1, abs=0.02)
    made = gains(truth - local, 0.5)
    np.testing.assert_allclose(made, 0.2 * (truth - local), atol=0.2)


def test_measured_gains_keep_the_covariance_of_a_gaussian_field():
    """What is measured on boxes of 16 cells corrects a domain of 32, all denoisers exact."""
    kernel, length, halo, block = "exponential", 6.0, 2, 2
    noise = block**-1.0

    def denoisers(shape):
        covariance = field_covariance(kernel, length, shape)
        local = TiledDenoiser(
            make_blocks(Grid(shape), TILE, 1),
            SerialComm(),
            "crop",
            lambda extent: WindowDenoiser(covariance, extent, SCHEDULE),
            halo=halo,
            overlap=4,
        )
        small = StationaryDenoiser(block_covariance(covariance, block), SCHEDULE, noise)
        return covariance, local, small

    covariance, local, small = denoisers((16, 16))
    fields, rng = gaussian_fields(covariance, 60), np.random.default_rng(6)
    times = np.linspace(0, 1, 10)[1:-1]
    sums = []
    for t in times:
        noisy = SCHEDULE.alpha(t) * fields + SCHEDULE.sigma(t) * rng.standard_normal(fields.shape)
        near = block_means(local(noisy, t), 2, block)
        far = small(block_means(noisy, 2, block), t)
        true = block_means(fields, 2, block)
        sums.append(
            [
                gain_sums(*(one[None] for one in three))
                for three in zip(true, near, far, strict=True)
            ]
        )
    gains = Gains.of(times, sums, 16 // block)
    assert gains.values[-2:, 1].min() > 0.7
    covariance, local, small = denoisers((32, 32))
    which = symmetry((32, 32), TILE)
    errors = []
    for gain in (gains, None):
        corrected = CoarseCorrection(local, small, block, gain)
        made = sample(corrected, Impulses(which, local.blocks.block(0)), SCHEDULE, 20)
        errors.append(compare(made, covariance, which).error)
    alone = sample(local, Impulses(which, local.blocks.block(0)), SCHEDULE, 20)
    assert errors[0] < 0.3 * compare(alone, covariance, which).error
    assert errors[1] < 0.05
