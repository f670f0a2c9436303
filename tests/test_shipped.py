"""Finished weights: they are what the configurations train, they go straight to coupling, and
nothing that does not fit is taken."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import plain, to_yaml
from scaled_mpi.engine import stages
from scaled_mpi.experiments import kind_of, load
from scaled_mpi.facts import read_facts
from scaled_mpi.run import main
from scaled_mpi.shipped import SHIPPED, WEIGHTS, names, weight_file

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["domain.shape=[128, 128]", "coupling.jumps=1"]
DDM = [str(ROOT / "configs" / "ddm.yaml"), "surrogate.weights=ddm", *SMALL]
UNREAD = ("device", "weights")  # where it runs and where it comes from: nothing that was learned


def trained_by(name):
    """The surrogate of a configuration in the repository that weights of this name belong to."""
    config = name.split("_")[0]
    experiment = load(ROOT / "configs" / f"{config}.yaml")
    rival = name.removeprefix(config).removeprefix("_")
    return experiment, experiment.rivals[rival] if rival else experiment.surrogate


@pytest.mark.parametrize("name", names())
def test_a_shipped_file_is_what_the_configuration_trains(name):
    from scaled_mpi.learning.weights import load_weights

    path = weight_file("surrogate.weights", name)
    assert path.stat().st_size <= 5_000_000
    tensors, meta = load_weights(path)
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float32"}
    experiment, surrogate = trained_by(name)
    kept = load(SHIPPED / name / "config.yaml")
    for block in ("simulator", "data", "seed", "surrogate", "rivals"):
        assert getattr(kept, block) == getattr(experiment, block), block
    wanted = plain(surrogate)
    del wanted["training"]["checkpoint_every"]
    # Keys that are younger than the weights stand at their defaults, which change nothing.
    default = plain(type(surrogate)())
    told = {key: meta["stepper"].get(key, default[key]) for key in wanted if key not in UNREAD}
    assert told == {key: wanted[key] for key in told}


@pytest.fixture(scope="module")
def coupled(tmp_path_factory):
    """The main job on a small domain, with the shipped weights."""
    root = tmp_path_factory.mktemp("shipped")
    assert main([*DDM, "--outputs", str(root)]) == 0
    return root


def test_shipped_weights_go_straight_to_coupling(coupled):
    facts = {f["name"]: f["value"] for f in read_facts(coupled / "ddm" / "facts" / "facts.jsonl")}
    assert facts["vrmse.jump1.surrogate"] == pytest.approx(0.01384, rel=0.03)
    assert facts["vrmse.jump1.surrogate"] < 0.05 * facts["vrmse.jump1.persistence"]
    assert "time.simulate.training" not in facts and "breakeven" not in facts
    assert (coupled / "ddm" / "fit" / "best.safetensors").read_bytes() == (
        SHIPPED / "ddm" / WEIGHTS
    ).read_bytes()
    assert (coupled / "ddm" / "report.html").exists()


def artefact_names(*overrides):
    experiment = load(DDM[0], [*SMALL, *overrides])
    return {
        k: v.path.name
        for k, v in stages.artefacts(kind_of(experiment), experiment, Path("none"), 1).items()
    }


def test_the_bytes_of_the_weights_decide_and_not_their_place(coupled):
    shipped = artefact_names("surrogate.weights=ddm")
    assert shipped == artefact_names(f"surrogate.weights={coupled / 'ddm'}")
    assert shipped["fit"] != artefact_names()["fit"]
    # What only training runs depend on no longer matters.
    assert shipped == artefact_names("surrogate.weights=ddm", "data.runs=3")


def altered(folder, **changes):
    """A file of weights whose metadata are changed, its own SHA-256 right."""
    from scaled_mpi.learning.weights import load_weights, save_weights

    tensors, meta = load_weights(SHIPPED / "ddm" / WEIGHTS)
    nan = changes.pop("nan", False)
    if nan:
        next(iter(tensors.values())).fill_(np.nan)
    save_weights(folder / WEIGHTS, tensors, {**meta, **changes})


@pytest.mark.parametrize(
    ("changes", "overrides", "words"),
    [
        (
            {},
            ["surrogate.weights=dmm"],
            "dmm is not allowed: it holds no best.safetensors. Allowed: a shipped name (ddm",
        ),
        (
            {},
            ["surrogate.weights=surrogate"],
            "weights of a probabilistic. Needed: those of a stepper",
        ),
        ({}, ["surrogate.width=96"], "surrogate.width: 96 is not allowed"),
        ({}, ["surrogate.jump=25"], "surrogate.jump: 25 is not allowed"),
        ({"channels": 3}, [], "its metadata do not fit: mean: 2 numbers are not allowed"),
        ({"axes": 10**9}, [], "axes: 1000000000 is not allowed"),
        ({"mean": "much"}, [], "mean"),
        ({"axes": 1}, [], "learned on 1 axes. Needed: 2"),
        (
            {"conditions": ["heat"], "condition_mean": [0.0], "condition_spread": [1.0]},
            [],
            "it reads heat, and no run has this",
        ),
        ({"nan": True}, [], "values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(
    tmp_path, coupled, capsys, changes, overrides, words
):
    altered(tmp_path, **changes)
    with pytest.raises(SystemExit) as caught:
        main(
            [
                DDM[0],
                *SMALL,
                f"surrogate.weights={tmp_path}",
                *overrides,
                "--outputs",
                str(coupled),
            ]
        )
    assert caught.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert words in told[0]


def test_truncated_weights_are_refused(tmp_path, coupled, capsys):
    whole = (SHIPPED / "ddm" / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit):
        main([DDM[0], *SMALL, f"surrogate.weights={tmp_path}", "--outputs", str(coupled)])
    assert "not readable" in capsys.readouterr().err


def test_a_killed_run_that_had_taken_the_weights_goes_on(coupled):
    """What it left in the partial folder is replaced."""
    fit = coupled / "artefacts" / artefact_names("surrogate.weights=ddm")["fit"]
    (fit / "provenance.json").unlink()
    shutil.move(fit, fit.with_name(fit.name + ".partial"))
    assert main([*DDM, "--outputs", str(coupled), "--stage", "fit"]) == 0
    assert (fit / "best.safetensors").exists()


@pytest.mark.parametrize("name", ["ddm", "surrogate", "diffusion", "latent_diffusion"])
def test_a_resolved_configuration_can_be_read_again(tmp_path, name):
    experiment = load(ROOT / "configs" / f"{name}.yaml")
    (tmp_path / "config.yaml").write_text(to_yaml(experiment))
    assert load(tmp_path / "config.yaml") == experiment


def test_compressor_and_surrogate_of_another_run_give_its_forecast(tmp_path):
    config = [
        str(ROOT / "configs/smoke/autoencoder.yaml"),
        *("compressor.training.steps=8", "surrogate.training.steps=8", "data.runs=2"),
        *("compressor.held_out=1", "coupling.jumps=2"),
    ]
    assert main([*config, "name=first", "--outputs", str(tmp_path)]) == 0
    given = [f"{key}.weights={tmp_path / 'first'}" for key in ("compressor", "surrogate")]
    assert main([*config, *given, "name=second", "--outputs", str(tmp_path)]) == 0
    hashes = [
        {fact["value"] for fact in facts if fact["name"] == "field.sha256"}
        for name in ("first", "second")
        for facts in [read_facts(tmp_path / name / "facts" / "facts.jsonl")]
    ]
    assert hashes[0] == hashes[1] != set()
    runs = list((tmp_path / "second" / "simulate").glob("train-*"))
    assert runs == []  # nothing is learned
