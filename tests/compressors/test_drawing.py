"""The diffusion autoencoder: no seams, noise by place, energy at the scales that coding loses."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from scaled_mpi.compressors import MEMBERS
from scaled_mpi.config import InputError, parse, plain
from scaled_mpi.coupling.latent import Coding
from scaled_mpi.learning.networks.coding import CodingNetwork
from scaled_mpi.learning.networks.drawing import DrawingNetwork, DrawingSize
from scaled_mpi.learning.schedules import Rectified
from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.signals import Stopped
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from tests.compressors.test_autoencoder import ALONE, spec, wrap
from tests.compressors.waves import runs

SMALL = {"width": 12, "depth": 1, "steps": 2}


def drawing(steps=4, decoder=None, **keys):
    """A small diffusion autoencoder, otherwise as `spec`."""
    tree = {**plain(spec(steps, **keys)), "kind": "diffusion"}
    return parse(MEMBERS["diffusion"], {**tree, "decoder": {**SMALL, **(decoder or {})}})


def random_network(factor, conserve=False, **keys):
    """A drawing network whose every layer acts."""
    torch.manual_seed(1)
    shape = {"coarsen": 2, "width": 8, "depth": 2, "sampler": "ddim", "steps": 3, **keys}
    latent = 5 if conserve else 3
    network = DrawingNetwork(
        CodingNetwork(2, latent, factor, 8, 1, conserve=conserve),
        2,
        latent,
        DrawingSize(parametrization="edm", **shape),
        Rectified(),
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.7 * parameter[0].numel() ** -0.5)
    network.spread.fill_(0.4)
    return network.eval()


@pytest.mark.parametrize(
    ("factor", "keys"),
    [
        ((4,), {}),
        ((4, 4), {}),
        ((2, 4), {"sampler": "heun", "steps": 2}),
        ((1, 4), {"coarsen": 1}),
        ((2, 2, 2), {"depth": 1, "steps": 1}),
        ((4, 4), {"conserve": True}),
    ],
)
def test_tiles_with_halo_and_their_noise_give_what_the_whole_domain_gives(factor, keys):
    network, axes = random_network(factor, **keys), len(factor)
    draw, reach = np.random.default_rng(0), network.decode_reach
    latents = draw.standard_normal((5 if "conserve" in keys else 3, *(8,) * axes))
    noise = draw.standard_normal((2, *(8 * f for f in factor)))
    latents, noise = (one.astype(np.float32) for one in (latents, noise))
    wide = wrap(latents, reach)
    loud = wrap(noise, [f * r for f, r in zip(factor, reach, strict=True)])

    def decode(*values):
        with torch.no_grad():
            batch = [torch.from_numpy(np.ascontiguousarray(x))[None] for x in values]
            return network.decode(*batch)[0].numpy()

    whole = decode(wide, loud)
    assert whole.shape == noise.shape
    for corner in np.ndindex(*(2,) * axes):
        cut = tuple(slice(4 * c, 4 * c + 4 + 2 * r) for c, r in zip(corner, reach, strict=True))
        fine = tuple(slice(f * s.start, f * s.stop) for f, s in zip(factor, cut, strict=True))
        core = [slice(4 * c * f, 4 * (c + 1) * f) for c, f in zip(corner, factor, strict=True)]
        part = decode(wide[(slice(None), *cut)], loud[(slice(None), *fine)])
        np.testing.assert_allclose(
            part, whole[(slice(None), *core)], atol=2e-6 * np.abs(whole).max()
        )
    quiet = decode(wide)
    assert np.abs(whole - quiet).max() > 0.1
    np.testing.assert_array_equal(decode(wide, 0 * loud), quiet)


def test_integrals_are_kept_exactly_also_by_what_is_drawn():
    network = random_network((4, 4), conserve=True)
    torch.manual_seed(3)
    field = torch.randn(1, 2, *(16 + 2 * r for r in network.whole_ring))
    noise = torch.randn(
        1, 2, *(n - 2 * e for n, e in zip(field.shape[2:], network.encode_reach, strict=True))
    )
    with torch.no_grad():
        made = network(field, noise)
    r = network.whole_ring
    core = field[:, :, r[0] : -r[0], r[1] : -r[1]]
    pool = torch.nn.functional.avg_pool2d
    np.testing.assert_allclose(pool(made, 4), pool(core, 4), atol=2e-6)


def grainy(folder, count=3, frames=4, cells=32):
    """Runs of smooth waves under white noise of spread 0.5 of theirs."""
    blocks = make_blocks(Grid((cells, cells), 1.0, Boundary()), (cells, cells), 1)
    x = 2 * np.pi * np.arange(cells) / cells
    draw = np.random.default_rng(5)
    for run in range(count):
        with TrajectoryWriter(folder, f"train-{run:04d}", blocks, SerialComm(), ("a",)) as writer:
            for t in range(frames):
                smooth = np.sin(x[:, None] + t + run) + np.cos(x - t)
                grain = 0.5 * draw.standard_normal((cells, cells))
                writer.append(float(t), (smooth + grain)[None].astype(np.float32))
    return [Trajectory(folder, f"train-{run:04d}") for run in range(count)]


def test_what_is_drawn_has_the_energy_that_coding_loses(tmp_path):
    """White noise cannot be coded: the plain decoder leaves it out, this one makes it anew."""
    made = grainy(tmp_path)
    one = drawing(4, latent_channels=2)
    one.fit(made, ALONE, tmp_path / "fit", None, 0)
    coder = one.load(tmp_path / "fit")
    blocks = make_blocks(made[0].grid, 32, 1)
    coding = Coding(coder, blocks, ALONE)
    latent = coding.encode(made[-1], 2)
    truth, drawn = made[-1].read(2)[0], coding.decode(latent)[0]
    mean = coder.decode(wrap(latent, coder.decode_reach))[0]

    def small(field):  # variance of what a smooth field hardly has
        return np.diff(field, axis=0).var()

    assert small(mean) < 0.5 * small(truth)
    assert small(drawn) == pytest.approx(small(truth), rel=0.15)
    coder.seed = 1  # other noise, another field of the same energy
    other = Coding(coder, blocks, ALONE).decode(latent)[0]
    assert small(other) == pytest.approx(small(truth), rel=0.15)
    assert abs(np.corrcoef((drawn - mean).ravel(), (other - mean).ravel())[0, 1]) < 0.2


def test_the_round_trip_beside_the_plain_autoencoder(tmp_path):
    made = runs(tmp_path)
    one = drawing(16)
    one.fit(made, ALONE, tmp_path / "drawn", None, 0)
    coder = one.load(tmp_path / "drawn")
    assert coder.noises == 2
    assert coder.scores["vrmse"] < 1.5 * coder.scores["vrmse.mean"]
    spec(16).fit(made, ALONE, tmp_path / "plain", None, 0)
    plain_coder = spec().load(tmp_path / "plain")
    tile = made[-1].read(3, halo=coder.encode_reach)
    # The same encoder: what is learned on the latents does not know which decoder follows.
    np.testing.assert_array_equal(coder.encode(tile), plain_coder.encode(tile))
    quiet = drawing(16, {"temperature": 0.0}).load(tmp_path / "drawn")
    assert quiet.noises == 2  # that of its own training, not of the block that loads it


@pytest.mark.parametrize("stop_at", [2, 6], ids=["coder", "denoiser"])
def test_an_interruption_of_either_training_changes_no_bit(tmp_path, monkeypatch, stop_at):
    from scaled_mpi.learning import loop

    made = runs(tmp_path, count=2, frames=3)
    drawing(4).fit(made, ALONE, tmp_path / "straight", None, 0)
    calls = itertools.count(1)
    monkeypatch.setattr(loop, "stop_agreed", lambda comm: next(calls) == stop_at)
    with pytest.raises(Stopped):
        drawing(4).fit(made, ALONE, tmp_path / "pieces", None, 0)
    assert not (tmp_path / "pieces" / "coder.safetensors").exists()
    drawing(4).fit(made, ALONE, tmp_path / "pieces", None, 0)
    pair = [tmp_path / name / "coder.safetensors" for name in ("straight", "pieces")]
    assert pair[0].read_bytes() == pair[1].read_bytes()


@pytest.mark.mpi
def test_one_field_belongs_to_a_latent_field_whatever_the_tiles_and_ranks(mpi_tmp_path):
    comm, root = world(), Path(mpi_tmp_path)
    if comm.rank == 0:
        runs(root, count=2, frames=3)
    comm.barrier()
    made = [Trajectory(root, f"train-{run:04d}") for run in range(2)]
    one = drawing(2)
    one.fit(made, comm, root / "fit", None, 4)
    coder = one.load(root / "fit")
    alone = Coding(coder, make_blocks(made[0].grid, 16, 1), SerialComm())
    whole = alone.decode(alone.encode(made[0], 1))
    blocks = make_blocks(made[0].grid, 16, comm.size)
    if comm.rank < blocks.ranks:
        team = comm.Split(0, comm.rank)
        coding = Coding(coder, blocks, team)
        mine = coding.decode(coding.encode(made[0], 1))
        np.testing.assert_array_equal(mine, whole[(slice(None), *blocks.block(team.rank).slices)])
    else:
        comm.Split(1, comm.rank)
    wide = Coding(coder, make_blocks(made[0].grid, 32, 1), SerialComm())
    np.testing.assert_allclose(wide.decode(wide.encode(made[0], 1)), whole, atol=1e-5)
    comm.barrier()


@pytest.mark.parametrize(
    ("keys", "decoder", "words"),
    [
        (
            {"factor": [1, 4]},
            {},
            r"decoder.coarsen: 2 is not allowed: it does not divide the factor \[1, 4\]",
        ),
        (
            {},
            {"parametrization": "epsilon", "schedule": {"kind": "vp", "zero_terminal_snr": True}},
            "parametrization: epsilon is not allowed: with zero_terminal_snr",
        ),
        ({}, {"sampler": "sde"}, "decoder.sampler"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, decoder, words):
    with pytest.raises(InputError, match=words):
        drawing(4, decoder, **keys)


@pytest.mark.parametrize(
    ("factor", "decoder"),
    [
        (4, {}),
        ((2, 4), {"depth": 2, "sampler": "heun"}),
        ((2, 2, 2), {"steps": 1}),
    ],
)
def test_the_reach_is_known_without_a_network(factor, decoder):
    from scaled_mpi.compressors.network_coder import network_of

    axes = len(factor) if isinstance(factor, tuple) else 2
    for one in (drawing(4, decoder, factor=factor), spec(factor=factor)):
        meta = {"kind": one.kind, "autoencoder": plain(one), "axes": axes, "channels": 2}
        assert network_of(meta, 0).decode_reach == one.decode_reach(axes)
