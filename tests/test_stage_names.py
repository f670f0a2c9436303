"""The names of all stages of all experiments, beside the list in `stage_names.json`.

A name is the stage and the hash of what its result depends on. A change of the code that moves a
name without a reason makes everybody compute again; one that should have moved it, and did not,
shows old results as new ones. `python tests/test_stage_names.py` writes the list anew.
"""

import json
import sys
from pathlib import Path

import pytest

from scaled_mpi.engine.stages import artefacts
from scaled_mpi.experiments import kind_of, load

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).with_suffix("").with_name("stage_names.json")
CONFIGS = sorted((ROOT / "configs").glob("*.yaml")) + sorted((ROOT / "configs/smoke").glob("*"))
RANKS = 2


def names_of(config: Path) -> dict[str, str]:
    experiment = load(config)
    found = artefacts(kind_of(experiment), experiment, Path("none"), RANKS)
    return {stage: artefact.path.name for stage, artefact in found.items()}


def short(config: Path) -> str:
    return str(config.relative_to(ROOT / "configs"))


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="training on a GPU has other names")
@pytest.mark.parametrize("config", CONFIGS, ids=short)
def test_stages_bear_the_names_of_the_list(config):
    assert names_of(config) == json.loads(GOLDEN.read_text())[short(config)]


def test_the_list_names_nothing_else():
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(map(short, CONFIGS))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    everything = {short(config): names_of(config) for config in CONFIGS}
    GOLDEN.write_text(json.dumps(everything, indent=1) + "\n")
