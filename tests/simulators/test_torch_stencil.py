"""The torch stencil against the compiled one, on a CPU, and its exchange against the halo."""

import numpy as np
import pytest

from scaled_mpi.parallel.blocks import Blocks, Boundary, Grid
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.simulators.gray_scott import GrayScott

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("shape, width", [((40,), 4), ((24, 36), 5), ((8, 10, 12), 2)])
@pytest.mark.parametrize("boundaries", ["periodic", "neumann", "dirichlet"])
def test_torch_equals_the_compiled_kernel(shape, width, boundaries):
    from scaled_mpi.simulators.torch_stencil import DeviceHalo

    system = GrayScott(pattern="spots", boundaries=boundaries, boundary_value=0.1)
    grid = system.grid(shape)
    blocks = Blocks(grid, shape, (1,) * len(shape))
    state = system.initial(blocks.block(0), grid, 4)
    expected = system.advance(state, 50, Halo(blocks, SerialComm(), width))
    result = system.advance(torch.from_numpy(state.copy()), 50, DeviceHalo(grid, width))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_the_ring_on_the_device_is_the_ring_of_the_halo():
    from scaled_mpi.simulators.torch_stencil import DeviceHalo

    grid = Grid((6, 8, 5), 1.0, (Boundary(), Boundary("dirichlet", 0.3), Boundary("neumann")))
    field = np.random.default_rng(0).random((3, 2, *grid.shape))
    halo = Halo(Blocks(grid, grid.shape, (1, 1, 1)), SerialComm(), (2, 3, 1), np.float64)
    device = DeviceHalo(grid, (2, 3, 1))
    np.testing.assert_array_equal(device(torch.from_numpy(field)).numpy(), halo(field))
