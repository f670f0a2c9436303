"""Weight files: round trip, and everything that must be refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError


@pytest.fixture
def tensors():
    import torch

    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(3, 4),
        "b": torch.randn(5).double(),
        "n": torch.tensor(7),
        "h": torch.randn(2, 2).bfloat16(),
        "flag": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
        "turned": torch.randn(4, 6).T,
    }


def test_round_trip_and_a_hash_of_the_content(tmp_path, tensors):
    from scaled_mpi.learning.weights import load_weights, save_weights

    meta = {"step": 3, "words": "Übung", "list": [1.5, None]}
    first = save_weights(tmp_path / "deep" / "w.safetensors", tensors, meta)
    back, told = load_weights(tmp_path / "deep" / "w.safetensors")
    assert told == meta and back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype and back[name].equal(value)
    assert first == save_weights(tmp_path / "again.safetensors", tensors, meta)
    assert first != save_weights(tmp_path / "other.safetensors", tensors, {**meta, "step": 4})
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["w.safetensors"]


def test_values_that_json_cannot_hold_leave_no_file(tmp_path, tensors):
    from scaled_mpi.learning.weights import save_weights

    with pytest.raises(ValueError):
        save_weights(tmp_path / "w.safetensors", tensors, {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("hostile-was-here"),)


def test_files_that_are_not_ours_are_refused(tmp_path, monkeypatch, tensors):
    import torch
    from safetensors.torch import save_file

    from scaled_mpi.learning.weights import load_weights

    monkeypatch.chdir(tmp_path)
    cases = {
        "empty": b"",
        "text": b"weights",
        "pickle": pickle.dumps(Hostile()),
        "header": (2**62).to_bytes(8, "little") + b"{}",
        "claims": (60).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[99999999],"data_offsets":[0,4]}}'[:60],
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            load_weights(tmp_path / name)
    torch.save({"a": torch.zeros(2)}, tmp_path / "torch")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    for name in ("torch", "foreign", "absent"):
        with pytest.raises(InputError, match=name):
            load_weights(tmp_path / name)
    with pytest.raises(InputError):
        load_weights(tmp_path)
    assert not (tmp_path / "hostile-was-here").exists()


def test_weights_of_another_architecture_change_nothing():
    import torch

    from scaled_mpi.learning.weights import load_into

    own, other = torch.nn.Linear(3, 2), torch.nn.Linear(4, 2)
    before = own.weight.detach().clone()
    with pytest.raises(InputError, match=r"x: .* another architecture: weight is \(2, 4\)"):
        load_into(own, other.state_dict(), "x")
    with pytest.raises(InputError, match="bias is absent"):
        load_into(own, {"weight": own.weight}, "x")
    with pytest.raises(InputError, match="float64"):
        load_into(own, torch.nn.Linear(3, 2).double().state_dict(), "x")
    spoilt = torch.nn.Linear(3, 2).state_dict()
    spoilt["weight"][0, 0] = float("inf")
    with pytest.raises(InputError, match="weight holds values that are not finite"):
        load_into(torch.nn.Linear(3, 2), spoilt, "x")
    np.testing.assert_array_equal(own.weight.detach(), before)
