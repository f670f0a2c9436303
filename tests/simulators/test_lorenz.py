"""Lorenz's equations: order of the integrator, the fixed points, the known exponents."""

import numpy as np
import pytest

from scaled_mpi.simulators.lorenz import (
    DIVERGENCE,
    LARGEST_EXPONENT,
    B,
    R,
    lorenz_rate,
    lorenz_states,
    runge_kutta,
)
from scaled_mpi.surrogates.lyapunov import lyapunov_exponents, separation


def test_the_wings_centres_stand_still():
    c = np.sqrt(B * (R - 1.0))
    for sign in (1.0, -1.0):
        state = np.array([sign * c, sign * c, R - 1.0])
        np.testing.assert_allclose(lorenz_rate(state), 0.0, atol=1e-12)


def test_the_integrator_is_of_fourth_order():
    def error(steps):
        x = np.array([1.0, 0.0])
        for _ in range(steps):
            x = runge_kutta(lambda s: np.stack([s[..., 1], -s[..., 0]], -1), x, 1.0 / steps)
        return np.abs(x - [np.cos(1.0), -np.sin(1.0)]).max()

    assert np.log2(error(10) / error(20)) == pytest.approx(4.0, abs=0.1)


def test_exponents_of_lorenz_are_the_known_ones():
    exponents = lyapunov_exponents(lorenz_rate, lorenz_states(0, 8, 1), 0.01, 4000, burn=200).mean(
        0
    )
    assert exponents[0] == pytest.approx(LARGEST_EXPONENT, abs=0.05)
    assert exponents[1] == pytest.approx(0.0, abs=0.02)
    assert exponents.sum() == pytest.approx(DIVERGENCE, rel=1e-3)


def test_exponents_of_a_linear_field_are_its_rates():
    rates = np.array([0.5, -0.1, -2.0])
    found = lyapunov_exponents(lambda x: x * rates, np.zeros((2, 3)), 0.01, 500, burn=100)
    np.testing.assert_allclose(found, np.broadcast_to(rates, (2, 3)), atol=1e-6)


def test_the_separation_of_a_linear_field_is_its_rate_and_nothing_is_said_of_paths_that_leave():
    found = separation(lambda x: 0.3 * x, np.zeros((3, 2)), 0.1, 100)
    assert found == pytest.approx(0.3, rel=1e-6)
    assert separation(lambda x: 0.3 * x, np.ones((3, 2)), 0.1, 200) is None
    kept = separation(lambda x: 0.3 * x, np.array([[0.0, 0.0], [1.0, 1.0]]), 0.1, 200)
    assert kept == pytest.approx(0.3, rel=1e-6)


def test_a_path_that_leaves_has_no_exponents():
    start = np.array([[0.0, 0.0], [1.0, 1.0]])
    found = lyapunov_exponents(lambda x: 0.5 * x, start, 0.05, 100, bound=4.0)
    np.testing.assert_allclose(found[0], 0.5, rtol=1e-6)
    assert np.isnan(found[1]).all()
