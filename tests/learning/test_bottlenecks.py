"""Bottlenecks: codes that follow their latents, dead ones revived, the same book on all ranks."""

import math

import numpy as np
import pytest
import torch

from scaled_mpi.learning.networks.bottlenecks import BOTTLENECKS
from scaled_mpi.learning.networks.coding import CodingNetwork
from scaled_mpi.parallel.comm import SerialComm, world


def quantiser(codes=8, **keys):
    torch.manual_seed(0)
    return BOTTLENECKS["vq"](2, 3, codes=codes, **keys)


def latents(seed, count=4, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn((count, 3, 4, 4), generator=generator)


def test_a_latent_takes_the_nearest_code_and_the_gradient_passes():
    one, z = quantiser(), latents(1).requires_grad_()
    coded, penalty = one(z)
    vectors = z.detach().movedim(1, -1).reshape(-1, 3).numpy()
    distance = ((vectors[:, None] - one.book.numpy()[None]) ** 2).sum(-1)
    nearest = one.book.numpy()[distance.argmin(1)]
    np.testing.assert_allclose(
        coded.detach().movedim(1, -1).reshape(-1, 3).numpy(), nearest, atol=1e-6
    )
    np.testing.assert_allclose(
        float(penalty.detach()), 0.25 * ((vectors - nearest) ** 2).mean(), rtol=1e-5
    )
    coded.sum().backward()
    np.testing.assert_array_equal(z.grad.numpy(), np.ones(z.shape, np.float32))


def test_codes_follow_the_mean_of_the_latents_that_choose_them():
    one = quantiser(codes=2, decay=0.5)
    one.book.copy_(torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]))
    one.sums.copy_(one.book)
    left, right = torch.tensor([-3.0, 1, 0]), torch.tensor([2.0, 0, 5])
    z = torch.stack([left, right])[:, :, None, None].expand(2, 3, 4, 4)
    for _ in range(40):
        one(z)
        one.after_step(SerialComm())
    np.testing.assert_allclose(one.book.numpy(), [[-3, 1, 0], [2, 0, 5]], rtol=1e-3, atol=1e-3)
    perplexity, used = one.usage()
    assert perplexity == pytest.approx(2.0, rel=1e-4)
    assert used == 2


def test_dead_codes_are_put_where_latents_are():
    one = quantiser(codes=16, decay=0.5)
    one.book += 100.0  # all but one are too far for any latent
    one.book[0] = 0.0
    one.sums.copy_(one.book)
    for step in range(30):
        one(latents(step))
        one.after_step(SerialComm())
    assert float(one.book.abs().max()) < 10.0
    assert one.usage()[0] > 8.0


def test_the_penalty_of_kl_is_the_divergence():
    one = BOTTLENECKS["kl"](2, 3, weight=2.0)
    z = latents(3)
    log = -6.0
    exact = 0.5 * (z.square() + math.exp(log) - 1.0 - log).mean()
    assert float(one(z)[1]) == pytest.approx(2.0 * float(exact), rel=1e-5)
    noisy = one(z.expand(4, 3, 4, 4))[0] - z
    assert float(noisy.std()) == pytest.approx(math.exp(log / 2), rel=0.15)
    assert torch.equal(one.code(z), z)


def test_linear_begins_as_the_identity():
    one, z = BOTTLENECKS["linear"](2, 3), latents(4)
    np.testing.assert_allclose(one.code(z).detach().numpy(), z.numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", list(BOTTLENECKS))
def test_integrals_are_kept_exactly_by_projection(kind):
    torch.manual_seed(1)
    network = CodingNetwork(2, 5, (4, 4), 8, 1, kind, True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, parameter[0].numel() ** -0.5)
    network.eval()
    e, d = network.encode_reach, network.decode_reach
    ring = [a + 4 * b for a, b in zip(e, d, strict=True)]
    field = torch.randn((1, 2, 16 + 2 * ring[0], 16 + 2 * ring[1]))
    with torch.no_grad():
        made = network(field)
    core = field[:, :, ring[0] : -ring[0], ring[1] : -ring[1]]
    pool = torch.nn.functional.avg_pool2d
    np.testing.assert_allclose(pool(made, 4).numpy(), pool(core, 4).numpy(), atol=2e-6)
    assert float((made - core).abs().max()) > 0.1  # the rest of the field is not kept


@pytest.mark.mpi
def test_the_book_has_the_same_bits_on_every_rank_and_for_every_number_of_them():
    comm, micro = world(), 4

    def trained(comm):
        one = quantiser(codes=32, decay=0.8)
        for step in range(5):
            share = range(comm.rank * micro // comm.size, (comm.rank + 1) * micro // comm.size)
            for index in share:
                one(latents(100 * step + index))
            one.after_step(comm)
        return [value.numpy().tobytes() for value in one.state_dict().values()]

    mine = trained(comm)
    assert all(other == mine for other in comm.allgather(mine))
    assert mine == trained(SerialComm())
