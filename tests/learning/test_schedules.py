"""Noise schedules: their ends, their rates, the published levels."""

import numpy as np
import pytest
import torch

from scaled_mpi.learning.schedules import SCHEDULES, Levels, VarianceExploding

ROWS = [
    pytest.param(member(zero_terminal_snr=stretched), id=f"{name}{'-zero' * stretched}")
    for name, member in SCHEDULES.items()
    for stretched in (False, True)
    if not (stretched and name == "ve")
]


@pytest.mark.parametrize("schedule", ROWS)
def test_from_data_to_noise(schedule):
    assert schedule.alpha(0.0) == pytest.approx(1.0)
    assert schedule.sigma(0.0) == pytest.approx(schedule.sigma_min)
    t = np.linspace(0, 1, 101)
    assert (np.diff(schedule.alpha(t)) <= 0).all() and (np.diff(schedule.sigma(t)) > 0).all()
    assert schedule.alpha(1.0) < 0.1 * schedule.sigma(1.0)
    if schedule.zero_terminal_snr:
        assert schedule.alpha(1.0) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("schedule", ROWS)
def test_rates_are_the_derivatives(schedule):
    h = 1e-6
    for t in (0.0312, 0.4037, 0.9041):  # between the levels of ddpm
        for value, rate in (
            (schedule.alpha, schedule.alpha_rate),
            (schedule.sigma, schedule.sigma_rate),
        ):
            slope = (value(t + h) - value(t - h)) / (2 * h)
            assert rate(t) == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("schedule", ROWS)
def test_tensors_and_arrays_agree(schedule):
    t = np.linspace(0, 1, 11)
    for function in (schedule.alpha, schedule.sigma, schedule.alpha_rate, schedule.sigma_rate):
        np.testing.assert_allclose(function(torch.from_numpy(t)).numpy(), function(t), atol=1e-12)


def test_levels_are_those_of_ddpm():
    """T = 100, linear betas 1e-4 .. 0.1: alpha_bar of level 10 is .9448, of the last .0056."""
    levels = Levels(levels=100, beta_first=1e-4, beta_last=0.1)
    assert levels.alpha(levels.time_of(10)) ** 2 == pytest.approx(0.9448, abs=5e-5)
    assert levels.alpha(levels.time_of(99)) ** 2 == pytest.approx(0.0056, abs=5e-5)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    scaled = Levels(beta_first=0.00085, beta_last=0.012, betas="scaled_linear")
    assert scaled.alpha(0.5) ** 2 == pytest.approx(np.prod(1 - betas[:500]))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"zero_terminal_snr.*ve"):
        VarianceExploding(zero_terminal_snr=True)
    with pytest.raises(ValueError, match="sigma_max"):
        VarianceExploding(sigma_max=1e-4)
