"""Autoencoders with a bottleneck: same weights and book on any ranks, rates, kept integrals."""

from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.experiments.forecast.rates import CodingRates
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.simulators.gray_scott import GrayScott
from tests.compressors.test_autoencoder import ALONE, spec
from tests.compressors.waves import runs

VQ = {"kind": "vq", "codes": 16, "decay": 0.8}


def fitted(folder, **keys):
    made = runs(folder, count=2, frames=4)
    one = spec(6, **keys)
    one.fit(made, ALONE, folder, None, 0)
    return one.load(folder), made


@pytest.mark.mpi
def test_a_book_of_codes_is_learned_to_the_same_bits_on_any_number_of_ranks(mpi_tmp_path):
    comm, root = world(), Path(mpi_tmp_path)
    if comm.rank == 0:
        runs(root, count=2, frames=4)
    comm.barrier()
    made = [Trajectory(root, f"train-{run:04d}") for run in range(2)]
    one = spec(6, bottleneck=VQ)
    one.fit(made, comm, root / "together", None, 0)
    if comm.rank == 0:
        one.fit(made, SerialComm(), root / "alone", None, 0)
        names = ("together", "alone")
        for file in ("coder.safetensors", "best.safetensors"):
            pair = [(root / name / file).read_bytes() for name in names]
            assert pair[0] == pair[1]
    comm.barrier()


def test_a_latent_of_a_book_is_one_of_its_codes(tmp_path):
    coder, made = fitted(tmp_path, bottleneck=VQ)
    assert coder.bits == 4.0
    assert 1.0 <= coder.scores["perplexity"] <= 16.0
    assert 1 <= coder.scores["codes.used"] <= 16
    latent = coder.encode(made[0].read(0, halo=coder.encode_reach))
    raw = latent * coder._latent_spread + coder._latent_mean
    book = coder.network.bottleneck.book.numpy()
    vectors = raw.reshape(len(raw), -1).T
    distance = np.abs(vectors[:, None] - book[None]).max(-1).min(1)
    assert distance.max() < 1e-5


@pytest.mark.parametrize("bottleneck", [{"kind": "identity"}, VQ], ids=["identity", "vq"])
def test_a_row_of_the_table_keeps_what_it_promises(tmp_path, bottleneck):
    coder, made = fitted(tmp_path, bottleneck=bottleneck, conserve=True, latent_channels=6)
    blocks = make_blocks(made[0].grid, 16, 1)
    found = CodingRates(blocks, SerialComm(), list)(coder, made[0], [0, 3], GrayScott())
    assert found["compression.factor"] == pytest.approx(2 * 16 / 6)
    latent_bits = 32 * 6 if bottleneck["kind"] == "identity" else 2 * 32 + 4
    assert found["compression.bits"] == pytest.approx(2 * 16 * 32 / latent_bits)
    assert found["mass.error.reconstruction"] < 1e-6
    assert 0.0 < found["vrmse.reconstruction"] < 1.0
    assert found["residual.error"] > 0.0
    assert found["seam.reconstruction"] > 0.0


def test_what_is_kept_needs_channels_beside_it(tmp_path):
    with pytest.raises(
        InputError, match="latent_channels: 2 is not allowed: with conserve .* more than 2"
    ):
        spec(latent_channels=2, conserve=True).fit(runs(tmp_path), ALONE, tmp_path, None, 0)
    with pytest.raises(InputError, match="codes"):
        spec(bottleneck={"kind": "vq", "codes": 1})
