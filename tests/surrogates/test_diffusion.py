"""Samples by diffusion: the right mean and spread, the future of the halo heard, any ranks."""

from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError, parse
from scaled_mpi.coupling.chance import chance_of
from scaled_mpi.coupling.schwarz import March, Sweeping
from scaled_mpi.learning.samplers import sample
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.halo import Halo, gather_field
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.surrogates.diffusion import Diffusion, noise_channels
from tests.surrogates.forced import DECAY, FORCE, forced, moments, training
from tests.surrogates.test_stepper import write

SMALL = {
    "reach": 4,
    "patch": 16,
    "held_out": 1,
    "coarsen": 1,
    "halos": (4, 2),
    "steps": 4,
    "network": {"kind": "local", "width": 16, "depth": 2},
}
NETWORKS = {
    "local": SMALL["network"],
    "unet": {"kind": "unet", "widths": (16,), "norm": "cell", "padding": "replicate"},
}


def fitted(folder, steps=4, **keys):
    """The operator of a briefly trained one on a line of 64 cells."""
    runs = write(folder, (64,), runs=4, frames=24, law=forced)
    one = Diffusion(**{**SMALL, "training": training(steps), **keys})
    one.fit(runs, SerialComm(), folder, None, 3)
    return one.load(folder)


@pytest.mark.parametrize("network", NETWORKS)
def test_mean_and_spread_of_a_law_that_is_known_are_learned(tmp_path, network):
    trained = fitted(
        tmp_path, training=training(160, batch=16, micro_batches=1), network=NETWORKS[network]
    )
    field = np.random.default_rng(1).uniform(-0.8, 0.8, (2, 64)).astype(np.float32)
    mean, spread = moments(trained, field, 60)
    assert spread.mean() == pytest.approx(FORCE, rel=0.2)
    assert np.sqrt(np.mean((mean - DECAY * field) ** 2)) < 0.15


def test_the_noise_decides_the_sample_and_the_future_of_the_halo_is_heard(tmp_path):
    import torch

    operator = fitted(tmp_path)  # and shaken: in this law cells do not hear of each other
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in operator.network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    random = np.random.default_rng(2)
    window = random.standard_normal((1, 2, 24)).astype(np.float32) * 0.4
    noise = random.standard_normal((operator.noises, 24)).astype(np.float32)
    mask, ring = np.ones(24, np.float32), np.ones(24, np.float32)
    ring[4:20] = 0

    def made(told=None):
        future = None if told is None else (np.full((2, 24), told, np.float32) * ring, ring)
        return operator.advance(window, mask, np.zeros(0), future=future, noise=noise)

    np.testing.assert_array_equal(made(), made())
    assert np.abs(made(2.0) - made(-2.0)).max() > 1e-4


def marched(operator, grid, comm, tile=16):
    """Two swept jumps of one member, my block."""
    blocks = make_blocks(grid, tile, comm.size)
    block = blocks.block(comm.rank)
    cells = np.arange(block.start[0], block.stop[0])
    start = 0.5 * np.stack([np.sin(cells / 5), np.cos(cells / 7)]).astype(np.float32)
    march = March(
        operator,
        Halo(blocks, comm, (2,)),
        condition=np.zeros(0),
        scale=np.ones(2),
        sweeping=Sweeping(2, fixed=True),
        chance=chance_of(operator, blocks, comm.rank, 9),
    )
    return blocks, [jump.field for jump in march.jumps([start], 2)]


@pytest.mark.mpi
def test_a_swept_sample_is_the_same_on_any_number_of_ranks(mpi_tmp_path):
    comm = world()
    folder = Path(mpi_tmp_path) / str(comm.rank)
    operator = fitted(folder)
    grid = Trajectory(folder, "train-0000").grid
    blocks, fields = marched(operator, grid, comm)
    together = [gather_field(blocks, comm, field) for field in fields]
    if comm.rank == 0:
        _, alone = marched(operator, grid, SerialComm())
        np.testing.assert_array_equal(np.stack(together), np.stack(alone))


@pytest.mark.parametrize("spread", [0.08, 0.17, 0.4, 1.0])
def test_the_default_sampler_keeps_the_spread_of_what_is_uncertain(spread):
    """Samples of a Gaussian by its exact denoiser: the probability flow is linear."""
    spec = Diffusion()

    def denoise(x, t):
        alpha, sigma = spec.schedule.alpha(t), spec.schedule.sigma(t)
        return x * alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)

    (made,) = sample(denoise, lambda k: np.ones(1), spec.schedule, spec.steps, spec.sampler)
    assert abs(made) == pytest.approx(spread, rel=0.085)


def test_a_random_walk_takes_noise_at_every_step():
    assert [noise_channels(kind, 4, 2) for kind in ("ddim", "heun", "sde")] == [2, 2, 8]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"patch": 31}, "surrogate.patch"),
        ({"steps": 1}, "steps"),
        ({"network": {"kind": "unet", "padding": "valid", "norm": "cell"}}, "padding"),
        ({"network": {"kind": "local", "widths": [8]}}, "widths"),
        (
            {"schedule": {"kind": "vp", "zero_terminal_snr": True}, "parametrization": "epsilon"},
            "surrogate.parametrization",
        ),
        ({"sampler": "magic"}, "sampler"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys, words):
    with pytest.raises(InputError, match=words):
        parse(Diffusion, {"kind": "diffusion", **keys})
