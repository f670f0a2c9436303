"""A training that is interrupted, killed or damaged, and goes on to the very same bits."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.facts import EventLog
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.signals import Stopped
from tests.learning.lesson import learn, network, sha, story

ALONE = SerialComm()


@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last"])
def test_three_interruptions_change_no_bit_and_no_event(tmp_path, layout):
    import torch

    def net():
        return network(getattr(torch, layout))

    def log(name):
        return EventLog(tmp_path / name, "run", 3)

    whole, straight = learn(tmp_path / "a", ALONE, net=net(), events=log("a"))
    for stop_after in (2, 3, 5):
        asked = iter([False] * (stop_after - 1) + [True])
        with pytest.raises(Stopped, match=r"stopped after step \d+"):
            learn(
                tmp_path / "b",
                ALONE,
                net=net(),
                events=log("b"),
                should_stop=lambda asked=asked: next(asked),
            )
    pieces, resumed = learn(tmp_path / "b", ALONE, net=net(), events=log("b"))
    assert sha(straight) == sha(resumed)
    assert (whole.sha256, whole.best_step) == (pieces.sha256, pieces.best_step)
    assert story(tmp_path / "a") == story(tmp_path / "b")
    for name in ("best", "last"):
        mine, other = (tmp_path / f / f"{name}.safetensors" for f in "ab")
        assert mine.read_bytes() == other.read_bytes()


@pytest.mark.mpi
def test_a_stop_asked_of_one_rank_stops_all_and_resumes_on_fewer(tmp_path):
    comm = world()
    folder = comm.bcast(tmp_path) / "stop"
    _, straight = learn(tmp_path / f"alone{comm.rank}", ALONE)
    calls = iter(range(100))
    with pytest.raises(Stopped, match="after step 5"):
        learn(
            folder,
            comm,
            should_stop=lambda: next(calls) == 4 and comm.rank == comm.size - 1,
        )
    comm.barrier()
    if comm.rank == 0:
        _, resumed = learn(folder, ALONE)
        assert sha(resumed) == sha(straight)
    comm.barrier()


LONG = {"steps": 60, "checkpoint_every": 3, "validate_every": 12}
KILLED = f"""
import sys
from pathlib import Path
from scaled_mpi.parallel.comm import SerialComm
from tests.learning.lesson import learn
learn(Path(sys.argv[1]), SerialComm(), **{LONG})
"""


def test_killed_in_the_middle_and_started_again_it_ends_with_the_same_bits(tmp_path):
    state = tmp_path / "killed" / "state.safetensors"
    draw = np.random.default_rng(1)
    kills = 0
    for _ in range(2):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "killed")], stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            if state.exists() and state.stat().st_mtime_ns > before:
                break
            time.sleep(0.005)
        time.sleep(float(draw.uniform(0, 0.1)))
        process.send_signal(signal.SIGKILL)
        kills += process.wait(timeout=30) == -signal.SIGKILL
    assert kills >= 1
    _, resumed = learn(tmp_path / "killed", ALONE, **LONG)
    _, straight = learn(tmp_path / "straight", ALONE, **LONG)
    assert sha(resumed) == sha(straight)
    assert not list((tmp_path / "killed").glob(".*.tmp"))


def test_a_finished_training_is_not_repeated(tmp_path):
    first, net = learn(tmp_path, ALONE)

    def never(*_):
        raise AssertionError("trained again")

    again, other = learn(tmp_path, ALONE, loss=never, sample=never, validate=never)
    assert sha(net) == sha(other) and again == first


def test_a_state_of_other_settings_or_seed_is_refused(tmp_path):
    learn(tmp_path, ALONE)
    with pytest.raises(InputError, match="state of another training"):
        learn(tmp_path, ALONE, learning_rate=2e-2)
    with pytest.raises(InputError, match="state of another training"):
        learn(tmp_path, ALONE, seed=4)


def test_a_damaged_state_is_never_trusted(tmp_path):
    asked = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        learn(tmp_path, ALONE, should_stop=lambda: next(asked))
    path = tmp_path / "state.safetensors"
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    from scaled_mpi.learning.weights import load_weights

    for mutant in range(200):
        broken = bytearray(whole)
        if mutant % 2:
            broken = broken[: draw.integers(len(whole))]
        else:
            broken[draw.integers(len(whole))] ^= 1 << int(draw.integers(8))
        path.write_bytes(broken)
        with pytest.raises(InputError):
            load_weights(path)
    with pytest.raises(InputError, match="state.safetensors"):
        learn(tmp_path, ALONE)
    path.write_bytes(whole)
    learn(tmp_path, ALONE)


def test_a_full_disk_leaves_the_last_state(tmp_path, monkeypatch):
    from scaled_mpi.learning import weights

    real, calls = weights.put_in_place, []

    def fails(draft, path):
        calls.append(path.name)
        if len(calls) == 6:
            raise OSError(28, "No space left on device")
        real(draft, path)

    monkeypatch.setattr(weights, "put_in_place", fails)
    with pytest.raises(OSError, match="No space"):
        learn(tmp_path, ALONE, checkpoint_every=1)
    assert not list(tmp_path.glob(".*"))
    monkeypatch.setattr(weights, "put_in_place", real)
    _, resumed = learn(tmp_path, ALONE, checkpoint_every=1)
    _, straight = learn(tmp_path / "straight", ALONE)
    assert sha(resumed) == sha(straight)
