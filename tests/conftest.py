"""pytest serially and under mpirun.

* Plain `pytest` runs everything; tests marked `mpi` run on one rank.
* `mpirun -n N python -m pytest --with-mpi tests` runs the tests marked `mpi` and deselects the
  rest, which may start mpirun themselves. Reports and temporary folders are kept apart by rank,
  and a failure is printed at once with its rank: the others may hang until the time limit.
"""

import atexit
import ctypes
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.journal import RANK, SETTINGS, TASK

LAUNCHED = "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ


@pytest.hookimpl(tryfirst=True)  # before the plugins that read these options
def pytest_configure(config):
    if not LAUNCHED:
        for name, value in SETTINGS.items():  # for the tests that start mpirun
            os.environ.setdefault(name, value)
        return
    option = config.option
    if option.xmlpath:
        option.xmlpath = f"{option.xmlpath.removesuffix('.xml')}.rank{RANK}.xml"
    if not option.basetemp:
        # ranks that race for the next numbered folder can all lose; getppid() is the launcher's
        option.basetemp = os.path.join(tempfile.gettempdir(), f"pytest-mpi-{os.getppid()}")
        # runs after the MPI_Finalize of mpi4py, registered later: nobody reads the folder then
        atexit.register(shutil.rmtree, f"{option.basetemp}-rank{RANK}", ignore_errors=True)
    option.basetemp = f"{option.basetemp}-rank{RANK}"


def pytest_sessionstart(session):
    if RANK > 0:  # one rank tells the story; the failures of the others are printed below
        session.config.pluginmanager.unregister(name="terminalreporter")


@pytest.hookimpl(tryfirst=True)  # before pytest-mpi marks the tests to skip
def pytest_collection_modifyitems(config, items):
    if importlib.util.find_spec("mpi4py") is not None:
        config.option.with_mpi = True  # one rank is a size like any other
    if not LAUNCHED:
        return
    serial = [item for item in items if item.get_closest_marker("mpi") is None]
    if serial and RANK == 0:
        terminal = config.pluginmanager.get_plugin("terminalreporter")
        terminal.write_line(f"under mpirun {len(serial)} tests without the mark mpi are left out")
    config.hook.pytest_deselected(items=serial)
    items[:] = [item for item in items if item.get_closest_marker("mpi") is not None]


def pytest_runtest_logreport(report):
    if LAUNCHED and report.failed:
        print(
            f"\n[rank {RANK}] {report.nodeid} failed in {report.when}\n{report.longreprtext}",
            file=sys.__stderr__,
            flush=True,
        )


def pytest_runtest_setup(item):
    """Forget what MPI wrote into the environment, or a test could start no mpirun of its own.

    A process that no launcher started becomes a launcher of one rank; its variables, which
    os.environ does not show, would make every mpirun below it fail without a word. mpi4py or PETSc
    may start MPI, in a test or while test files are read, so every test looks.
    """
    if LAUNCHED:
        return
    for name in inherited() - set(os.environ):
        if name.startswith(("OMPI_", "PMIX_", "ORTE_")):
            os.unsetenv(name)


def inherited():
    """Names of the variables that a child would inherit, those of C libraries included."""
    entries = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    return {os.fsdecode(entry).partition("=")[0] for entry in itertools.takewhile(bool, entries)}


@pytest.fixture(scope="session")
def mpirun():
    """mpirun(ranks, *command, timeout=120) -> CompletedProcess with stdout and stderr as text."""
    if shutil.which("mpirun") is None:
        pytest.skip("needs mpirun")

    def run(ranks, *command, timeout=120):
        return subprocess.run(
            ["mpirun", "-n", str(ranks), *map(str, command)],
            env=dict(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def kept(tmp_path_factory):
    """kept(name, make) -> folder that make(folder) has filled, once for all runs of the driver.

    For references that one rank computes alone: they are the same beside any number of ranks.
    """

    def find(name, make):
        if TASK not in os.environ:
            root = tmp_path_factory.mktemp("kept")
        else:
            root = Path(os.environ[TASK].split(os.pathsep)[-1]).parent / "kept"
        if not (root / name).exists():
            root.mkdir(exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=root))
            make(made)
            try:
                made.rename(root / name)
            except OSError:  # another run was faster
                shutil.rmtree(made)
        return root / name

    return find
