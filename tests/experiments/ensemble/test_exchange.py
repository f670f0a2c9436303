"""The Oscar document's tree: out and in again, bit for bit; what is wrong with one, in a line."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.datasets.plain import COMMAND, copy_plainly, pickled_members
from scaled_mpi.experiments import load
from scaled_mpi.experiments.ensemble.import_npz import fingerprint, read_member
from scaled_mpi.experiments.ensemble.members import Member, write_member
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.run import main

SMOKE = str(Path(__file__).parents[3] / "configs" / "smoke" / "oscar.yaml")
FEW = [
    "ensemble.training=8",
    "ensemble.test=2",
    "forecast.limit=2",
    "ensemble.duration=0.9",
    "surrogate.selection.ranks=[2,4]",
    "forecast.band=0",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An ensemble, forecast, and its tree: (results folder, tree)."""
    root = tmp_path_factory.mktemp("made")
    command = [SMOKE, *FEW, "--outputs", str(root)]
    assert main([*command, "--stage", "forecast"]) == 0
    assert main([*command, "--export", "npz"]) == 0
    stages = {path.name.split("-")[0]: path for path in (root / "artefacts").iterdir()}
    return stages, root / "smoke-oscar" / "npz"


@pytest.fixture
def tree(made, tmp_path):
    """A copy of the tree that a test may spoil."""
    shutil.copytree(made[1], tmp_path / "tree")
    return tmp_path / "tree"


def experiment_of(tree, *changes):
    return load(SMOKE, [*FEW, f"ensemble.source={tree}", *changes])


def test_an_imported_member_is_the_simulated_one(made, tmp_path):
    stages, tree = made
    experiment = experiment_of(tree)
    for member in (Member("train", 3), Member("test", 1)):
        write_member(experiment, tmp_path, member)
        old, new = (Trajectory(folder, member.name) for folder in (stages["simulate"], tmp_path))
        assert np.array_equal(old.read(slice(None)), new.read(slice(None)))
        for name in (f"{member.name}.json", f"{member.name}.particles.h5"):
            assert (tmp_path / name).read_bytes() == (stages["simulate"] / name).read_bytes()


def test_models_of_the_tree_forecast_as_they_did(made, tmp_path):
    """Nothing is simulated or fitted, and the forecasts are the same."""
    stages, tree = made
    command = [
        SMOKE,
        *FEW,
        f"ensemble.source={tree}",
        "ensemble.models=true",
        "--outputs",
        str(tmp_path),
    ]
    assert main(command) == 0
    assert (tmp_path / "smoke-oscar" / "report.html").stat().st_size > 10_000
    new = next((tmp_path / "artefacts").glob("forecast-*"))
    for number in range(2):
        name = f"test-{number:04d}.forecast.h5"
        (old, _), (made_again, _) = load_arrays(stages["forecast"] / name), load_arrays(new / name)
        for method in ("surrogate", "ceiling", "limit"):
            np.testing.assert_allclose(made_again[method], old[method], atol=1e-10)


def test_a_tree_without_velocities_gets_those_that_moved_the_particles(made, tree):
    stages, _ = made
    path = tree / "training" / "train_002" / "traj.npz"
    with np.load(path) as old:
        np.savez(path, positions=old["positions"], times=old["times"])
    found = read_member(experiment_of(tree), Member("train", 2))
    kept, _ = load_arrays(stages["simulate"] / "train-0002.particles.h5")
    np.testing.assert_allclose(found.velocities[1:], kept["velocities"][1:], atol=1e-12)
    assert np.array_equal(found.positions, kept["positions"])


def spoiled(tree, what):
    place = tree / "training" / "train_005"
    if what == "missing":
        (place / "density.npz").unlink()
    elif what == "cut":
        (place / "density.npz").write_bytes((place / "density.npz").read_bytes()[:500])
    elif what == "json":
        (place / "metadata.json").write_text("{")
    else:
        with np.load(place / "density.npz") as old:
            arrays = dict(old)
        if what == "pickled":
            arrays["config"] = np.array({"N": 40}, dtype=object)
        elif what == "shape":
            arrays["rho"] = arrays["rho"][:, :8]
        elif what == "nan":
            arrays["rho"][2, 3, 4] = np.nan
        elif what == "key":
            del arrays["rho"]
        np.savez(place / "density.npz", **arrays)


@pytest.mark.parametrize(
    "what,word",
    [
        ("missing", r"train_005/density.npz is missing. Needed: ensemble.training = 8"),
        ("cut", "train_005/density.npz: damaged. Needed: a readable NPZ"),
        ("json", "metadata.json: not JSON"),
        ("pickled", r"density.npz:config: it is pickled, .*scaled_mpi.datasets.plain"),
        ("shape", r"rho is \[10, 8, 16\]. Needed: \[10, 16, 16\]"),
        ("nan", "not finite"),
        ("key", "rho: not there"),
    ],
)
def test_what_is_wrong_with_a_tree_is_one_line_and_exit_code_2(tree, capsys, what, word, tmp_path):
    spoiled(tree, what)
    with pytest.raises(SystemExit) as ended:
        main(
            [
                SMOKE,
                *FEW,
                f"ensemble.source={tree}",
                "--outputs",
                str(tmp_path / "out"),
                "--stage",
                "simulate",
            ]
        )
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert re.search(word, said[0]), said[0]
    if (tmp_path / "out").exists():
        assert not list((tmp_path / "out").glob("artefacts/*/train-0005.json"))


def test_the_hash_is_of_what_the_files_hold(tree, tmp_path):
    first = fingerprint(experiment_of(tree))
    shutil.move(tree, tmp_path / "elsewhere")
    assert fingerprint(experiment_of(tmp_path / "elsewhere")) == first
    spoiled(tmp_path / "elsewhere", "nan")
    assert fingerprint(experiment_of(tmp_path / "elsewhere")) != first


def test_models_need_a_tree_and_enough_memory(tree, tmp_path):
    with pytest.raises(InputError, match="ensemble.models"):
        load(SMOKE, [*FEW, "ensemble.models=true"])
    from scaled_mpi.experiments.ensemble.import_npz import import_mvar, import_pod

    with pytest.raises(InputError, match="64|256 rows"):
        import_pod(experiment_of(tree, "density.shape=[8,8]", "compressor.factor=[8,8]"), tmp_path)
    with np.load(tree / "models" / "mvar_model.npz") as old:
        arrays = dict(old)
    arrays["A_matrices"] = np.zeros((7, 4, 4))
    arrays["p"] = 7
    np.savez(tree / "models" / "mvar_model.npz", **arrays)
    with pytest.raises(InputError, match=r"p at most surrogate.memory = 3"):
        import_mvar(experiment_of(tree), tmp_path)


def test_the_converter_leaves_out_what_is_pickled_and_copies_the_rest(tree, tmp_path, capsys):
    spoiled(tree, "pickled")
    path = tree / "training" / "train_005" / "density.npz"
    assert pickled_members(path) == ["config"]
    done = subprocess.run(
        [sys.executable, "-m", "scaled_mpi.datasets.plain", tree, tmp_path / "plain"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "train_005/density.npz:config" in done.stdout.splitlines()[0]
    copy = tmp_path / "plain" / "training" / "train_005"
    with np.load(path) as old, np.load(copy / "density.npz") as new:
        assert set(old) - set(new) == {"config"}
        assert all(np.array_equal(old[name], new[name]) for name in new)
    assert json.loads((copy / "metadata.json").read_text())["sim_id"] == 5
    fingerprint(experiment_of(tmp_path / "plain"))
    with pytest.raises(InputError, match="a name that is free"):
        copy_plainly(tree, tmp_path / "plain")
    assert COMMAND.startswith("python -m scaled_mpi.datasets.plain")


def test_a_second_export_replaces_the_first_as_a_whole(made):
    _, tree = made
    (tree / "stale.txt").write_text("old")
    assert main([SMOKE, *FEW, "--outputs", str(tree.parents[1]), "--export", "npz"]) == 0
    assert not (tree / "stale.txt").exists() and (tree / "models" / "pod_model.npz").exists()
    with pytest.raises(SystemExit):
        main(
            [
                SMOKE,
                *FEW,
                "compressor.align=periodic",
                "--outputs",
                str(tree.parents[1]),
                "--export",
                "npz",
            ]
        )


@pytest.mark.parametrize(
    "what,word",
    [
        ("missing", "train-0002.json: not there"),
        ("cut", "train-0002.00000.h5"),
    ],
)
def test_a_member_that_is_missing_or_cut_short_stops_the_fit(made, tmp_path, capsys, what, word):
    root = tmp_path / "out"
    shutil.copytree(made[0]["simulate"].parent, root / "artefacts")
    folder = root / "artefacts" / made[0]["simulate"].name
    if what == "missing":
        (folder / "train-0002.json").unlink()
    else:
        path = folder / "train-0002.00000.h5"
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SystemExit) as ended:
        main([SMOKE, *FEW, "--outputs", str(root), "--stage", "fit", "--redo", "compress"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and word in said[0]
