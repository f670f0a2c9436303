"""`training.epochs` in place of `training.steps`: the hash and the training see steps."""

from pathlib import Path

import pytest

from scaled_mpi.config import InputError
from scaled_mpi.engine.stages import artefacts
from scaled_mpi.experiments import kind_of, load

SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke"

# What is learned, the smoke experiment, and its training samples counted by hand.
PARTS = [
    # 3 runs to learn from, 12 frames, so 11 jumps; 32 cells an axis hold 2 x 2 patches of 16
    ("surrogate", "ddm", 3 * 11 * 4),
    # 3 runs, 12 frames, 1 patch of 32 cells
    ("compressor", "autoencoder", 3 * 12),
    # the same runs, 16 latent cells an axis, 2 x 2 patches of 8
    ("surrogate", "autoencoder", 3 * 11 * 4),
]


def trained(config, part, *overrides):
    return getattr(load(SMOKE / f"{config}.yaml", overrides), part).training


def names(config, *overrides):
    experiment = load(SMOKE / f"{config}.yaml", overrides)
    found = artefacts(kind_of(experiment), experiment, Path("none"), 1)
    return {stage: artefact.path.name for stage, artefact in found.items()}


def without_steps(config, tmp_path):
    """The smoke file with all `steps` of trainings taken out."""
    text = (SMOKE / f"{config}.yaml").read_text()
    for line in text.splitlines():
        if "training: {steps:" in line:
            begin, _, rest = line.partition("{steps:")
            text = text.replace(line, f"{begin}{{{rest.partition(', ')[2]}")
    path = tmp_path / f"{config}.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("part", "config", "samples"), PARTS)
def test_epochs_become_steps_over_the_samples(part, config, samples, tmp_path):
    path, batch = without_steps(config, tmp_path), trained(config, part).batch
    for epochs in (2, 3):
        training = getattr(load(path, [f"{part}.training.epochs={epochs}"]), part).training
        assert training.epochs is None
        assert training.steps == -(-epochs * samples // batch)


def test_epochs_and_their_steps_have_one_hash(tmp_path):
    path = without_steps("ddm", tmp_path)
    experiment = load(path, ["surrogate.training.epochs=2"])
    found = artefacts(kind_of(experiment), experiment, Path("none"), 1)
    steps = experiment.surrogate.training.steps
    assert found["fit"].path.name == names("ddm", f"surrogate.training.steps={steps}")["fit"]


@pytest.mark.parametrize(
    ("config", "keys", "samples"),
    [
        ("turing", ("score", "flow"), lambda e: e.training_samples),
        ("patterns", ("windows", "coarse"), lambda e: e.boxes.samples - e.boxes.held_out),
        ("oscar", ("rival",), None),
    ],
)
def test_every_kind_takes_epochs(config, keys, samples, tmp_path):
    path = without_steps(config, tmp_path)
    experiment = load(path, [f"{key}.training.epochs=3" for key in keys])
    for key in keys:
        training = getattr(experiment, key).training
        assert training.epochs is None and training.steps >= 3
        if samples is not None:
            assert training.steps == -(-3 * samples(experiment) // training.batch)


def test_both_or_an_unknown_number_of_samples_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"training.epochs: 2 is not allowed: training.steps is"):
        load(SMOKE / "ddm.yaml", ["surrogate.training.epochs=2"])
    path = without_steps("darcy", tmp_path)
    with pytest.raises(InputError, match=r"training.epochs: 2 is not allowed: the number of"):
        load(path, ["local_solver.training.epochs=2"])
