"""POD against numpy's SVD, in both orientations, by three methods, on any number of ranks."""

import numpy as np
import pytest

from scaled_mpi.compressors import MEMBERS
from scaled_mpi.compressors.decompositions import METHODS, Tall, decompose
from scaled_mpi.compressors.pod import Pod, onto_simplex
from scaled_mpi.compressors.snapshot_matrix import from_snapshots, to_snapshots
from scaled_mpi.config import InputError, parse
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.ordered import my_parts, parts_of
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter

CASES = [((16, 24), (16, 24), 3), ((8, 12), (4, 4), 2), ((16, 24), (8, 24), 4)]


def fields(shape, runs, seed=0, frames=5, channels=2):
    """Smooth enough that singular values fall, all of one mass."""
    draw = np.random.default_rng(seed)
    size = int(np.prod(shape)) * channels
    basis = draw.normal(size=(12, size)) * (0.5 ** np.arange(12))[:, None]
    basis -= basis.mean(axis=1, keepdims=True)
    made = 1.0 + draw.normal(size=(runs * frames, 12)) @ basis
    return made.reshape(runs, frames, channels, *shape)


def stored(folder, data):
    grid = Grid(data.shape[3:], 1.0)
    blocks = make_blocks(grid, grid.shape, 1)
    runs = []
    for number, run in enumerate(data):
        name = f"train-{number:04d}"
        with TrajectoryWriter(
            folder, name, blocks, SerialComm(), ("a", "b"), dtype=np.float64
        ) as writer:
            for time, frame in enumerate(run):
                writer.append(time, frame)
        runs.append(Trajectory(folder, name))
    return runs


@pytest.fixture
def shared(tmp_path):
    return world().bcast(tmp_path)


@pytest.mark.mpi
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape,tile,runs", CASES)
def test_modes_are_those_of_numpys_svd(shared, method, shape, tile, runs):
    comm, data = world(), fields(shape, runs)
    if comm.rank == 0:
        stored(shared, data)
    comm.Barrier()
    trajectories = [Trajectory(shared, f"train-{n:04d}") for n in range(runs)]
    spec = parse(Pod, {"factor": list(tile), "rank": 6, "method": method})
    spec.fit(trajectories, comm, shared, None, 0)
    coder = spec.load(shared)

    shots = np.concatenate([to_snapshots(f, tile)[1] for run in data for f in run])
    mean = shots.mean(axis=0)
    _, values, right = np.linalg.svd(shots - mean, full_matrices=False)
    np.testing.assert_allclose(coder.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(coder.singular_values[:6], values[:6], rtol=1e-6)
    overlap = np.abs(np.sum(coder.modes * right[:6].T, axis=0))
    np.testing.assert_allclose(overlap, 1, atol=1e-6)
    np.testing.assert_allclose(coder.modes.T @ coder.modes, np.eye(6), atol=1e-6)
    best = mean + (shots - mean) @ right[:6].T @ right[:6]
    made = coder.decode(coder.encode(data[1, 2]))
    places, wanted = to_snapshots(data[1, 2], tile)
    row = 7 * int(np.prod(places))
    best = from_snapshots(best[row : row + len(wanted)], places, tile, 2)
    np.testing.assert_allclose(made, best, atol=1e-3 if method == "randomized" else 1e-6)
    assert coder.energy == pytest.approx((values[:6] ** 2).sum() / (values**2).sum(), rel=1e-6)


@pytest.mark.mpi
@pytest.mark.parametrize("method", METHODS)
def test_bits_do_not_depend_on_the_ranks(method):
    matrix = np.random.default_rng(1).normal(size=(70, 9)) * 3.0 ** -np.arange(9)
    parts = parts_of(70)

    def spread_over(comm):
        rows = {p: matrix[parts[p].start : parts[p].stop] for p in my_parts(len(parts), comm)}
        return decompose(Tall(comm, len(parts), 9, rows.__getitem__), method, 5, 3)

    for mine, alone in zip(spread_over(world()), spread_over(SerialComm()), strict=True):
        assert np.array_equal(mine, alone)


def test_triangles_keep_the_digits_that_squaring_loses():
    draw = np.random.default_rng(2)
    left, _ = np.linalg.qr(draw.normal(size=(200, 8)))
    right, _ = np.linalg.qr(draw.normal(size=(8, 8)))
    values = 10.0 ** -np.arange(0, 16, 2)
    matrix, parts = (left * values) @ right.T, parts_of(200)
    tall = Tall(SerialComm(), len(parts), 8, lambda p: matrix[parts[p].start : parts[p].stop])
    fine, _ = decompose(tall, "tsqr")
    coarse, _ = decompose(tall, "gram")
    np.testing.assert_allclose(fine, values, rtol=1e-3)
    assert abs(coarse[6] / values[6] - 1) > 1e-3


def test_energy_decides_the_rank_and_equal_masses_are_kept(tmp_path):
    runs = stored(tmp_path, fields((16, 24), 4))
    spec = parse(Pod, {"factor": [16, 24], "energy": 0.99})
    spec.fit(runs, SerialComm(), tmp_path, None, 0)
    coder = spec.load(tmp_path)
    held = np.cumsum(coder.singular_values**2) / np.sum(coder.singular_values**2)
    assert held[coder.rank - 1] >= 0.99 > held[coder.rank - 2]
    latent = np.random.default_rng(0).normal(size=(coder.rank, 1, 1))
    mass = runs[0].read(0).sum()
    assert coder.mass == pytest.approx(mass, rel=1e-12)
    assert coder.decode(latent).sum() == pytest.approx(mass, rel=1e-12)


@pytest.mark.parametrize("mass", ["rescale", "simplex"])
def test_the_root_keeps_densities_positive_and_the_mass_is_restored(tmp_path, mass):
    runs = stored(tmp_path, fields((16, 24), 4) ** 2)
    spec = parse(Pod, {"factor": [16, 24], "rank": 3, "transform": "sqrt", "mass": mass})
    data = fields((16, 24), 4) ** 2
    data *= data[0, 0].sum() / data.sum(axis=(2, 3, 4), keepdims=True)
    runs = stored(tmp_path, data)
    spec.fit(runs, SerialComm(), tmp_path, None, 0)
    coder = spec.load(tmp_path)
    made = coder.decode(coder.encode(data[2, 1]))
    assert made.min() >= 0
    assert made.sum() == pytest.approx(data[0, 0].sum(), rel=1e-12)


def test_the_simplex_projection_is_the_nearest_point():
    values, mass = np.array([0.5, -0.2, 1.4, 0.1]), 1.0
    found = onto_simplex(values, mass)
    np.testing.assert_allclose(found, [0.05, 0, 0.95, 0])
    draw = np.random.default_rng(0)
    others = draw.dirichlet(np.ones(4), 500) * mass
    assert np.sum((found - values) ** 2) <= np.sum((others - values) ** 2, axis=1).min()


@pytest.mark.parametrize(
    "keys,word",
    [
        ({"factor": [5, 5]}, "compressor.factor"),
        ({"factor": [16, 24], "rank": 20}, "rank: 20"),
        ({"factor": [8, 8], "mass": "simplex"}, "compressor.mass"),
        ({"factor": [8, 8], "align": "periodic"}, "compressor.align"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(tmp_path, keys, word):
    runs = stored(tmp_path, fields((16, 24), 2))
    with pytest.raises(InputError, match=word) as caught:
        parse(Pod, keys).fit(runs, SerialComm(), tmp_path, None, 0)
    assert "\n" not in str(caught.value)


def test_a_damaged_model_is_refused(tmp_path):
    runs = stored(tmp_path, fields((16, 24), 2))
    spec = parse(MEMBERS["pod"], {"factor": [16, 24], "rank": 2})
    spec.fit(runs, SerialComm(), tmp_path, None, 0)
    path = tmp_path / "pod.h5"
    whole, number = path.read_bytes(), spec.load(tmp_path).modes[3, 1].tobytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        spec.load(tmp_path)
    changed = bytearray(whole)
    changed[whole.index(number)] ^= 0xFF
    path.write_bytes(bytes(changed))
    with pytest.raises(InputError):
        spec.load(tmp_path)


def pulses(frames=24, cells=(24, 32)):
    """(1, frames, 1, *cells): one pulse that travels round the domain, and swells and shrinks."""
    y, x = (np.minimum(np.arange(n), n - np.arange(n)) for n in cells)
    shape = np.exp(-(y[:, None] ** 2 + x**2) / 8.0)
    made = [(1 + 0.3 * np.sin(t)) * np.roll(shape, (2 * t, 3 * t), (0, 1)) for t in range(frames)]
    return np.array(made)[None, :, None]


@pytest.mark.mpi
def test_a_travelling_pulse_has_one_mode_where_it_is_followed(shared):
    comm, data = world(), pulses()
    if comm.rank == 0:
        store_pulses(shared, data)
    comm.Barrier()
    run = Trajectory(shared, "train-0000")
    keys = {"factor": [24, 32], "energy": 1 - 1e-9}
    ranks = {}
    for align in ("none", "periodic"):
        spec = parse(Pod, {**keys, "align": align})
        spec.fit([run], comm, shared, None, 0)
        comm.Barrier()
        ranks[align] = spec.load(shared).rank
        comm.Barrier()
    assert ranks["periodic"] == 1 and ranks["none"] > 10
    spec.fit([run], comm, shared, None, 0)
    comm.Barrier()
    coder = spec.load(shared)
    assert coder.channels(1) == 5
    codes = np.stack([coder.encode(frame) for frame in data[0]])
    made = np.stack([coder.decode(code) for code in codes])
    np.testing.assert_allclose(made, data[0], atol=1e-7)
    turns = codes[:, 2, 0, 0] + 1j * codes[:, 3, 0, 0]  # along x, 3 cells of 32 a frame
    np.testing.assert_allclose(turns[1:] / turns[:-1], np.exp(2j * np.pi * 3 / 32), atol=1e-12)


def store_pulses(folder, data):
    grid = Grid(data.shape[3:], 1.0)
    with TrajectoryWriter(
        folder,
        "train-0000",
        make_blocks(grid, grid.shape, 1),
        SerialComm(),
        ("density",),
        dtype=np.float64,
    ) as writer:
        for time, frame in enumerate(data[0]):
            writer.append(time, frame)


def test_an_autoregression_follows_an_aligned_pulse_where_it_has_not_been(tmp_path):
    from scaled_mpi.surrogates.autoregression import Linear, Sums

    data = pulses()
    store_pulses(tmp_path, data)
    spec = parse(Pod, {"factor": [24, 32], "rank": 1, "align": "periodic"})
    spec.fit([Trajectory(tmp_path, "train-0000")], SerialComm(), tmp_path, None, 0)
    coder = spec.load(tmp_path)
    codes = np.stack([coder.encode(frame) for frame in data[0]])
    weights, _ = Sums.of_run(codes[:16], 2, (0, 0), (True, True)).solve(1e-9)
    later = Linear(weights, 2, (0, 0)).forecast(codes[14:16], 8, (True, True))
    made = np.stack([coder.decode(code) for code in later])
    np.testing.assert_allclose(made, data[0, 16:], atol=1e-3)
