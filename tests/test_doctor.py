"""The doctor's findings, on this machine and where something is missing or broken."""

import shutil
import subprocess
import sys

import pytest

from scaled_mpi import doctor


def broken(code):
    return False, ["ImportError: no such library"]


def test_here_every_layer_has_a_line_and_the_verdict_is_last():
    done = subprocess.run(
        [sys.executable, "-m", "scaled_mpi.doctor"], capture_output=True, text=True, check=False
    )
    layers = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert layers[:-1] == ["python", "MPI", "HDF5", "PETSc", "torch", "numba", "GPU", "Slurm"]
    assert done.stdout.splitlines()[-1] == "the main job can run" and done.returncode == 0


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs mpirun")
def test_mpi_is_judged_by_two_ranks_that_answer():
    finding = doctor.check_mpi()
    assert finding.ok and finding.mode == "parallel" and "two ranks answer" in finding.version


def test_without_mpi_one_process_does(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    finding = doctor.check_mpi()
    assert finding.ok and finding.mode == "serial" and "openmpi-bin" in finding.repair


@pytest.mark.parametrize(
    "check,needed",
    [
        (doctor.check_core, True),
        (doctor.check_hdf5, True),
        (doctor.check_torch, True),
        (doctor.check_numba, True),
        (doctor.check_petsc, False),
    ],
)
def test_what_is_broken_comes_with_its_repair(monkeypatch, check, needed):
    monkeypatch.setattr(doctor, "_python", broken)
    finding = check()
    assert not finding.ok and finding.needed == needed
    assert "ImportError" in finding.version and "./run setup" in str(finding)


def test_the_exit_code_is_that_of_the_needed_layers(monkeypatch, capsys):
    absent = doctor.Finding("PETSc", False, "", "none")
    dead = doctor.Finding("torch", False, "", "none", "./run setup", needed=True)
    monkeypatch.setattr(doctor, "examine", lambda: [absent])
    assert doctor.main() == 0
    monkeypatch.setattr(doctor, "examine", lambda: [absent, dead])
    assert doctor.main() == 1
    assert capsys.readouterr().out.endswith("the main job cannot run: torch\n")


def test_a_probe_that_crashes_or_complains_gives_one_line():
    assert doctor._python("import os; os.kill(os.getpid(), 11)") == (False, ["exit code -11"])
    assert doctor._python("import nowhere") == (
        False,
        ["ModuleNotFoundError: No module named 'nowhere'"],
    )
    ok, lines = doctor._answer(["/nowhere/mpirun"])
    assert not ok and len(lines) == 1
