"""Many small periodic grids in one call: the bits of the single run, on any kind of array."""

import numpy as np
import pytest

from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.simulators.gray_scott import GrayScott, advance_batch


def starts(system, shape, count):
    grid = system.grid(shape)
    block = make_blocks(grid, shape, 1).block(0)
    return np.stack([system.initial(block, grid, (0, run)) for run in range(count)])


@pytest.mark.parametrize("shape, steps", [((32, 24), 61), ((5, 6), 23), ((16, 16), 0)])
def test_a_batch_has_the_bits_of_single_runs(shape, steps):
    system = GrayScott(pattern="life", density=5 * 128 * 128 / np.prod(shape))
    states = starts(system, shape, 3)
    blocks = make_blocks(system.grid(shape), shape, 1)
    single = [system.advance(state, steps, Halo(blocks, SerialComm(), 2)) for state in states]
    np.testing.assert_array_equal(advance_batch(system, states, steps), np.stack(single))


def test_a_batch_in_torch_is_the_compiled_one():
    torch = pytest.importorskip("torch")
    system = GrayScott(pattern="waves")
    states = starts(system, (24, 32), 2)
    compiled = advance_batch(system, states.astype(np.float64), 300)
    made = advance_batch(system, torch.from_numpy(states.astype(np.float64)), 300).numpy()
    np.testing.assert_allclose(made, compiled, atol=1e-12)


def test_a_batch_is_periodic_or_refused():
    system = GrayScott(pattern="waves", boundaries="neumann")
    with pytest.raises(ValueError, match="periodic"):
        advance_batch(system, np.zeros((1, 2, 8, 8), np.float32), 1)
