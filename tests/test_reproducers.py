"""Scripts of `tests/cases` and `tests/faults` that name modules of the package: the names exist.

Each script reproduces a fault that users met; `expected.txt` beside it states the right answer.
"""

import importlib
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SCRIPTS = sorted([*TESTS.glob("cases/*/cmd.sh"), *TESTS.glob("faults/*/run.sh")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.parent.name)
def test_the_names_that_a_reproducer_imports_exist(script):
    text = script.read_text()
    assert (script.parent / "expected.txt").read_text().strip()
    modules = set(re.findall(r"scaled_mpi(?:\.\w+)+", text))
    assert modules
    for module in modules:
        importlib.import_module(module)
    for module, names in re.findall(r"from (scaled_mpi(?:\.\w+)+) import ([\w, ]+)", text):
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip())
    if "scaled_mpi.coupling.forecasting as c" in text:
        assert hasattr(importlib.import_module("scaled_mpi.coupling.forecasting"), "stop_agreed")
