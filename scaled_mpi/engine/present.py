"""Results where a person looks: the folder `outputs/NAME` and its page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaled_mpi.config import to_yaml
from scaled_mpi.engine.artefacts import Artefact, publish, stage_facts
from scaled_mpi.engine.kind import Kind
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.facts import read_events
from scaled_mpi.files import write_text
from scaled_mpi.parallel.comm import Comm, quiet_barrier
from scaled_mpi.report.page import Contents, Page, write_report
from scaled_mpi.report.series import Numbers


def present(
    kind: Kind,
    experiment: ExperimentSpec,
    found: Mapping[str, Artefact],
    folder: Path,
    comm: Comm,
    partial: bool = False,
) -> Path:
    """Fill `folder` from the finished artefacts; returns the page's path. Collective."""
    if comm.rank == 0:
        done = {name: artefact for name, artefact in found.items() if artefact.done}
        publish([one for one in done.values() if one.path.parent != folder], folder)
        facts = [fact for artefact in done.values() for fact in stage_facts(artefact.path)]
        page = kind.page(experiment, done)
        _write_texts(folder, experiment, page, facts)
        contents = Contents(
            Numbers(facts),
            events={name: read_events(place) for name, place in page.trainings.items()},
            pictures=page.pictures,
            labels=page.labels,
            config_text=to_yaml(experiment),
            provenance=_origin(experiment, done),
            panels=page.panels,
        )
        title = experiment.title or experiment.name
        write_report(folder, title, page.sections, contents, partial)
    quiet_barrier(comm)
    return folder / "report.html"


def _write_texts(
    folder: Path, experiment: ExperimentSpec, page: Page, facts: list[dict[str, Any]]
) -> None:
    (folder / "facts").mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", to_yaml(experiment))
    lines = (json.dumps(fact) + "\n" for fact in facts)
    write_text(folder / "facts" / "facts.jsonl", "".join(lines))
    for place in page.course:
        for name in ("events.jsonl", "scalars.csv"):
            if (place / name).exists():
                shutil.copyfile(place / name, folder / "facts" / name)


def _origin(experiment: ExperimentSpec, done: Mapping[str, Artefact]) -> dict[str, Any]:
    """Where the numbers come from, for the foot of the page."""
    last = list(done.values())[-1].provenance()
    return {
        "experiment": experiment.name,
        "seed": experiment.seed,
        "commit": last.get("git_commit") or "not in a repository",
        "ranks": ", ".join(f"{name} {one.provenance()['ranks']}" for name, one in done.items()),
        "python": last["python"],
        **last["versions"],
    }
