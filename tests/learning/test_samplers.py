"""Every schedule, parametrization and sampler against a Gaussian, whose flow is known exactly.

For a Gaussian all of it is affine, so the mean and the covariance of what a sampler makes are read
off its answers to no noise and to one unit of each noise: no statistical error anywhere.
"""

import numpy as np
import pytest
import torch

from scaled_mpi.config import InputError
from scaled_mpi.learning.denoising import PARAMETRIZATIONS, Denoiser
from scaled_mpi.learning.gaussian import GaussianDenoiser
from scaled_mpi.learning.samplers import SAMPLERS, STOCHASTIC, CellNoise, sample
from scaled_mpi.learning.schedules import SCHEDULES

MEAN = np.array([0.5, -0.3])
COVARIANCE = np.array([[1.1, 0.6], [0.6, 0.5]])
SCHEDULED = [
    pytest.param(member(zero_terminal_snr=stretched), id=f"{name}{'-zero' * stretched}")
    for name, member in SCHEDULES.items()
    for stretched in (False, True)
    if not (stretched and name == "ve")
]
# Relative error of mean and covariance after 300 steps: first-order methods, and Heun's.
TOLERANCE = {"ddim": 0.025, "euler": 0.12, "heun": 3e-3, "sde": 0.05}


def affine(denoise, schedule, steps, kind):
    """Mean (2,) and covariance (2, 2) of what a sampler makes."""
    drawn = steps + 1 if kind in STOCHASTIC else 1

    def noise(k):
        rows = np.zeros((1 + 2 * drawn, 2))
        if k < drawn:
            rows[1 + 2 * k : 3 + 2 * k] = np.eye(2)
        return rows

    made = sample(denoise, noise, schedule, steps, kind)
    answers = made[1:] - made[0]
    return made[0], answers.T @ answers


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULED)
def test_mean_and_covariance(schedule, kind):
    mean, covariance = affine(GaussianDenoiser(MEAN, COVARIANCE, schedule), schedule, 300, kind)
    scale = np.linalg.norm(COVARIANCE)
    assert np.linalg.norm(covariance - COVARIANCE) < TOLERANCE[kind] * scale
    assert np.abs(mean - MEAN).max() < max(TOLERANCE[kind], 1e-2)  # alpha(1) is not 0 everywhere


@pytest.mark.parametrize(("kind", "order"), [("ddim", 1), ("euler", 1), ("heun", 2)])
def test_order_of_convergence_to_the_exact_flow(kind, order):
    """x(0) = mean + (C / (alpha^2 C + sigma^2))^1/2 (x(1) - alpha mean), the exact flow."""
    schedule = SCHEDULES["rectified"](sigma_min=0.1)
    exact = GaussianDenoiser(MEAN, COVARIANCE, schedule)
    alpha, sigma = schedule.alpha(1.0), schedule.sigma(1.0)
    end = COVARIANCE + schedule.sigma_min**2 * np.eye(2)
    begin = alpha**2 * COVARIANCE + sigma**2 * np.eye(2)
    values, vectors = np.linalg.eigh(COVARIANCE)
    flow = (
        vectors * ((values + schedule.sigma_min**2) / (alpha**2 * values + sigma**2)) ** 0.5
    ) @ vectors.T
    np.testing.assert_allclose(flow @ begin @ flow.T, end, atol=1e-12)
    start = np.array([[1.0, 2.0]])
    wanted = MEAN + (start * sigma - alpha * MEAN) @ flow.T
    errors = [
        np.abs(sample(exact, lambda k: start, schedule, steps, kind) - wanted).max()
        for steps in (100, 200, 400)
    ]
    slopes = np.diff(-np.log2(errors))
    assert (np.abs(slopes - order) < 0.15).all(), slopes


class Exact(torch.nn.Module):
    """The network that each row of PARAMETRIZATIONS asks for, made from the exact denoiser."""

    def __init__(self, denoiser, row):
        super().__init__()
        self.denoiser, self.row = denoiser, row
        self.unused = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x, level, condition):
        schedule, (low, high) = self.denoiser.schedule, (0.0, 1.0)
        for _ in range(60):  # the time of this level, by bisection
            t = 0.5 * (low + high)
            below = np.arctan2(schedule.sigma(t), schedule.alpha(t)) < float(level[0])
            low, high = (t, high) if below else (low, t)
        c = self.row(schedule.alpha(t), schedule.sigma(t), 1.0)
        noisy = x.numpy() / c.c_in
        return torch.from_numpy((self.denoiser(noisy, t) - c.c_skip * noisy) / c.c_out)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("row", PARAMETRIZATIONS)
@pytest.mark.parametrize("schedule", SCHEDULED)
def test_every_parametrization_is_the_same_denoiser(schedule, row, kind):
    exact = GaussianDenoiser(MEAN, COVARIANCE, schedule)
    network = Exact(exact, PARAMETRIZATIONS[row])
    if row == "epsilon" and schedule.zero_terminal_snr:
        with pytest.raises(InputError, match=r"epsilon.*zero_terminal_snr"):
            Denoiser(network, schedule, row)
        return
    denoise = Denoiser(network, schedule, row).on_arrays()
    mean, covariance = affine(denoise, schedule, 5, kind)
    wanted_mean, wanted_covariance = affine(exact, schedule, 5, kind)
    np.testing.assert_allclose(mean, wanted_mean, atol=1e-5)
    np.testing.assert_allclose(covariance, wanted_covariance, atol=1e-5)


def test_noise_belongs_to_the_cell():
    cells = np.arange(24).reshape(4, 6)
    whole, part = CellNoise(7, cells, 2), CellNoise(7, cells[1:3, 2:], 2)
    for k in (0, 3):
        np.testing.assert_array_equal(whole(k)[:, 1:3, 2:], part(k))
    assert np.abs(whole(0) - whole(1)).min() > 0
    assert np.abs(whole(0) - CellNoise(7, cells, 2, sample=1)(0)).min() > 0


def test_an_unknown_sampler_is_refused():
    with pytest.raises(InputError, match="sampler: 'dopri' is not allowed"):
        sample(lambda x, t: x, lambda k: np.zeros(2), SCHEDULES["vp"](), 3, "dopri")
