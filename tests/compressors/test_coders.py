"""The contract of a coder: its smallest implementer on a decomposed domain, and what breaks it."""

from typing import Literal

import numpy as np
import pytest

from scaled_mpi.compressors import MEMBERS
from scaled_mpi.compressors.coders import (
    Coder,
    Compressor,
    load_coder,
    member_violations,
    violations,
)
from scaled_mpi.config import InputError
from scaled_mpi.coupling.latent import Coding
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import first_ranks, world
from scaled_mpi.parallel.store import Trajectory
from tests.compressors.waves import runs


class Average(Coder):
    """Means of pairs along x, decoded along straight lines: nothing but the contract."""

    factor, encode_reach, decode_reach = (1, 2), (0, 0), (0, 1)

    def channels(self, fields):
        return fields

    def encode(self, field):
        return (field[:, :, ::2] + field[:, :, 1::2]) / 2

    def decode(self, latent, noise=None):
        left, middle, right = latent[:, :, :-2], latent[:, :, 1:-1], latent[:, :, 2:]
        slope = (right - left) / 8
        return np.stack([middle - slope, middle + slope], -1).reshape(*latent.shape[:2], -1)


class Averaging(Compressor):
    """The block of YAML that loads it."""

    kind: Literal["averaging"] = "averaging"

    def fit(self, trajectories, comm, folder, events, seed):
        pass

    def load(self, folder):
        return Average()


@pytest.mark.mpi
def test_a_decomposed_field_is_coded_as_the_whole_is(tmp_path_factory):
    comm = world()
    folder = comm.bcast(str(tmp_path_factory.mktemp("runs")) if comm.rank == 0 else None)
    if comm.rank == 0:
        runs(folder, (16, 32), count=1, frames=1)
    comm.Barrier()
    run = Trajectory(folder, "train-0000")
    blocks = make_blocks(run.grid, (8, 8), comm.size)
    part = first_ranks(comm, blocks.ranks)
    if part is not None:
        coding = Coding(load_coder(Averaging(), folder), blocks, part)
        latent = coding.encode(run, 0)
        field = coding.decode(latent)
        truth = run.read(0)
        coded = (truth[:, :, ::2] + truth[:, :, 1::2]) / 2
        slope = (np.roll(coded, -1, 2) - np.roll(coded, 1, 2)) / 8
        decoded = np.stack([coded - slope, coded + slope], -1).reshape(truth.shape)
        own = blocks.block(part.rank).slices
        coarse = coding.latent.block(part.rank).slices
        np.testing.assert_array_equal(latent, coded[(..., *coarse)])
        np.testing.assert_array_equal(field, decoded[(..., *own)])
    comm.Barrier()


def test_the_smallest_coder_is_complete(tmp_path):
    assert member_violations(Averaging) == []
    assert Averaging().cells(2) == (1, 1) and Averaging().decode_reach(2) == (0, 0)
    coder = load_coder(Averaging(), tmp_path)
    assert violations(coder, fields=2) == []
    assert (coder.noises, coder.bits, dict(coder.scores)) == (0, None, {})


@pytest.mark.parametrize("kind", sorted(MEMBERS))
def test_every_member_keeps_the_contract_of_its_block(kind):
    assert member_violations(MEMBERS[kind]) == []


def test_a_fitted_pod_keeps_the_contract(tmp_path):
    from scaled_mpi.parallel.comm import SerialComm

    pod = MEMBERS["pod"](factor=4, rank=5)
    pod.fit(runs(tmp_path, (16, 16)), SerialComm(), tmp_path, None, 0)
    assert pod.cells(2) == (4, 4)
    assert violations(load_coder(pod, tmp_path), fields=2) == []


def test_what_is_missing_is_one_line(tmp_path):
    class Empty:
        factor = encode_reach = decode_reach = (1, 1)

        def channels(self, fields):
            return fields

        def decode(self, latent):
            return latent

    class Loads(Averaging):
        def load(self, folder):
            return Empty()

    with pytest.raises(InputError, match="compressor: Empty .* encode is missing"):
        load_coder(Loads(), tmp_path)
    assert member_violations(Compressor)[0] == "Compressor: kind is missing"


def test_breaches_are_found():
    class Blurred(Average):
        def decode(self, latent, noise=None):
            return super().decode(latent) + latent.mean()

    class Halved(Average):
        factor = (2, 2)

    assert "decode differs" in violations(Blurred())[0]
    assert "encode returns (1, 16, 4); (1, 8, 4) is needed" in violations(Halved())[0]
