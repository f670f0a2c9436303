"""Artefacts appear whole or not at all, are found again by hash, and show no secrets."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.engine.artefacts import Artefact, artefact_hash, building, publish
from scaled_mpi.parallel.comm import SerialComm, world


def finished(root: Path, code: str = "0123456789", text: str = "one") -> Artefact:
    artefact = Artefact(root, "fit", code)
    with building(artefact, SerialComm(), redo=True) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "weights.txt").write_text(text)
    return artefact


def test_the_hash_covers_what_decides_and_nothing_else():
    hashes = [
        artefact_hash("fit", 1, {"width": 8, "depth": 2}, ["simulate-00"]),
        artefact_hash("couple", 1, {"width": 8, "depth": 2}, ["simulate-00"]),
        artefact_hash("fit", 2, {"width": 8, "depth": 2}, ["simulate-00"]),
        artefact_hash("fit", 1, {"width": 9, "depth": 2}, ["simulate-00"]),
        artefact_hash("fit", 1, {"width": 8, "depth": 2}, ["simulate-01"]),
    ]
    assert len(set(hashes)) == len(hashes) and all(len(h) == 10 for h in hashes)
    assert artefact_hash("fit", 1, {"depth": 2, "width": 8}, ("simulate-00",)) == hashes[0]
    # Changes of how a hash is made would orphan every artefact; they must be on purpose.
    text = '{"config":{"width":8},"inputs":[],"stage":"fit","version":1}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:10]
    assert artefact_hash("fit", 1, {"width": 8}, ()) == expected


def test_an_artefact_has_its_name_only_when_complete(tmp_path):
    artefact = Artefact(tmp_path, "fit", "abc")
    with pytest.raises(FloatingPointError), building(artefact, SerialComm()) as folder:
        (folder / "half").write_text("1")
        assert not artefact.done
        raise FloatingPointError("loss")
    assert not artefact.done and not artefact.path.exists()
    with building(artefact, SerialComm(), provenance={"seed": 3}) as folder:
        assert (folder / "half").read_text() == "1"  # the stage can go on in it
        (folder / "rest").write_text("2")
    assert artefact.done and not artefact.partial.exists()
    assert sorted(path.name for path in artefact.path.iterdir()) == [
        "half",
        "provenance.json",
        "rest",
    ]
    assert artefact.provenance()["seed"] == 3


def test_redo_begins_anew_and_the_old_one_stays_until_then(tmp_path):
    artefact = finished(tmp_path)
    with pytest.raises(ValueError), building(artefact, SerialComm(), redo=True) as folder:
        (folder / "left").write_text("over")
        raise ValueError
    assert artefact.done and (artefact.path / "inner" / "weights.txt").read_text() == "one"
    with building(artefact, SerialComm(), redo=True) as folder:
        assert list(folder.iterdir()) == []
        (folder / "new.txt").write_text("two")
    assert [path.name for path in tmp_path.iterdir()] == [artefact.name]
    assert sorted(p.name for p in artefact.path.iterdir()) == ["new.txt", "provenance.json"]


def test_provenance_tells_versions_and_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "planted-secret")
    artefact = Artefact(tmp_path, "fit", "abc")
    given = {
        "experiment": {"api_key": "planted-secret", "jobs": [{"Token": "planted-secret"}]},
        "inputs": ["simulate-00"],
        "keyframes": 3,
    }
    with building(artefact, SerialComm(), provenance=given):
        pass
    told = artefact.provenance()
    assert told["versions"]["numpy"] == np.__version__ and told["ranks"] == 1
    assert told["stage"] == "fit" and told["inputs"] == ["simulate-00"] and told["keyframes"] == 3
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "planted-secret" not in (artefact.path / "provenance.json").read_text()


def test_two_runs_never_share_a_partial_folder(tmp_path):
    artefact = Artefact(tmp_path, "fit", "abc")
    with building(artefact, SerialComm()) as folder:
        (folder / "mine").write_text("1")
        with pytest.raises(InputError, match="another run"):
            with building(artefact, SerialComm(), redo=True):
                pass
        assert (folder / "mine").exists()
    with building(artefact, SerialComm()):
        pass


@pytest.mark.mpi
def test_all_ranks_build_together():
    comm = world()
    root = Path(comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None))
    artefact = Artefact(root, "simulate", "abc")
    for text in ("first", "second"):
        with building(artefact, comm, redo=text == "second") as folder:
            (folder / f"{comm.rank}.txt").write_text(text)
        for rank in range(comm.size):
            assert (artefact.path / f"{rank}.txt").read_text() == text
        comm.Barrier()
    assert artefact.provenance()["ranks"] == comm.size
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(root)


WRITER = """
import sys
from pathlib import Path
from scaled_mpi.engine.artefacts import Artefact, building
from scaled_mpi.parallel.comm import SerialComm
print("ready", flush=True)
for run in range(100000):
    with building(Artefact(Path(sys.argv[1]), "fit", "abc"), SerialComm(), redo=True) as folder:
        for part in range(4):
            (folder / str(part)).write_text(str(run))
"""


def test_after_any_kill_a_named_artefact_is_whole(tmp_path):
    generator = np.random.default_rng(2)
    seen = 0
    for kill in range(8):
        root = tmp_path / str(kill)
        command = [sys.executable, "-c", WRITER, str(root)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        time.sleep(float(generator.uniform(0.0, 0.3)))
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        artefact = Artefact(root, "fit", "abc")
        if artefact.done:
            parts = {(artefact.path / str(part)).read_text() for part in range(4)}
            assert len(parts) == 1
            json.loads((artefact.path / "provenance.json").read_text())
            seen += 1
        with building(artefact, SerialComm(), redo=True) as folder:
            (folder / "after").write_text("")
        assert (artefact.path / "after").exists()
    assert seen > 0


def test_published_folders_hold_links_and_follow_changes(tmp_path):
    root, outputs = tmp_path / "artefacts", tmp_path / "ddm"
    artefact = finished(root)
    publish([artefact], outputs)
    shown = outputs / "fit" / "inner" / "weights.txt"
    assert shown.read_text() == "one" and shown.samefile(artefact.path / "inner/weights.txt")
    before = shown.stat()
    publish({"fit": artefact}, outputs)
    assert shown.stat() == before  # up to date: untouched
    other = finished(root, code="fedcba9876", text="two")
    publish({"fit": other, "again": other}, outputs)
    assert shown.read_text() == "two"
    assert (outputs / "again/inner/weights.txt").read_text() == "two"
    assert sorted(path.name for path in outputs.iterdir()) == ["again", "fit"]
    shutil.rmtree(root)
    assert shown.read_text() == "two"
    with pytest.raises(InputError, match="not finished"):
        publish([Artefact(root, "fit", "none")], outputs)


def test_names_cannot_leave_the_root(tmp_path):
    for stage, code in (("../fit", "abc"), ("fit", "../abc"), ("", "abc")):
        with pytest.raises(InputError, match="allowed"):
            Artefact(tmp_path, stage, code)
