"""A pytest plugin of the driver: every result is written at once, and files are shared out.

A process that is killed loses the test it was in and no other. The driver loads this plugin with
`-p tests.journal` and names, in the environment, the folder of the process and, for processes
that share the serial tests, a folder of claims: a file's tests belong to the first who claims it.
"""

from __future__ import annotations

import faulthandler
import fcntl
import json
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

TASK = "SCALED_MPI_TEST_TASK"  # folders of the processes above, outermost first, and of this one
CLAIMS = "SCALED_MPI_TEST_CLAIMS"
SETTINGS = {  # of every mpirun, unless the environment says otherwise
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_mpi_yield_when_idle": "1",  # ranks that wait leave the core to other tests
    "OMP_NUM_THREADS": "1",
}
RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")))
RANKS = int(os.environ.get("OMPI_COMM_WORLD_SIZE", os.environ.get("PMI_SIZE", "1")))
STACK_BEFORE = 3.0  # seconds before a test's limit, so that all ranks show where they are
PATIENCE = 600.0  # seconds that a rank on which a test failed waits for the others


def file_of(test: str) -> str:
    """The file in a pytest node id."""
    return test.partition("::")[0]


def pytest_configure(config: pytest.Config) -> None:
    folder = Path(os.environ[TASK].split(os.pathsep)[-1])
    config.pluginmanager.register(Journal(folder))
    if CLAIMS in os.environ:
        config.pluginmanager.register(Claims(Path(os.environ[CLAIMS]), folder.name))


class Journal:
    """One JSON line an event in `rankR.jsonl`; in `rankR.stack` where a test is near its limit.

    Events: collected (tests), start (test), end (test, outcome, seconds, text), outside (file,
    outcome, text) for a file that cannot be read or skips itself, finished (exit code).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines = (folder / f"rank{RANK}.jsonl").open("w")
        self.stack = (folder / f"rank{RANK}.stack").open("w")
        self.outcome, self.seconds, self.text = "passed", 0.0, ""

    def write(self, *event: Any) -> None:
        self.lines.write(json.dumps(event) + "\n")
        self.lines.flush()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self.write("outside", report.nodeid, report.outcome, words(report))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leaves out the tests that have a verdict already."""
        path = self.folder / "done"
        done = set(path.read_text().splitlines()) if path.exists() else set()
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
        items[:] = [item for item in items if item.nodeid not in done]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        compile_in_turn(self.folder.parent / "compiling")
        self.write("collected", [item.nodeid for item in session.items])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        result = yield
        if self.outcome == "failed" and RANKS > 1:  # else its next test would meet their last one
            self.wait_for_others(item.nodeid)
        return result

    def wait_for_others(self, test: str) -> None:
        """Until all ranks have ended the test; the limit of a hung one ends them all."""
        start, until = json.dumps(["end", test])[:-1], time.monotonic() + PATIENCE
        others = [self.folder / f"rank{rank}.jsonl" for rank in range(RANKS)]
        while time.monotonic() < until:
            texts = [path.read_text() for path in others if path.exists()]
            if sum(f"\n{start}" in text for text in texts) == RANKS:
                return
            time.sleep(0.02)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.outcome, self.seconds, self.text = "passed", 0.0, ""
        self.write("start", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds += report.duration
        if not report.passed and self.outcome != "failed":
            self.outcome, self.text = report.outcome, words(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.write("end", nodeid, self.outcome, round(self.seconds, 3), self.text)

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self, settings: Any) -> None:
        """Beside pytest-timeout, which ends the process: the stack of every rank, GIL or not."""
        self.clear_stack()
        after = max(settings.timeout / 2, settings.timeout - STACK_BEFORE)
        faulthandler.dump_traceback_later(after, file=self.stack)

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_cancel_timer(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self.clear_stack()

    def clear_stack(self) -> None:
        os.ftruncate(self.stack.fileno(), 0)
        os.lseek(self.stack.fileno(), 0, os.SEEK_SET)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.write("finished", int(exitstatus))


def compile_in_turn(lock: Path) -> None:
    """Lets numba write its cache in one process at a time, or kernels get each other's code.

    Two processes that add a kernel of one function at once can choose the same name of a file.
    """
    caching = sys.modules.get("numba.core.caching")
    if caching is None:
        return
    save = caching.IndexDataCacheFile.save

    def alone(*arguments: Any) -> None:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            save(*arguments)

    caching.IndexDataCacheFile.save = alone


class Claims:
    """Tests of a file that another process has claimed are passed over."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.mine: dict[str, bool] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        file = file_of(item.nodeid)
        if file not in self.mine:
            self.mine[file] = self.claim(file)
        if not self.mine[file]:
            return True
        # The item before was set down for one that was passed over: folders of that one may be up.
        item.session._setupstate.teardown_exact(item)
        return None

    def claim(self, file: str) -> bool:
        try:
            with claim_of(self.folder, file).open("x") as owner:
                owner.write(self.name)
        except FileExistsError:
            return False
        return True


def claim_of(folder: Path, file: str) -> Path:
    return folder / f"{file.replace('/', '+')}.claim"


def words(report: Any) -> str:
    """The reason of a skip, or the text of a failure with what the test printed."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    captured = "".join(f"\n--- {name} ---\n{text}" for name, text in report.sections)
    return report.longreprtext + captured[-8000:]
