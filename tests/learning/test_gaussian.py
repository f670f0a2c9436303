"""Closed-form denoisers against each other, and a trained network against the exact score."""

import numpy as np
import pytest
import torch

from scaled_mpi.learning.denoising import Denoiser
from scaled_mpi.learning.gaussian import (
    KERNELS,
    GaussianDenoiser,
    MixtureDenoiser,
    StationaryDenoiser,
    WindowDenoiser,
    block_covariance,
    field_covariance,
)
from scaled_mpi.learning.schedules import SCHEDULES
from scaled_mpi.learning.settings import Session, Task, Training
from scaled_mpi.learning.training import train
from scaled_mpi.parallel.comm import SerialComm

SHARES = (0.3, 0.7)
MEANS = np.array([[1.0, 0.5], [-0.7, -0.4]])
COVARIANCES = np.array([[[0.2, 0.1], [0.1, 0.1]], [[0.15, -0.05], [-0.05, 0.3]]])
T = 0.3


def dense(covariance):
    """All pairs of cells, from the first cell's row."""
    shape = covariance.shape
    cells = np.indices(shape).reshape(len(shape), -1)
    lags = tuple((c[:, None] - c[None]) % n for c, n in zip(cells, shape, strict=True))
    return covariance[lags]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(24,), (8, 12)])
def test_stationary_and_window_are_gaussian(kernel, shape):
    schedule, axes = SCHEDULES["vp"](), len(shape)
    covariance = field_covariance(kernel, 2.5, shape)
    exact = GaussianDenoiser(np.zeros(covariance.size), dense(covariance), schedule)
    x = np.random.default_rng(0).standard_normal((3, *shape))
    wanted = exact(x.reshape(3, -1), T).reshape(x.shape)
    np.testing.assert_allclose(StationaryDenoiser(covariance, schedule)(x, T), wanted, atol=1e-10)
    extent = (6, 5)[:axes]
    part = (slice(None), *(slice(0, n) for n in extent))
    inside = np.zeros(shape, bool)
    inside[part[1:]] = True
    window = dense(covariance)[np.ix_(inside.ravel(), inside.ravel())]
    exact = GaussianDenoiser(np.zeros(len(window)), window, schedule)
    made = WindowDenoiser(covariance, extent, schedule)(x[part], T)
    np.testing.assert_allclose(
        made, exact(x[part].reshape(3, -1), T).reshape(made.shape), atol=1e-10
    )


@pytest.mark.parametrize("shape", [(24,), (8, 12)])
def test_means_of_blocks(shape):
    covariance = field_covariance("exponential", 3.0, shape)
    block, count = 2, int(np.prod(shape)) // 2 ** len(shape)
    means = np.zeros((count, *shape))
    for row, corner in zip(means, np.ndindex(*(n // block for n in shape)), strict=True):
        row[tuple(slice(i * block, (i + 1) * block) for i in corner)] = block ** -len(shape)
    means = means.reshape(count, -1)
    wanted = (means @ dense(covariance) @ means.T)[0]
    np.testing.assert_allclose(block_covariance(covariance, block).ravel(), wanted, atol=1e-12)


def test_mixture_of_one_is_a_gaussian_and_scores_are_gradients():
    schedule = SCHEDULES["cosine"]()
    x = np.random.default_rng(1).standard_normal((5, 2))
    one = MixtureDenoiser([1.0], MEANS[:1], COVARIANCES[:1], schedule)
    np.testing.assert_allclose(
        one(x, T), GaussianDenoiser(MEANS[0], COVARIANCES[0], schedule)(x, T), atol=1e-12
    )
    alpha, sigma, h = schedule.alpha(T), schedule.sigma(T), 1e-5

    def log_density(x):
        total = 0.0
        for share, mean, covariance in zip(SHARES, MEANS, COVARIANCES, strict=True):
            noisy = alpha**2 * covariance + sigma**2 * np.eye(2)
            gap = x - alpha * mean
            form = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(noisy), gap)
            total = total + share * np.exp(-0.5 * form) / np.linalg.det(noisy) ** 0.5
        return np.log(total)

    gradient = np.stack(
        [(log_density(x + h * e) - log_density(x - h * e)) / (2 * h) for e in np.eye(2)], -1
    )
    mixture = MixtureDenoiser(SHARES, MEANS, COVARIANCES, schedule)
    np.testing.assert_allclose(mixture.score(x, T), gradient, atol=1e-7)


class Perceptron(torch.nn.Module):
    """(B, 2) and a noise level (B,) -> (B, 2)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 64),
            torch.nn.SiLU(),
            torch.nn.Linear(64, 64),
            torch.nn.SiLU(),
            torch.nn.Linear(64, 64),
            torch.nn.SiLU(),
            torch.nn.Linear(64, 2),
        )

    def forward(self, x, level, condition):
        angles = level[:, None] * torch.tensor([1.0, 2.0])
        return self.layers(torch.cat((x, angles.sin(), angles.cos()), 1))


def draw(rng, count):
    """Points of the mixture, (count, 2) float32."""
    which = (rng.random(count) < SHARES[1]).astype(int)
    roots = np.linalg.cholesky(COVARIANCES)[which]
    noise = rng.standard_normal((count, 2))
    return (MEANS[which] + np.einsum("nij,nj->ni", roots, noise)).astype(np.float32)


def test_a_trained_network_has_the_score_of_the_mixture(tmp_path):
    """At most a tenth of the score's mean square is missed, at each of four noise levels."""
    schedule = SCHEDULES["cosine"]()
    denoiser = Denoiser(Perceptron(), schedule, "v")

    def sample(step, micro, size):
        rng = np.random.default_rng((step, micro))
        return {
            "x": draw(rng, size),
            "t": rng.random(size, np.float32),
            "noise": rng.standard_normal((size, 2), np.float32),
        }

    def loss(model, batch):
        return model.loss(batch["x"], batch["t"], batch["noise"])

    def validate(model):
        batch = {key: torch.from_numpy(value) for key, value in sample(10**6, 0, 4096).items()}
        return {"loss": float(loss(model, batch))}

    spec = Training(
        steps=500,
        batch=512,
        micro_batches=1,
        learning_rate=6e-3,
        device="cpu",
        validate_every=250,
        checkpoint_every=500,
        ema=0.99,
    )
    train(denoiser, Task(loss, sample, validate), spec, Session(SerialComm(), tmp_path, None, 0))
    exact = MixtureDenoiser(SHARES, MEANS, COVARIANCES, schedule)
    rng = np.random.default_rng(5)
    for t in (0.2, 0.4, 0.6, 0.8):
        x = schedule.alpha(t) * draw(rng, 4000) + schedule.sigma(t) * rng.standard_normal(
            (4000, 2)
        )
        with torch.no_grad():
            made = denoiser.score(torch.from_numpy(x).float(), t).numpy()
        wanted = exact.score(x, t)
        missed = np.mean((made - wanted) ** 2) / np.mean(wanted**2)
        assert missed < 0.1, (t, missed)
