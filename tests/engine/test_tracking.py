"""Tracking sinks: what they are told is what the facts say."""

import os
import subprocess
import sys

import pytest

from scaled_mpi.config import InputError
from scaled_mpi.engine.tracking import check_sink, points, track
from scaled_mpi.facts import EventLog, FactLog


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "job"
    (folder / "facts").mkdir(parents=True)
    log = FactLog(folder / "facts" / "facts.jsonl", "evaluate", 1)
    log.record("vrmse.lead", 0.25, jump=3)
    log.record("breakeven", "never")
    log.record("seam.index", float("nan"))
    events = EventLog(folder / "facts", run_id="r", seed=0)
    events.start()
    events.epoch(1, 10, 0.5, 0.75)
    return folder


TOLD = {
    ("evaluate/vrmse.lead", 3, 0.25),
    ("training/train/train_loss", 1, 0.5),
    ("training/val/val_loss", 1, 0.75),
}


def test_points_are_the_finite_numbers_at_their_places(results):
    assert set(points(results)) >= TOLD
    assert not any("breakeven" in name or "seam" in name for name, _, _ in points(results))


def test_tensorboard_reads_back_what_was_told(results):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # told again, nothing stands twice
        folder = track(results, "tensorboard")
    read = EventAccumulator(str(folder)).Reload()
    found = {
        (tag, event.step, event.value)
        for tag in read.Tags()["scalars"]
        for event in read.Scalars(tag)
    }
    assert found == set(points(results))


def test_wandb_stays_offline_and_holds_no_key(results):
    pytest.importorskip("wandb")
    code = (
        f"from pathlib import Path; from scaled_mpi.engine.tracking import track; "
        f"track(Path({str(results)!r}), 'wandb')"
    )
    environment = os.environ | {"WANDB_API_KEY": "0123456789abcdef" * 2 + "planted0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    files = [path for path in (results / "wandb").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not any(b"planted0" in path.read_bytes() for path in files)


def test_an_absent_library_is_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--track wandb: not installed. Needed: pip install"):
        check_sink("wandb")
