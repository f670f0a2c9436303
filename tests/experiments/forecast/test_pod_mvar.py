"""POD on tiles and an autoregression with neighbours, coupled over a decomposed domain."""

import sys
from pathlib import Path

import pytest

from scaled_mpi.facts import latest, read_facts
from scaled_mpi.files import sha256
from scaled_mpi.run import main

SMOKE = str(Path(__file__).parents[3] / "configs" / "smoke" / "pod_mvar.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiles")
    assert main([SMOKE, "--outputs", str(root)]) == 0
    return root


def test_it_is_nearer_than_extrapolation(finished):
    facts = latest(read_facts(finished / "smoke-pod-mvar" / "facts" / "facts.jsonl"))
    errors = {name: facts[f"vrmse.jump1.{name}"] for name in ("surrogate", "linear", "quadratic")}
    assert errors["surrogate"] < 0.5 * min(errors["linear"], errors["quadratic"])


def test_two_ranks_give_the_same_bytes(finished, tmp_path, mpirun):
    done = mpirun(
        2,
        sys.executable,
        "-m",
        "scaled_mpi.run",
        SMOKE,
        "--stage",
        "couple",
        "--outputs",
        tmp_path,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    files = {}
    for root in (finished, tmp_path):
        files[root] = {
            path.relative_to(root): sha256(path)
            for stage in ("compress", "fit", "couple")
            for path in (root / "artefacts").glob(f"{stage}-*/*.h5")
        }
    assert files[finished] == files[tmp_path] and len(files[tmp_path]) > 8
