"""Experiments without time, end to end, and what decides their artefacts."""

from pathlib import Path

import pytest

pytest.importorskip("petsc4py")

from scaled_mpi.config import InputError
from scaled_mpi.engine import stages
from scaled_mpi.experiments import kind_of, load
from scaled_mpi.facts import latest, read_facts
from scaled_mpi.run import main

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SMOKE = CONFIGS / "smoke" / "darcy.yaml"


def names(*overrides, path=SMOKE):
    experiment = load(path, overrides)
    found = stages.artefacts(kind_of(experiment), experiment, Path("none"), 1)
    return {stage: artefact.path.name for stage, artefact in found.items()}


def changed(*overrides):
    before, after = names(), names(*overrides)
    return [stage for stage in before if before[stage] != after[stage]]


def test_a_name_covers_what_decides_the_result():
    assert changed("name=other", "machine=elsewhere", "local_solver.device=cuda") == []
    assert changed("seed=2") == ["residuals", "fit", "solve"]
    assert changed("local_solver.training.steps=151") == ["fit", "solve"]
    assert changed("comparison.floor=0", "solving.coarse.kind=geneo") == ["solve"]
    assert changed("harvest.solves=5") == ["residuals", "fit", "solve"]


def test_poisson_darcy_and_two_phase_share_one_network():
    fits = {
        names(path=CONFIGS / f"{name}.yaml")["fit"] for name in ("poisson", "darcy", "two_phase")
    }
    assert len(fits) == 1


@pytest.mark.parametrize(
    "override, words",
    [
        ("problem.boundary=[dirichlet]", "problem.boundary"),
        ("solving.overlap=9", "solving.overlap"),
        ("problem.coefficient.contrast=0.5", "problem.coefficient"),
        ("local_solver=magic", "local_solver"),
    ],
)
def test_bad_input_is_one_line(override, words):
    with pytest.raises(InputError, match=words) as caught:
        load(SMOKE, [override])
    assert "\n" not in str(caught.value)


def test_the_smoke_experiment_without_a_network(tmp_path):
    arguments = [
        str(SMOKE),
        "local_solver=exact",
        "comparison.floor=2",
        "--outputs",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    folder = tmp_path / "smoke-darcy"
    found = latest(read_facts(folder / "facts" / "facts.jsonl"))
    assert found["iterations.N16"] <= found["iterations.onelevel.N16"]
    assert found["residual.true"] <= 1e-8 and found["fallback.tiles"] == 0
    assert found["error.reference"] < 1e-6
    assert all(found[f"time.{name}"] > 0 for name in ("certified", "asm", "gamg", "exact"))
    assert found["iterations.asm.N16"] >= found["iterations.N16"]
    page = (folder / "report.html").read_text()
    for words in (
        "Does it stay flat?",
        "How it converges",
        "What only a certificate removes",
        "Medium, answer, error",
    ):
        assert words in page
    assert main([*arguments, "--dry-run"]) == 0


def test_a_network_is_learned_and_certified(tmp_path):
    given = [
        "domain.lattices=[2]",
        "harvest.solves=2",
        "local_solver.training.steps=20",
        "local_solver.training.validate_every=10",
        "comparison.floor=2",
        "comparison.onelevel=0",
        "comparison.exact=false",
        "comparison.asm=false",
    ]
    assert main([str(SMOKE), *given, "--outputs", str(tmp_path)]) == 0
    found = latest(read_facts(tmp_path / "smoke-darcy" / "facts" / "facts.jsonl"))
    assert found["residual.true"] <= 1e-8 and found["residuals"] > 20
    for name in ("onelevel", "hats", "twolevel"):
        assert found[f"floor.ratio.{name}"] == pytest.approx(
            found[f"floor.coupled.{name}"] / found["floor.local"]
        )
    assert "iterations.asm.N4" not in found and found["time.train"] > 0
