"""A real Slurm: the chain of array jobs, Dask's jobs, and workers that are killed."""

import os
import random
import shutil
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from scaled_mpi.experiments import load
from scaled_mpi.experiments.ensemble.members import ledger, write_member
from scaled_mpi.facts import read_facts
from scaled_mpi.files import sha256
from tests.slurm import Slurm, missing

ROOT = Path(__file__).parents[3]
FEW = [
    "ensemble.training=8",
    "ensemble.test=2",
    "forecast.limit=1",
    "ensemble.duration=0.9",
    "surrogate.selection.ranks=[2,4]",
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    absent = missing()
    if absent or os.geteuid() != 0:
        said = f"NO SLURM HERE ({', '.join(absent) or 'not root'}): array jobs are not tested"
        warnings.warn(said, stacklevel=1)
        pytest.skip(f"{said}; apt-get install slurm-wlm munge")
    one = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def site(slurm, tmp_path, monkeypatch):
    """A folder with jobs, configurations and environment, from which jobs are submitted."""
    for name in ("jobs", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "configs" / "machines" / "here.yaml").write_text(
        f"interface: lo\ndirectives: ['--mem=0']\nmemory: 1GB\njobs: 3\nminutes: 10\n"
        f"prologue: ['export PYTHONPATH={ROOT}']\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """sha256 of every member, made one after another."""
    folder, experiment = tmp_path_factory.mktemp("serial"), load(SMOKE, FEW)
    return {m.name: write_member(experiment, folder, m)["sha256"] for m in experiment.members()}


SMOKE = str(ROOT / "configs" / "smoke" / "oscar.yaml")


@pytest.mark.timeout(600)
def test_the_chain_of_array_jobs_finishes(slurm, site, serial):
    text = (site / "configs" / "smoke" / "oscar.yaml").read_text()
    small = text.replace(
        "training: 12, test: 4, duration: 1.2", "training: 8, test: 2, duration: 0.9"
    )
    (site / "small.yaml").write_text(small.replace("limit: 4", "limit: 1"))
    slurm.environment |= {
        "CONFIG": "small.yaml",
        "TRAIN": "0-7",
        "TEST": "0-1",
        "PYTHONPATH": str(ROOT),
    }
    done = slurm.run("bash", "jobs/00_submit_all.sh", cwd=site)
    assert done.returncode == 0, done.stderr
    slurm.wait_for_jobs(540)
    log = (site / "logs" / "training.out").read_text()
    assert "report.html" in log, log[-2000:]
    facts = {
        f["name"]: f["value"]
        for f in read_facts(site / "outputs" / "smoke-oscar" / "facts" / "facts.jsonl")
    }
    assert facts["members.done"] == facts["members.starts"] == 10
    assert facts["members.repeated"] == 0
    folder = site / "outputs" / "smoke-oscar" / "simulate"
    assert {name: sha256(folder / f"{name}.json") for name in serial} == serial


@pytest.mark.timeout(600)
def test_killed_workers_lose_nothing_and_repeat_nothing(slurm, site, serial):
    pytest.importorskip("dask_jobqueue")
    from scaled_mpi.engine.launch import farm

    experiment, folder = load(SMOKE, FEW), site / "members"
    folder.mkdir()
    kills, ended = [], threading.Event()

    def killer() -> None:
        draw = random.Random(0)
        while not ended.is_set() and len(kills) < 2:
            jobs = slurm.run("squeue", "-h", "-t", "R", "-o", "%A").stdout.split()
            if any(folder.glob("*.json")) and jobs:
                kills.append(draw.choice(jobs))
                slurm.run("scancel", "-s", "KILL", "-f", kills[-1])
            time.sleep(1)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        told = farm(
            write_member, [(experiment, folder, m) for m in experiment.members()], "slurm", "here"
        )
    finally:
        ended.set()
        thread.join()
    assert {entry["member"]: entry["sha256"] for entry in told} == serial
    book = ledger(folder, experiment.members()).values()
    assert all(entry["state"] == "done" and entry["ends"] == 1 for entry in book)
    assert sum(entry["starts"] for entry in book) <= len(told) + len(kills)
