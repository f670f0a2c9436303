"""Patterns larger than the tile: the whole experiment, the same on any ranks, its refusals."""

from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.engine import stages
from scaled_mpi.experiments import kind_of, load
from scaled_mpi.experiments.enlargement.enlarge import methods
from scaled_mpi.facts import read_facts
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.run import main

SMOKE = Path(__file__).resolve().parents[3] / "configs" / "smoke" / "patterns.yaml"


def test_the_whole_experiment_leaves_a_page_and_its_facts(tmp_path):
    assert main([str(SMOKE), "--outputs", str(tmp_path)]) == 0
    folder = tmp_path / "smoke-patterns"
    facts = {
        (f["name"], f.get("method")): f["value"]
        for f in read_facts(folder / "facts" / "facts.jsonl")
    }
    for method in ("again", "gaussian", *methods(load(SMOKE))):
        for name in (
            "cov.error.tiled",
            "cov.error.beyond",
            "variance.ratio",
            "seam.index",
            "histogram.distance",
            "dynamics.rate.ratio",
            "spectrum.error.middle",
        ):
            assert np.isfinite(facts[name, method]), (name, method)
    assert facts["variance.ratio", None] == facts["variance.ratio", "coarse"]
    assert facts["dynamics.rate.ratio", "gaussian"] > 2.0 > facts["dynamics.rate.ratio", "again"]
    page = (folder / "report.html").read_text()
    for words in (
        "Patterns larger than the tile",
        "How like the simulator",
        "tiles alone, pasted",
        "How far the coarse denoiser is believed",
    ):
        assert words in page
    assert page.count("<svg") >= 2
    generated = next((tmp_path / "artefacts").glob("generate-*"))
    fields = load_arrays(generated / "crop.fields.h5")[0]["fields"]
    assert fields.shape == (2, 2, 32, 48)
    assert 0.5 < fields[:, 0].mean() < 1.0  # species u, in the simulator's units


def test_boxes_without_a_pattern_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(SMOKE), "--outputs", str(tmp_path), "simulator.start=uniform"])
    assert caught.value.code == 2
    assert "boxes.steps: 300 is not allowed: all boxes are uniform" in capsys.readouterr().err
    assert not list(tmp_path.glob("artefacts/fit-*/provenance.json"))


def alone(folder):
    """All stages but the last, by one rank."""
    experiment = load(SMOKE)
    kind = kind_of(experiment)
    found = stages.artefacts(kind, experiment, folder, 1)
    for _ in stages.run_stages(kind, experiment, found, SerialComm(), upto="generate", say=str):
        pass


@pytest.mark.mpi
def test_any_ranks_learn_and_make_the_same(mpi_tmp_path, kept):
    comm, root = world(), Path(mpi_tmp_path)
    whole = [str(SMOKE), "--outputs", str(root / "together"), "--stage", "generate"]
    assert main(whole) == 0
    if comm.rank == 0:
        experiment = load(SMOKE)
        folders = (root / "together" / "artefacts", kept("smoke-patterns", alone))
        fits, made = (
            [next(folder.glob(f"{stage}-*")) for folder in folders]
            for stage in ("fit", "generate")
        )
        for name in ("windows/best.safetensors", "coarse/best.safetensors", "scales.h5"):
            one, other = ((folder / name).read_bytes() for folder in fits)
            assert one == other, name
        for method in methods(experiment):
            one, other = (
                load_arrays(folder / f"{method}.fields.h5")[0]["fields"] for folder in made
            )
            # Where windows of several ranks meet in a cell they are added in an order of its own.
            meet = method in ("average", "window", "collage")
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * meet, err_msg=method)
    comm.barrier()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "boxes.held_out=16",
            "boxes.held_out: 16 is not allowed: no box is left to train on",
        ),
        ("windows.training.batch=64", "training.batch: 64 is not allowed: it is larger than the data set"),
        ("generation.block=3", "generation.tile: [16, 16] with halo 8, block 3 is not allowed"),
        (
            "generation.halo=17",
            "generation.halo: 17 is not allowed: wider than a tile. Allowed: 0 to 16",
        ),
        ("generation.tile=[12, 16]", "tile"),
        (
            "windows.network.widths=[8, 8, 8, 8, 8]",
            "windows.network.widths: 5 levels is not allowed: they need multiples of 32 cells",
        ),
        (
            "coarse.network.widths=[8, 8, 8, 8]",
            "coarse.network.widths: 4 levels is not allowed: they need multiples of 8 cells",
        ),
        ("windows.network.padding=valid", "windows.network.padding: valid is not allowed"),
        (
            "simulator.boundaries=neumann",
            "simulator: gray_scott with noise or open boundaries is not allowed",
        ),
        ("generation.sampler=ddpm", "generation.sampler"),
    ],
)
def test_bad_input_is_one_line(override, words):
    with pytest.raises(InputError) as caught:
        load(SMOKE, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
