"""The autoencoder: no seams, an exact reach, a linear start, learning, and the same bits again."""

import numpy as np
import pytest

from scaled_mpi.compressors import MEMBERS
from scaled_mpi.config import InputError, parse
from scaled_mpi.facts import EventLog, read_events
from scaled_mpi.metrics import vrmse
from scaled_mpi.parallel.comm import SerialComm, world
from tests.compressors.waves import frame, runs

ALONE = SerialComm()
# factor, axes
FACTORS = [(2, 1), (4, 2), (8, 2), ((2, 4), 2), ((1, 4), 2), ((2, 2, 4), 3), (8, 1)]


def spec(steps=20, **keys):
    """A small autoencoder."""
    training = {
        "steps": steps,
        "batch": 4,
        "micro_batches": 2,
        "learning_rate": 4e-3,
        "warmup": 5,
        "ema": 0.9,
        "validate_every": max(1, steps // 2),
        "checkpoint_every": 1000,
        "device": "cpu",
    }
    tree = {"width": 8, "latent_channels": 4, "patch": 16, "held_out": 1, "training": training}
    return parse(MEMBERS["autoencoder"], {"kind": "autoencoder", **tree, **keys})


def coded(folder, shape, steps=2, **keys):
    """A coder fitted for a moment, and the runs it saw."""
    made = runs(folder, shape, count=2, frames=3)
    one = spec(steps, **keys)
    one.fit(made, ALONE, folder, None, 0)
    return one.load(folder), made


def random_network(factor, axes, depth):
    """A network whose every layer acts (a fresh one begins as a linear map)."""
    import torch

    from scaled_mpi.learning.networks.coding import CodingNetwork

    torch.manual_seed(1)
    factor = factor if isinstance(factor, tuple) else (factor,) * axes
    network = CodingNetwork(2, 3, factor, 8, depth)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, parameter[0].numel() ** -0.5)
    return network


def halos(network):
    """Per axis: cells of halo for the encoder, latent cells of halo for the decoder."""
    return network.encode_reach, network.decode_reach


def wrap(field, width):
    return np.pad(field, ((0, 0), *((w, w) for w in width)), mode="wrap")


def apply(operation, values):
    import torch

    with torch.no_grad():
        return operation(torch.from_numpy(np.ascontiguousarray(values))[None])[0].numpy()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("factor", "axes"), FACTORS)
def test_tiles_with_halo_give_what_the_whole_domain_gives(factor, axes, depth):
    network = random_network(factor, axes, depth)
    f = network.factor
    shape = tuple(6 * n for n in f)
    field = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    encode, decode = halos(network)
    whole = apply(network.encode, wrap(field, encode))
    assert whole.shape == (3, *(6,) * axes)
    back = apply(network.decode, wrap(whole, decode))
    assert back.shape == field.shape
    padded, latents = wrap(field, encode), wrap(whole, decode)
    for corner in np.ndindex(*(2,) * axes):
        fine = [
            slice(c * 3 * n, c * 3 * n + 3 * n + 2 * e)
            for c, n, e in zip(corner, f, encode, strict=True)
        ]
        coarse = [slice(3 * c, 3 * c + 3) for c in corner]
        part = apply(network.encode, padded[(slice(None), *fine)])
        scale = np.abs(whole).max()
        np.testing.assert_allclose(part, whole[(slice(None), *coarse)], atol=1e-6 * scale)
        window = [slice(3 * c, 3 * c + 3 + 2 * d) for c, d in zip(corner, decode, strict=True)]
        cells = [slice(3 * c * n, 3 * (c + 1) * n) for c, n in zip(corner, f, strict=True)]
        part = apply(network.decode, latents[(slice(None), *window)])
        scale = np.abs(back).max()
        np.testing.assert_allclose(part, back[(slice(None), *cells)], atol=1e-6 * scale)


@pytest.mark.parametrize("which", ["encode", "decode"])
@pytest.mark.parametrize(("factor", "axes"), FACTORS)
def test_the_reach_is_what_is_declared_and_no_more(factor, axes, which):
    import torch

    network = random_network(factor, axes, 1).double()
    reach = getattr(network, f"{which}_reach")
    unit = network.factor if which == "encode" else (1,) * axes
    size = [u + 2 * r for u, r in zip(unit, reach, strict=True)]
    values = torch.randn(1, 2 if which == "encode" else 3, *size, dtype=torch.float64)
    values.requires_grad_(True)
    getattr(network, which)(values).sum().backward()
    used = values.grad[0].abs().sum(0) > 0
    for axis in range(axes):
        lines = used.transpose(0, axis).flatten(1).any(1) if axes > 1 else used
        assert bool(lines[0]) and bool(lines[-1])  # the outermost cells do matter


def test_the_linear_start_is_the_best_linear_code():
    import torch

    network = random_network(4, 2, 1)
    fresh = type(network)(2, 5, (4, 4), 8, 1)
    fields = torch.from_numpy(np.stack([frame((32, 32), 0.3 * t, t % 3) for t in range(12)]))
    fields = fields - fields.mean((0, 2, 3), keepdim=True)
    fresh.start_linear(fields)
    patches = fields.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 32)
    values = np.linalg.svd((patches - patches.mean(0)).numpy(), compute_uv=False)
    expected = float((values[5:] ** 2).sum()) / patches.numel()
    padded = torch.nn.functional.pad(fields, (12,) * 4, mode="circular")
    with torch.no_grad():
        latent = fresh.encode(padded[:, :, 6:-6, 6:-6])
        made = fresh.decode(torch.nn.functional.pad(latent, (2,) * 4, mode="circular"))
    error = float((made - fields).square().mean())
    assert error == pytest.approx(expected, rel=0.05)  # the mean patch is kept a channel only
    np.testing.assert_allclose(latent.var((0, 2, 3)), 1.0, rtol=1e-2)


def test_training_improves_on_the_linear_code(tmp_path):
    made = runs(tmp_path)
    events = EventLog(tmp_path, "run", 0)
    one = spec(60, width=16)
    one.fit(made, ALONE, tmp_path, events, 0)
    coder = one.load(tmp_path)
    errors = []
    for t in range(0, 12, 3):
        truth = made[-1].read(t)
        latent = coder.encode(made[-1].read(t, halo=coder.encode_reach))
        assert latent.shape == (4, 8, 8) and latent.size * 8 == truth.size
        errors.append(vrmse(coder.decode(wrap(latent, coder.decode_reach)), truth).mean())
    linear = spec(
        1, width=16, training={**spec(1).training.model_dump(mode="json"), "learning_rate": 1e-12}
    )
    linear.fit(made, ALONE, tmp_path / "linear", None, 0)
    start = linear.load(tmp_path / "linear")
    truth = made[-1].read(3)
    latent = start.encode(made[-1].read(3, halo=start.encode_reach))
    before = vrmse(start.decode(wrap(latent, start.decode_reach)), truth).mean()
    assert np.mean(errors) < 0.6 * before
    told = [event for event in read_events(tmp_path) if event["moment"] == "on_epoch_end"]
    assert told[-1]["metrics"]["vrmse"] < 0.6 * before
    spread = coder.encode(made[0].read(1, halo=coder.encode_reach)).std((1, 2))
    assert 0.3 < spread.mean() < 3


@pytest.mark.mpi
def test_the_same_coder_on_any_ranks_and_after_loading(tmp_path):
    comm = world()
    folder = comm.bcast(tmp_path)
    if comm.rank == 0:
        runs(folder)
    comm.barrier()
    from scaled_mpi.parallel.store import Trajectory

    made = [Trajectory(folder, f"train-{run:04d}") for run in range(4)]
    one = spec(6)
    one.fit(made, comm, folder / "together", None, 3)
    one.fit(made, ALONE, tmp_path / f"alone{comm.rank}", None, 3)
    box = (slice(0, 16), slice(8, 24))
    tile = made[0].read(0, box, one.load(folder / "together").encode_reach)
    first = one.load(folder / "together").encode(tile)
    second = one.load(tmp_path / f"alone{comm.rank}").encode(tile)
    np.testing.assert_array_equal(first, second)
    again = one.load(folder / "together")
    np.testing.assert_array_equal(again.encode(tile), first)
    assert (folder / "together" / "coder.safetensors").read_bytes() == (
        tmp_path / f"alone{comm.rank}" / "coder.safetensors"
    ).read_bytes()
    comm.barrier()  # rank 0 removes its folder after the test


@pytest.mark.parametrize(
    ("shape", "factor", "boundary"),
    [
        ((64,), 4, "periodic"),
        ((16, 32), (2, 4), "neumann"),
        ((16, 16, 16), (2, 2, 4), "dirichlet"),
    ],
)
def test_one_two_and_three_axes_with_any_boundary(tmp_path, shape, factor, boundary):
    made = runs(tmp_path, shape, count=2, frames=3, boundary=boundary)
    one = spec(2, factor=factor, patch=8)
    one.fit(made, ALONE, tmp_path, None, 0)
    coder = one.load(tmp_path)
    latent = coder.encode(made[0].read(0, halo=coder.encode_reach))
    assert latent.shape[1:] == tuple(n // f for n, f in zip(shape, coder.factor, strict=True))
    back = coder.decode(np.pad(latent, ((0, 0), *((d, d) for d in coder.decode_reach)), "edge"))
    assert back.shape == (2, *shape) and np.isfinite(back).all()
    assert coder.channels(2) == 4 and back.dtype == np.float32


def test_terms_vanish_for_the_truth_and_have_their_closed_forms():
    import torch

    from scaled_mpi.learning.reconstruction import TERMS

    x = 2 * np.pi * np.arange(64) / 64
    truth = torch.from_numpy(np.sin(3 * x)).reshape(1, 1, 64)
    for name in ("gradient", "spectrum"):
        assert float(TERMS[name](truth, truth)) == 0.0
    moved = torch.roll(truth, 5, 2)
    assert float(TERMS["spectrum"](moved, truth)) == pytest.approx(0.0, abs=1e-20)
    assert float(TERMS["spectrum"](2 * truth, truth)) == pytest.approx(0.5)  # Parseval
    expected = float(truth.diff(dim=2).square().mean())
    assert float(TERMS["gradient"](2 * truth, truth)) == pytest.approx(expected)
    assert float(TERMS["gradient"](truth + 1, truth)) == pytest.approx(0.0, abs=1e-20)


def test_a_further_term_changes_the_weights(tmp_path):
    made = runs(tmp_path, count=2, frames=3)
    plain, sharp = spec(3), spec(3, terms={"gradient": 1.0, "spectrum": 0.5})
    plain.fit(made, ALONE, tmp_path / "a", None, 0)
    sharp.fit(made, ALONE, tmp_path / "b", None, 0)
    tile = made[0].read(0, halo=plain.load(tmp_path / "a").encode_reach)
    codes = [one.load(tmp_path / f).encode(tile) for one, f in ((plain, "a"), (sharp, "b"))]
    assert not np.array_equal(*codes)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"factor": 3}, r"compressor.factor: \[3\] is not allowed"),
        ({"factor": [1, 1]}, "2, 4 or 8 an axis"),
        ({"patch": 18}, "multiples of 4"),
        ({"terms": {"mass": 1}}, "terms"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, words):
    with pytest.raises(InputError, match=words):
        spec(**keys)


def test_data_that_do_not_fit_are_refused(tmp_path):
    made = runs(tmp_path, (30, 32), count=2, frames=3)
    with pytest.raises(
        InputError, match="data.shape: 30 cells are not allowed: .* multiples of 4"
    ):
        spec().fit(made, ALONE, tmp_path, None, 0)
    with pytest.raises(InputError, match="latent_channels: 33 is not allowed: .* at most 32"):
        spec(latent_channels=33).fit(runs(tmp_path / "b"), ALONE, tmp_path, None, 0)
    with pytest.raises(InputError, match="data: 0 runs are not allowed"):
        spec().fit([], ALONE, tmp_path, None, 0)
    with pytest.raises(InputError, match="coder.safetensors: no such file"):
        spec().load(tmp_path)


def test_a_coder_refuses_what_it_was_not_made_for(tmp_path):
    coder, _ = coded(tmp_path, (32, 32))
    with pytest.raises(
        InputError, match=r"domain.tile: \[10, 16\] cells are not allowed: the compressor's factor"
    ):
        coder.encode(np.zeros((2, 10 + 2 * 6, 16 + 2 * 6), np.float32))
    with pytest.raises(InputError, match="3 channels are not allowed: .* Allowed: 2"):
        coder.channels(3)
