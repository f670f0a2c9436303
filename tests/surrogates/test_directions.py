"""Directions where everything is known: white fields whose true dynamics is a rotation."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scaled_mpi.learning.scores import Score  # noqa: E402
from scaled_mpi.surrogates.directions import (  # noqa: E402
    Contest,
    DirectionMarch,
    Truth,
    cosines,
    kernel_field,
    marched,
    random_linear,
    random_skew,
)


class White(Score):
    """The exact score of cells that are independent and normal; so is any noisy copy of them."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(2, 1, 1), requires_grad=False)
        self.signal, self.variance = 0.9, 0.19

    def score(self, x):
        return -self.gain * x


def truth(count, seed, moved=0):
    x = np.random.default_rng(seed).normal(size=(count, 2, 8, 8)).astype(np.float32)
    rate = 0.01 * np.stack([x[:, 1], -x[:, 0]], 1)  # u -> v, v -> -u
    return Truth(x, rate, 20 * rate[:moved])


@pytest.fixture(scope="module")
def contest():
    return Contest(
        White(), lambda x: 1.0 + 0.0 * x, truth(4, 0), truth(6, 1, 6), (1, 3), 5, 0, "cpu"
    )


def test_the_turn_of_the_score_is_the_rotation_up_to_its_sign(contest):
    fair = contest.fair()
    assert fair["trainingfree"][0] == pytest.approx(-1.0, abs=1e-6)  # the fair one keeps it
    assert fair["fitted1"][0] == pytest.approx(1.0, abs=1e-6)
    assert fair["fitted3"][0] == pytest.approx(1.0, abs=1e-6)
    assert abs(fair["score"][0]) < 0.1 and abs(fair["flow"][0]) < 0.1
    assert 0.2 < fair["random"][0] < 0.95


def test_upstreams_protocol_takes_the_better_sign(contest):
    found, pictures = contest.upstream(DirectionMarch(200, 0.01, 1e-4, 0.9))
    assert found["trainingfree"].min() > 0.7
    assert found["trainingfree"].mean() > found["random"].mean() + 0.1
    assert len(found["random"]) == 5 and len(found["trainingfree"]) == 6
    assert pictures["marched.trainingfree"].shape == (2, 8, 8)
    assert cosines(pictures["marched.trainingfree"][None], contest.test.moved[:1]) > 0.7
    film = pictures["film.trainingfree"]
    assert film.shape == (50, 8, 8) and list(pictures["film.steps"][:3]) == [0, 4, 8]
    np.testing.assert_array_equal(film[0], contest.test.snapshots[0, 1])


def test_every_draw_of_a_random_field_starts_from_the_next_sample(contest):
    fields = [kernel_field(random_linear(0, draw)) for draw in range(3)]
    start, march = contest.snapshots[:2], DirectionMarch(10, 0.01, 1e-4, 0.9)
    found = contest._drawn(fields, start, march)
    for draw, field in enumerate(fields):
        place = draw % 2
        alone = marched([field], contest.score, start[place : place + 1], march, contest.seed)[0]
        assert found[draw] == pytest.approx(
            abs(cosines(alone, contest.test.moved[place : place + 1])[0]), abs=1e-5
        )


def test_only_skew_fields_keep_the_density(contest):
    found = contest.residuals(6)
    assert abs(found["trainingfree"]) < 0.02
    assert found["random"] > 0.05


def test_a_march_without_noise_is_the_rotation_itself():
    x = torch.from_numpy(truth(2, 3).snapshots).double()
    angle = 300 * 0.01 / 2**0.5
    field = kernel_field(np.array([[0.0, 1.0], [-1.0, 0.0]])[:, :, None, None] / 2**0.5)
    turned = (
        marched(
            [lambda y, s: field(y, s)], White().double(), x, DirectionMarch(301, 0.01, 0.0, 0.0), 0
        )[0]
        + x
    )
    u, v = x.unbind(1)
    wanted = torch.stack(
        [np.cos(angle) * u - np.sin(angle) * v, np.sin(angle) * u + np.cos(angle) * v], 1
    )
    torch.testing.assert_close(turned, wanted, atol=1e-4, rtol=1e-4)


def test_cosines_of_zero_are_zero():
    one = np.ones((2, 3))
    np.testing.assert_allclose(cosines(one, np.stack([one[0], -2 * one[0]])), [1.0, -1.0])
    np.testing.assert_allclose(cosines(one, 0 * one), 0.0)


def test_random_kernels_have_unit_norm_and_depend_on_the_draw():
    for draw in (lambda k: random_skew(5, 0, k), lambda k: random_linear(0, k)):
        assert np.linalg.norm(draw(0)) == pytest.approx(1.0)
        assert np.abs(draw(0) - draw(1)).max() > 0.1
        np.testing.assert_array_equal(draw(2), draw(2))
