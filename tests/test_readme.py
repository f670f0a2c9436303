"""README is short, and its blocks of code are true."""

import ast

import pytest
import yaml

from scaled_mpi.config import parse
from scaled_mpi.experiments import from_tree
from scaled_mpi.simulators import checks, contract

from .pages import README, blocks, module_of

TEXT = README.read_text()


def test_readme_is_one_page():
    lines = TEXT.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120] == []


@pytest.fixture
def simulator(tmp_path):
    """The class of README's simulator."""
    (code,) = [block for block in blocks(TEXT, "python") if "def advance" in block]
    return module_of("readme_simulator", code, tmp_path).Heat


def test_the_simulator_keeps_the_contract(simulator):
    contract.require(simulator)
    for axes_faults in checks.results(simulator(), 2):
        assert axes_faults[1] == "", axes_faults
    assert parse(simulator, {"kind": "heat", "kappa": 0.1}).kappa == 0.1


def test_the_simulator_has_three_methods_and_three_properties(simulator):
    own = [name for name in vars(simulator) if name in contract.FIELDS]
    assert sorted(own) == sorted(contract.FIELDS)


def test_blocks_of_yaml_are_experiments():
    for block in blocks(TEXT, "yaml"):
        assert from_tree(yaml.safe_load(block)).kind == "forecast"


def test_blocks_of_python_are_python():
    for block in blocks(TEXT, "python"):
        ast.parse(block)
