"""What cannot be learned from or loaded is refused in one line, whichever autoencoder it is."""

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.learning.weights import load_weights, save_weights
from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from tests.compressors.test_adversarial import adversarial
from tests.compressors.test_autoencoder import ALONE, spec
from tests.compressors.test_drawing import drawing
from tests.compressors.waves import frame, runs

KINDS = {"autoencoder": spec, "adversarial": adversarial, "diffusion": drawing}
ALL = pytest.mark.parametrize("kind", list(KINDS))


def refused(words, work):
    with pytest.raises(InputError, match=words) as caught:
        work()
    assert "\n" not in str(caught.value)


@ALL
def test_a_batch_larger_than_the_data(tmp_path, kind):
    made = runs(tmp_path, (16, 16), count=2, frames=3)
    refused(
        "training.batch: 4 is not allowed: it is larger than the data set. Allowed: at most its 3",
        lambda: KINDS[kind](4).fit(made, ALONE, tmp_path / "fit", None, 0),
    )
    assert not (tmp_path / "fit" / "coder.safetensors").exists()


@ALL
@pytest.mark.parametrize("where", [0, 1], ids=["learned", "judged"])
def test_data_that_are_not_finite(tmp_path, kind, where):
    blocks = make_blocks(Grid((32, 32), 1.0, Boundary()), (32, 32), 1)
    for run in range(2):
        with TrajectoryWriter(tmp_path, f"train-{run:04d}", blocks, SerialComm(), "uv") as writer:
            for t in range(3):
                field = frame((32, 32), 0.4 * t, run)
                field[0, 3, 3] = np.nan if run == where and t == 1 else field[0, 3, 3]
                writer.append(float(t), field)
    made = [Trajectory(tmp_path, f"train-{run:04d}") for run in range(2)]
    refused(
        "data: .*values that are not finite",
        lambda: KINDS[kind](4).fit(made, ALONE, tmp_path / "fit", None, 0),
    )
    assert not (tmp_path / "fit" / "coder.safetensors").exists()


@ALL
def test_weights_that_are_cut_altered_or_of_another_network(tmp_path, kind):
    one = KINDS[kind](4)
    one.fit(runs(tmp_path, count=2, frames=3), ALONE, tmp_path, None, 0)
    path = tmp_path / "coder.safetensors"
    whole, (tensors, meta) = path.read_bytes(), load_weights(path)
    path.write_bytes(whole[: len(whole) // 2])
    refused("coder.safetensors: not readable", lambda: one.load(tmp_path))
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    refused("coder.safetensors: altered or damaged", lambda: one.load(tmp_path))
    wider = {**meta, "autoencoder": {**meta["autoencoder"], "width": 16}}
    broken = {**meta, "autoencoder": {**meta["autoencoder"], "width": -3}}
    for told, words in (
        (wider, "weights of another architecture: "),
        (broken, "its metadata do not describe a coder"),
        (
            {**meta, "kind": "stepper"},
            "weights of a stepper. Needed: autoencoder, adversarial, diff",
        ),
        ({"kind": kind}, "its metadata do not describe a coder"),
        ({**meta, "kind": ["x"]}, "weights of a"),
    ):
        save_weights(path, tensors, told)
        refused(words, lambda: one.load(tmp_path))


def test_the_state_of_another_training_is_not_gone_on_with(tmp_path):
    made = runs(tmp_path, count=2, frames=3)
    adversarial(4).fit(made, ALONE, tmp_path / "a", None, 0)
    refused(
        "a.state.safetensors: it holds the state of another training",
        lambda: adversarial(4, {"width": 4}).fit(made, ALONE, tmp_path / "a", None, 0),
    )
    drawing(4).fit(made, ALONE, tmp_path / "b", None, 0)
    refused(
        "b.decoder.state.safetensors: it holds the state of another training",
        lambda: drawing(4, {"width": 8}).fit(made, ALONE, tmp_path / "b", None, 0),
    )
