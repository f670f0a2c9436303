"""Put the networks of a finished run among the weights that come with the package.

    ./run configs/ddm.yaml            && python -m scaled_mpi.ship outputs/ddm
    ./run configs/surrogate.yaml      && python -m scaled_mpi.ship outputs/surrogate

The surrogate becomes scaled_mpi/shipped/NAME, a rival NAME_RIVAL, with NAME the name of the
experiment. Each folder also has the configuration and the facts that are single numbers. Prints
every written file and its SHA-256. Training in `ordered` mode gives the same bits on any number
of ranks, and nearly the same weights on another machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from scaled_mpi.config import InputError, to_yaml
from scaled_mpi.experiments import load
from scaled_mpi.experiments.forecast.settings import ForecastExperiment, is_forecast
from scaled_mpi.fact_names import each_once, old_forms
from scaled_mpi.facts import read_facts
from scaled_mpi.files import plain_name, sha256, write_text
from scaled_mpi.shipped import SHIPPED, WEIGHTS

LARGEST = 5_000_000  # bytes
CURVES = {"lead", "jump", "k", "bin", "sweep", "level", "channel"}  # places of facts on curves


def networks(folder: Path, experiment: ForecastExperiment) -> dict[str, Path]:
    """Return the trained files of a results folder by their shipped name."""
    folders = {experiment.name: folder / "fit"}
    for rival in experiment.rivals:
        folders[f"{experiment.name}_{rival}"] = folder / "fit" / "rivals" / rival
    members = {experiment.name: experiment.surrogate} | {
        f"{experiment.name}_{name}": rival for name, rival in experiment.rivals.items()
    }
    return {
        name: path / "best.safetensors"
        for name, path in folders.items()
        if getattr(members[name], "weights", None) is None
    }


def numbers(folder: Path) -> str:
    """Return the facts of a results folder that are single numbers, a line each.

    Points of a curve that had a name of their own, such as the error after one jump, count too.
    """
    facts = each_once(read_facts(folder / "facts" / "facts.jsonl"))
    kept = [
        fact for fact in facts if any(not CURVES & set(one) for one in (fact, *old_forms(fact)))
    ]
    return "".join(json.dumps(fact) + "\n" for fact in kept)


def ship(name: str, source: Path, config: str, facts: str) -> None:
    """Write one shipped folder. Errors: `InputError` for a file that is missing or too large."""
    if not source.is_file():
        raise InputError(f"{source}: there is no such file. Needed: a finished stage fit")
    if source.stat().st_size > LARGEST:
        raise InputError(
            f"{source}: it has {source.stat().st_size} bytes. Needed: at most {LARGEST} bytes"
        )
    folder = SHIPPED / plain_name(name)
    folder.mkdir(exist_ok=True)
    write_text(folder / "config.yaml", config)
    write_text(folder / "facts.jsonl", facts)
    shutil.copyfile(source, folder / WEIGHTS)
    print(f"{folder / WEIGHTS}: {source.stat().st_size} bytes, SHA-256 {sha256(source)}")


def main() -> int:
    """Ship every network that the run has trained; return 2 for a folder without them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="a results folder, such as outputs/ddm")
    folder = parser.parse_args().results
    try:
        experiment = load(folder / "config.yaml")
        if not is_forecast(experiment):
            raise InputError(f"{folder}: a {experiment.kind}. Needed: a forecast")
        for name, source in networks(folder, experiment).items():
            ship(name, source, to_yaml(experiment), numbers(folder))
    except InputError as error:
        print(f"scaled_mpi: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
