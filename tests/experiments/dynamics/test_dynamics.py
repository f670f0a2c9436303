"""Pattern to dynamics: the data set on any ranks, the whole experiment, its facts and refusals."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.datasets.snapshots import SnapshotSet
from scaled_mpi.engine import stages
from scaled_mpi.experiments import kind_of, load
from scaled_mpi.experiments.dynamics.dataset import simulate
from scaled_mpi.facts import read_facts
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.run import main

SMOKE = Path(__file__).resolve().parents[3] / "configs" / "smoke" / "turing.yaml"
# The snapshots of the smoke experiment; other ones need a new version of the stage in stages.py.
GOLDEN = {
    "waves": "4424ebc2242e5f65ac824a5ec52d1977f5ba19909f1a37ef4c44d954359f4299",
    "maze": "8f66cd60f31fbe61a8f26f102d7c59e39101df453e8fd0ed733edb34897994cf",
}


def digest(folder, preset):
    stored = SnapshotSet(folder, preset)
    return hashlib.sha256(stored.read(0, len(stored)).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The smoke experiment, run once on one rank."""
    root = tmp_path_factory.mktemp("turing")
    assert main([str(SMOKE), "--outputs", str(root)]) == 0
    return root


def test_the_whole_experiment_leaves_a_page_and_its_facts(finished):
    folder = finished / "smoke_turing"
    page = (folder / "report.html").read_text()
    for words in (
        "Along the march",
        "At one instant",
        "Small cases",
        "Waves",
        "Lorenz",
        "How well they point",
        "Chaos",
        "along the learned flow",
    ):
        assert words in page, words
    facts = {f["name"]: f["value"] for f in read_facts(folder / "facts" / "facts.jsonl")}
    for preset in ("waves", "maze"):
        for name in (
            "cos.trainingfree",
            "cos.flow",
            "cos.random",
            "cos.reweighted",
            "cos.fair.trainingfree",
            "cos.fair.flow",
            "cos.fair.fitted5",
        ):
            assert -1.0 <= facts[f"{name}.{preset}"] <= 1.0
        assert facts[f"cos.trainingfree.{preset}"] >= 0.0
    assert facts["dataset.samples"] == 48
    assert facts["lyapunov.sum.trainingfree.ring"] == pytest.approx(0.0, abs=1e-3)
    assert facts["stationarity.trainingfree.ring"] < 1e-20
    assert facts["lyapunov.path.truth.lorenz"] > 0.0
    for preset in ("waves", "maze"):
        path = folder / "evaluate" / f"{preset}.fields.h5"
        arrays, _ = load_arrays(path)
        system = load(SMOKE).patterns.simulator(preset)
        states = (arrays["snapshots"][:2].astype(np.float64) + 1.0) / 2.0
        rates = np.stack([2.0 * (euler(system, state) - state) for state in states])
        np.testing.assert_allclose(arrays["rate"], rates[0], rtol=0, atol=1e-14)
        size = np.sqrt(np.mean(rates**2))
        assert facts[f"dynamics.size.{preset}"] == pytest.approx(size, rel=1e-10)


def euler(system, state):
    """One explicit step of Gray-Scott on a periodic grid (2, Y, X), in numpy alone."""
    u, v = state
    spread = [
        sum(np.roll(field, shift, axis) for axis in (0, 1) for shift in (1, -1)) - 4 * field
        for field in state
    ]
    rate = u * v**2
    new_u = system.Du / system.dx**2 * spread[0] - rate + system.F * (1 - u)
    new_v = system.Dv / system.dx**2 * spread[1] + rate - (system.F + system.k) * v
    new = state + system.dt * np.stack([new_u, new_v])
    return np.clip(new, 0.0, 1.0) if system.clamp else new


@pytest.mark.parametrize("preset", ["waves", "maze"])
def test_snapshots_are_the_bits_of_this_version(finished, preset):
    folder = next((finished / "artefacts").glob("dataset-*"))
    assert digest(folder, preset) == GOLDEN[preset]


def test_snapshots_are_alive_bounded_and_independent_of_the_selection(finished):
    spec = load(SMOKE).patterns
    stored = SnapshotSet(next((finished / "artefacts").glob("dataset-*")), "maze")
    assert stored.shape == (24, 2, 32, 32)
    values = stored.read(3, 14)  # across three files
    assert np.abs(values).max() <= 1.0
    assert values[:, 1].std(axis=(1, 2)).min() > 0.05
    np.testing.assert_array_equal(values[4:6], simulate(spec, "maze", range(7, 9), 0))
    np.testing.assert_array_equal(values[4], 2.0 * run_alone(spec, "maze", 7) - 1.0)
    plain = spec.model_copy(update={"normalize": False})
    np.testing.assert_allclose(2 * simulate(plain, "maze", range(7, 8), 0) - 1, values[4:5])


def run_alone(spec, preset, sample):
    """The final state of one sample, advanced by its simulator alone."""
    system, shape = spec.simulator(preset), (spec.height, spec.width)
    blocks = make_blocks(system.grid(shape), shape, 1)
    state = system.initial(blocks.block(0), blocks.grid, (0, spec.run(preset, sample)))
    return system.advance(state, spec.steps, Halo(blocks, SerialComm(), 1))


def test_a_damaged_file_is_refused(finished, tmp_path):
    source = next((finished / "artefacts").glob("dataset-*"))
    for path in source.glob("waves*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = sorted(tmp_path.glob("waves.0000*.h5"))[1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(InputError, match="waves.00001.h5"):
        SnapshotSet(tmp_path, "waves").read(0, 24)


def test_finished_weights_take_the_place_of_a_training(finished, tmp_path, capsys):
    trained = next((finished / "artefacts").glob("score-*"))
    for preset in GOLDEN:
        best = trained / preset / "best.safetensors"
        shutil.copy(best, tmp_path / f"{preset}.score.safetensors")
    taken = [
        str(SMOKE),
        "--outputs",
        str(finished),
        "--stage",
        "score",
        f"score.weights={tmp_path}",
    ]
    assert main(taken) == 0
    place = Path(capsys.readouterr().out.strip().splitlines()[-1].removeprefix("score: "))
    assert place != trained
    for preset in GOLDEN:
        assert (place / preset / "best.safetensors").read_bytes() == (
            trained / preset / "best.safetensors"
        ).read_bytes()
    with pytest.raises(SystemExit) as caught:
        main([*taken, "score.widths=[8, 16]"])
    assert caught.value.code == 2
    assert "weights of another architecture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("patterns.presets=[wavs]", "patterns.presets: 'wavs' is not allowed"),
        (
            "score.training.batch=64",
            "training.batch: 64 is not allowed: it is larger than the data set",
        ),
        ("score.kernels=[3, 4]", "score.kernels: [3, 4] is not allowed"),
        (
            "score.dilations=[1]",
            "score.dilations: [1] is not allowed: another number than widths. Allowed: 2",
        ),
        ("score.dilations=[1, 16]", "wraps around twice. Allowed: at least 33"),
        ("score.weights=nowhere", "nowhere/waves.score.safetensors is not allowed: no such file"),
        ("flow.probes=3", "flow.probes: 3 is not allowed"),
        ("kernels.sizes=[2]", "kernels.sizes: [2] is not allowed"),
        ("evaluation.samples=9", "evaluation.samples: 9 is not allowed"),
        (
            "score={kind: diffusion, tau: 100, training: {batch: 8}}",
            "score.tau: 100 is not allowed",
        ),
    ],
)
def test_bad_input_is_one_line(override, words):
    with pytest.raises(InputError) as caught:
        experiment = load(SMOKE, [override])
        stages.artefacts(kind_of(experiment), experiment, Path("none"), 1)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.mpi
def test_snapshots_are_the_same_on_any_ranks(mpi_tmp_path):
    comm, root = world(), Path(mpi_tmp_path)
    assert main([str(SMOKE), "--outputs", str(root), "--stage", "dataset"]) == 0
    if comm.rank == 0:
        folder = next((root / "artefacts").glob("dataset-*"))
        assert {name: digest(folder, name) for name in GOLDEN} == GOLDEN
    comm.barrier()
