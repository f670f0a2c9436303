"""The contract of simulators: every member keeps it, the smallest one suffices."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.experiment import load
from scaled_mpi.facts import read_facts
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.simulators import MEMBERS, contract, running
from scaled_mpi.simulators.checks import violations
from scaled_mpi.simulators.gray_scott import GrayScott
from tests.simulators.heat import Heat

ROOT = Path(__file__).resolve().parents[2]
HEAT = [sys.executable, "-m", "tests.simulators.heat", "tests/simulators/heat.yaml", "--outputs"]


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_keeps_the_contract(name):
    member = MEMBERS[name]()
    assert violations(member) == []
    assert member.kind == name


@pytest.mark.parametrize(
    "keys, axes",
    [
        ({"noise": 0.1}, 2),
        ({"boundaries": "dirichlet"}, 2),
        ({"boundaries": "neumann"}, 1),
        ({}, 3),
    ],
)
def test_gray_scott_keeps_the_contract_with_other_keys(keys, axes):
    assert violations(GrayScott(**keys), axes) == []


# ------------------------------------------------------------------ the smallest honest one


def test_the_smallest_simulator_is_three_methods_and_three_properties():
    own = {name for name in vars(Heat) if not name.startswith("_")} - {"model_config"}
    assert own & set(contract.FIELDS) == set(contract.FIELDS)
    assert not own - set(contract.FIELDS) - {"model_fields", "model_computed_fields"}
    assert violations(Heat()) == []


def test_a_sine_mode_decays_exactly():
    heat, shape, steps = Heat(kappa=0.15), (16, 24), 40
    blocks = make_blocks(running.grid_of(heat, shape), shape, 1)
    angle = 2 * np.pi / shape[1]
    mode = np.sin(angle * np.arange(shape[1])) * np.ones((1, *shape))
    made = running.advancing(heat, blocks, SerialComm(), (0, 0))(mode.astype(np.float32), steps)
    factor = 1 - 2 * heat.dt * heat.kappa * (1 - np.cos(angle))
    np.testing.assert_allclose(made, factor**steps * mode, atol=2e-6)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The experiment on the heat equation, run once on one rank."""
    folder = tmp_path_factory.mktemp("heat")
    done = subprocess.run(
        [*HEAT, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _facts(folder):
    return {f["name"]: f["value"] for f in read_facts(folder / "heat" / "facts" / "facts.jsonl")}


def test_the_smallest_simulator_runs_from_yaml_to_the_page(finished):
    page = (finished / "heat" / "report.html").read_text()
    assert "surrogate" in page and "persistence" in page
    truth = Trajectory(finished / "heat" / "simulate", "test-0000")
    assert truth.channels == ("T",) and truth.shape[2:] == (32, 32)
    assert _facts(finished)["seam.index"] > 0


def test_two_ranks_give_the_same_fields(finished, tmp_path, mpirun):
    done = mpirun(2, *HEAT, tmp_path, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _facts(tmp_path)["field.sha256"] == _facts(finished)["field.sha256"]


# ------------------------------------------------------------------ faults have names


class Wide(Heat):
    """Its step uses two cells and it says one."""

    @property
    def steps_per_exchange(self):
        return 2

    def advance(self, state, steps, exchange):
        for _ in range(steps):
            t = exchange(state)
            state = 0.5 * (t[:, :-4, 2:-2] + t[:, 4:, 2:-2])
        return state


class Local(Heat):
    """Its initial state depends on the block."""

    def initial(self, block, grid, seed):
        return np.random.default_rng(seed).random((1, *block.size), np.float32)


class Writing(Heat):
    """It writes into the state that it receives."""

    def advance(self, state, steps, exchange):
        state[...] = super().advance(state, steps, exchange)
        return state


class Forgetful(Heat):
    """It draws numbers that no seed decides."""

    def advance(self, state, steps, exchange):
        return state + np.random.default_rng().random(state.shape, np.float32) * (steps > 0)


class Counting(Heat):
    """One step more than it should take."""

    def advance(self, state, steps, exchange):
        return super().advance(state, steps + 1, exchange)


class Far(Heat):
    """Its step uses five cells."""

    @property
    def reach_per_step(self):
        return 5


class Flat(Heat):
    """Its fields have no axis of channels."""

    def fields(self, state):
        return state[0]


class Doubled(Heat):
    """Two fields of one name, and one in fact."""

    @property
    def channels(self):
        return ("T", "T")


@pytest.mark.parametrize(
    "cls, check",
    [
        (Wide, "reach is honoured"),
        (Local, "bits do not depend on the split"),
        (Writing, "a state stays as it is"),
        (Forgetful, "runs repeat"),
        (Counting, "steps add up"),
        (Flat, "fields have their shape"),
        (Doubled, "channels are names"),
    ],
)
def test_a_fault_is_found_by_its_check(cls, check):
    assert check in [line.partition(":")[0] for line in violations(cls())]


class Half:
    """A simulator that lacks a method and a property."""

    kind = "half"
    channels, time_step = ("T",), 1.0
    initial = fields = staticmethod(lambda *_: None)


def test_missing_members_are_named_in_one_line():
    assert violations(Half()) == ["members exist: it has no reach_per_step, advance"]
    with pytest.raises(InputError) as error:
        contract.require(Half())
    assert str(error.value).startswith(
        "simulator.kind: half is not allowed: it has no reach_per_step, advance. Allowed:"
    )
    assert "\n" not in str(error.value)


def test_a_forecast_refuses_particles_and_an_ensemble_refuses_fields():
    with pytest.raises(InputError, match="^simulator.kind: vicsek is not allowed: it has no"):
        load(ROOT / "configs" / "smoke" / "ddm.yaml", ["simulator=vicsek"])
    with pytest.raises(InputError, match="simulator.*gray_scott"):
        load(ROOT / "configs" / "smoke" / "oscar.yaml", ["simulator=gray_scott"])


def test_a_tile_narrower_than_the_reach_is_refused():
    heat = Heat()
    blocks = make_blocks(running.grid_of(heat, (8, 8)), (4, 4), 1)
    assert running.halo_width(heat, blocks) == (1, 1)
    with pytest.raises(InputError, match="domain.tile: .* reaches 5 cells"):
        running.halo_width(Far(), blocks)
