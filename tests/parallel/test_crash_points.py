"""At every single point where writing can be cut off, what is on disk still serves.

Each call that makes something durable or visible (fsync, replace, rename, unlink, rmdir) is a
point. A child process ends, or meets a full disk, right before or after one of them; all points
are tried in turn.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.engine.artefacts import Artefact, building
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import (
    Storage,
    Trajectory,
    TrajectoryWriter,
    load_checkpoint,
    save_checkpoint,
    stored_frames,
    trajectory_names,
)

POINTS = ("fsync", "replace", "rename", "unlink", "rmdir")
FAULTS = ("kill before", "kill after", "disk full")
BLOCKS = make_blocks(Grid((4, 6)), (2, 3), 1)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """A killed process loses nothing that it wrote, synced or not; syncing only takes time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def ends_at(point: int, fault: str, action: Callable[[], None]) -> bool:
    """Run `action` in a child with `fault` at its point number `point`; whether it got there."""
    child = os.fork()
    if child == 0:
        seen = 0

        def wrap(call):
            def wrapped(*args, **kwargs):
                nonlocal seen
                seen += 1
                if seen == point and fault == "disk full":
                    raise OSError(errno.ENOSPC, "No space left on device")
                if seen == point and fault == "kill before":
                    os._exit(9)
                here = seen == point  # the call itself may pass further points
                try:
                    return call(*args, **kwargs)
                finally:
                    if here:
                        os._exit(9)

            return wrapped

        for name in POINTS:
            setattr(os, name, wrap(getattr(os, name)))
        try:
            action()
        except OSError:
            os._exit(9)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), f"point {point}, {fault}: an error of another kind"
    return code == 9


def every_point(
    tmp_path: Path,
    fault: str,
    scene: Callable[[Path], None],
    action: Callable[[Path], None],
    check: Callable[[Path], None],
) -> None:
    """Set the scene, end the action at point 1, 2, ..., and check what is left, each time anew."""
    for point in range(1, 200):
        folder = tmp_path / str(point)
        folder.mkdir()
        scene(folder)
        ended = ends_at(point, fault, lambda folder=folder: action(folder))
        check(folder)
        if not ended:
            assert point > 5  # the faults did happen
            return
    raise AssertionError("the action has no end")


def state(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((2, 4, 6))


def save(folder: Path, seed: int) -> None:
    save_checkpoint(folder / "march", SerialComm(), BLOCKS, {"u": state(seed)}, {"jump": seed})


@pytest.mark.parametrize("fault", FAULTS)
def test_checkpoint(tmp_path, fault):
    def check(folder):
        arrays, scalars = load_checkpoint(folder / "march", SerialComm(), BLOCKS)
        assert scalars["jump"] in (1, 2)
        np.testing.assert_array_equal(arrays["u"], state(scalars["jump"]))
        save(folder, 3)
        assert load_checkpoint(folder / "march", SerialComm(), BLOCKS)[1]["jump"] == 3
        assert len(list(folder.glob("march.*.h5*"))) == 2

    every_point(
        tmp_path,
        fault,
        lambda folder: [save(folder, seed) for seed in range(2)],
        lambda folder: save(folder, 2),
        check,
    )


def go_on(folder: Path, keep: int, first: int = 0) -> None:
    """Write frames up to number 8; those from `keep` on get the values of `first` + number."""
    with TrajectoryWriter(
        folder, "run", BLOCKS, SerialComm(), ["u"], np.float64, storage=Storage(group=3, keep=keep)
    ) as writer:
        for frame in range(keep, 8):
            writer.append(frame, np.full((1, 4, 6), float(first + frame)))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("keep", "finished"), [(3, False), (5, True)])
def test_a_trajectory_that_goes_on(tmp_path, fault, finished, keep):
    def scene(folder):
        writer = TrajectoryWriter(
            folder, "run", BLOCKS, SerialComm(), ["u"], np.float64, storage=Storage(group=3)
        )
        for frame in range(7):
            writer.append(frame, np.full((1, 4, 6), float(frame)))
        writer.flush()
        if finished:
            writer.close()

    def check(folder):
        assert stored_frames(folder, "run") >= keep
        if trajectory_names(folder):
            run = Trajectory(folder, "run")
            run.verify()
            assert run.shape[0] in (7, 8)
        go_on(folder, keep)
        run = Trajectory(folder, "run")
        run.verify()
        np.testing.assert_array_equal(run.read(slice(None))[:, 0, 0, 0], np.arange(8.0))
        named = {f"run.{i:05d}.h5" for i in range(10)}
        assert len([path for path in folder.iterdir() if path.name in named]) == len(run._files)
        assert sorted(path.name for path in folder.iterdir() if path.name not in named) == [
            "run.json",
            "run.xdmf",
        ]

    every_point(tmp_path, fault, scene, lambda folder: go_on(folder, keep), check)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_artefact_that_is_redone(tmp_path, fault):
    def build(folder, text):
        with building(Artefact(folder, "fit", "abc"), SerialComm(), redo=True) as partial:
            (partial / "inner").mkdir()
            for name in ("a", "b", "inner/c"):
                (partial / name).write_text(text)

    def check(folder):
        artefact = Artefact(folder, "fit", "abc")
        if artefact.done:
            texts = {(artefact.path / name).read_text() for name in ("a", "b", "inner/c")}
            assert texts in ({"old"}, {"new"})
            assert artefact.provenance()["stage"] == "fit"
        build(folder, "again")
        assert [path.name for path in folder.iterdir()] == [artefact.name]
        assert (artefact.path / "inner" / "c").read_text() == "again"

    every_point(
        tmp_path,
        fault,
        lambda folder: build(folder, "old"),
        lambda folder: build(folder, "new"),
        check,
    )
