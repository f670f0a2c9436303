"""All tests: the serial ones in parallel workers, those marked `mpi` on several numbers of ranks.

`python tests/drive.py [files or pytest arguments]`, or `./run test`. Runs that fit side by side on
the cores run side by side. Green must mean that tests ran: too few passed ones, a test without a
verdict, a skip without need, or a hang is a failure. A test that is ended costs its own verdict
alone: the others are kept or run again, and nothing that it started is left. Journals, logs and
seconds.txt (seconds a file) stay in build/tests. With arguments (`-k halo`) the least counts are
not asked for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # of a script it is the script's folder

from tests.journal import CLAIMS, SETTINGS, TASK, claim_of, file_of  # noqa: E402
from tests.verdict import Ledger, table  # noqa: E402

REPORTS = ROOT / "build" / "tests"


@dataclass(frozen=True)
class Run:
    """One set of tests: on how many ranks (0: without mpirun), which, and what is complete."""

    ranks: int
    marked: str
    folder: str
    least: int  # passed tests, a little under today's count
    limit: int  # seconds for the whole run
    alone: bool = False  # it slows what runs beside it, and is slowed

    @property
    def name(self) -> str:
        return f"{self.ranks} rank{'s' * (self.ranks > 1)}" if self.ranks else "serial"

    def cores(self, machine: int, tasks: int = 1) -> int:
        """How many of the machine's cores its processes take; one serial worker counts as none.

        Serial tests often wait, for a process or a limit, and one more worker fills that time.
        """
        if not self.ranks:
            return max(tasks - 1, 0)
        return tasks * (machine if self.alone else min(self.ranks, machine))


RUNS = (
    Run(0, "not mpi", "tests", 1990, 1800),
    Run(1, "mpi", "tests", 225, 900),
    Run(2, "mpi", "tests", 225, 900),
    Run(3, "mpi", "tests", 225, 900),
    Run(4, "mpi", "tests", 225, 900),
    Run(6, "ranks6", "tests", 60, 600, alone=True),
    Run(64, "ranks64", "tests", 1, 600, alone=True),
)
WORKERS = 8  # at most: each reads all files, and the longest file takes longer than an eighth
A_TEST = 300  # seconds for one test under mpirun: a hung rank is ended with its stack printed
GRACE = 15  # seconds after a stack was written within which the process must have ended
UNKNOWN = 5.0  # seconds of a file that seconds.txt does not know
# Files that take longest, first, where no seconds.txt of an earlier call says it.
SLOW = (
    "test_resume test_stages test_drive test_ensemble test_outside test_dynamics test_solve "
    "test_calibration test_pod_mvar test_exchange test_crash_points test_api test_terms"
).split()


def slow_first(files: list[str], seconds: Path) -> list[str]:
    """The files, those that took longest first: by an earlier call, else by `SLOW`."""
    seconds_of = {
        f: float(len(SLOW) - SLOW.index(Path(f).stem)) for f in files if Path(f).stem in SLOW
    }
    unknown = 0.0
    if seconds.exists():
        rows = [line.split() for line in seconds.read_text().splitlines()[1:]]
        seconds_of, unknown = {row[-1]: float(row[0]) for row in rows}, UNKNOWN
    return sorted(files, key=lambda file: -seconds_of.get(file, unknown))


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(tests that are named, options of pytest)."""
    named = [a for a in arguments if not a.startswith("-") and Path(file_of(a)).exists()]
    return named, [a for a in arguments if a not in named]


def tests_of(run: Run, named: list[str], seconds: Path) -> list[str]:
    """What pytest is to read; under mpirun only files with such tests are read at all."""
    files = [
        str(path.relative_to(ROOT)) for path in sorted((ROOT / run.folder).rglob("test_*.py"))
    ]
    files = named or slow_first(files, seconds)
    if not run.ranks:
        return files
    return [
        file
        for file in files
        if Path(file).is_dir() or f"mark.{run.marked}" in (ROOT / file_of(file)).read_text()
    ]


def command(run: Run, tests: list[str], options: list[str], scratch: Path) -> list[str]:
    """The command line of one process of a run, or of its ranks."""
    pytest = [sys.executable, "-m", "pytest", "-v", "--color=no", "-m", run.marked]
    pytest += ["-p", "tests.journal", "-p", "no:cacheprovider", "-c", "pyproject.toml"]
    pytest += ["--continue-on-collection-errors", f"--basetemp={scratch}", "--rootdir=."]
    if not run.ranks:
        return [*pytest, *options, *tests]
    limit = [f"--timeout={A_TEST}", "--timeout-method=thread"]
    return ["mpirun", "-n", str(run.ranks), *pytest, "--with-mpi", *limit, *options, *tests]


class Task:
    """One started command in a process group of its own, its folder and everything it starts."""

    def __init__(self, line: list[str], folder: Path, limit: float, variables: dict[str, str]):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.limit, self.begun = folder, limit, time.monotonic()
        outer = os.environ.get(TASK, "")
        inherited = {k: v for k, v in os.environ.items() if k != CLAIMS}
        with (folder / "log").open("w") as output:
            self.process = subprocess.Popen(
                line,
                cwd=ROOT,
                env=SETTINGS | inherited | variables | {TASK: f"{outer}{os.pathsep}{folder}"},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def ended(self) -> str | None:
        """None while it runs; then "" or why its tests did not come to an end."""
        code = self.process.poll()
        cause = None
        if code is not None:
            cause = "" if code in (0, 1, 5) else f"exit code {code}"  # 1: failures, 5: no tests
            if self.stuck(0):
                cause = "ended at the time limit"
        elif time.monotonic() - self.begun > self.limit:
            cause = f"ended after {self.limit:.0f} s"
        elif self.stuck(GRACE):
            cause = "ended at the time limit"
        if cause is not None:
            self.end()
        return cause

    def stuck(self, seconds: float) -> bool:
        """Whether a rank's stack was written, at a test's limit, that many seconds ago."""
        now = time.time()
        states = [path.stat() for path in self.folder.glob("rank*.stack")]
        return any(state.st_size and now - state.st_mtime >= seconds for state in states)

    def end(self) -> None:
        """Kills what is left: its group, and what has left the group but names the folder."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for _ in range(20):
            left = descendants(self.folder)
            if not left:
                return
            for one in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            time.sleep(0.1)


def descendants(folder: Path) -> list[int]:
    """Processes started with the folder among those of `TASK`, zombies aside (Linux only)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            words = next((v for v in variables if v.startswith(f"{TASK}=".encode())), b"")
            if os.fsencode(folder) in words.partition(b"=")[2].split(os.pathsep.encode()):
                found.append(int(entry.name))
    return found


def execute(line: list[str], log: Path, limit: float) -> str:
    """Run one command with its output in `log`; returns "" or why it was ended."""
    task = Task(line, log.parent, limit, {})
    while (cause := task.ended()) is None:
        time.sleep(0.05)
    (log.parent / "log").replace(log)
    return cause


@dataclass
class Progress:
    """What has become of one run so far."""

    run: Run
    tests: list[str]
    ledger: Ledger = field(default_factory=Ledger)
    begun: float = 0.0
    over: float = 0.0
    attempts: int = 0
    tasks: list[Task] = field(default_factory=list)  # under way

    def summary(self, least: int) -> tuple[int, int, list[str]]:
        """(passed, failed, lines to print)."""
        counts, complaints = self.ledger.judge(least)
        failed = max(counts["failed"], 1) if complaints else 0
        line = (
            f"{self.run.name}: {counts['passed']} passed, {counts['failed']} failed, "
            f"{counts['skipped']} skipped, {self.over - self.begun:.0f} s"
        )
        return counts["passed"], failed, [line, *complaints]


class Schedule:
    """Starts runs as cores become free, and starts again what an ended process has left."""

    def __init__(
        self, runs: tuple[Run, ...], arguments: list[str], reports: Path, cores: int
    ) -> None:
        self.named, self.options = split(arguments)
        self.cores, self.reports = cores, reports
        every = [Progress(run, tests_of(run, self.named, reports / "seconds.txt")) for run in runs]
        self.scratch, self.claims = Path(), reports / "claims"
        self.progress = [one for one in every if one.tests]
        self.pending = self.order()

    def order(self) -> list[Progress]:
        """Two serial workers, runs that leave a core free, the other workers, the large runs."""
        serial = [one for one in self.progress if not one.run.ranks]
        ranks = [one for one in self.progress if one.run.ranks]
        small = [one for one in ranks if one.run.cores(self.cores) < self.cores]
        workers = [
            one for one in serial for _ in range(min(self.cores + 1, WORKERS, len(one.tests)))
        ]
        return workers[:2] + small + workers[2:] + [one for one in ranks if one not in small]

    def fits(self, one: Progress) -> bool:
        """Whether one more process of a run finds a core; a large run wants all of them."""
        taken = sum(o.run.cores(self.cores, len(o.tasks)) for o in self.progress)
        now, then = (one.run.cores(self.cores, len(one.tasks) + more) for more in (0, 1))
        large = one.run.cores(self.cores) == self.cores > 1
        others = any(o.tasks for o in self.progress if o is not one)
        return taken - now + then <= self.cores and not (large and others)

    def start(self, one: Progress) -> None:
        now = time.monotonic()
        one.begun, one.attempts = one.begun or now, one.attempts + 1
        name = f"{one.run.name.replace(' ', '-')}.{one.attempts}"
        folder = self.reports / name
        folder.mkdir()
        (folder / "done").write_text("".join(f"{test}\n" for test in one.ledger.verdicts))
        variables = {} if one.run.ranks else {CLAIMS: str(self.claims)}
        line = command(one.run, one.tests, self.options, self.scratch / name)
        one.tasks.append(Task(line, folder, one.begun + one.run.limit - now, variables))

    def settle(self, one: Progress, task: Task, cause: str) -> None:
        """Takes the verdicts of an ended process over, and lets another have what it left."""
        one.tasks.remove(task)
        one.over = time.monotonic()
        print(f"  {task.folder.name}: {cause or 'done'}", flush=True)
        left = one.ledger.settle(task.folder, one.run.ranks, cause)
        if left and one.over - one.begun < one.run.limit and one.ledger.missing():
            self.release(one, task)
            self.pending.insert(0, one)

    def release(self, one: Progress, task: Task) -> None:
        """Lets other workers take the files that an ended one has not finished."""
        for file in {file_of(test) for test in one.ledger.missing()}:
            claim = claim_of(self.claims, file)
            if claim.exists() and claim.read_text() == task.folder.name:
                claim.unlink()

    def drive(self) -> list[Progress]:
        self.reports.mkdir(parents=True, exist_ok=True)
        for folder in (path for path in self.reports.iterdir() if path.is_dir()):
            shutil.rmtree(folder)
        self.claims.mkdir()
        self.scratch = Path(tempfile.mkdtemp(prefix="tests-"))
        try:
            while self.pending or any(one.tasks for one in self.progress):
                if (one := next(filter(self.fits, self.pending), None)) is not None:
                    self.pending.remove(one)
                    self.start(one)
                    continue
                time.sleep(0.05)
                for one in self.progress:
                    for task in list(one.tasks):
                        if (cause := task.ended()) is not None:
                            self.settle(one, task, cause)
        finally:
            for one in self.progress:
                for task in one.tasks:
                    task.end()
            shutil.rmtree(self.scratch, ignore_errors=True)
        return self.progress


def main(arguments: list[str], runs: tuple[Run, ...] = RUNS, reports: Path = REPORTS) -> int:
    """Run all; prints a line a run, its failures, the slowest files and the sums; 0 if all passed.

    A call that is interrupted or terminated ends every process that it has started.
    """
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda number, frame: sys.exit(128 + number))
    if shutil.which("mpirun") is None:
        runs = tuple(run for run in runs if not run.ranks)
        print("no mpirun: only the serial tests run", flush=True)
    since, passed, failed = time.monotonic(), 0, 0
    progress = Schedule(runs, arguments, reports, cores()).drive()
    for one in progress:
        counts = one.summary(0 if arguments else one.run.least)
        passed, failed = passed + counts[0], failed + counts[1]
        print(*counts[2], sep="\n  ", flush=True)
    lines = table({one.run.name: one.ledger for one in progress})
    (reports / "seconds.txt").write_text("\n".join(lines) + "\n")
    print("seconds a file, the slowest (all: build/tests/seconds.txt)", *lines[:16], sep="\n")
    print(f"{passed} passed, {failed} failed, {time.monotonic() - since:.0f} s", flush=True)
    return 1 if failed or not progress else 0


def cores() -> int:
    """Of the machine, as far as this process may use them; OMP_NUM_THREADS says nothing."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
