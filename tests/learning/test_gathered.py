"""Networks on gathered cells: nothing is lost, and where a filter of smooth fields begins."""

import numpy as np
import torch

from scaled_mpi.learning.denoising import Denoiser
from scaled_mpi.learning.networks.gathered import BINOMIAL, LEAST, Filtered, Gathered
from scaled_mpi.learning.schedules import VariancePreserving

SCHEDULE = VariancePreserving(sigma_min=1e-6)


class Known(torch.nn.Module):
    """Answers with its first channels, times a factor."""

    def __init__(self, outputs, factor):
        super().__init__()
        self.outputs, self.factor, self.seen = outputs, factor, None

    def forward(self, x, level, condition=None):
        self.seen = x
        return self.factor * x[:, : self.outputs]


def test_gathering_loses_nothing():
    x = torch.randn(2, 3, 8, 12)
    made = Gathered(Known(12, 1.0), 2)(x, torch.zeros(2))
    torch.testing.assert_close(made, x, rtol=0, atol=0)


def smoothed(x):
    for axis in (-2, -1):
        x = sum(w * np.roll(x, k - 2, axis) for k, w in enumerate(BINOMIAL))
    return x


def test_an_untrained_network_is_the_filter():
    t, x = 0.1, np.random.default_rng(0).standard_normal((2, 2, 16, 16))
    inner = Known(8, 0.0)
    denoise = Denoiser(Filtered(inner, 2, "circular"), SCHEDULE, "edm").double()
    made = denoise(torch.from_numpy(x), t).numpy()
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    detail = (x - smoothed(x)) / (sigma + LEAST)
    np.testing.assert_allclose(made, alpha * x - sigma * alpha * detail, atol=1e-5)
    assert inner.seen.shape == (2, 16, 8, 8)


def test_the_filter_takes_a_little_noise_off_a_smooth_field():
    y, x = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    field = np.sin(2 * np.pi * x / 16) * np.cos(2 * np.pi * y / 32)
    noise, t = np.random.default_rng(1).standard_normal((1, 1, 32, 32)), 0.05
    noisy = SCHEDULE.alpha(t) * field + SCHEDULE.sigma(t) * noise
    denoise = Denoiser(Filtered(Known(4, 0.0), 2, "circular"), SCHEDULE, "edm").double()
    wrong = denoise(torch.from_numpy(noisy), t).numpy() - field
    assert wrong.std() < 0.5 * SCHEDULE.sigma(t)
