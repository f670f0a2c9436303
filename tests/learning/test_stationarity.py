"""Fields that keep a density: exact for any Gaussian, unbiased estimates, the loss's signs."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scaled_mpi.learning import skew  # noqa: E402
from scaled_mpi.learning.networks.periodic import IsotropicFlow  # noqa: E402
from scaled_mpi.learning.scores import SingleLevelScore, moved  # noqa: E402
from scaled_mpi.learning.stationarity import (  # noqa: E402
    DensityResiduals,
    exact_residual,
    residuals,
    stationarity_loss,
)

SHAPE = (2, 6, 5)


def gaussian(seed=0):
    """The precision matrix of a random Gaussian over all cells of a small field."""
    n = int(np.prod(SHAPE))
    roots = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, n))) / n**0.5
    return roots @ roots.T + torch.eye(n, dtype=torch.float64)


def operator(kernel):
    """The matrix of a convolution, column by column."""
    n = int(np.prod(SHAPE))
    units = torch.eye(n, dtype=torch.float64).view(n, *SHAPE)
    return skew.convolve(kernel, units).flatten(1).T


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_skew_kernel_is_a_skew_operator_and_keeps_any_gaussian(size):
    kernel = skew.skew(np.random.default_rng(size).normal(size=(2, 2, size, size)))
    a, precision = operator(kernel), gaussian()
    np.testing.assert_allclose(a, -a.T, atol=1e-14)
    # v = -A P x: div v = -tr(A P), v . s = x P A P x; both are zero.
    assert float(torch.trace(a @ precision)) == pytest.approx(0.0, abs=1e-12)
    s = -precision @ torch.from_numpy(np.random.default_rng(9).normal(size=len(a)))
    assert float(s @ a @ s) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("size, count", [(1, 1), (3, 17), (5, 49)])
def test_the_basis_spans_all_skew_kernels(size, count):
    parts = skew.basis(size).reshape(count, -1)
    np.testing.assert_allclose(parts @ parts.T, np.eye(count), atol=1e-12)
    kernel = skew.skew(np.random.default_rng(0).normal(size=(2, 2, size, size))).ravel()
    np.testing.assert_allclose(parts.T @ (parts @ kernel), kernel, atol=1e-12)


def test_with_one_cell_there_is_one_skew_kernel():
    np.testing.assert_allclose(np.abs(skew.basis(1)[0]), np.abs(skew.TURN), atol=1e-15)


def test_a_fitted_kernel_is_the_one_that_made_the_rates():
    score = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 2, 8, 8)))
    kernel = skew.skew(np.random.default_rng(2).normal(size=(2, 2, 3, 3)))
    kernel /= np.linalg.norm(kernel)
    found = skew.fitted(score, 0.7 * skew.convolve(kernel, score), 3)
    np.testing.assert_allclose(found, kernel, atol=1e-9)


def test_two_halves_of_the_probes_estimate_the_square_without_bias():
    torch.manual_seed(0)
    matrix = torch.randn(4, 4, dtype=torch.float64)
    x = torch.randn(40_000, 4, dtype=torch.float64)
    found = residuals(lambda y: y @ matrix.T, x, -x, 2, keep=False)
    exact = (torch.trace(matrix) - ((x @ matrix.T) * x).sum(1)).square().mean()
    first, second = found.first.detach(), found.second.detach()
    assert float((first * second).mean()) == pytest.approx(float(exact), rel=0.05)
    assert float(first.square().mean()) > 1.5 * float(exact)  # one estimate squared is not


def test_the_exact_residual_is_zero_for_a_rotation_of_a_round_gaussian():
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    x = torch.randn(64, 2)
    assert exact_residual(lambda y: y @ turn.T, x, -x) < 1e-12
    assert exact_residual(lambda y: y, x, -x) > 0.1


def test_the_symmetry_penalty_never_falls_below_zero():
    score = torch.randn(8, 10)
    for v in (score, -score):
        none = torch.zeros(8)
        loss = stationarity_loss(DensityResiduals(v, score, none, none), symmetry=1.0, unit=0.0)
        assert float(loss) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("centred", [False, True])
def test_the_flow_turns_and_mirrors_with_its_input(centred):
    torch.manual_seed(0)
    flow, x = IsotropicFlow(2, 4, centred), torch.randn(1, 2, 6, 6)
    assert (float(flow(x).mean((2, 3)).abs().max().detach()) < 1e-6) is centred
    for change in (
        lambda y: y.flip(2),
        lambda y: y.transpose(2, 3),
        lambda y: y.roll((2, 1), (2, 3)),
    ):
        torch.testing.assert_close(flow(change(x)), change(flow(x)), atol=1e-5, rtol=1e-5)


def test_the_single_level_score_follows_its_network_and_the_gaussian_weight():
    class Echo(torch.nn.Module):
        def forward(self, x):
            return 2.0 * x

    x = torch.randn(1, 2, 4, 4)
    score = SingleLevelScore(Echo(), alpha=0.75, gaussian_weight=0.5)
    torch.testing.assert_close(score.score(x), -2.5 * x / 0.25**0.5)
    torch.testing.assert_close(score.denoised(x), (x + 0.25 * score.score(x)) / 0.75**0.5)


def test_a_network_that_gives_x_itself_is_that_of_its_noise_and_clips_what_it_makes():
    class Half(torch.nn.Module):
        def forward(self, x):
            return 0.5 * x

    x = 4.0 * torch.randn(1, 2, 4, 4)
    score = SingleLevelScore(Half(), alpha=0.75, predicts="x0")
    torch.testing.assert_close(score.denoised(x), 0.5 * x)
    noise = x - 0.75**0.5 * 0.5 * x
    torch.testing.assert_close(score.epsilon(x), noise / 0.25**0.5)
    clipped = SingleLevelScore(Half(), alpha=0.75, predicts="x0", clip=1.0)
    torch.testing.assert_close(clipped.denoised(x), (0.5 * x).clamp(-1.0, 1.0))


def test_a_moved_snapshot_has_the_same_cells():
    torch.manual_seed(1)
    x = torch.arange(32.0).view(1, 2, 4, 4)
    for _ in range(8):
        y = moved(x)
        assert set(y[0, 0].flatten().tolist()) == set(range(16))
        assert torch.equal(y[0, 0] + 16.0, y[0, 1])
