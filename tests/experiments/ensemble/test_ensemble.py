"""Ensembles end to end: the same bits by ranks, by Dask and by hand; scores by their formulas."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.experiments import load
from scaled_mpi.experiments.ensemble.density_scores import horizon, scores
from scaled_mpi.experiments.ensemble.latents import latent_runs
from scaled_mpi.experiments.ensemble.members import Member, is_done, ledger, write_member
from scaled_mpi.facts import read_facts
from scaled_mpi.files import sha256
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
]


def facts_of(folder):
    return {f["name"]: f["value"] for f in read_facts(folder / "facts" / "facts.jsonl")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The smoke ensemble, of which someone had made two members and begun a third."""
    root = tmp_path_factory.mktemp("ensemble")
    command = [SMOKE, *FEW, "--outputs", str(root)]
    assert main([*command, "--member", "train:2-3"]) == 0
    partial = next((root / "artefacts").glob("simulate-*.partial"))
    with open(partial / "ledger" / "train-0005.log", "w") as file:
        file.write('{"what": "start"}\n')
    (partial / "train-0005.particles.h5").write_bytes(b"cut short")
    assert main(command) == 0
    return root


def test_every_member_is_made_once_and_scored(finished):
    facts = facts_of(finished / "smoke-oscar")
    assert facts["members.done"] == 10
    assert facts["members.repeated"] == 0
    assert facts["members.starts"] == 11  # one was begun twice
    assert facts["mass.error"] < 1e-12
    assert facts["r2.limit"] > facts["r2.mean"] == 0.0
    assert facts["r2.ceiling"] > facts["r2.forecast"]
    for name in (
        "r2.persistence",
        "r2.energy",
        "r2.stepper",
        "time.ensemble",
        "pod.rank",
        "mvar.radius",
    ):
        assert np.isfinite(facts[name])
    assert (finished / "smoke-oscar" / "report.html").stat().st_size > 10_000


def test_the_facts_are_the_means_of_the_table(finished):
    folder = finished / "smoke-oscar" / "evaluate"
    rows = list(csv.DictReader(open(folder / "metrics_all_runs.csv")))
    chosen = [float(row["r2"]) for row in rows if row["method"] == "surrogate"]
    assert len(chosen) == 2
    assert facts_of(finished / "smoke-oscar")["r2.forecast"] == pytest.approx(np.mean(chosen))
    truth = Trajectory(finished / "smoke-oscar" / "simulate", "test-0001").read(slice(3, None))
    path = finished / "smoke-oscar" / "forecast" / "test-0001.forecast.h5"
    made, _ = load_arrays(path)
    coder = load(SMOKE).compressor.load(finished / "smoke-oscar" / "compress")
    error = np.sum((truth[:, 0] - made["surrogate"]) ** 2)
    about = np.sum((truth[:, 0] - coder.mean.reshape(16, 16)) ** 2)
    assert chosen[1] == pytest.approx(1 - error / about)
    assert set(made) == {"surrogate", "energy", "ceiling", "limit", "rival", "spread"}
    masses = made["rival"].sum(axis=(1, 2))
    np.testing.assert_allclose(masses, truth.sum(axis=(1, 2, 3)), rtol=1e-6)
    assert (made["spread"] > 0).all()


def test_a_results_folder_is_shown_again(finished, tmp_path):
    import shutil

    shutil.copytree(finished / "smoke-oscar", tmp_path / "copy")
    (tmp_path / "copy" / "report.html").unlink()
    assert main([str(tmp_path / "copy"), "--redo", "evaluate"]) == 0
    assert (tmp_path / "copy" / "report.html").exists()
    assert (
        facts_of(tmp_path / "copy")["r2.forecast"]
        == facts_of(finished / "smoke-oscar")["r2.forecast"]
    )


def test_the_exported_models_forecast_without_an_intercept(finished):
    """Upstream's predictor, as its reader would write it, on the exported files alone."""
    folder = finished / "smoke-oscar"
    assert main([SMOKE, *FEW, "--outputs", str(finished), "--export", "npz"]) == 0
    tree = folder / "npz"
    pod, mvar = (
        np.load(tree / "models" / f"{name}_model.npz", allow_pickle=False)
        for name in ("pod", "mvar")
    )
    density = np.load(tree / "test" / "test_001" / "density.npz", allow_pickle=False)
    rho = density["rho"]
    latent = list((rho[:3].reshape(3, -1) - pod["mean"]) @ pod["U"])
    while len(latent) < len(rho):
        past = latent[::-1][: int(mvar["p"])]
        latent.append(sum(A @ y for A, y in zip(mvar["A_matrices"], past, strict=True)))
    made = (np.array(latent[3:]) @ pod["U"].T + pod["mean"]).reshape(-1, 16, 16)
    own, _ = load_arrays(folder / "forecast" / "test-0001.forecast.h5")
    np.testing.assert_allclose(made, own["surrogate"], atol=1e-9)
    order = np.load(tree / "test" / "test_001" / "order_params.npz", allow_pickle=False)
    assert np.array_equal(order["phi"], order["polarization"]) and len(order["phi"]) == len(rho)
    rows = (tree / "models" / "index_mapping.csv").read_text().splitlines()
    assert rows[0] == "global_idx,run_name,ic_type,time_idx" and len(rows) == 1 + 8 * len(rho)
    moves = np.load(tree / "training" / "train_003" / "traj.npz", allow_pickle=False)
    assert moves["positions"].shape == (len(rho), 20, 2)


def hashes(root):
    return {
        path.name: sha256(path)
        for folder in sorted((root / "artefacts").iterdir())
        for path in folder.glob("*.h5")
    }


def test_two_ranks_give_the_same_bytes(finished, tmp_path, mpirun):
    import sys

    command = [sys.executable, "-m", "scaled_mpi.run", SMOKE, *FEW, "--stage", "forecast"]
    done = mpirun(2, *command, "--outputs", tmp_path, timeout=280)
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path) == hashes(finished)


def test_workers_of_dask_give_the_same_bytes(finished, tmp_path):
    pytest.importorskip("distributed")
    from scaled_mpi.engine.launch import farm

    experiment = load(SMOKE, FEW)
    members = experiment.members()[:3]
    told = farm(write_member, [(experiment, tmp_path, member) for member in members], "dask", None)
    assert [entry["member"] for entry in told] == [member.name for member in members]
    for entry in told:
        source = finished / "smoke-oscar" / "simulate" / f"{entry['member']}.json"
        assert sha256(source) == entry["sha256"] == sha256(entry["path"])
    assert {e["starts"] for e in ledger(tmp_path, members).values()} == {1}


def test_a_truncated_member_is_made_again(tmp_path):
    experiment, member = load(SMOKE, FEW), Member("train", 1)
    first = write_member(experiment, tmp_path, member)
    file = next(tmp_path.glob("train-0001.0*.h5"))
    file.write_bytes(file.read_bytes()[:100])
    assert not is_done(tmp_path, member)
    assert write_member(experiment, tmp_path, member)["sha256"] == first["sha256"]
    assert is_done(tmp_path, member)
    lines = (tmp_path / "ledger" / "train-0001.log").read_text().splitlines()
    assert [json.loads(line)["what"] for line in lines] == ["start", "done"] * 2


def test_members_start_in_turn_and_are_named():
    experiment = load(SMOKE, FEW)
    starts = [experiment.system(member).start for member in experiment.members()[:5]]
    assert starts == ["uniform", "gaussian_cluster", "ring", "two_clusters", "uniform"]
    assert [m.number for m in experiment.select("train:2-4")] == [2, 3, 4]
    assert len(experiment.select("test")) == 2
    for wrong in ("train:9", "test:1-0", "both", "train:-1"):
        with pytest.raises(InputError, match="--member"):
            experiment.select(wrong)


def test_the_page_shows_orders_bands_and_the_transition(finished):
    folder = finished / "smoke-oscar"
    page = (folder / "report.html").read_text()
    for heading in (
        "Order of the flocks",
        "From order to disorder",
        "What the modes hold",
        "Error in time",
        "Does the autoregression know",
    ):
        assert f"<h2>{heading}" in page
    facts = read_facts(folder / "facts" / "facts.jsonl")
    order = {f["noise"]: f["value"] for f in facts if f["name"] == "transition.order"}
    assert order[0.2] > 0.9 and order[6.0] < 0.4  # 20 random headings have 0.2 on average
    low, mean, high = (
        [f["value"] for f in facts if f["name"] == name and f["method"] == "surrogate"]
        for name in ("e2.p10", "e2.lead", "e2.p90")
    )
    assert np.all(np.array(low) <= mean) and np.all(np.array(mean) <= high)
    particles, _ = load_arrays(folder / "simulate" / "test-0001.particles.h5")
    told = [
        f["value"]
        for f in facts
        if f["name"] == "order.polarization" and f["start"] == "gaussian_cluster"
    ]
    np.testing.assert_allclose(told, particles["orders"][:, 0])


def test_latents_are_those_of_the_coder(finished):
    folder = finished / "smoke-oscar"
    stored = Trajectory(folder / "simulate", "train-0003")
    (run,) = latent_runs(folder / "compress", [stored])
    coder = load(SMOKE).compressor.load(folder / "compress")
    expected = np.stack([coder.encode(frame) for frame in stored.read(slice(None))])
    assert run.shape == expected.shape and run.grid.extent == stored.grid.extent
    assert np.array_equal(run.read(slice(2, 5)), expected[2:5])
    assert np.array_equal(run.read(4, channels=range(3)), expected[4, :3])


def test_test_runs_may_be_longer(tmp_path):
    experiment = load(SMOKE, [*FEW, "ensemble.test_duration=1.4"])
    assert (experiment.frames_of("train"), experiment.frames_of("test")) == (10, 15)
    write_member(experiment, tmp_path, Member("test", 0))
    assert len(Trajectory(tmp_path, "test-0000")) == 15
    with pytest.raises(
        InputError, match="it has 3 frames. .* more frames than surrogate.memory = 3"
    ):
        load(SMOKE, [*FEW, "ensemble.test_duration=0.2"])


def test_scores_of_known_forecasts():
    truth = np.array([[1.0, 1.5], [1.0, 1.0]]) + np.arange(4).reshape(4, 1, 1)
    mean = np.zeros((2, 2))
    perfect = scores(truth, truth, mean, 0.1, 2)
    assert (perfect["r2"], perfect["median_e2"], perfect["tau_tol"]) == (1, 0, 4)
    half = scores(truth, truth / 2, mean, 0.1, 2)
    assert half["r2"] == pytest.approx(0.75)
    assert half["median_e2"] == half["max_mass_error"] == pytest.approx(0.5)
    moved = scores(truth, np.roll(truth, 1, axis=2), mean, 0.1, 2)
    assert moved["r2_aligned"] == pytest.approx(1.0) and moved["r2_spatial"] < 0.9
    assert horizon(np.array([0.0, 0.05, 0.1, 0.3, 0.4]), 0.1, 2) == 3


@pytest.mark.parametrize(
    "wrong,word",
    [
        ("ensemble.duration=0.2", "ensemble.duration"),
        ("compressor.factor=[8,8]", "factor"),
        ("ensemble.starts=[star]", "ensemble.starts"),
        ("launch=cloud", "launch"),
        ("surrogate.reach=1", "surrogate"),
        ("rival.memory=4", "rival.memory"),
        ("rival.masked=true", "rollout"),
        ("transition.noises=[-1]", "noises"),
    ],
)
def test_bad_input_is_one_line(wrong, word):
    with pytest.raises(InputError, match=word) as caught:
        load(SMOKE, [wrong])
    assert "\n" not in str(caught.value)


def test_a_machine_that_is_not_there_is_said(monkeypatch):
    from scaled_mpi.engine.launch import read_machine

    with pytest.raises(InputError, match="machine: 'nowhere' is not allowed: .* Allowed: .*local"):
        read_machine("nowhere")
    assert read_machine("oscar").partition == "batch"
