"""The random forcing of Gray-Scott: exact moments, any split, members, no noise = no change."""

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Blocks, make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.halo import Halo, gather_field
from scaled_mpi.simulators.gray_scott import GrayScott, advance_together
from scaled_mpi.simulators.noise import Kicks


def run(system, blocks, comm, steps=20, members=None, seed=(3, 1)):
    """A noisy run of `steps` steps, or members of it, my block of them."""
    block = blocks.block(comm.rank)
    state = system.initial(block, blocks.grid, seed)
    exchange = Halo(blocks, comm, 4)
    kicks = system.kicks(block, blocks.grid, seed, members)
    if members is None:
        return system.advance(state, steps, exchange, kicks)
    together = np.stack([state] * len(members))
    return advance_together([system] * len(members), together, steps, exchange, kicks)


def whole(system, shape):
    return Blocks(system.grid(shape), shape, (1,) * len(shape))


def test_without_rates_v_is_geometric_brownian_motion():
    system = GrayScott(F=0.0, k=0.0, Du=0.0, Dv=0.0, dt=0.5, clamp=False, noise=0.2)
    blocks = whole(system, (256, 256))
    state = np.stack([np.zeros((256, 256)), np.full((256, 256), 0.4)])
    kicks = system.kicks(blocks.block(0), blocks.grid, (0, 0))
    after = system.advance(state, 40, Halo(blocks, SerialComm(), 1, np.float64), kicks)
    logs, span = np.log(after[1] / 0.4), 40 * 0.5
    assert logs.mean() == pytest.approx(-0.5 * 0.2**2 * span, abs=5 * 0.2 * span**0.5 / 256)
    assert logs.std() == pytest.approx(0.2 * span**0.5, rel=0.015)
    assert not after[0].any()


def test_no_noise_is_the_simulator_without_noise_to_the_last_bit():
    plain, forced = GrayScott(), GrayScott(noise=0.0, noise_every=7)
    blocks = whole(plain, (32, 32))
    assert plain.kicks(blocks.block(0), blocks.grid, (0, 0)) is None
    np.testing.assert_array_equal(
        run(plain, blocks, SerialComm()), run(forced, blocks, SerialComm())
    )


def test_members_differ_and_member_0_is_the_run_alone():
    system = GrayScott(noise=0.05)
    blocks = whole(system, (32, 32))
    alone = run(system, blocks, SerialComm())
    together = run(system, blocks, SerialComm(), members=[0, 1, 2])
    np.testing.assert_array_equal(together[0], alone)
    changes = [np.abs(together[a] - together[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert min(changes) > 0.01
    other = run(system, blocks, SerialComm(), seed=(3, 2))
    assert np.abs(other - alone).max() > 0.01


def test_kicks_can_be_taken_up_where_they_were_left():
    system = GrayScott(noise=0.05)
    blocks = whole(system, (8, 8))
    first = Kicks(blocks.block(0), (8, 8), (3, 1))
    fields = [first() for _ in range(5)]
    later = system.kicks(blocks.block(0), blocks.grid, (3, 1), steps=30)
    np.testing.assert_array_equal(later(), fields[3])
    assert np.abs(np.corrcoef([field.ravel() for field in fields]) - np.eye(5)).max() < 0.5


def test_a_span_that_noise_does_not_divide_is_refused():
    system = GrayScott(noise=0.05)
    with pytest.raises(InputError, match="surrogate.jump: 15 .* noise acts every 10 steps"):
        system.check_steps("surrogate.jump", 15)
    GrayScott().check_steps("surrogate.jump", 15)


@pytest.mark.mpi
def test_a_noisy_run_has_the_same_bits_on_any_split():
    system, comm = GrayScott(noise=0.05), world()
    grid = system.grid((32, 32))
    blocks = make_blocks(grid, 8, comm.size)
    mine = run(system, blocks, comm)
    together = gather_field(blocks, comm, mine)
    if comm.rank == 0:
        alone = run(system, whole(system, (32, 32)), SerialComm())
        np.testing.assert_array_equal(together, alone)
