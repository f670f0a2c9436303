"""Checkpoints of a march: any rank count, always a whole one on disk, never a non-finite one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.store import load_checkpoint, remove_checkpoint, save_checkpoint

GRID, TILE = Grid((8, 12)), (4, 3)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One empty folder for all ranks."""
    comm = world()
    path = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None)
    yield Path(path)
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(path)
    comm.Barrier()


def state(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    window = generator.random((2, 3, *GRID.shape))
    return {"window": window, "mask": window[0, 0].astype(np.float32)}


def mine(arrays: dict, comm) -> tuple:
    blocks = make_blocks(GRID, TILE, comm.size)
    cut = blocks.block(comm.rank).slices if comm.rank < blocks.ranks else (slice(0, 0),) * 2
    return blocks, {name: values[(..., *cut)] for name, values in arrays.items()}


def save(path, comm, seed) -> None:
    blocks, arrays = mine(state(seed), comm)
    save_checkpoint(path, comm, blocks, arrays, {"jump": seed, "time": 0.1 * seed})


def check(path, comm, seed) -> None:
    blocks, expected = mine(state(seed), comm)
    arrays, scalars = load_checkpoint(path, comm, blocks)
    assert scalars == {"jump": seed, "time": 0.1 * seed}
    assert sorted(arrays) == sorted(expected)
    for name, values in expected.items():
        assert arrays[name].dtype == values.dtype
        np.testing.assert_array_equal(arrays[name], values)


@pytest.mark.mpi
def test_saved_by_many_and_loaded_by_one_and_back(folder):
    comm = world()
    assert load_checkpoint(folder / "march", comm, mine(state(0), comm)[0]) is None
    for seed in range(4):
        save(folder / "march", comm, seed)
    check(folder / "march", comm, 3)
    if comm.rank == 0:
        check(folder / "march", SerialComm(), 3)
        save(folder / "alone", SerialComm(), 5)
        assert len(list(folder.glob("march.*.h5*"))) == 2  # the newest and the one before
    comm.Barrier()
    check(folder / "alone", comm, 5)


@pytest.mark.mpi
def test_a_state_that_is_not_finite_is_never_saved(folder):
    comm = world()
    save(folder / "march", comm, 1)
    arrays = state(2)
    arrays["window"][1, 2, 7, 11] = np.inf
    blocks, part = mine(arrays, comm)
    with pytest.raises(FloatingPointError, match=r"rank \d: window .* cell \(7, 11\)"):
        save_checkpoint(folder / "march", comm, blocks, part, {})
    check(folder / "march", comm, 1)


def test_a_damaged_newest_file_gives_way_to_the_previous(tmp_path):
    comm = SerialComm()
    for seed in range(3):
        save(tmp_path / "march", comm, seed)
    previous, newest = sorted(tmp_path.glob("march.*.h5"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    check(tmp_path / "march", comm, 1)
    save(tmp_path / "march", comm, 7)
    check(tmp_path / "march", comm, 7)
    for file in tmp_path.glob("march.*.h5"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        check(tmp_path / "march", comm, 7)


def test_removed_without_a_trace(tmp_path):
    for seed in range(3):
        save(tmp_path / "march", SerialComm(), seed)
    remove_checkpoint(tmp_path / "march")
    assert list(tmp_path.iterdir()) == []
    assert load_checkpoint(tmp_path / "march", SerialComm(), make_blocks(GRID, TILE, 1)) is None


def test_another_grid_is_refused(tmp_path):
    save(tmp_path / "march", SerialComm(), 1)
    with pytest.raises(InputError, match="grid"):
        load_checkpoint(tmp_path / "march", SerialComm(), make_blocks(Grid((8, 8)), (4, 4), 1))


WRITER = """
import sys, numpy as np
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import save_checkpoint
blocks = make_blocks(Grid((16, 16)), (8, 8), 1)
for jump in range(100000):
    save_checkpoint(sys.argv[1], SerialComm(), blocks, {"u": np.full((1, 16, 16), jump)},
                    {"jump": jump})
    if jump == 0:
        print("ready", flush=True)
"""


def test_after_any_kill_a_whole_checkpoint_is_there(tmp_path):
    generator = np.random.default_rng(5)
    blocks = make_blocks(Grid((16, 16)), (8, 8), 1)
    for kill in range(8):
        path = tmp_path / f"{kill}" / "march"
        command = [sys.executable, "-c", WRITER, str(path)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        time.sleep(float(generator.uniform(0.0, 0.2)))
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        arrays, scalars = load_checkpoint(path, SerialComm(), blocks)
        np.testing.assert_array_equal(arrays["u"], np.full((1, 16, 16), scalars["jump"]))
