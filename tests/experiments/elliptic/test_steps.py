"""The stage of implicit steps: its facts, and guesses that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("petsc4py")
pytest.importorskip("numba")

from scaled_mpi.config import InputError, to_yaml
from scaled_mpi.engine import stages
from scaled_mpi.experiments import kind_of, load
from scaled_mpi.experiments.elliptic.guess import GuessForecaster
from scaled_mpi.facts import latest, read_facts
from scaled_mpi.metrics import vrmse
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.run import main

CONFIGS = Path(__file__).parents[3] / "configs"
SMOKE = CONFIGS / "smoke" / "implicit.yaml"


def test_steps_leave_their_facts_and_states(tmp_path):
    assert (
        main(
            [
                str(SMOKE),
                "local_solver=exact",
                "implicit.methods=[newton]",
                "implicit.burn_in=600",
                "--outputs",
                str(tmp_path),
            ]
        )
        == 0
    )
    folder = tmp_path / "smoke-implicit"
    facts = latest(read_facts(folder / "facts" / "facts.jsonl"))
    for dt in (10, 100):
        implicit, explicit = (
            Trajectory(folder / "solve", f"{name}_dt{dt}").read(0)
            for name in ("exact", "explicit")
        )
        error = facts[f"implicit.error.newton.exact.dt{dt}"]
        assert error == pytest.approx(float(np.mean(vrmse(implicit, explicit))), rel=1e-9)
        assert error < facts[f"implicit.error.persistence.dt{dt}"]
        assert facts[f"implicit.residual.newton.exact.dt{dt}"] <= 1e-8
        assert facts[f"implicit.guess.simulator.dt{dt}"] < facts[f"implicit.guess.none.dt{dt}"]
        for name in ("iterations", "linear", "pseudo", "root", "fallback", "time"):
            assert f"implicit.{name}.newton.exact.dt{dt}" in facts
    assert "What a long step takes" in (folder / "report.html").read_text()


def guessed(path):
    return load(SMOKE, [f"implicit.guess={{kind: surrogate, path: {path}}}"])


def test_a_surrogate_of_another_system_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no finished fit"):
        experiment = guessed(tmp_path)
        stages.artefacts(kind_of(experiment), experiment, tmp_path, 1)
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "provenance.json").write_text(json.dumps({"hash": "0123456789"}))
    (tmp_path / "config.yaml").write_text(to_yaml(load(CONFIGS / "smoke" / "ddm.yaml")))
    experiment = guessed(tmp_path)
    first = stages.artefacts(kind_of(experiment), experiment, tmp_path, 1)["solve"].name
    (tmp_path / "fit" / "provenance.json").write_text(json.dumps({"hash": "9876543210"}))
    assert stages.artefacts(kind_of(experiment), experiment, tmp_path, 1)["solve"].name != first
    told = experiment.implicit
    blocks = make_blocks(told.simulator.grid((32, 32)), (16, 16), 1)
    with pytest.raises(InputError, match="trained with F = 0.018. Allowed: 0.029"):
        GuessForecaster(told, blocks, SerialComm())


@pytest.mark.parametrize(
    "override, words",
    [
        (
            "implicit.guess={kind: surrogate}",
            "path: None is not allowed: a guess of kind surrogate needs a stepper",
        ),
        (
            "implicit.guess={kind: none, path: here}",
            "here is not allowed: a guess of kind none has no stepper",
        ),
        (
            "implicit.dts=[10.5]",
            "10.5 is not allowed: it is no whole number of the simulator's steps. "
            "Allowed: multiples of 1",
        ),
        ("implicit.scheme=euler", "implicit.scheme"),
    ],
)
def test_what_does_not_fit_is_refused(override, words):
    with pytest.raises(InputError, match=words):
        load(SMOKE, [override])
