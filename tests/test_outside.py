"""A scientist's own trajectories from a configuration alone; and the job in latent space."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from scaled_mpi.facts import read_facts
from scaled_mpi.run import main

SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke"


def facts_of(folder):
    return {f["name"]: f["value"] for f in read_facts(folder / "facts" / "facts.jsonl")}


def advection(shape, frames, seed, speed=1):
    """A smooth periodic field carried `speed` cells a frame along x: the answer is a roll."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).standard_normal(shape)
    start = gaussian_filter(noise, 3, mode="wrap")
    return np.stack([np.roll(start / start.std(), speed * t, axis=1) for t in range(frames)])


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """The job on an NPZ file of someone else's simulator."""
    root = tmp_path_factory.mktemp("outside")
    runs = np.stack([advection((32, 32), 20, seed) for seed in range(5)])
    np.savez(root / "train.npz", concentration=runs)
    np.savez(root / "test.npz", concentration=advection((64, 64), 12, 99)[None])
    config = {
        "name": "carried",
        "dataset": {
            "kind": "npz",
            "train": [str(root / "train.npz")],
            "test": [str(root / "test.npz")],
            "axes": "ntyx",
            "channels": {"c": "concentration"},
            "boundary": "periodic",
        },
        "domain": {"tile": [16, 16]},
        "surrogate": {
            "kind": "stepper",
            "jump": 1,
            "reach": 4,
            "depth": 2,
            "width": 16,
            "patch": 16,
            "halos": [2],
            "held_out": 1,
            "symmetric": False,
            "training": {"steps": 60, "batch": 8, "validate_every": 30},
        },
        "coupling": {"halo": 2, "jumps": 6, "sweeps": 3, "compare": 2},
    }
    (root / "own.yaml").write_text(yaml.safe_dump(config))
    assert main([str(root / "own.yaml"), "--outputs", str(root / "outputs")]) == 0
    return root


def test_a_users_own_npz_trajectory_needs_no_code(carried):
    facts = facts_of(carried / "outputs" / "carried")
    assert facts["vrmse.jump1.surrogate"] < facts["vrmse.jump1.persistence"]
    assert (carried / "outputs" / "carried" / "report.html").exists()
    assert "time.simulator.jump" not in facts


def test_changed_files_are_imported_again(carried, capsys):
    command = [str(carried / "own.yaml"), "--outputs", str(carried / "outputs")]
    assert main([*command, "--dry-run"]) == 0
    assert "to run" not in capsys.readouterr().out
    test = carried / "test.npz"
    test.write_bytes(test.read_bytes() + b"")
    np.savez(test, concentration=advection((64, 64), 12, 98)[None])
    assert main([*command, "--dry-run"]) == 0
    assert "to run" in capsys.readouterr().out


def test_tiles_that_do_not_divide_a_users_domain_are_refused(carried, capsys):
    with pytest.raises(SystemExit) as caught:
        main(
            [
                str(carried / "own.yaml"),
                "domain.tile=[24, 24]",
                "--outputs",
                str(carried / "outputs"),
            ]
        )
    assert caught.value.code == 2
    assert "it does not divide the domain [64, 64] exactly" in capsys.readouterr().err


def test_the_same_coupled_job_runs_through_an_autoencoder(tmp_path):
    path = SMOKE / "autoencoder.yaml"
    assert main([str(path), "--outputs", str(tmp_path)]) == 0
    facts = facts_of(tmp_path / "smoke-autoencoder")
    assert 0 < facts["vrmse.jump1.surrogate"] < 1
    assert facts["halo.bytes.counted"] == facts["halo.bytes.formula"]
