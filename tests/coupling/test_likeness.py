"""Statistics of sets of fields against laws that are known, and the gains of two estimates."""

import numpy as np
import pytest

from scaled_mpi.coupling.gains import Gains, gain_sums
from scaled_mpi.coupling.generation import CoarseCorrection, TiledDenoiser, block_means
from scaled_mpi.coupling.likeness import differences, statistics
from scaled_mpi.coupling.responses import Impulses, compare, symmetry
from scaled_mpi.learning.gaussian import (
    StationaryDenoiser,
    WindowDenoiser,
    block_covariance,
    field_covariance,
    lookalike,
)
from scaled_mpi.learning.samplers import sample
from scaled_mpi.learning.schedules import VariancePreserving
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm

SCHEDULE = VariancePreserving(zero_terminal_snr=True, sigma_min=0.01)
TILE = (8, 8)


def gaussian_fields(covariance, count, seed=0):
    """Exact samples (count, *shape) of a stationary field."""
    noise = np.random.default_rng(seed).standard_normal((count, *covariance.shape))
    root = np.sqrt(np.maximum(np.fft.fftn(covariance).real, 0.0))
    return np.fft.ifft2(root * np.fft.fft2(noise)).real


def test_statistics_of_a_field_whose_covariance_is_known():
    covariance = field_covariance("squared_exponential", 4.0, (64, 48))
    found = statistics(3.0 + 2.0 * gaussian_fields(covariance, 200), TILE)
    assert found.mean == pytest.approx(3.0, abs=0.06)
    assert found.variance == pytest.approx(4.0, rel=0.05)
    assert found.skewness == pytest.approx(0.0, abs=0.06)
    distances = np.arange(len(found.curve))
    np.testing.assert_allclose(
        found.curve, 4.0 * np.exp(-0.5 * (distances / 4.0) ** 2), atol=0.2)
    assert len(found.curve) == 25
    block = block_covariance(covariance, 8)[0, 0]
    assert found.tile_variance == pytest.approx(4.0 * block, rel=0.1)
    assert found.seam == pytest.approx(1.0, abs=0.02)


def test_differences_are_none_from_itself_and_known_from_its_image():
    fields = gaussian_fields(field_covariance("exponential", 3.0, (32, 32)), 200)
    truth = statistics(fields, TILE)
    same = differences(truth, truth, TILE)
    for name in ("cov.error.tiled", "cov.error.beyond", "mean.error", "histogram.distance",
                 "spectrum.error.large"):
        assert same[name] == 0.0
    assert same["variance.ratio"] == same["variance.ratio.tiles"] == 1.0
    moved = differences(statistics(2.0 * fields + 0.5, TILE), truth, TILE)
    assert moved["variance.ratio"] == pytest.approx(4.0)
    assert moved["cov.error.tiled"] == pytest.approx(3.0)
    assert moved["spectrum.error.large"] == pytest.approx(3.0)
    assert moved["mean.error"] == pytest.approx(0.5, abs=0.05)


def test_pasted_tiles_keep_the_variance_and_lose_what_is_beyond_a_tile():
    fields = gaussian_fields(field_covariance("exponential", 8.0, (64, 64)), 100)
    tiles = fields.reshape(100, 8, 8, 8, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 8, 8)
    mixed = np.random.default_rng(1).permutation(tiles).reshape(100, 8, 8, 8, 8)
    pasted = mixed.transpose(0, 1, 3, 2, 4).reshape(fields.shape)
    found = differences(statistics(pasted, TILE), statistics(fields, TILE), TILE)
    assert found["variance.ratio"] == pytest.approx(1.0)
    assert found["histogram.distance"] == pytest.approx(0.0, abs=1e-12)
    assert found["variance.ratio.tiles"] == pytest.approx(1.0)
    assert found["cov.error.beyond"] > 0.9
    assert found["seam.index"] > 1.5


def test_a_lookalike_has_the_moments_of_its_examples_within_and_across_channels():
    rng, covariance = np.random.default_rng(2), field_covariance("exponential", 3.0, (16, 16))
    a, b = (gaussian_fields(covariance, 300, seed) for seed in (3, 4))
    examples = np.stack([np.exp(a) + 2.0, 0.6 * a + 0.8 * b], 1)
    made = lookalike(examples, rng.standard_normal((900, 2, 16, 16)))
    np.testing.assert_allclose(made.mean((0, 2, 3)), examples.mean((0, 2, 3)), atol=0.04)

    def moments(x):
        away = x - x.mean((0, 2, 3), keepdims=True)
        shifted = np.roll(away, (1, 2), (2, 3))
        return np.einsum("nayx,nbyx->ab", away, shifted) / away[:, 0].size

    np.testing.assert_allclose(moments(made), moments(examples), rtol=0.05, atol=0.02)
    skewed = statistics(examples[:, 0], (4, 4)).skewness
    assert abs(statistics(made[:, 0], (4, 4)).skewness) < 0.1 * skewed


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
    noise = block ** -1.0

    def denoisers(shape):
        covariance = field_covariance(kernel, length, shape)
        local = TiledDenoiser(
            make_blocks(Grid(shape), TILE, 1), SerialComm(), "crop",
            lambda extent: WindowDenoiser(covariance, extent, SCHEDULE), halo=halo, overlap=4)
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
        sums.append([gain_sums(*(one[None] for one in three))
                     for three in zip(true, near, far, strict=True)])
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
