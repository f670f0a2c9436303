"""Patterns larger than the tile: the whole experiment, the same on any ranks, its refusals."""

from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.datasets.snapshots import SnapshotSet
from scaled_mpi.engine import stages
from scaled_mpi.experiments import kind_of, load
from scaled_mpi.experiments.enlargement.enlarge import methods
from scaled_mpi.facts import read_facts
from scaled_mpi.likeness import differences, statistics
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.halo import Halo
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
    stored = SnapshotSet(next((tmp_path / "artefacts").glob("truth-*")), "truth")
    true = stored.read(0, len(stored) - 2)[:, 1].astype(np.float64)
    generated = fields[:, 1].astype(np.float64)
    ratio = generated.var() / true.var()
    assert facts["variance.ratio", "crop"] == pytest.approx(ratio, rel=1e-9)
    error = facts["cov.error.tiled", "crop"]
    assert error == pytest.approx(covariance_error(generated, true), rel=1e-6)
    assert facts["cov.error.tiled", "again"] < facts["cov.error.tiled", "pasted"]
    dataset = SnapshotSet(next((tmp_path / "artefacts").glob("dataset-*")), "boxes")
    np.testing.assert_array_equal(dataset.read(9, 10)[0], run_alone(load(SMOKE), 9))


def covariances(fields):
    """Mean products (distances,) of all pairs of cells, one displacement after another."""
    away = fields - fields.mean()
    rows, columns = fields.shape[1:]
    last = min(rows, columns) // 2
    sums, counts = np.zeros(last + 1), np.zeros(last + 1)
    for y in range(rows):
        for x in range(columns):
            distance = round(np.hypot(min(y, rows - y), min(x, columns - x)))
            if distance <= last:
                sums[distance] += np.mean(away * np.roll(away, (y, x), (1, 2)))
                counts[distance] += 1
    return sums / counts, counts


def covariance_error(fields, true):
    """Relative error of the covariance of all pairs of cells up to half the domain apart."""
    (one, counts), (other, _) = covariances(fields), covariances(true)
    return np.sqrt(np.sum(counts * (one - other) ** 2) / np.sum(counts * other**2))


def run_alone(experiment, run):
    """The final state of one small box, advanced by its simulator alone."""
    system, shape = experiment.simulator, experiment.boxes.shape
    blocks = make_blocks(system.grid(shape), shape, 1)
    state = system.initial(blocks.block(0), blocks.grid, (experiment.seed, run))
    return system.advance(state, experiment.boxes.steps, Halo(blocks, SerialComm(), 1))


def test_a_set_does_not_differ_from_itself():
    fields = np.random.default_rng(0).normal(size=(3, 32, 48))
    found = statistics(fields, (16, 16))
    errors = differences(found, found, (16, 16))
    for name, value in errors.items():
        if ".error" in name or name == "histogram.distance":
            assert value == 0.0, name
        if ".ratio" in name:
            assert value == 1.0, name


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
        (
            "windows.training.batch=64",
            "training.batch: 64 is not allowed: it is larger than the data set",
        ),
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
