"""Facts and events: what is written is read back, cut lines are left out, columns never shift."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.facts import EventLog, FactLog, latest, read_events, read_facts, read_scalars

HEADER = "epoch,split,train_loss,val_loss,epoch_time_s,throughput,max_memory_mib"


def test_facts_come_back_with_their_place(tmp_path):
    path = tmp_path / "facts" / "facts.jsonl"
    log = FactLog(path, "couple", ranks=4, tiles=64)
    log.record("sweeps.mean", np.float32(2.5), "1", jump=3)
    log.record("breakeven", "never")
    FactLog(None, "couple").record("sweeps.mean", 1.0)
    FactLog(path, "evaluate").record("vrmse", math.nan)
    first, second, third = read_facts(path)
    assert first == {
        "name": "sweeps.mean",
        "value": 2.5,
        "unit": "1",
        "stage": "couple",
        "ranks": 4,
        "tiles": 64,
        "jump": 3,
    }
    assert second["value"] == "never" and math.isnan(third["value"])
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    log.record("sweeps.mean", 3.0, jump=4)
    assert latest(read_facts(path), stage="couple") == {"sweeps.mean": 3.0, "breakeven": "never"}
    assert latest(read_facts(path), jump=3) == {"sweeps.mean": 2.5}


def test_a_cut_last_line_is_left_out_and_then_removed(tmp_path):
    path = tmp_path / "facts.jsonl"
    log = FactLog(path, "fit")
    log.record("a", 1)
    log.record("b", 2)
    whole = path.read_bytes()
    second_line = len(whole) // 2 + 3
    for length in range(second_line, len(whole)):
        path.write_bytes(whole[:length])
        assert [fact["name"] for fact in read_facts(path)] == ["a"]
    FactLog(path, "fit").record("c", 3)
    assert [fact["name"] for fact in read_facts(path)] == ["a", "c"]
    path.write_bytes(b"{broken\n" + whole)
    with pytest.raises(InputError, match="line 1"):
        read_facts(path)
    assert read_facts(tmp_path / "absent.jsonl") == []


def test_scalars_have_the_thesis_columns(tmp_path):
    log = EventLog(tmp_path, "run-1", seed=7, world_size=4)
    log.start(model="net")
    log.epoch(0, 10, 0.5, 1 / 3, {"vrmse": 0.125, "mae": 2}, epoch_time_s=1.5, throughput=1e9)
    log.epoch(None, 20, np.float32(0.25), None, {"vrmse": 0.0625, "mae": 1}, max_memory_mib=3.25)
    assert (tmp_path / "scalars.csv").read_text() == (
        f"{HEADER},metric_mae,metric_vrmse,rank,world_size\n"
        "0,train,0.5,,1.5,1e+09,,,,0,4\n"
        "0,val,,0.33333333,1.5,1e+09,,2,0.125,0,4\n"
        "-1,train,0.25,,,,3.25,,,0,4\n"
        "-1,val,,,,,3.25,1,0.0625,0,4\n"
    )
    start, first, _ = read_events(tmp_path)
    assert start["moment"] == "on_start" and start["model"] == "net"
    assert first["schema_version"] == 2 and first["val_loss"] == 1 / 3
    assert first["meta"]["run_id"] == start["meta"]["run_id"] == "run-1"
    assert first["meta"]["seed"] == 7 and first["meta"]["world_size"] == 4
    assert not any("histor" in key for key in first)


def test_a_new_metric_widens_the_table_without_a_shift(tmp_path):
    log = EventLog(tmp_path, "run", seed=0)
    log.epoch(0, 1, 1.0, 2.0, {"b": 3.0})
    log.epoch(1, 2, 1.5, 2.5, {"a": 4.0, "b": 5.0})
    log.epoch(2, 3, 1.75, 2.75, {"b": 6.0})
    rows = read_scalars(tmp_path)
    validation = [row for row in rows if row["split"] == "val"]
    assert [(row["metric_a"], row["metric_b"]) for row in validation] == [
        (None, 3.0),
        (4.0, 5.0),
        (None, 6.0),
    ]
    assert [row["val_loss"] for row in validation] == [2.0, 2.5, 2.75]
    assert [row["train_loss"] for row in rows if row["split"] == "train"] == [1.0, 1.5, 1.75]


def test_a_resumed_training_tells_each_epoch_once(tmp_path):
    log = EventLog(tmp_path, "run", seed=0)
    log.start()
    for epoch in range(4):
        log.epoch(epoch, epoch, 1.0 + epoch, 2.0, {"a": 1.0})
    log.exception(FloatingPointError("loss is nan"), step=4)
    assert read_events(tmp_path)[-1]["error"] == "FloatingPointError: loss is nan"
    with open(tmp_path / "scalars.csv", "a") as file:
        file.write("4,train,0.1")  # a row that a kill cut short
    with open(tmp_path / "events.jsonl", "a") as file:
        file.write('{"moment": "on_ep')
    log = EventLog(tmp_path, "run", seed=0)
    log.truncate(1)
    log.start()
    for epoch in (2, 3):
        log.epoch(epoch, epoch, 10.0 + epoch, 2.0, {"a": 1.0})
    log.end(best=2.0)
    rows = [row for row in read_scalars(tmp_path) if row["split"] == "train"]
    assert [(row["epoch"], row["train_loss"]) for row in rows] == [
        (0, 1.0),
        (1, 2.0),
        (2, 12.0),
        (3, 13.0),
    ]
    moments = [event["moment"] for event in read_events(tmp_path)]
    epochs = ["on_epoch_end"] * 2
    assert moments == ["on_start", *epochs, "on_start", *epochs, "on_train_end"]


def test_other_ranks_write_nothing(tmp_path):
    log = EventLog(tmp_path / "facts", "run", seed=0, rank=1, world_size=2)
    log.start()
    log.epoch(0, 1, 1.0, 2.0)
    log.truncate(0)
    log.end()
    assert not (tmp_path / "facts").exists() and read_events(tmp_path / "facts") == []
