"""All tests: the serial ones, then those marked `mpi` on several numbers of ranks.

`python tests/drive.py [pytest arguments]`, or `./run test`. Green must mean that tests ran: too
few passed ones, a rank without a report, or a hang is a failure. The reports (one a rank) and logs
stay in build/tests. With pytest arguments (`-k halo`) the least counts are not asked for.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "build" / "tests"


@dataclass(frozen=True)
class Run:
    """One pytest: on how many ranks (0: without mpirun), what, and what counts as complete."""

    ranks: int
    marked: str
    folder: str
    least: int  # passed tests, a little under today's count
    limit: int  # seconds for the whole run

    @property
    def name(self) -> str:
        return f"{self.ranks} rank{'s' * (self.ranks > 1)}" if self.ranks else "serial"


RUNS = (
    Run(0, "not mpi", "tests", 1450, 1800),
    Run(1, "mpi", "tests", 210, 900),
    Run(2, "mpi", "tests", 210, 900),
    Run(3, "mpi", "tests", 210, 900),
    Run(4, "mpi", "tests", 210, 900),
    Run(6, "ranks6", "tests", 60, 600),
    Run(64, "ranks64", "tests", 1, 600),
)
A_TEST = 300  # seconds for one test under mpirun: a hung rank is ended with its stack printed
SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMP_NUM_THREADS": "1",
}


def command(run: Run, arguments: list[str]) -> list[str]:
    """The command line of one run; under mpirun only files with such tests are read at all."""
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "--color=no",
        "-m",
        run.marked,
        f"--junitxml={REPORTS / run.name.replace(' ', '-')}.xml",
    ]
    if not run.ranks:
        return [*pytest, *arguments, run.folder]
    files = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / run.folder).rglob("test_*.py"))
        if f"mark.{run.marked}" in path.read_text()
    ]
    return [
        "mpirun",
        "-n",
        str(run.ranks),
        *pytest,
        "--with-mpi",
        f"--timeout={A_TEST}",
        "--timeout-method=thread",
        *arguments,
        *files,
    ]


def execute(line: list[str], log: Path, limit: int) -> str:
    """Run one command with its output in `log`; returns "" or why it was ended."""
    with log.open("w") as output:
        process = subprocess.Popen(
            line,
            cwd=ROOT,
            env=SETTINGS | dict(os.environ),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"ended after {limit} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return "" if code in (0, 1, 5) else f"exit code {code}"  # 1: failures, 5: nothing collected


def outcomes(report: Path) -> dict[str, str]:
    """Test name -> passed, failed or skipped, from one rank's report."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        state = "failed" if kinds & {"failure", "error"} else "passed"
        found[f"{case.get('classname')}.{case.get('name')}"] = (
            "skipped" if state == "passed" and "skipped" in kinds else state
        )
    return found


def judge(run: Run, least: int) -> tuple[Counter[str], list[str]]:
    """Counts of one run and its complaints. A test passed if it passed on every rank."""
    stem = run.name.replace(" ", "-")
    names = [f"{stem}.rank{rank}.xml" for rank in range(run.ranks)] or [f"{stem}.xml"]
    complaints, merged = [], {}
    for name in names:
        if not (REPORTS / name).exists():
            complaints.append(f"no report {name}: that process was killed or hung")
            continue
        for test, state in outcomes(REPORTS / name).items():
            merged.setdefault(test, []).append(state)
    counts: Counter[str] = Counter()
    for test, states in merged.items():
        state = "failed" if "failed" in states else states[0]
        if state != "failed" and len(set(states)) > 1:
            state = "failed"
            complaints.append(f"{test} ran on some ranks only")
        elif state == "failed":
            complaints.append(test)
        counts[state] += 1
    if counts["passed"] < least:
        complaints.append(f"only {counts['passed']} passed, at least {least} must")
    return counts, complaints


def main(arguments: list[str]) -> int:
    """Run all; prints a line a run and, last, the sums. 0 if none failed and none is missing."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    runs = RUNS if shutil.which("mpirun") else RUNS[:1]
    if len(runs) < len(RUNS):
        print("no mpirun: only the serial tests run", flush=True)
    passed = failed = 0
    for run in runs:
        since, log = time.monotonic(), REPORTS / f"{run.name.replace(' ', '-')}.log"
        ended = execute(command(run, arguments), log, run.limit)
        counts, complaints = judge(run, 0 if arguments else run.least)
        complaints += [ended] * bool(ended)
        print(
            f"{run.name}: {counts['passed']} passed, {counts['failed']} failed, "
            f"{counts['skipped']} skipped, {time.monotonic() - since:.0f} s",
            flush=True,
        )
        if complaints:
            print(log.read_text()[-12_000:], *complaints, f"(log: {log})", sep="\n  ", flush=True)
        passed += counts["passed"]
        failed += max(counts["failed"], 1) if complaints else 0
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
