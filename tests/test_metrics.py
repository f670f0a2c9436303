"""Scores against closed forms, direct numpy and scipy, and ensembles of known law."""

import math

import numpy as np
import pytest
from scipy import signal

from scaled_mpi import metrics


def fields(seed: int, shape=(2, 32, 48)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.normal(0.3, [[[0.2]], [[2.0]]], shape).astype(np.float32)
    return truth + generator.normal(0, 0.05, shape).astype(np.float32), truth


def tiles_of(field: np.ndarray, tile: int) -> list[np.ndarray]:
    _, rows, columns = field.shape
    return [
        field[:, y : y + tile, x : x + tile]
        for y in range(0, rows, tile)
        for x in range(0, columns, tile)
    ]


def test_vrmse_and_mae_equal_direct_numpy():
    prediction, truth = fields(0)
    p, t = prediction.astype(np.float64), truth.astype(np.float64)
    expected = np.sqrt(((p - t) ** 2).mean((1, 2)) / (t.var(axis=(1, 2)) + 1e-7))
    np.testing.assert_allclose(metrics.vrmse(prediction, truth), expected, rtol=1e-12)
    np.testing.assert_allclose(
        metrics.mae(prediction, truth), np.abs(p - t).mean((1, 2)), rtol=1e-12
    )


def test_predicting_the_mean_scores_one_and_an_offset_on_a_constant_3162():
    _, truth = fields(1)
    mean = np.broadcast_to(truth.astype(np.float64).mean((1, 2), keepdims=True), truth.shape)
    np.testing.assert_allclose(metrics.vrmse(mean, truth), 1.0, rtol=1e-5)
    flat = np.full((1, 8, 8), 0.25)
    assert metrics.vrmse(flat + 1, flat)[0] == pytest.approx(1 / math.sqrt(1e-7))


def test_tile_sums_join_to_the_whole_in_any_order_and_any_memory_layout():
    prediction, truth = fields(2)
    pairs = list(zip(tiles_of(prediction, 16), tiles_of(truth, 16), strict=True))
    cut = [metrics.pair_sums(p, t) for p, t in pairs]
    alone = [metrics.pair_sums(p.copy(), np.asfortranarray(t)) for p, t in pairs]
    assert all((a == b).all() for a, b in zip(cut, alone, strict=True))
    forward, backward = metrics.scores_from_sums(cut), metrics.scores_from_sums(cut[::-1])
    for one, other in zip(forward, backward, strict=True):
        assert (one == other).all()
    np.testing.assert_allclose(forward.vrmse, metrics.vrmse(prediction, truth), rtol=1e-12)
    np.testing.assert_allclose(forward.variance, truth.astype(float).var(axis=(1, 2)), rtol=1e-9)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.pair_sums(np.zeros((1, 4, 4)), np.zeros((1, 4, 5)))


def test_summary_leaves_stationary_frames_out():
    def frame(vrmse: float, variance: float) -> metrics.Scores:
        one = np.array([vrmse])
        return metrics.Scores(one, one, one, np.array([variance]))

    frames = [frame(0.1, 1.0), frame(0.2, 1.0), frame(0.6, 1.0), frame(3000.0, 1e-9)]
    mean, median, masked = metrics.summary(frames)
    assert (mean, median, masked) == (pytest.approx(0.3), pytest.approx(0.2), 1)
    assert math.isnan(metrics.summary(frames[3:]).mean)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_extrapolation_continues_polynomials_of_its_order(order):
    coefficients = np.random.default_rng(order).normal(size=(order + 1, 2, 5))
    path = [sum(c * t**power for power, c in enumerate(coefficients)) for t in range(9)]
    predicted = metrics.extrapolate(path[:5], lead=4, order=order)
    np.testing.assert_allclose(predicted, path[8], rtol=1e-10)


def test_extrapolation_says_what_it_lacks():
    with pytest.raises(ValueError, match="needs 3 frames"):
        metrics.extrapolate([np.zeros(3)] * 2, lead=1, order=2)


def test_spectrum_of_a_wave_peaks_at_its_wavenumber_with_its_variance():
    cells = np.arange(64)
    wave = np.sqrt(2) * 0.5 * np.cos(2 * np.pi * 8 * cells / 64)
    field = np.broadcast_to(wave, (1, 64, 64))
    power = metrics.tile_spectrum(field)[0]
    k = metrics.wavenumbers((64, 64))
    assert k[power.argmax()] == pytest.approx(8 / 64)
    assert power.sum() == pytest.approx(0.25, rel=1e-3)


def test_spectrum_of_white_noise_sums_to_its_variance_and_grows_with_the_ring():
    generator = np.random.default_rng(3)
    noise = [generator.normal(0, 3, (1, 32, 32)) for _ in range(200)]
    power = metrics.spectrum_from_tiles([metrics.tile_spectrum(one) for one in noise])[0]
    assert power.sum() == pytest.approx(9, rel=0.02)
    # White: the power of a ring is proportional to the modes in it.
    modes = np.hypot(*np.meshgrid(np.arange(-16, 16), np.arange(-16, 16)))
    in_rings = np.bincount(np.rint(modes).astype(int).ravel())
    np.testing.assert_allclose(power[2:], 9 * in_rings[2:] / 32**2, rtol=0.1)


def test_one_dimensional_spectrum_is_welch_of_scipy():
    series = np.random.default_rng(4).normal(size=512).cumsum()
    tiles = series.reshape(8, 1, 64)
    ours = metrics.spectrum_from_tiles([metrics.tile_spectrum(tile) for tile in tiles])[0]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(64) + 0.5) / 64)
    k, theirs = signal.welch(series, window=hann, nperseg=64, noverlap=0, detrend="constant")
    np.testing.assert_allclose(metrics.wavenumbers((64,)), k)
    # scipy gives a density a cycle; a bin is 1/64 wide, and the sides fold as ours do.
    np.testing.assert_allclose(ours, theirs / 64, rtol=1e-10, atol=1e-15)


def test_spectrum_error_is_zero_for_equals_and_the_ratio_otherwise():
    truth = np.random.default_rng(5).uniform(1, 2, (2, 33))
    assert (metrics.spectrum_error(truth, truth) == 0).all()
    np.testing.assert_allclose(metrics.spectrum_error(0.75 * truth, truth), 0.25)
    only_small_scales = truth.copy()
    only_small_scales[:, 25:] = 0.0
    error = metrics.spectrum_error(only_small_scales, truth)
    assert (error[:, :2] == 0).all() and (error[:, 2] > 0.5).all()


def padded_tiles(field: np.ndarray, tile: int) -> list[np.ndarray]:
    ring = np.pad(field, [(0, 0), (1, 1), (1, 1)], mode="wrap")
    return [
        ring[:, y : y + tile + 2, x : x + tile + 2]
        for y in range(0, field.shape[1], tile)
        for x in range(0, field.shape[2], tile)
    ]


def test_seam_index_is_one_for_a_smooth_field_and_sees_a_step_at_the_edges():
    y, x = np.mgrid[0:64, 0:64] * (2 * np.pi / 64)
    smooth = np.sin(3 * x + y)[None]
    index = metrics.seam_from_sums([metrics.seam_sums(t) for t in padded_tiles(smooth, 8)])
    assert index[0] == pytest.approx(1, abs=0.01)
    board = (np.indices((64, 64)) // 8).sum(0) % 2
    steps = metrics.seam_from_sums([metrics.seam_sums(t) for t in padded_tiles(smooth + board, 8)])
    assert steps[0] > 3


def test_seam_index_equals_a_direct_count_also_without_periodicity():
    field = np.random.default_rng(6).normal(size=(1, 24, 24))
    field[:, :, 8:16] += 1.0
    jumps = np.abs(np.diff(field[0], axis=0)), np.abs(np.diff(field[0], axis=1)).T
    across = np.mean([jump[[7, 15]].mean() for jump in jumps])
    inside = np.mean([jump[[6, 8, 14, 16]].mean() for jump in jumps])
    sums = []
    for number, tile in enumerate(padded_tiles(field, 8)):
        place = divmod(number, 3)
        sums.append(metrics.seam_sums(tile, [(p > 0, p < 2) for p in place]))
    assert metrics.seam_from_sums(sums)[0] == pytest.approx(across / inside, rel=1e-12)


def test_seam_index_of_a_constant_is_one():
    assert metrics.seam_from_sums([metrics.seam_sums(np.ones((1, 6, 6)))])[0] == 1.0


def test_fair_crps_equals_the_pair_sum_and_does_not_depend_on_the_ensemble_size():
    generator = np.random.default_rng(7)
    members, truth = generator.normal(size=(5, 40)), generator.normal(size=40)
    pairs = np.abs(members[:, None] - members[None]).sum((0, 1)).mean() / (2 * 5 * 4)
    direct = np.abs(members - truth).mean() - pairs
    assert metrics.crps(members, truth) == pytest.approx(direct, rel=1e-12)
    # Truth and members from N(0, 1): the expected score is E|x - y| / 2 = 1 / sqrt(pi).
    for count in (2, 3, 10):
        draws = generator.normal(size=(count, 200_000))
        score = metrics.crps(draws, generator.normal(size=200_000))
        assert score == pytest.approx(1 / math.sqrt(math.pi), abs=0.006)


def test_crps_of_a_large_gaussian_ensemble_is_the_closed_form():
    from scipy.stats import norm

    members = norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None] * 2.0 + 1.0
    z = (2.5 - 1.0) / 2.0
    closed = 2.0 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))
    assert metrics.crps(members, np.array([2.5])) == pytest.approx(closed, rel=2e-3)


def test_crps_of_one_member_is_the_absolute_error():
    assert metrics.crps(np.zeros((1, 3)), np.array([1.0, -2.0, 3.0])) == pytest.approx(2.0)


def test_spread_equals_skill_for_a_calibrated_ensemble_and_not_for_a_narrow_one():
    generator = np.random.default_rng(8)
    members, truth = generator.normal(size=(4, 200_000)), generator.normal(size=200_000)
    assert metrics.spread(members) == pytest.approx(math.sqrt(1.25), rel=0.01)
    assert metrics.spread_skill(members, truth) == pytest.approx(1, rel=0.01)
    assert metrics.spread_skill(0.5 * members, truth) < 0.6
    with pytest.raises(ValueError, match="2 members"):
        metrics.spread(members[:1])


def test_rank_histogram_counts_and_shares_ties():
    members = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    truth = np.array([0.5, 2.0, 0.0])
    np.testing.assert_allclose(
        metrics.rank_histogram(members, truth), [1 / 3, 1 + 1 / 3, 1 + 1 / 3]
    )
    generator = np.random.default_rng(9)
    flat = metrics.rank_histogram(
        generator.normal(size=(4, 50_000)), generator.normal(size=50_000)
    )
    np.testing.assert_allclose(flat, 10_000, rtol=0.05)


def test_energy_score_equals_the_crps_on_one_cell_and_the_pair_sum_on_many():
    generator = np.random.default_rng(10)
    members, truth = generator.normal(size=(6, 1)), generator.normal(size=1)
    score = metrics.energy_score(members, truth)
    assert score == pytest.approx(metrics.crps(members, truth), rel=1e-12)
    members, truth = generator.normal(size=(6, 3, 4)), generator.normal(size=(3, 4))
    norms = np.sqrt(((members[:, None] - members[None]) ** 2).sum((2, 3))).sum() / (2 * 6 * 5)
    direct = np.sqrt(((members - truth) ** 2).sum((1, 2))).mean() - norms
    assert metrics.energy_score(members, truth) == pytest.approx(direct, rel=1e-12)


def test_breakeven_is_a_count_or_never():
    assert metrics.breakeven(60, 40, 3.0, 1.0) == 50
    assert metrics.breakeven(60, 41, 3.0, 1.0) == 51
    assert metrics.breakeven(1, 1, 1.0, 1.0) == math.inf
    assert metrics.breakeven(1, 1, 1.0, 2.0) == math.inf


def test_sums_of_ensembles_join_to_the_scores_of_the_whole():
    random = np.random.default_rng(0)
    members, truth = random.normal(size=(5, 2, 12, 16)), random.normal(size=(2, 12, 16))
    halves = [(members[..., :8], truth[..., :8]), (members[..., 8:], truth[..., 8:])]
    found = metrics.calibration_from_sums([metrics.ensemble_sums(*half) for half in halves])
    for channel in range(2):
        m, t = members[:, channel], truth[channel]
        assert found.crps[channel] == pytest.approx(metrics.crps(m, t), rel=1e-12)
        assert found.spread[channel] == pytest.approx(metrics.spread(m), rel=1e-12)
        ratio = found.spread[channel] / found.rmse[channel]
        assert ratio == pytest.approx(metrics.spread_skill(m, t), rel=1e-12)
        histogram = metrics.rank_histogram(m, t) / t.size
        np.testing.assert_allclose(found.ranks[:, channel], histogram, rtol=1e-12)


def test_coverage_of_an_ensemble_of_the_right_law_is_the_expected_one():
    random = np.random.default_rng(1)
    members, truth = random.normal(size=(19, 1, 200, 200)), random.normal(size=(1, 200, 200))
    found = metrics.calibration_from_sums([metrics.ensemble_sums(members, truth)])
    for level in (0.5, 0.9):
        inside, expected = found.coverage(level)
        assert expected == pytest.approx(level, abs=1e-9)
        assert inside == pytest.approx(expected, abs=0.01)


def test_energy_of_patches_is_the_energy_score_of_each():
    random = np.random.default_rng(2)
    members, truth = random.normal(size=(6, 3, 8)), random.normal(size=(3, 8))
    total, count = metrics.energy_sums(members, truth)
    alone = [metrics.energy_score(members[:, p], truth[p]) for p in range(3)]
    assert total / count == pytest.approx(np.mean(alone), rel=1e-12)
