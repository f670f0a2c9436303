"""The driver must not be green when tests are silent: too few, a missing rank, a hang."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests import drive
from tests.verdict import HANGS_A_FILE, Ledger, Verdict, table

PASSED, FAILED, SKIPPED = ("passed", ""), ("failed", "boom"), ("skipped", "needs a GPU")


@pytest.fixture
def two(tmp_path):
    """A function that writes the journals of two ranks and returns the judgement."""

    def write(*ranks):
        tests = [f"a.t{k}" for k in range(len(ranks[0]))]
        for rank, cases in enumerate(ranks):
            events = [["collected", tests]]
            for test, (outcome, text) in zip(tests, cases, strict=True):
                events += [["start", test], ["end", test, outcome, 1.5, text]]
            events.append(["finished", 0])
            lines = "".join(json.dumps(event) + "\n" for event in events)
            (tmp_path / f"rank{rank}.jsonl").write_text(lines)
        ledger = Ledger()
        assert not ledger.settle(tmp_path, 2, "")
        return ledger.judge(least=2)

    return write


def test_what_passed_on_all_ranks_is_counted_once(two):
    cases = [PASSED, PASSED, SKIPPED]
    assert two(cases, cases) == (Counter(passed=2, skipped=1), [])


def test_a_failure_on_one_rank_is_a_failure(two):
    counts, complaints = two([PASSED, PASSED, PASSED], [PASSED, PASSED, FAILED])
    assert counts == Counter(passed=2, failed=1) and complaints == ["a.t2\nboom"]


def test_a_test_skipped_on_one_rank_only_is_a_failure(two):
    counts, complaints = two([PASSED, PASSED, PASSED], [PASSED, PASSED, SKIPPED])
    assert counts["failed"] == 1 and complaints == ["a.t2\nran on some ranks only"]


def test_too_few_tests_are_a_complaint(two):
    assert two([PASSED, SKIPPED], [PASSED, SKIPPED])[1] == ["only 1 passed, at least 2 must"]


def test_a_rank_without_a_report_is_a_complaint(two):
    _, complaints = two([PASSED, PASSED])
    assert complaints == [
        "no report of rank 1: that process was killed or hung",
        "only 0 passed, at least 2 must",
    ]


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
        "--timeout=6",
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


def test_a_skip_that_this_set_up_need_not_make_is_a_failure(two):
    cases = [PASSED, PASSED, ("skipped", "could not import 'petsc4py'")]
    counts, complaints = two(cases, cases)
    assert counts == Counter(passed=2, failed=1)
    assert complaints == ["a.t2\nskipped, but this set-up can run it: could not import 'petsc4py'"]


def test_a_test_without_a_verdict_is_a_failure():
    ledger = Ledger({"a.py::t0": Verdict("passed")}, dict.fromkeys(["a.py::t0", "a.py::t1"]))
    counts, complaints = ledger.judge(least=1)
    assert counts == Counter(passed=1, failed=1) and complaints == ["a.py::t1 did not run"]


def test_a_file_whose_tests_hang_is_left_after_a_few():
    tests = [f"a.py::t{k}" for k in range(HANGS_A_FILE + 2)] + ["b.py::t"]
    ledger = Ledger(expected=dict.fromkeys(tests))
    for test in tests[:HANGS_A_FILE]:
        assert len(ledger.missing()) > 2
        ledger.blame(test, "ended", "stack")
    assert ledger.missing() == ["b.py::t"]


def test_seconds_are_summed_by_file_and_the_slowest_is_first():
    serial = Ledger({"a.py::t0": Verdict("passed", 1.0), "b.py::t0": Verdict("passed", 2.5)})
    one = Ledger({"a.py::t1": Verdict("failed", 4.0)})
    head, *rows = table({"serial": serial, "1 rank": one})
    assert head.split() == ["all", "serial", "1", "rank", "file"]
    assert [row.split() for row in rows] == [
        ["5.0", "1.0", "4.0", "a.py"],
        ["2.5", "2.5", "0.0", "b.py"],
    ]


def test_a_core_is_left_to_no_one_and_large_runs_come_last(tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    for name in "abc":
        (tmp_path / "tests" / f"test_{name}.py").write_text("# mark.mpi mark.ranks6")
    runs = tuple(run for run in drive.RUNS if run.ranks < 64)
    for cores, expected in [
        (2, "0 0 1 0 2 3 4 6"),
        (1, "0 0 1 2 3 4 6"),
        (4, "0 0 1 2 3 0 4 6"),
    ]:
        schedule = drive.Schedule(runs, [], tmp_path / "reports", cores)
        assert " ".join(str(one.run.ranks) for one in schedule.pending) == expected


def test_slow_files_of_the_last_call_are_started_first(tmp_path):
    files = ["tests/test_a.py", "tests/test_b.py", "tests/test_stages.py"]
    assert drive.slow_first(files, tmp_path / "none")[0] == "tests/test_stages.py"
    (tmp_path / "seconds").write_text("all serial file\n 9.0 9.0 tests/test_b.py\n")
    assert drive.slow_first(files, tmp_path / "seconds")[0] == "tests/test_b.py"


HANGING = """
import subprocess, sys, time
import pytest
from scaled_mpi.parallel.comm import world

def sleepers():  # one in this process group, one in a session of its own
    for apart in (False, True):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {mark!r}],
                         start_new_session=apart)

{decorated}
def test_before():
    world().Barrier()

{decorated}
def test_hangs():
    sleepers()
    if world().size == 1:
        time.sleep(600)
    assert world().rank != 0, "the reason"
    world().Barrier()

{decorated}
def test_after():
    world().Barrier()
"""


def running(mark):
    """Processes whose command line holds the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path] * (mark.encode() in path.read_bytes())
    return found


def hanging(tmp_path, ranks):
    mark = f"sleeper-of-{tmp_path}"
    file = tmp_path / "test_hanging.py"
    file.write_text(HANGING.format(mark=mark, decorated="@pytest.mark.mpi" * bool(ranks)))
    run = drive.Run(ranks, "mpi" if ranks else "not mpi", "tests", 0, 100)
    options = [f"--rootdir={tmp_path}", "-p", "tests.conftest", "--timeout=6"]
    return drive.Schedule((run,), [str(file), *options], tmp_path / "reports", cores=1), mark


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_hung_test_costs_its_own_verdict_alone(tmp_path, ranks, request):
    if ranks:
        request.getfixturevalue("mpirun")
    schedule, mark = hanging(tmp_path, ranks)
    (progress,) = schedule.drive()
    verdicts = {test.partition("::")[2]: v for test, v in progress.ledger.verdicts.items()}
    assert {test: verdict.outcome for test, verdict in verdicts.items()} == {
        "test_before": "passed",
        "test_hangs": "failed",
        "test_after": "passed",
    }
    assert "ended at the time limit in this test" in verdicts["test_hangs"].text
    assert "in test_hangs" in verdicts["test_hangs"].text  # its stack
    for words in ("[rank 1] Timeout", "the reason"):
        assert (words in verdicts["test_hangs"].text) == (ranks == 2)
    assert running(mark) == []


def test_an_interrupted_call_leaves_no_process(tmp_path):
    schedule, mark = hanging(tmp_path, 0)
    code = (
        "import sys, pathlib; from tests import drive\n"
        "run = drive.Run(0, 'not mpi', 'tests', 0, 100)\n"
        "drive.main(sys.argv[2:], (run,), pathlib.Path(sys.argv[1]))\n"
    )
    line = [sys.executable, "-c", code, tmp_path / "again", *schedule.named, *schedule.options]
    call = subprocess.Popen([*map(str, line), "--timeout=60"], cwd=drive.ROOT)
    try:
        until = time.monotonic() + 60
        while not running(mark) and time.monotonic() < until:
            time.sleep(0.1)
        assert running(mark)
    finally:
        call.send_signal(signal.SIGTERM)
    assert call.wait(30) == 128 + signal.SIGTERM
    assert running(mark) == []
