"""A killed job goes on where it was saved, on another number of ranks, to the same bits."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaled_mpi.facts import read_facts
from scaled_mpi.parallel.signals import EXIT_REQUEUE

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "configs" / "smoke" / "ddm.yaml"
# Long enough to be killed on its way; what comes after the march is not asked for.
LONG = ["coupling.jumps=24", "coupling.checkpoint=3"]


def start(outputs, ranks, *more, upto="couple"):
    """The command as a user types it, in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "scaled_mpi.run",
        str(SMOKE),
        *LONG,
        *more,
        "--stage",
        upto,
        "--outputs",
        str(outputs),
    ]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *command]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process):
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def field_hash(outputs):
    facts = read_facts(outputs / "smoke" / "facts" / "facts.jsonl")
    return [fact["value"] for fact in facts if fact["name"] == "field.sha256"]


def wait_for(process, outputs, pattern):
    """Until a file of the partial artefact appears; a job that ends before shows its output."""
    for _ in range(2400):
        if process.poll() is not None:
            raise AssertionError(f"exit code {process.returncode}\n{process.stdout.read()}")
        if list(outputs.glob(f"artefacts/{pattern}")):
            return True
        time.sleep(0.05)
    raise AssertionError(f"{pattern} never appeared")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("whole")
    code, output = finish(start(outputs, 1))
    assert code == 0, output
    return outputs


def copy_without_couple(source, target):
    for artefact in (source / "artefacts").iterdir():
        if not artefact.name.startswith(("couple", "evaluate")):
            shutil.copytree(artefact, target / "artefacts" / artefact.name)


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no MPI launcher")
def test_a_march_killed_on_two_ranks_ends_on_three_with_the_same_bits(uninterrupted, tmp_path):
    copy_without_couple(uninterrupted, tmp_path)
    job = start(tmp_path, 2)
    assert wait_for(job, tmp_path, "couple-*.partial/march")
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    subprocess.run(["pkill", "-9", "-f", str(tmp_path)], check=False)
    assert not list(tmp_path.glob("artefacts/couple-*[!l]/provenance.json"))
    code, output = finish(start(tmp_path, 3))
    assert code == 0, output
    assert "jumps were saved; going on from there" in output
    assert field_hash(tmp_path) == field_hash(uninterrupted)


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no MPI launcher")
def test_a_warned_job_saves_itself_and_asks_to_be_requeued(uninterrupted, tmp_path):
    copy_without_couple(uninterrupted, tmp_path)
    job = start(tmp_path, 2)
    assert wait_for(job, tmp_path, "couple-*.partial/march")
    job.send_signal(signal.SIGUSR2)
    code, output = finish(job)
    assert code == EXIT_REQUEUE, output
    code, output = finish(start(tmp_path, 1))
    assert code == 0, output
    assert field_hash(tmp_path) == field_hash(uninterrupted)


def test_a_training_killed_goes_on_to_the_same_weights(uninterrupted, tmp_path):
    more = ["surrogate.training.checkpoint_every=5"]
    job = start(tmp_path, 1, *more, upto="fit")
    # Some resumable state of the training is there: any file that the loop has written.
    assert wait_for(job, tmp_path, "fit-*.partial/*state*")
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    code, output = finish(start(tmp_path, 1, *more, upto="fit"))
    assert code == 0, output
    weights = [
        next(root.glob("artefacts/fit-*/best.safetensors")).read_bytes()
        for root in (tmp_path, uninterrupted)
    ]
    assert weights[0] == weights[1]
