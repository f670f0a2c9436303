"""The stepper: a local operator of exactly the reach it declares, that learns."""

from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.learning.settings import Training
from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.surrogates import MEMBERS
from scaled_mpi.surrogates.stepper import Stepper

TINY = Training(
    steps=3,
    batch=2,
    micro_batches=2,
    learning_rate=4e-3,
    warmup=1,
    ema=0.5,
    validate_every=3,
    checkpoint_every=3,
    device="cpu",
)


def smooth(shape: tuple[int, ...], seed: int, channels: int = 2) -> np.ndarray:
    """(channels, *shape) of periodic random waves, float32."""
    random = np.random.default_rng(seed)
    field = np.zeros((channels, *shape))
    axes = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
    for channel in range(channels):
        for _ in range(6):
            wave = sum(random.integers(-5, 6) * axis for axis in axes)
            field[channel] += np.cos(2 * np.pi * (wave + random.random()))
    return field.astype(np.float32)


def decaying(shape: tuple[int, ...], seed: int, frames: int, rate: float) -> list[np.ndarray]:
    """Frames of the heat equation (three explicit steps a frame) plus a reaction c - c^3."""
    field, kept = smooth(shape, seed), []
    for _ in range(frames):
        kept.append(field.astype(np.float32))
        for _ in range(3):
            near = sum(np.roll(field, s, axis) for axis in range(1, field.ndim) for s in (1, -1))
            laplacian = near - 2 * (field.ndim - 1) * field
            field = field + 0.1 * laplacian + rate * (field - field**3 / 4)
    return kept


def moving(shape: tuple[int, ...], seed: int, frames: int, rate: float) -> list[np.ndarray]:
    """Frames of a field that moves two cells a frame along the last axis."""
    return [np.roll(smooth(shape, seed), 2 * frame, -1) for frame in range(frames)]


def write(
    folder: Path,
    shape: tuple[int, ...],
    runs: int = 3,
    frames: int = 8,
    boundary: str = "periodic",
    rates: tuple[float, ...] = (0.1,),
    law=decaying,
) -> list[Trajectory]:
    """Runs of a law in a store, and their readers."""
    grid = Grid(shape, 1.0, Boundary(boundary))
    blocks = make_blocks(grid, shape, 1)
    for run in range(runs):
        rate = rates[run % len(rates)]
        attributes = {"condition": {"rate": rate, "other": 1.0}, "jump": 50}
        with TrajectoryWriter(
            folder, f"train-{run:04d}", blocks, SerialComm(), ("a", "b"), attributes=attributes
        ) as writer:
            for frame, field in enumerate(law(shape, run, frames, rate)):
                writer.append(frame, field)
    return [Trajectory(folder, f"train-{run:04d}") for run in range(runs)]


def fitted(folder: Path, shape: tuple[int, ...], runs: list[Trajectory], **keys):
    """The operator of a briefly trained stepper, its last layers shaken so that nothing is 0."""
    keys = {"width": 8, "patch": 16, "reach": 8, "held_out": 1, "training": TINY} | keys
    stepper = Stepper(**keys)
    stepper.fit(runs, SerialComm(), folder, None, seed=3)
    operator = stepper.load(folder)
    import torch

    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in operator.network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return operator


@pytest.fixture(scope="module", params=[(32,), (32, 48), (16, 16, 24)], ids=["1d", "2d", "3d"])
def domain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A shape, and an operator with memory 2 and three conditions' worth of runs on it."""
    shape, folder = request.param, tmp_path_factory.mktemp("stepper")
    runs = write(folder, shape, rates=(0.1, 0.2))
    reach = 8 if len(shape) < 3 else 4
    operator = fitted(folder, shape, runs, memory=2, reach=reach, patch=8, halos=(2,))
    return shape, operator


def windows(fields: np.ndarray, tile: tuple[int, ...], reach: tuple[int, ...]):
    """(start, window) of every tile of a periodic domain; fields (M, C, *shape)."""
    counts = [n // t for n, t in zip(fields.shape[2:], tile, strict=True)]
    for index in np.ndindex(*counts):
        start = [i * t for i, t in zip(index, tile, strict=True)]
        spans = [
            np.arange(s - r, s + t + r) % n
            for s, t, r, n in zip(start, tile, reach, fields.shape[2:], strict=True)
        ]
        yield start, fields[(slice(None), slice(None), *np.ix_(*spans))]


def apply(operator, fields: np.ndarray, tile: tuple[int, ...], rate: float = 0.15) -> np.ndarray:
    """One jump of a periodic domain tile by tile, everything known."""
    made = np.empty_like(fields[-1])
    told = operator.condition({"rate": rate, "other": 1.0})
    for start, window in windows(fields, tile, operator.reach):
        place = tuple(slice(s, s + t) for s, t in zip(start, tile, strict=True))
        mask = np.ones(window.shape[2:], np.float32)
        made[(slice(None), *place)] = operator.advance(window, mask, told)
    return made


def two_frames(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack([smooth(shape, 11), smooth(shape, 12)])


def test_one_large_tile_equals_many_small_ones(domain) -> None:
    shape, operator = domain
    fields = two_frames(shape)
    whole = apply(operator, fields, shape)
    tiles = apply(operator, fields, tuple(8 for _ in shape))
    assert np.std(whole - fields[-1]) > 0.01
    np.testing.assert_allclose(tiles, whole, atol=2e-5)


def test_shifting_by_the_coarse_cell_shifts_the_answer(domain) -> None:
    shape, operator = domain
    fields = two_frames(shape)
    axes = tuple(range(2, fields.ndim))
    shift = tuple(operator.coarsen * (k + 1) for k in range(len(shape)))
    moved = apply(operator, np.roll(fields, shift, axes), shape)
    expected = np.roll(apply(operator, fields, shape), shift, tuple(a - 1 for a in axes))
    np.testing.assert_allclose(moved, expected, atol=2e-5)


def test_the_reach_is_what_is_declared(domain) -> None:
    """A cell that far away matters, one coarse cell further none does (bit for bit)."""
    shape, operator = domain
    (_, window), *_ = windows(two_frames(shape), tuple(8 for _ in shape), operator.reach)
    told = operator.condition({"rate": 0.1, "other": 1.0})
    mask = np.ones(window.shape[2:], np.float32)
    before = operator.advance(window, mask, told)
    for axis, reach in enumerate(operator.reach):
        poked = window.copy()
        place = [slice(None)] * window.ndim
        place[axis + 2] = slice(0, 1)
        poked[tuple(place)] += 1.0
        change = np.abs(operator.advance(poked, mask, told) - before)
        lines = np.moveaxis(change, axis + 1, 0).reshape(8, -1).max(1)
        assert lines[0] > 0
        assert (lines[operator.coarsen :] == 0).all(), f"reach {reach} is exceeded"


def test_what_the_mask_hides_does_not_matter(domain) -> None:
    shape, operator = domain
    (_, window), *_ = windows(two_frames(shape), tuple(8 for _ in shape), operator.reach)
    told = operator.condition({"rate": 0.1, "other": 1.0})
    mask = np.zeros(window.shape[2:], np.float32)
    mask[tuple(slice(r - 2, r + 8 + 2) for r in operator.reach)] = 1.0
    ring = mask.copy()
    ring[tuple(slice(r, r + 8) for r in operator.reach)] = 0.0
    other = window + (1.0 - mask) * 7.0
    future = (window[-1] * ring, ring)
    elsewhere = (window[-1] * ring + (1.0 - ring) * 3.0, ring)
    plain = operator.advance(window, mask, told)
    assert np.array_equal(plain, operator.advance(other, mask, told))
    swept = operator.advance(window, mask, told, future)
    assert np.array_equal(swept, operator.advance(other, mask, told, elsewhere))
    assert not np.array_equal(plain, swept)
    assert not np.array_equal(plain, operator.advance(window, np.ones_like(mask), told))


def test_calls_repeat_bit_for_bit_and_conditions_count(domain) -> None:
    shape, operator = domain
    fields = two_frames(shape)
    once = apply(operator, fields, tuple(8 for _ in shape))
    assert np.array_equal(once, apply(operator, fields, tuple(8 for _ in shape)))
    assert not np.array_equal(once, apply(operator, fields, tuple(8 for _ in shape), rate=0.3))
    assert operator.conditions == ("rate",)  # `other` is the same in every run
    with pytest.raises(InputError, match="without rate are not allowed"):
        operator.condition({"other": 1.0})


def test_float64_comes_back_as_float64(domain) -> None:
    shape, operator = domain
    fields = two_frames(shape).astype(np.float64)
    assert apply(operator, fields, shape).dtype == np.float64


def test_a_short_training_beats_persistence(tmp_path: Path) -> None:
    runs = write(tmp_path, (32, 32), runs=16, frames=4, law=moving)
    training = Training(
        steps=120,
        batch=2,
        micro_batches=2,
        learning_rate=1e-2,
        warmup=10,
        ema=0.9,
        validate_every=120,
        checkpoint_every=120,
        device="cpu",
    )
    stepper = Stepper(
        width=16,
        reach=4,
        depth=2,
        patch=16,
        held_out=1,
        full=0.8,
        halos=(2,),
        symmetric=False,
        training=training,
    )
    stepper.fit(runs, SerialComm(), tmp_path, None, seed=1)
    operator = stepper.load(tmp_path)
    truth = moving((32, 32), 77, 4, 0.1)
    made = apply(operator, np.stack(truth[2:3]), (16, 16))
    persistence = np.sqrt(np.mean((truth[2] - truth[3]) ** 2))
    assert np.sqrt(np.mean((made - truth[3]) ** 2)) < 0.5 * persistence


def test_errors_of_a_chain_are_those_of_its_jumps(tmp_path: Path) -> None:
    """`rolled_errors` against jumps made one by one, each wrapped by numpy."""
    import torch

    from scaled_mpi.learning.losses import rolled_errors

    shape, runs = (16, 24), write(tmp_path, (16, 24), law=moving)
    operator = fitted(
        tmp_path,
        shape,
        runs,
        memory=2,
        masked=False,
        rollout=3,
        coarsen=2,
        reach=4,
    )
    frames = np.random.default_rng(0).normal(size=(1, 5, 2, *shape)).astype(np.float32)
    expected, window = [], frames[0, :2]
    for jump in (1, 2, 3):
        around = np.pad(window, ((0, 0), (0, 0), (4, 4), (4, 4)), mode="wrap")
        with torch.no_grad():
            newest = operator.network(torch.from_numpy(around[None]))[0].numpy()
        expected.append(np.mean((newest - frames[0, 1 + jump]) ** 2) / jump)
        window = np.stack([window[1], newest])
    found = rolled_errors(operator.network, torch.from_numpy(frames), 2, None)
    np.testing.assert_allclose([one.item() for one in found], expected, rtol=1e-4)


@pytest.mark.parametrize("boundary", ["neumann", "dirichlet"])
def test_bounded_domains_train(tmp_path: Path, boundary: str) -> None:
    runs = write(tmp_path, (20, 28), boundary=boundary)
    operator = fitted(tmp_path, (20, 28), runs, patch=24, reach=4, pushforward=2)
    assert operator.reach == (4, 4)


def test_a_plain_stepper_takes_no_mask(tmp_path: Path) -> None:
    runs = write(tmp_path, (32,), runs=1, frames=20)
    operator = fitted(tmp_path, (32,), runs, masked=False, reach=4, noise=0.01)
    window = smooth((24,), 1)[None]
    mask = np.ones(24, np.float32)
    assert operator.advance(window, mask, operator.condition({})).shape == (2, 16)
    mask[0] = 0
    with pytest.raises(ValueError, match="whole reach"):
        operator.advance(window, mask, operator.condition({}))


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"reach": 7}, "surrogate.reach"),
        ({"patch": 30}, "surrogate.patch"),
        ({"depth": 3}, "surrogate.depth"),
        ({"reach": (8, 6, 3)}, "surrogate.reach"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(keys: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Stepper(**keys)


def test_tiles_and_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    runs = write(tmp_path, (32,))
    operator = fitted(tmp_path, (32,), runs, reach=4)
    with pytest.raises(InputError, match="domain.tile"):
        operator.advance(np.zeros((1, 2, 23), np.float32), np.ones(23), np.zeros(0))
    with pytest.raises(InputError, match="surrogate.jump"):
        Stepper(jump=25).fit(runs, SerialComm(), tmp_path, None, 0)
    with pytest.raises(InputError, match="no run"):
        Stepper().fit([], SerialComm(), tmp_path, None, 0)
    with pytest.raises(InputError, match="frames"):
        Stepper(memory=9, training=TINY).fit(runs, SerialComm(), tmp_path / "b", None, 0)


def test_the_family_names_it() -> None:
    assert MEMBERS["stepper"] is Stepper


@pytest.mark.mpi
def test_weights_are_the_same_on_any_number_of_ranks(mpi_tmp_path: Path) -> None:
    """Trained by all ranks together, and by each alone: the same bits."""
    comm = world()
    if comm.rank == 0:
        write(mpi_tmp_path, (32, 32))
    comm.Barrier()
    runs = [Trajectory(mpi_tmp_path, f"train-{run:04d}") for run in range(3)]
    training = TINY.model_copy(update={"batch": 4, "micro_batches": 4})
    stepper = Stepper(width=8, patch=16, held_out=1, training=training)
    stepper.fit(runs, comm, mpi_tmp_path / "together", None, seed=3)
    alone = mpi_tmp_path / f"alone{comm.rank}"
    stepper.fit(runs, SerialComm(), alone, None, seed=3)
    comm.Barrier()
    together = stepper.load(mpi_tmp_path / "together").network.state_dict()
    for name, tensor in stepper.load(alone).network.state_dict().items():
        assert np.array_equal(tensor.numpy(), together[name].numpy()), name
