"""The local network and the optimiser that suits it, against what they claim exactly."""

import pytest
import torch

from scaled_mpi.config import InputError
from scaled_mpi.learning.muon import Muon, orthogonalise
from scaled_mpi.learning.networks.convolution import (
    LocalNetwork,
    crop,
    gather,
    kernels,
    spread,
)

SHAPES = [(8,), (8, 12), (4, 8, 12)]


@pytest.mark.parametrize("shape", SHAPES)
def test_spread_undoes_gather_and_blocks_become_channels(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *shape)
    coarse = gather(x, 2)
    assert coarse.shape == (2, 3 * 2 ** len(shape), *(n // 2 for n in shape))
    assert torch.equal(spread(coarse, 2), x)
    first = x[(0, 0, *(slice(0, 2) for _ in shape))]
    assert torch.equal(
        coarse[(0, slice(0, 2 ** len(shape)), *(0 for _ in shape))], first.flatten()
    )


def test_gather_of_two_axes_is_torch_s_pixel_unshuffle() -> None:
    x = torch.randn(2, 3, 8, 12)
    assert torch.equal(gather(x, 2), torch.nn.functional.pixel_unshuffle(x, 2))


def test_kernels_spend_the_reach_of_every_axis() -> None:
    assert kernels((8, 4), 2, 4) == [(3, 3), (3, 3), (3, 1), (3, 1)]
    for reach, depth in (((7,), 4), ((8,), 3)):
        with pytest.raises(InputError):
            kernels(reach, 2, depth)


@pytest.mark.parametrize("reach", [(4,), (4, 8), (4, 2, 4)])
def test_a_cut_window_gives_the_cut_answer(reach: tuple[int, ...]) -> None:
    """Valid convolutions: the same network on a part is the part of the network on the whole."""
    torch.manual_seed(0)
    network = LocalNetwork(3, 2, reach, width=8, conditions=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        x, told = torch.randn(1, 3, *(2 * r + 12 for r in reach)), torch.ones(1, 1)
        whole = network(x, told)
        part = network(crop(x, [2] * len(reach)), told)
    assert whole.shape == (1, 2, *(12 for _ in reach))
    torch.testing.assert_close(part, crop(whole, [2] * len(reach)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonalise(matrix)
    # The iteration keeps the singular vectors and brings the values into about [0.7, 1.2].
    inside = u.T @ made @ v.T
    values = torch.diagonal(inside)
    assert ((values > 0.3) & (values < 1.3)).all()
    assert (inside - torch.diag(values)).abs().max() < 1e-4


def test_muon_moves_a_matrix_by_its_rate_whatever_the_gradient_s_size() -> None:
    torch.manual_seed(2)
    steps = []
    for size in (1e-3, 1e3):
        torch.manual_seed(3)
        weight = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
        weight.grad = size * torch.randn(8, 4, 3, 3)
        Muon([weight], lr=0.01).step()
        steps.append(weight.detach().clone())
    torch.testing.assert_close(steps[0], steps[1], atol=1e-5, rtol=1e-3)
    assert 0.0005 < float(steps[0].square().mean().sqrt()) < 0.004  # about 0.2 * rate


def test_muon_takes_adam_s_step_on_vectors() -> None:
    torch.manual_seed(4)
    mine = torch.nn.Parameter(torch.randn(5))
    other = torch.nn.Parameter(mine.detach().clone())
    ours = Muon([mine], lr=0.01)
    adam = torch.optim.Adam([other], lr=0.01, betas=(0.9, 0.99))
    for _ in range(4):
        mine.grad = torch.randn(5)
        other.grad = mine.grad.clone()
        ours.step()
        adam.step()
    torch.testing.assert_close(mine, other)


def test_muon_goes_on_from_its_saved_state_to_the_same_bits() -> None:
    def run(steps: range, weight: torch.nn.Parameter, optimiser: Muon) -> None:
        for step in steps:
            torch.manual_seed(step)
            weight.grad = torch.randn(weight.shape)
            optimiser.step()

    whole = torch.nn.Parameter(torch.ones(4, 6))
    run(range(6), whole, Muon([whole], lr=0.01))
    first = torch.nn.Parameter(torch.ones(4, 6))
    before = Muon([first], lr=0.01)
    run(range(3), first, before)
    later = torch.nn.Parameter(first.detach().clone())
    after = Muon([later], lr=0.01)
    after.load_state_dict(before.state_dict())
    run(range(3, 6), later, after)
    assert torch.equal(whole, later)
