"""Statistics of sets of fields against laws that are known."""

import numpy as np
import pytest

from scaled_mpi.learning.gaussian import block_covariance, field_covariance, lookalike
from scaled_mpi.likeness import differences, statistics
from tests.fields import gaussian_fields

TILE = (8, 8)


def test_statistics_of_a_field_whose_covariance_is_known():
    covariance = field_covariance("squared_exponential", 4.0, (64, 48))
    found = statistics(3.0 + 2.0 * gaussian_fields(covariance, 200), TILE)
    assert found.mean == pytest.approx(3.0, abs=0.06)
    assert found.variance == pytest.approx(4.0, rel=0.05)
    assert found.skewness == pytest.approx(0.0, abs=0.06)
    distances = np.arange(len(found.curve))
    np.testing.assert_allclose(found.curve, 4.0 * np.exp(-0.5 * (distances / 4.0) ** 2), atol=0.2)
    assert len(found.curve) == 25
    block = block_covariance(covariance, 8)[0, 0]
    assert found.tile_variance == pytest.approx(4.0 * block, rel=0.1)
    assert found.seam == pytest.approx(1.0, abs=0.02)


def test_differences_are_none_from_itself_and_known_from_its_image():
    fields = gaussian_fields(field_covariance("exponential", 3.0, (32, 32)), 200)
    truth = statistics(fields, TILE)
    same = differences(truth, truth, TILE)
    for name in (
        "cov.error.tiled",
        "cov.error.beyond",
        "mean.error",
        "histogram.distance",
        "spectrum.error.large",
    ):
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
