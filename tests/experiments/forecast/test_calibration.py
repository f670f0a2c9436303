"""A stochastic job from end to end: members, rivals, one piece; and the sums of its scores."""

from pathlib import Path

import numpy as np
import pytest

from scaled_mpi import metrics
from scaled_mpi.config import InputError
from scaled_mpi.experiments import load
from scaled_mpi.experiments.forecast.calibration import patches
from scaled_mpi.experiments.forecast.sampling import ensemble_names, member_name
from scaled_mpi.facts import read_facts
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.run import main

SMOKE = Path(__file__).resolve().parents[3] / "configs" / "smoke" / "surrogate.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The smoke experiment, run once on one rank: facts, and the folders of two stages."""
    root = tmp_path_factory.mktemp("stochastic")
    assert main([str(SMOKE), "--outputs", str(root)]) == 0
    folders = [next((root / "artefacts").glob(f"{name}-*")) for name in ("simulate", "couple")]
    return read_facts(root / "smoke-surrogate" / "facts" / "facts.jsonl"), *folders, root


def value(facts, name, **place):
    found = [
        f["value"]
        for f in facts
        if f["name"] == name
        and "channel" not in f
        and all(f.get(key) == one for key, one in place.items())
    ]
    assert found, name
    return found[-1]


def test_scores_of_the_ensemble_are_those_of_the_stored_fields(finished):
    facts, simulated, coupled, _ = finished
    names = ensemble_names(trajectory_names(coupled), "surrogate")
    assert names == [member_name("surrogate", member) for member in range(4)]
    members = np.stack([Trajectory(coupled, name).read(0) for name in names])
    true = Trajectory(simulated, "test-0000").read(3)
    assert value(facts, "crps.lead", method="surrogate", lead=1) == pytest.approx(
        metrics.crps(members, true), rel=1e-5
    )
    units = true.astype(float).std((1, 2))[:, None, None]
    ratio = metrics.spread_skill(members / units, true / units)
    assert value(facts, "spread.skill.lead1") == pytest.approx(ratio, rel=1e-3)
    deterministic = Trajectory(coupled, "deterministic").read(slice(None))
    truth = Trajectory(simulated, "test-0000").read(slice(3, 5))
    assert value(facts, "mae.deterministic") == pytest.approx(
        np.abs(deterministic.astype(float) - truth).mean(), rel=1e-5
    )


def test_a_member_in_one_piece_is_the_member_over_tiles(finished):
    coupled = finished[2]
    tiled, whole = (Trajectory(coupled, name).read(0) for name in ("surrogate", "untiled"))
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert value(finished[0], "untiled.difference", lead=1) < 1e-6


def test_the_simulators_ensemble_is_calibrated_and_beats_the_tiny_network(finished):
    facts, simulated, _, _ = finished
    for lead in (1, 2):
        assert 0.6 < value(facts, "spread.skill.lead", method="reference", lead=lead) < 1.6
    best = value(facts, "crps.mean", method="reference")
    assert best < 0.5 * value(facts, "crps")
    assert best < 0.5 * value(facts, "mae.persistence")
    members = [Trajectory(simulated, f"reference-{m:04d}").read(0) for m in range(1, 5)]
    assert np.abs(members[0] - members[1]).max() > 0.01


def test_the_page_tells_of_the_uncertainty(finished):
    text = (finished[3] / "smoke-surrogate" / "report.html").read_text()
    assert "Does it know how wrong it is?" in text
    assert "Where it is uncertain" in text


def test_patches_across_an_edge_and_inside_are_those_cells():
    tile = np.arange(2 * 20 * 20, dtype=float).reshape(2, 20, 20)
    edge, inside = (patches(tile, np.ones(2), 2, place) for place in (True, False))
    assert edge.shape == inside.shape == (8, 32)
    np.testing.assert_array_equal(edge[0], tile[:, 16:20, 2:6].ravel())
    np.testing.assert_array_equal(inside[0], tile[:, 8:12, 2:6].ravel())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("simulator.noise=0", "test.members: 4 is not allowed: all would be alike"),
        (
            "coupling.halo=4",
            "coupling.halo: 4 is not allowed: the surrogate has no masks and reaches 8 cells",
        ),
        ("surrogate.jump=15", "surrogate.jump: 15 is not allowed: noise acts every 10 steps"),
        (
            "rivals.surrogate={kind: stepper, jump: 20}",
            "rivals: surrogate is not allowed: not of small letters",
        ),
        ("rivals.other={kind: stepper, jump: 30}", "rivals.other: jump 30"),
        ("coupling.halo=17", "coupling.halo: 17 is not allowed: it is wider than a tile"),
    ],
)
def test_an_experiment_that_does_not_fit_is_refused(override, words):
    with pytest.raises(InputError, match=words):
        load(SMOKE, [override])
