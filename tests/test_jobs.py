"""The job files, run by bash with a stand-in for Slurm: signals, exit codes, requeue."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "jobs").glob("*.sbatch"))

RUN = """#!/bin/bash
trap 'echo saved >> called; sleep 0.3; exit 85' USR2
echo "$@" > called
for _ in {1..100}; do [ -e finish ] && exit "$(cat finish)"; sleep 0.1; done
"""


@pytest.fixture
def place(tmp_path):
    """A project folder whose ./run waits for a signal or for the file `finish`."""
    (tmp_path / "bin").mkdir()
    for name, text in {"run": RUN, "bin/scontrol": '#!/bin/bash\necho "$@" > requeued\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def start(file, place, *arguments):
    environment = os.environ | {
        "SLURM_SUBMIT_DIR": str(place),
        "SLURM_NTASKS": "4",
        "SLURM_JOB_ID": "17",
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
    }
    job = subprocess.Popen(["bash", str(file), *arguments], env=environment, cwd="/")
    for _ in range(200):
        if (place / "called").exists() and (place / "called").read_text():
            return job
        time.sleep(0.05)
    raise AssertionError("./run was not called")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_warned_job_saves_and_is_requeued(file, place):
    job = start(file, place)
    time.sleep(0.2)
    job.send_signal(signal.SIGUSR2)
    assert job.wait(60) == 85
    assert (place / "called").read_text().endswith("saved\n")
    assert (place / "requeued").read_text() == "requeue 17\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("code", [0, 1])
def test_a_job_that_ends_is_not_requeued(file, place, code):
    (place / "finish").write_text(str(code))
    job = start(file, place, "seed=3")
    assert job.wait(60) == code
    assert not (place / "requeued").exists() and (place / "logs").is_dir()
    words = (place / "called").read_text().split()
    assert words[:3] == ["configs/ddm.yaml", "-n", "4"] and words[-1] == "seed=3"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_head_of_a_job_file(file):
    text = file.read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert options["signal"] == "B:USR2@180" and options["open-mode"] == "append"
    assert "requeue" in options and options["output"].startswith("logs/")
    config = re.search(r"\./run (\S+)", text[text.index("cd ") :])[1]
    assert (ROOT / config).exists()


def test_the_chain_takes_account_and_partition_from_the_machine_file(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text('#!/bin/bash\necho "$@" >> told\necho 7\n')
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "chain.sh").write_text((ROOT / "jobs" / "00_submit_all.sh").read_text())
    (tmp_path / "configs" / "machines").mkdir(parents=True)
    for name, account in (("local", ""), ("site", "physics-7")):
        (tmp_path / "configs" / "machines" / f"{name}.yaml").write_text(
            f'account: "{account}"  # who pays\npartition: "{account and "batch"}"\n'
        )
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    told = {}
    for name in ("", "site"):
        environment = {**os.environ, "PATH": path, "MACHINE": name}
        done = subprocess.run(
            ["bash", tmp_path / "jobs" / "chain.sh"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "train 7, test 7, pod_mvar 7" in done.stdout
        told[name] = (tmp_path / "told").read_text().splitlines()
        (tmp_path / "told").unlink()
    assert told[""][2] == "--parsable --dependency=afterany:7:7 jobs/03_train_pod_mvar.sh"
    assert [line.split()[1:3] for line in told["site"]] == [
        ["--account=physics-7", "--partition=batch"]
    ] * 3
