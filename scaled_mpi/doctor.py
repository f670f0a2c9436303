"""The software layers of this machine: version, serial or parallel, and the repair of each.

`python -m scaled_mpi.doctor`, or `./run doctor`. A process of its own probes each layer, so a
library that crashes on import ends its probe alone. The exit code is 0 if the main job can run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

PATIENCE = 120  # seconds for one probe; torch on a cold network disk needs most of a minute

_TWO_RANKS = "from mpi4py import MPI; c = MPI.COMM_WORLD; n = c.allreduce(1); c.rank or print(n)"
_CORE = """
import sys, numpy, scipy, h5netcdf, xarray, pydantic, yaml, matplotlib
print("Python", ".".join(map(str, sys.version_info[:3])) + ", numpy", numpy.__version__)
"""
_HDF5 = """
import h5py
print("parallel" if h5py.get_config().mpi else "serial")
print("HDF5", h5py.version.hdf5_version + ", h5py", h5py.__version__)
"""
_PETSC = """
from petsc4py import PETSc
print("parallel")
print("PETSc", ".".join(map(str, PETSc.Sys.getVersion())), PETSc.ScalarType.__name__)
"""
_TORCH = """
import torch
print("cuda" if torch.cuda.is_available() else "cpu")
print("torch", torch.__version__ + ", gloo", torch.distributed.is_gloo_available())
"""
_NUMBA = """
import numba, numpy
assert numba.njit(lambda a: a.sum())(numpy.ones(3)) == 3
print("compiles")
print("numba", numba.__version__)
"""


@dataclass(frozen=True)
class Finding:
    """One layer: its state, mode and version, and the command that repairs it."""

    layer: str
    ok: bool
    mode: str
    version: str
    repair: str = ""
    needed: bool = False

    def __str__(self) -> str:
        mark = "ok" if self.ok else ("BROKEN" if self.needed else "absent")
        line = f"{self.layer:<15} {mark:<7} {self.mode:<9} {self.version}"
        return line + (f"\n{'':<15} repair: {self.repair}" if self.repair else "")


def _answer(command: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether the command succeeded, and its lines; on failure one line of its error."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, [str(error)]
    if done.returncode == 0:
        return True, done.stdout.split("\n")
    lines = [line for line in (done.stderr or done.stdout).split("\n") if re.search(r"\w", line)]
    if not lines:
        return False, [f"exit code {done.returncode}"]
    # Python names the cause last, mpirun first (between rulers)
    return False, [lines[-1] if lines[0].startswith("Traceback") else lines[0].strip()]


def _python(code: str) -> tuple[bool, list[str]]:
    return _answer([sys.executable, "-c", code])


def _packages(*names: str) -> str:
    """The command that installs Debian packages and sets up again."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install --no-install-recommends {' '.join(names)} && ./run setup"


def check_core() -> Finding:
    """Return the state of Python, numpy and the libraries of evaluation and reports."""
    ok, lines = _python(_CORE.strip())
    return Finding("python", ok, "", lines[0], "" if ok else "./run setup", needed=True)


def check_mpi() -> Finding:
    """Return the state of MPI: two ranks add up; without MPI one process runs alone."""
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        return Finding(
            "MPI",
            True,
            "serial",
            "no mpirun: one process",
            _packages("openmpi-bin", "libopenmpi-dev"),
        )
    _, version = _answer([mpirun, "--version"])
    ok, lines = _answer([mpirun, "-n", "2", sys.executable, "-c", _TWO_RANKS])
    if ok and lines[0].strip() == "2":
        return Finding("MPI", True, "parallel", f"{version[0]}, two ranks answer", needed=True)
    return Finding(
        "MPI",
        False,
        "",
        f"{version[0]}: {lines[0]}",
        ". .venv/bin/activate (exports what mpirun needs), else ./run setup",
        True,
    )


def check_hdf5() -> Finding:
    """Return the state of h5py; on parallel HDF5 all ranks write one file together."""
    ok, lines = _python(_HDF5)
    if not ok:
        return Finding("HDF5", False, "", lines[0], "./run setup", needed=True)
    serial = lines[0] == "serial" and shutil.which("mpirun") is not None
    repair = _packages("libhdf5-openmpi-dev") + "   (or HDF5_DIR=... ./run setup)"
    return Finding("HDF5", True, lines[0], lines[1], repair if serial else "", needed=True)


def check_petsc() -> Finding:
    """Return the state of petsc4py, for implicit solves and tests of the halo; optional."""
    ok, lines = _python(_PETSC)
    if ok:
        return Finding("PETSc", True, lines[0], lines[1])
    return Finding(
        "PETSc",
        False,
        "",
        lines[0],
        _packages("libpetsc-real-dev") + "   (or PETSC_DIR=... ./run setup)",
    )


def check_torch() -> Finding:
    """Return the state of torch, which trains surrogates."""
    ok, lines = _python(_TORCH)
    if ok:
        return Finding("torch", True, lines[0], lines[1], needed=True)
    return Finding("torch", False, "", lines[0], "./run setup   (CPU build: ./run --help)", True)


def check_gpu() -> Finding:
    """Return the GPUs that the driver lists; optional."""
    ok, lines = _answer(["nvidia-smi", "-L"])
    return Finding("GPU", ok, "cuda" if ok else "", lines[0] if ok else "none; the CPU is used")


def check_slurm() -> Finding:
    """Return the state of Slurm's commands; optional."""
    ok, lines = _answer(["sinfo", "--version"])
    return Finding("Slurm", ok, "", lines[0] if ok else "none; jobs/*.sbatch need one")


def check_numba() -> Finding:
    """Return the state of numba, which compiles the simulators."""
    ok, lines = _python(_NUMBA)
    if ok:
        return Finding("numba", True, lines[0], lines[1], needed=True)
    return Finding("numba", False, "", lines[0], "./run setup", needed=True)


CHECKS = (
    check_core,
    check_mpi,
    check_hdf5,
    check_petsc,
    check_torch,
    check_numba,
    check_gpu,
    check_slurm,
)


def examine() -> list[Finding]:
    """Return all findings, in the order of CHECKS; the probes run in parallel."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(lambda check: check(), CHECKS))


def main() -> int:
    """Print one line a layer; return 0 if the main job can run here, else 1."""
    findings = examine()
    for finding in findings:
        print(finding)
    broken = [finding.layer for finding in findings if finding.needed and not finding.ok]
    print(f"the main job cannot run: {', '.join(broken)}" if broken else "the main job can run")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
