"""MVAR against least squares, systems of known coefficients, and the coupling over tiles."""

import numpy as np
import pytest

from scaled_mpi.config import InputError, parse
from scaled_mpi.coupling.schwarz import March
from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.surrogates import MEMBERS
from scaled_mpi.surrogates.autoregression import Linear, Sums, ringed
from scaled_mpi.surrogates.mvar import Mvar
from scaled_mpi.surrogates.selection import Selection, choose


def system(lag=2, channels=3, reach=(0, 0), seed=0, size=0.8):
    """A stable autoregression with an intercept."""
    draw = np.random.default_rng(seed)
    neighbours = int(np.prod([2 * r + 1 for r in reach]))
    weights = draw.normal(size=(1 + lag * neighbours * channels, channels))
    model = Linear(weights, lag, reach)
    return model.bounded(size)


def histories(model, runs, frames, cells=(1, 1), seed=0, noise=0.0):
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(runs):
        run = list(draw.normal(size=(model.lag, model.channels, *cells)))
        while len(run) < frames:
            window = ringed(np.stack(run[-model.lag :]), model.reach, (True,) * len(cells))
            run.append(model.step(window) + noise * draw.normal(size=run[0].shape))
        made.append(np.stack(run))
    return made


def stored(folder, runs, spacing=1.0, boundary="periodic"):
    cells = runs[0].shape[2:]
    blocks = make_blocks(Grid(cells, spacing, Boundary(boundary)), cells, 1)
    found = []
    for number, run in enumerate(runs):
        name = f"train-{number:04d}"
        channels = [f"z{i}" for i in range(run.shape[1])]
        with TrajectoryWriter(
            folder, name, blocks, SerialComm(), channels, dtype=np.float64
        ) as writer:
            for time, frame in enumerate(run):
                writer.append(time, frame)
        found.append(Trajectory(folder, name))
    return found


@pytest.mark.parametrize("reach,cells", [((0, 0), (1, 1)), ((1, 1), (5, 4)), ((1,), (6,))])
def test_known_coefficients_are_found_exactly(tmp_path, reach, cells):
    truth = system(reach=reach, size=1.0)
    runs = stored(tmp_path, histories(truth, 60, 7, cells))
    spec = parse(Mvar, {"memory": 2, "reach": list(reach), "alpha": 0.0})
    spec.fit(runs, SerialComm(), tmp_path, None, 0)
    found = spec.load(tmp_path)
    np.testing.assert_allclose(found.model.weights, truth.weights, atol=1e-7)
    assert found.radius == pytest.approx(1.0, rel=1e-5)
    assert found.meta["train_r2"] == pytest.approx(1.0)


def test_ridge_spares_the_intercept_and_windows_stay_in_their_run():
    runs = histories(system(), 5, 12, noise=0.5)
    alpha, lag = 2.5, 2
    rows, wanted = [], []
    for run in runs:
        flat = run[:, :, 0, 0]
        for t in range(lag, len(flat)):
            rows.append(np.concatenate([[1.0], flat[t - 1], flat[t - 2]]))
            wanted.append(flat[t])
    # Ridge as least squares with rows of sqrt(alpha); none for the intercept.
    extra = np.sqrt(alpha) * np.eye(7)[1:]
    expected, *_ = np.linalg.lstsq(
        np.vstack([rows, extra]), np.vstack([wanted, np.zeros((6, 3))]), rcond=None
    )
    parts = [Sums.of_run(run, lag, (0, 0), (True, True)) for run in runs]
    total = sum(parts[1:], parts[0])
    found, covariance = total.solve(alpha)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    error = np.array(wanted) - np.array(rows) @ found
    np.testing.assert_allclose(covariance, error.T @ error / (50 - 7), atol=1e-9)
    without = total - parts[2]
    again = parts[0] + parts[1] + parts[3] + parts[4]
    np.testing.assert_allclose(without.solve(alpha)[0], again.solve(alpha)[0], atol=1e-9)
    np.testing.assert_allclose(total.path([alpha])[0], expected, atol=1e-9)
    few = [Sums.of_run(run[:, :2], lag, (0, 0), (True, True)) for run in runs]
    np.testing.assert_allclose(
        total.leading(2, 3, lag).path([alpha])[0], sum(few[1:], few[0]).solve(alpha)[0], atol=1e-9
    )
    packed = Sums.unpacked(total.packed(), 7, 3)
    assert np.array_equal(packed.gram, total.gram) and packed.rows == 50


def test_the_radius_is_that_of_the_companion_matrix_and_can_be_bounded():
    model = Linear(np.array([[0.3], [1.2], [-0.2]]), 2, (0, 0))
    assert model.radius() == pytest.approx(max(abs(np.roots([1, -1.2, 0.2]))))
    assert model.bounded(0.5).radius() == pytest.approx(0.5)
    assert model.bounded(2.0) is model


@pytest.mark.mpi
def test_on_tiles_it_couples_as_if_there_were_no_ranks(tmp_path):
    comm = world()
    folder = comm.bcast(tmp_path)
    truth = system(lag=2, channels=3, reach=(1, 1), size=0.95)
    if comm.rank == 0:
        stored(folder, histories(truth, 40, 7, (6, 4), noise=0.1))
    comm.Barrier()
    runs = [Trajectory(folder, f"train-{n:04d}") for n in range(40)]
    spec = parse(Mvar, {"memory": 3, "reach": 1, "alpha": 1e-3})
    spec.fit(runs, comm, folder, None, 0)
    operator = spec.load(folder)
    start = np.random.default_rng(5).normal(size=(3, 3, 8, 6))
    whole = operator.model.forecast(start, 5, (True, True))
    blocks = make_blocks(Grid((8, 6)), (1, 1), comm.size)
    part = first_ranks(comm, blocks.ranks)
    if part is None:
        return
    mine = (..., *blocks.block(part.rank).slices)
    march = March(
        operator,
        Halo(blocks, part, (1, 1), np.float64),
        condition=np.zeros(0),
        scale=np.ones(3),
    )
    for jump in march.jumps([frame[mine] for frame in start], 5):
        np.testing.assert_allclose(jump.field, whole[jump.number - 1][mine], atol=1e-12)
        assert jump.sweeps == 1


@pytest.mark.mpi
def test_the_fit_has_the_same_bits_on_any_ranks(tmp_path):
    comm = world()
    folder = comm.bcast(tmp_path)
    if comm.rank == 0:
        stored(folder, histories(system(), 20, 9, noise=0.3))
    comm.Barrier()
    runs = [Trajectory(folder, f"train-{n:04d}") for n in range(20)]
    spec = parse(Mvar, {"memory": 2, "selection": {"ranks": [1, 2, 3], "alphas": [1e-6, 1.0]}})
    spec.fit(runs, comm, folder, None, 0)
    (alone := folder / f"alone{comm.rank}").mkdir()
    spec.fit(runs, SerialComm(), alone, None, 0)
    assert (alone / "mvar.h5").read_bytes() == (folder / "mvar.h5").read_bytes()
    comm.Barrier()


def test_the_choice_finds_the_lag_and_the_rank_that_matter():
    truth = system(lag=2, channels=3, size=0.97)
    runs = []
    for run in histories(truth, 24, 20, noise=0.02):
        junk = np.random.default_rng(len(runs)).normal(size=(20, 5, 1, 1)) * 0.05
        runs.append(np.concatenate([run, junk], axis=1))
    spec = parse(Selection, {"ranks": [1, 3, 8], "lags": [1, 2, 4], "alphas": [1e-6, 1e-2]})
    (rank, lag, _), scores = choose(spec, runs, 4, (0, 0), (True, True), SerialComm())
    assert (rank, lag) == (3, 2)
    assert len(scores) == 18 and scores[3, 2, 1e-6] > scores[1, 2, 1e-6]


def test_an_ensemble_has_the_residual_covariance(tmp_path):
    truth = system(lag=1, channels=2, size=0.5)
    runs = stored(tmp_path, histories(truth, 200, 8, noise=0.3))
    spec = parse(Mvar, {"memory": 1, "alpha": 1e-9})
    spec.fit(runs, SerialComm(), tmp_path, None, 0)
    operator = spec.load(tmp_path)
    np.testing.assert_allclose(operator.covariance, 0.09 * np.eye(2), atol=0.01)
    window, mask = np.zeros((1, 2, 1, 1)), np.ones((1, 1))
    base = operator.advance(window, mask, np.zeros(0))
    draws = np.random.default_rng(0).normal(size=(4000, 2, 1, 1))
    made = [operator.advance(window, mask, np.zeros(0), noise=d) - base for d in draws]
    np.testing.assert_allclose(
        np.cov(np.array(made)[:, :, 0, 0].T), operator.covariance, atol=0.01
    )


@pytest.mark.parametrize(
    "keys,frames,word",
    [
        ({"alpha": 0.0, "memory": 4}, 6, "surrogate.alpha"),
        ({"rank": 9}, 9, "surrogate.rank"),
        ({"memory": 9}, 9, "surrogate.memory"),
        ({"memory": 2, "selection": {"folds": 9}}, 9, "surrogate.selection.folds"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(tmp_path, keys, frames, word):
    runs = stored(tmp_path, histories(system(), 3, frames))
    with pytest.raises(InputError, match=word) as caught:
        parse(MEMBERS["mvar"], keys).fit(runs, SerialComm(), tmp_path, None, 0)
    assert "\n" not in str(caught.value)
