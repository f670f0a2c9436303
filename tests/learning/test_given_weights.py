"""Finished weights in place of a training, for every part that is trained."""

import numpy as np
import pytest

from scaled_mpi.compressors import MEMBERS as COMPRESSORS
from scaled_mpi.compressors.coders import load_coder
from scaled_mpi.config import InputError, plain
from scaled_mpi.files import sha256
from scaled_mpi.learning.given_weights import taken, weights_of, weights_part
from scaled_mpi.local_solvers import MEMBERS as SOLVERS
from scaled_mpi.local_solvers.learned import make_network
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.surrogates import MEMBERS as SURROGATES
from scaled_mpi.surrogates.operators import load_operator
from tests.compressors.waves import runs
from tests.surrogates.forced import training

ALONE = SerialComm()
SMALL = {"factor": 4, "latent_channels": 4, "width": 8, "patch": 16}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with a POD, an autoencoder and an autoregression, and its runs."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("compress", "fit"):
        (folder / name).mkdir()
    made = runs(folder, (16, 16))
    COMPRESSORS["pod"](factor=4, rank=5).fit(made, ALONE, folder / "compress", None, 0)
    trained = COMPRESSORS["autoencoder"](**SMALL, training=training(2))
    trained.fit(made, ALONE, folder / "compress", None, 0)
    SURROGATES["mvar"](memory=2).fit(made, ALONE, folder / "fit", None, 0)
    return folder, made


@pytest.mark.parametrize("keys", [{"kind": "pod", "factor": 4}, {"kind": "autoencoder", **SMALL}])
def test_a_compressor_takes_what_another_run_trained(results, tmp_path, keys):
    folder, made = results
    compressor = COMPRESSORS[keys["kind"]](**keys, weights=str(folder))
    code = taken(compressor, "compressor", tmp_path, ALONE)
    assert code == sha256(folder / "compress" / compressor.file)
    assert weights_part(compressor, "compressor")["weights"] == code
    field = made[0].read(0, halo=load_coder(compressor, tmp_path).encode_reach)
    again, first = (load_coder(compressor, at) for at in (tmp_path, folder / "compress"))
    np.testing.assert_array_equal(again.encode(field), first.encode(field))
    other = compressor.model_copy(update={"factor": 8})
    with pytest.raises(InputError, match=r"compressor.factor: \[8, 8\] is not allowed"):
        taken(other, "compressor", tmp_path / "other", ALONE)
    assert list((tmp_path / "other").glob("*")) == []


def test_an_autoregression_takes_finished_weights(results, tmp_path):
    folder, _ = results
    mvar = SURROGATES["mvar"](memory=2, weights=str(folder))
    assert taken(mvar, "surrogate", tmp_path, ALONE) == sha256(folder / "fit" / "mvar.h5")
    weights = [load_operator(mvar, at).model.weights for at in (tmp_path, folder / "fit")]
    np.testing.assert_array_equal(*weights)
    with pytest.raises(InputError, match=r"surrogate.memory: 3 is not allowed: .* Allowed: 2"):
        taken(mvar.model_copy(update={"memory": 3}), "surrogate", tmp_path, ALONE)


def test_a_local_solver_takes_finished_weights(tmp_path):
    from scaled_mpi.learning.weights import save_weights

    solver = SOLVERS["learned"](widths=(4,), weights=str(tmp_path))
    meta = {"kind": "learned", "axes": 2, "solver": plain(SOLVERS["learned"](widths=(4,)))}
    save_weights(tmp_path / "best.safetensors", make_network(meta, 0).state_dict(), meta)
    assert taken(solver, "local_solver", tmp_path / "fit", ALONE)
    assert solver.load(tmp_path / "fit").axes == 2
    (tmp_path / "best.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="best.safetensors"):
        taken(solver, "local_solver", tmp_path / "other", ALONE)
    assert list((tmp_path / "other").glob("*")) == []


def test_denoisers_take_finished_weights(tmp_path):
    from scaled_mpi.learning.schedules import Cosine, Powered
    from scaled_mpi.learning.settings import Session
    from scaled_mpi.learning.sizes import UNetSize
    from scaled_mpi.surrogates.denoiser import BoxSet, FieldDenoiser, fit_means

    size = UNetSize(widths=(8, 8), norm="cell", padding="replicate")
    denoiser = FieldDenoiser(network=size, training=training(2))
    boxes = np.random.default_rng(0).standard_normal((16, 2, 16, 16)).astype(np.float32)
    (tmp_path / "fit/coarse").mkdir(parents=True)
    place = tmp_path / "fit/coarse"
    session = Session(ALONE, place, None, 0)
    fit_means(denoiser, Cosine(), BoxSet(boxes, boxes), 2, 0.5, session)
    given = denoiser.model_copy(update={"weights": str(tmp_path)})
    take = given.take_as(Cosine(), 0.5, periodic=True)
    assert taken(given, "coarse", tmp_path / "new", ALONE, take)
    means = boxes[:1, :, :8, :8]
    made = [
        one.load(at, Cosine(), 0.5, periodic=True)(means, 0.5)
        for one, at in ((denoiser, place), (given, tmp_path / "new"))
    ]
    np.testing.assert_array_equal(*made)
    with pytest.raises(InputError, match="schedule: .* Allowed: "):
        taken(
            given, "coarse", tmp_path / "no", ALONE, given.take_as(Powered(), 0.5, periodic=True)
        )
    with pytest.raises(InputError, match="these are other weights"):
        taken(given, "coarse", tmp_path / "no", ALONE, given.take_as(Cosine(), 1.0))


def test_a_part_without_weights_is_trained_and_its_tree_has_no_key():
    for members in (COMPRESSORS, SOLVERS):
        for member in members.values():
            assert "weights" not in plain(member())
            assert weights_part(member(), "key") == {
                "member": weights_part(member(), "k")["member"]
            }
    assert weights_of(COMPRESSORS["pod"](), "compressor") is None
    assert taken(COMPRESSORS["pod"](), "compressor", None, ALONE) is None
    with pytest.raises(InputError, match=r"compressor.weights: nowhere is not allowed: .* pod.h5"):
        weights_of(COMPRESSORS["pod"](weights="nowhere"), "compressor")
