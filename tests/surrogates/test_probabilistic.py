"""Samples in one pass: the right mean and spread, one sample over all tiles, the same weights."""

import numpy as np
import pytest

from scaled_mpi.config import InputError, parse
from scaled_mpi.coupling.chance import chance_of
from scaled_mpi.coupling.schwarz import March
from scaled_mpi.learning.settings import Training
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.surrogates import MEMBERS
from scaled_mpi.surrogates.probabilistic import Probabilistic
from tests.surrogates.forced import DECAY, FORCE, forced, moments, training
from tests.surrogates.test_stepper import write

SMALL = {
    "width": 16,
    "reach": 2,
    "depth": 2,
    "patch": 16,
    "held_out": 1,
    "coarsen": 1,
    "noises": 2,
    "scales": (1, 4),
}


def fitted(folder, shape, comm=None, steps=4, **keys):
    """The operator of a briefly trained one."""
    runs = write(folder, shape, runs=4, frames=24, law=forced)
    one = Probabilistic(**{**SMALL, "training": training(steps), **keys})
    one.fit(runs, comm or SerialComm(), folder, None, 3)
    return one.load(folder)


def test_mean_and_spread_of_a_law_that_is_known_are_learned(tmp_path):
    operator = fitted(tmp_path, (64,), steps=120, samples=4, scales=(1,))
    field = np.random.default_rng(1).uniform(-0.8, 0.8, (2, 64)).astype(np.float32)
    mean, spread = moments(operator, field, 100)
    assert spread.mean() == pytest.approx(FORCE, rel=0.15)
    assert np.sqrt(np.mean((mean - DECAY * field) ** 2)) < 0.12


def marched(operator, blocks, comm, jumps=2, member=0):
    """Fields of all jumps of one member, from waves."""
    block = blocks.block(comm.rank)
    cells = np.arange(block.start[0], block.stop[0])
    start = np.stack([np.sin(cells / 5), np.cos(cells / 7)]).astype(np.float32)
    march = March(
        operator,
        Halo(blocks, comm, tuple(operator.reach)),
        condition=np.zeros(0),
        scale=np.ones(2),
        chance=chance_of(operator, blocks, comm.rank, 9, member),
    )
    return [jump.field for jump in march.jumps([start], jumps)]


@pytest.mark.mpi
def test_a_sample_over_many_tiles_is_the_sample_in_one_piece_on_any_ranks(mpi_tmp_path):
    from pathlib import Path

    comm = world()
    folder = Path(mpi_tmp_path) / str(comm.rank)
    operator = fitted(folder, (32,), SerialComm())
    from scaled_mpi.parallel.halo import gather_field
    from scaled_mpi.parallel.store import Trajectory

    grid = Trajectory(folder, "train-0000").grid
    blocks = make_blocks(grid, 8, comm.size)
    together = [gather_field(blocks, comm, field) for field in marched(operator, blocks, comm)]
    if comm.rank == 0:
        alone = SerialComm()
        tiled = marched(operator, make_blocks(grid, 8, 1), alone)
        np.testing.assert_array_equal(np.stack(together), np.stack(tiled))
        whole = marched(operator, make_blocks(grid, 32, 1), alone)
        np.testing.assert_allclose(tiled[0], whole[0], atol=2e-6)
        other = marched(operator, make_blocks(grid, 8, 1), alone, member=1)
        assert np.abs(other[0] - tiled[0]).max() > 1e-3


@pytest.mark.mpi
def test_weights_have_the_same_bits_on_any_number_of_ranks(mpi_tmp_path):
    from pathlib import Path

    comm, root = world(), Path(mpi_tmp_path)
    one = Probabilistic(**SMALL, training=training(6))
    if comm.rank == 0:
        write(root, (32,), runs=4, frames=24, law=forced)
    comm.barrier()
    from scaled_mpi.parallel.store import Trajectory

    runs = [Trajectory(root, f"train-{run:04d}") for run in range(4)]
    one.fit(runs, comm, root / "together", None, 3)
    if comm.rank == 0:
        one.fit(runs, SerialComm(), root / "alone", None, 3)
        pair = [(root / name / "best.safetensors").read_bytes() for name in ("together", "alone")]
        assert pair[0] == pair[1]
    comm.barrier()


def test_a_batch_larger_than_the_data_set_is_refused(tmp_path):
    huge = training(4, batch=4096, micro_batches=4)
    with pytest.raises(InputError, match="training.batch: 4096 is not allowed: it is larger"):
        fitted(tmp_path, (32,), training=huge)
    assert not (tmp_path / "best.safetensors").exists()


def test_data_that_are_not_finite_are_refused(tmp_path):
    def broken(*of):
        frames = forced(*of)
        frames[3][0, 5] = np.nan
        return frames

    runs = write(tmp_path, (32,), runs=2, frames=24, law=broken)
    with pytest.raises(InputError, match="data: values that are not finite are not allowed"):
        Probabilistic(**SMALL, training=training(4)).fit(runs, SerialComm(), tmp_path, None, 3)


def test_weights_of_another_kind_or_size_are_refused(tmp_path):
    fitted(tmp_path, (32,))
    with pytest.raises(InputError, match="weights of a probabilistic. Needed: those of a stepper"):
        MEMBERS["stepper"]().load(tmp_path)
    with pytest.raises(
        InputError, match="weights of a probabilistic. Needed: those of a diffusion"
    ):
        MEMBERS["diffusion"]().load(tmp_path)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"samples": 1}, "samples"),
        ({"scales": [5]}, "surrogate.scales"),
        ({"masked": True}, "masked"),
        ({"alpha": 1.5}, "alpha"),
        ({"noise": 0.1}, "surrogate.noise"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys, words):
    with pytest.raises(InputError, match=words):
        parse(Probabilistic, {"kind": "probabilistic", **keys})


def test_the_default_training_is_one_that_the_loop_takes():
    assert isinstance(Probabilistic().training, Training)
