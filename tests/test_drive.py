"""The driver must not be green when tests are silent: too few, a missing rank, a hang."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests import drive

PASSED = '<testcase classname="a" name="{}"/>'
SKIPPED = '<testcase classname="a" name="{}"><skipped/></testcase>'
FAILED = '<testcase classname="a" name="{}"><failure/></testcase>'


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A run on two ranks and a function that writes their reports."""
    monkeypatch.setattr(drive, "REPORTS", tmp_path)

    def write(*ranks):
        for rank, cases in enumerate(ranks):
            text = "".join(case.format(f"t{k}") for k, case in enumerate(cases))
            (tmp_path / f"2-ranks.rank{rank}.xml").write_text(f"<testsuite>{text}</testsuite>")
        return drive.judge(drive.Run(2, "mpi", "tests", 0, 9), least=2)

    return write


def test_what_passed_on_all_ranks_is_counted_once(two):
    cases = [PASSED, PASSED, SKIPPED]
    assert two(cases, cases) == (Counter(passed=2, skipped=1), [])


def test_a_failure_on_one_rank_is_a_failure(two):
    counts, complaints = two([PASSED, PASSED, PASSED], [PASSED, PASSED, FAILED])
    assert counts == Counter(passed=2, failed=1) and complaints == ["a.t2"]


def test_a_test_skipped_on_one_rank_only_is_a_failure(two):
    counts, complaints = two([PASSED, PASSED, PASSED], [PASSED, PASSED, SKIPPED])
    assert counts["failed"] == 1 and complaints == ["a.t2 ran on some ranks only"]


def test_too_few_tests_are_a_complaint(two):
    assert two([PASSED, SKIPPED], [PASSED, SKIPPED])[1] == ["only 1 passed, at least 2 must"]


def test_a_rank_without_a_report_is_a_complaint(two):
    _, complaints = two([PASSED, PASSED])
    assert complaints == ["no report 2-ranks.rank1.xml: that process was killed or hung"]


def test_a_run_over_its_limit_is_ended(tmp_path):
    line = [sys.executable, "-c", "import time; print('started', flush=True); time.sleep(60)"]
    assert drive.execute(line, tmp_path / "log", limit=3) == "ended after 3 s"
    assert (tmp_path / "log").read_text() == "started\n"


def test_the_cause_is_printed_when_another_rank_hangs(tmp_path, mpirun):
    (tmp_path / "test_hang.py").write_text(
        "import pytest\n"
        "from scaled_mpi.parallel.comm import world\n"
        "@pytest.mark.mpi\n"
        "def test_one_rank_fails():\n"
        "    assert world().rank != 1, 'the cause'\n"
        "    world().Barrier()\n"
    )
    done = mpirun(
        2,
        sys.executable,
        "-m",
        "pytest",
        "--with-mpi",
        "-p",
        "tests.conftest",
        "--timeout=15",
        "--timeout-method=thread",  # a signal cannot leave MPI
        f"--junitxml={tmp_path / 'r.xml'}",
        tmp_path / "test_hang.py",
    )
    assert done.returncode != 0
    assert "[rank 1]" in done.stderr and "the cause" in done.stderr
    assert "Timeout" in done.stdout + done.stderr and "Barrier" in done.stdout + done.stderr
    assert not (tmp_path / "r.rank0.xml").exists()


def test_a_singleton_does_not_spoil_the_mpirun_of_later_tests(tmp_path, mpirun):
    (tmp_path / "test_order.py").write_text(
        "import subprocess\n"
        "from scaled_mpi.parallel.comm import world\n"
        "def test_starts_mpi():\n"
        "    assert world().size == 1\n"
        "def test_starts_mpirun():\n"
        "    assert subprocess.run(['mpirun', '-n', '2', 'true']).returncode == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", tmp_path],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout
