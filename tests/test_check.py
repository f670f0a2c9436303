"""The command that checks a class of the user's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from scaled_mpi.check import main

ROOT = Path(__file__).resolve().parent.parent


def test_a_class_that_keeps_the_contract(capsys):
    assert main(["tests.simulators.heat:Heat", "kappa=0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines[:-1]) and len(lines) > 10
    assert lines[-1] == "tests.simulators.heat:Heat: all checks pass (simulators)"


def test_a_member_by_its_name(capsys):
    assert main(["vicsek", "particles=10"]) == 0
    assert "particles are kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    "target, family",
    [
        ("tests.surrogates.test_operators:Shift", "surrogates"),
        ("tests.compressors.test_coders:Average", "compressors"),
        ("tests.local_solvers.test_solvers:Jacobi", "local_solvers"),
        ("tests.local_solvers.test_solvers:Diagonal", "local_solvers"),
        ("stepper", "surrogates"),
        ("pod", "compressors"),
        ("learned", "local_solvers"),
    ],
)
def test_every_family_is_known_and_checked(capsys, target, family):
    assert main([target]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.endswith(f"all checks pass ({family})\n")


def test_a_fault_ends_in_1(capsys):
    assert main(["tests.simulators.test_contract:Wide"]) == 1
    out = capsys.readouterr().out
    assert "FAILED  reach is honoured: 1 steps reach 2 cells" in out


@pytest.mark.parametrize(
    "target, words",
    [
        ("nothing", "target: nothing is not allowed: no member"),
        ("no_such_module:Class", "No module named"),
        ("tests.simulators.heat:Cold", "has no Cold"),
        ("scaled_mpi.config:Spec", "belongs to no family"),
        ("tests.simulators.heat:Heat kappa=hot", "kappa"),
    ],
)
def test_bad_input_is_one_line_and_ends_in_2(capsys, target, words):
    assert main(target.split()) == 2
    shown = capsys.readouterr()
    assert words in shown.err and len(shown.err.splitlines()) == 1 and not shown.out


def test_the_command_finds_a_module_of_the_current_folder(tmp_path):
    (tmp_path / "mine.py").write_text((ROOT / "tests" / "simulators" / "heat.py").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "scaled_mpi.check", "mine:Heat"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
