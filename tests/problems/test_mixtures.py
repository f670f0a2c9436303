"""Mixtures of Gaussians: the score is the gradient, the samples have the density's moments."""

import numpy as np
import pytest

from scaled_mpi.problems.mixtures import MIXTURES, Mixture


@pytest.mark.parametrize("name", MIXTURES)
def test_the_score_is_the_gradient_of_log_p(name):
    mixture, step = MIXTURES[name](0.1), 1e-5
    x = mixture.sample(3, 16)
    along = [
        (mixture.log_density(x + step * e) - mixture.log_density(x - step * e)) / (2 * step)
        for e in np.eye(2)
    ]
    np.testing.assert_allclose(mixture.score(x), np.stack(along, 1), atol=1e-5)


@pytest.mark.parametrize("name", MIXTURES)
def test_the_density_has_mass_one(name):
    mixture = MIXTURES[name](0.1)
    line = np.linspace(-2.5, 2.5, 401)
    points = np.stack(np.meshgrid(line, line), -1)
    mass = np.exp(mixture.log_density(points)).sum() * (line[1] - line[0]) ** 2
    assert mass == pytest.approx(1.0, abs=1e-6)


def test_samples_have_the_moments_and_depend_on_their_number_alone():
    mixture = Mixture(np.array([[1.0, 0.0], [-1.0, 2.0]]), 0.3)
    x = mixture.sample(5, 20_000)
    np.testing.assert_allclose(x.mean(0), [0.0, 1.0], atol=0.03)
    np.testing.assert_allclose(np.cov(x.T), [[1.09, -1.0], [-1.0, 1.09]], atol=0.03)
    np.testing.assert_array_equal(mixture.sample(5, 10), x[:10])
