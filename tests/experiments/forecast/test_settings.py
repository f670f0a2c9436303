"""What no single block can know is checked before anything is written."""

from pathlib import Path

import pytest

from scaled_mpi.config import InputError
from scaled_mpi.experiments import load

SMOKE = Path(__file__).resolve().parents[3] / "configs" / "smoke" / "ddm.yaml"
CONFIGS = sorted([*SMOKE.parent.glob("*.yaml"), *SMOKE.parent.parent.glob("*.yaml")])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "domain.tile=[24, 16]",
            r"domain.tile: \[24, 16\] is not allowed: it does not divide the domain",
        ),
        (
            "coupling.halo=17",
            r"coupling.halo: 17 is not allowed: it is wider than a tile. Allowed: at most 16",
        ),
        ("simulator.dt=100", r"simulator.dt: 100"),
        ("simulator=null", r"simulator, dataset: .* Allowed: exactly one of them"),
        ("domain.shape=null", r"domain.shape: None is not allowed"),
        ("data.shape=[32]", r"data.shape: \[32\] is not allowed: domain.tile has 2 axes"),
        ("data.vary={feed: [1]}", r"data.vary.feed: .* no key of the simulator"),
        ("surrogate.reach=[8, 8, 8]", r"surrogate.reach: \[8, 8, 8\]"),
        ("seed=-1", r"seed: -1 is not allowed"),
        ("name=../evil", r"name: \"../evil\" is not allowed"),
        ("launch=everywhere", r"launch: \"everywhere\" is not allowed"),
    ],
)
def test_impossible_experiments_are_refused_in_one_line(override, message):
    with pytest.raises(InputError, match=message) as caught:
        load(SMOKE, [override])
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(
        InputError, match="--preset: large is not allowed: .* no such preset. Allowed: "
    ):
        load(SMOKE, preset="large")


def test_presets_are_joined_the_later_one_wins():
    thesis = SMOKE.parent.parent / "oscar_thesis.yaml"
    found = load(thesis, preset="gas,large")
    assert (found.name, found.simulator.noise.eta) == ("oscar_thesis_gas", 1.5)
    assert found.ensemble.training == 340 and found.simulator.forces.mobility == 1.0
    assert load(thesis, preset="crystal,pure").name == "oscar_thesis_pure"
    with pytest.raises(
        InputError, match="--preset: huge is not allowed: .* no such preset. Allowed: gas"
    ):
        load(thesis, preset="gas,huge")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_of_the_house_loads(path):
    load(path)


def test_vary_deals_values_to_runs_in_turn():
    runs = load(SMOKE, ["data.vary={pattern: [waves, maze]}"]).runs()
    assert [run.pattern for run in runs] == ["waves", "maze", "waves", "maze"]
