"""From the journals of test processes to verdicts: which tests passed, failed, hung, are missing.

A test passed if it passed on every rank. Skips must have a reason of `SKIPS`, or they are
failures: green means that this set-up ran everything that it can run.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.journal import file_of

# Reason of a skip (regular expression) -> why this set-up cannot run such a test.
SKIPS = {
    r"training on a GPU has other names": "the names of stages are those of a machine without",
    r"could not import '(distributed|dask_jobqueue)'": "`./run` leaves the extra `ensemble` out",
    r"could not import '(tensorboard|wandb)'": "`./run` leaves the extra `track` out",
    r"apt-get install slurm-wlm munge": "a Slurm needs root and packages that `./run` leaves out",
    r"Test requires \d+ MPI processes": "another number of ranks runs it",
    r"needs a GPU": "a machine without one",
}
_FRAME = ("/_pytest/", "/pluggy/", "/pytest/", "<frozen runpy>")  # of every stack
HANGS_A_FILE = 3  # ended tests of one file after which its other tests are left out


@dataclass(frozen=True)
class Verdict:
    """What became of one test."""

    outcome: str  # passed, failed or skipped
    seconds: float = 0.0
    text: str = ""


@dataclass
class Notes:
    """The journal of one process."""

    collected: list[str] | None = None
    ended: dict[str, Verdict] = field(default_factory=dict)
    started: str | None = None  # the test it is in
    outside: dict[str, Verdict] = field(default_factory=dict)  # files as a whole
    finished: int | None = None


def read(path: Path) -> Notes:
    """The journal so far; its last line may be cut off."""
    notes = Notes()
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            event, *values = json.loads(line)
        except ValueError:
            break
        if event == "collected":
            notes.collected = values[0]
        elif event == "start":
            notes.started = values[0]
        elif event == "end":
            notes.ended[values[0]] = Verdict(*values[1:])
            notes.started = None
        elif event == "outside":
            notes.outside[values[0]] = Verdict(values[1], 0.0, values[2])
        elif event == "finished":
            notes.finished = values[0]
    return notes


def agreed(verdicts: list[Verdict]) -> Verdict:
    """One verdict from those of all ranks."""
    seconds = max(verdict.seconds for verdict in verdicts)
    texts = [verdict.text for verdict in verdicts if verdict.outcome == "failed"]
    if texts:
        return Verdict("failed", seconds, "\n".join(dict.fromkeys(texts)))
    if len({verdict.outcome for verdict in verdicts}) > 1:
        return Verdict("failed", seconds, "ran on some ranks only")
    return Verdict(verdicts[0].outcome, seconds, verdicts[0].text)


@dataclass
class Ledger:
    """Verdicts of one run, from as many processes and attempts as it took."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    expected: dict[str, None] = field(default_factory=dict)  # ordered
    complaints: list[str] = field(default_factory=list)
    hung: Counter[str] = field(default_factory=Counter)

    def settle(self, folder: Path, ranks: int, cause: str) -> bool:
        """Takes over an ended process or its ranks; returns whether tests are left for another.

        folder: of the process; ranks: 0 for a serial one, which answers for the files that it
        has claimed; cause: "" or why it ended before its tests did.
        """
        notes = [read(folder / f"rank{rank}.jsonl") for rank in range(max(ranks, 1))]
        silent = [rank for rank, note in enumerate(notes) if note.collected is None]
        if silent:
            self.complaints += [
                f"no report of rank {rank}: that process was killed or hung"
                + f" ({cause})" * bool(cause)
                for rank in silent
            ]
            return False
        if any(note.collected != notes[0].collected for note in notes):
            self.complaints.append("the ranks have collected different tests")
            return False
        for note in notes:
            self.verdicts |= note.outside
        ended = set.intersection(*(set(note.ended) for note in notes))
        fresh = {
            test: agreed([n.ended[test] for n in notes])
            for test in notes[0].collected
            if test in ended
        }
        self.verdicts |= fresh
        self.expected |= dict.fromkeys(notes[0].collected)
        whole = all(note.finished is not None for note in notes)
        if whole and not cause:
            return False
        cause = cause or "the process ended"
        culprit = self.culprit(notes, ended, ranks)
        if culprit is not None:
            failed = [n.ended[culprit].text for n in notes if culprit in n.ended]
            self.blame(culprit, cause, "\n".join([*failed, stacks(folder, len(notes))]))
        elif not fresh or whole:
            self.complaints.append(f"{cause} with no test under way")
            return False
        return True

    def culprit(self, notes: list[Notes], ended: set[str], ranks: int) -> str | None:
        """The test that was under way: ranks may have passed it, and none may be past the next."""
        if not ranks:
            return notes[0].started
        assert notes[0].collected is not None
        begun = set().union(*(set(note.ended) | {note.started} for note in notes))
        return next((t for t in notes[0].collected if t not in ended and t in begun), None)

    def blame(self, culprit: str, cause: str, text: str) -> None:
        """The culprit has failed; text: its failures on ranks that ended it, and the stacks."""
        self.verdicts[culprit] = Verdict("failed", 0.0, f"{cause} in this test\n{text}")
        file = file_of(culprit)
        self.hung[file] += 1
        if self.hung[file] == HANGS_A_FILE:
            for test in self.missing():
                if file_of(test) == file:
                    text = f"left out: {HANGS_A_FILE} tests of this file were ended"
                    self.verdicts[test] = Verdict("failed", 0.0, text)

    def missing(self) -> list[str]:
        return [test for test in self.expected if test not in self.verdicts]

    def judge(self, least: int) -> tuple[Counter[str], list[str]]:
        """Counts, and complaints: a line each, failed tests with their text below it."""
        counts: Counter[str] = Counter()
        complaints = list(self.complaints)
        for test, verdict in self.verdicts.items():
            outcome, text = verdict.outcome, verdict.text
            if outcome == "skipped" and not any(re.search(why, text) for why in SKIPS):
                outcome, text = "failed", f"skipped, but this set-up can run it: {text}"
            counts[outcome] += 1
            if outcome == "failed":
                complaints.append(f"{test}\n{text}".rstrip())
        for test in self.missing():
            counts["failed"] += 1
            complaints.append(f"{test} did not run")
        if counts["passed"] < least:
            complaints.append(f"only {counts['passed']} passed, at least {least} must")
        return counts, complaints


def stacks(folder: Path, ranks: int) -> str:
    """Where the ranks were shortly before the limit, or the end of the log of a crash."""
    shown = []
    for rank in range(ranks):
        path = folder / f"rank{rank}.stack"
        lines = path.read_text().splitlines() if path.exists() else []
        if lines:
            lines = [line for line in lines if not any(part in line for part in _FRAME)]
            shown.append("\n".join([f"[rank {rank}] {lines[0]}", *lines[1:]]))
    log = folder / "log"
    return "\n".join(shown) or (log.read_text(errors="replace")[-8000:] if log.exists() else "")


def table(ledgers: dict[str, Ledger]) -> list[str]:
    """Seconds a file, the slowest first: of all runs, then of each; the first line is a head."""
    sums: dict[str, Counter[str]] = {}
    for run, ledger in ledgers.items():
        for test, verdict in ledger.verdicts.items():
            sums.setdefault(file_of(test), Counter())[run] += verdict.seconds
    rows = sorted(sums.items(), key=lambda row: -row[1].total())
    head = "".join(f"{run:>9}" for run in ["all", *ledgers]) + "  file"
    return [head] + [
        "".join(f"{n:9.1f}" for n in [row.total(), *(row[run] for run in ledgers)]) + f"  {file}"
        for file, row in rows
    ]
