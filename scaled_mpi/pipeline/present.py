"""Lay the results where a person looks: the folder `outputs/NAME` and its page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaled_mpi.artefacts import Artefact, publish
from scaled_mpi.config import to_yaml
from scaled_mpi.elliptic import EllipticExperiment
from scaled_mpi.ensemble import EnsembleExperiment
from scaled_mpi.experiment import AnyExperiment, Experiment
from scaled_mpi.facts import read_events
from scaled_mpi.files import write_text
from scaled_mpi.generation import EnlargementExperiment, GenerationExperiment
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.parallel.comm import quiet_barrier
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.pipeline import generate, likeness, solve
from scaled_mpi.pipeline.evaluate import stage_facts
from scaled_mpi.pipeline.sampling import ensemble_names
from scaled_mpi.turing import TuringExperiment

GENERATIONS = GenerationExperiment | EnlargementExperiment


def present(
    experiment: AnyExperiment,
    found: Mapping[str, Artefact],
    folder: Path,
    comm: Any,
    partial: bool = False,
) -> Path:
    """Fill `folder` from the finished artefacts; returns the page's path. Collective."""
    if comm.rank == 0:
        done = {name: artefact for name, artefact in found.items() if artefact.done}
        publish([one for one in done.values() if one.path.parent != folder], folder)
        facts = [fact for artefact in done.values() for fact in stage_facts(artefact.path)]
        _write_texts(folder, experiment, done, facts)
        _write_page(folder, experiment, done, facts, partial)
    quiet_barrier(comm)
    return folder / "report.html"


def _write_texts(
    folder: Path, experiment: Experiment, done: Mapping[str, Artefact], facts: list[dict[str, Any]]
) -> None:
    (folder / "facts").mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", to_yaml(experiment))
    lines = (json.dumps(fact) + "\n" for fact in facts)
    write_text(folder / "facts" / "facts.jsonl", "".join(lines))
    for stage in ("compress", "rival", "fit"):  # of two trainings, the surrogate's is shown
        for name in ("events.jsonl", "scalars.csv"):
            source = done[stage].path / name if stage in done else None
            if source is not None and source.exists():
                shutil.copyfile(source, folder / "facts" / name)


def _write_page(
    folder: Path,
    experiment: Experiment,
    done: Mapping[str, Artefact],
    facts: list[dict[str, Any]],
    partial: bool,
) -> None:
    from scaled_mpi.report import write_report

    trainings = {"compress": "compressor", "fit": "surrogate", "rival": "network"}
    events = {
        name: read_events(done[stage].path)
        for stage, name in trainings.items()
        if stage in done and (done[stage].path / "events.jsonl").exists()
    }
    if isinstance(experiment, TuringExperiment) and "score" in done:
        events = {
            f"score, {preset}": read_events(done["score"].path / preset)
            for preset in experiment.patterns.presets
            if experiment.score.weights is None
        }
    if isinstance(experiment, EnlargementExperiment) and "fit" in done:
        events = {
            f"denoiser, {name}": read_events(done["fit"].path / name)
            for name in ("windows", "coarse")
        }
    write_report(
        folder,
        experiment.title or experiment.name,
        facts,
        events=events,
        pictures=_pictures(experiment, done),
        config_text=to_yaml(experiment),
        partial=partial,
        provenance=_origin(experiment, done),
        labels=_labels(experiment),
        panels=_panels(experiment, done),
    )


def _origin(experiment: Experiment, done: Mapping[str, Artefact]) -> dict[str, Any]:
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


def _labels(experiment: AnyExperiment) -> dict[str, str]:
    """What the methods are in this experiment."""
    if isinstance(experiment, EllipticExperiment | TuringExperiment | GENERATIONS):
        return {}
    if isinstance(experiment, EnsembleExperiment):
        chosen = experiment.surrogate.selection is not None
        return {
            "surrogate": "MVAR, " + ("rank chosen on held-out runs" if chosen else "all modes"),
            "energy": "MVAR, all modes"
            if experiment.compressor.rank is not None
            else f"MVAR, {100 * experiment.compressor.energy:g} % energy",
            "ceiling": "POD ceiling, same rank",
            "rival": "network on the density",
            "limit": "simulator from the true particles",
            "mean": "mean field",
        }

    def times(cells: tuple[int, ...]) -> str:
        return str(cells[0]) if len(set(cells)) == 1 else "x".join(map(str, cells))

    halo, reach = times(experiment.halo), times(experiment.reach)
    return {
        "surrogate": f"surrogate, halo {halo} with sweeps",
        "nosweep": f"halo {halo}, no sweep",
        "halo8": f"halo {reach}, one exchange",
    }


def _pictures(experiment: AnyExperiment, done: Mapping[str, Artefact]) -> list[Any]:
    from scaled_mpi.report import Pictures

    if isinstance(experiment, EllipticExperiment):
        return solve.pictures(experiment, done["solve"].path) if "solve" in done else []
    if isinstance(experiment, EnsembleExperiment):
        return _flocks(experiment, done)
    if isinstance(experiment, TuringExperiment | GENERATIONS):
        return []
    if "couple" not in done or "surrogate" not in trajectory_names(done["couple"].path):
        return []
    trained = None
    names = trajectory_names(done["simulate"].path)
    if "train-0000" in names:
        trained = tuple(Trajectory(done["simulate"].path, "train-0000").grid.shape)
    return [
        Pictures(
            Trajectory(done["simulate"].path, "test-0000"),
            Trajectory(done["couple"].path, "surrogate"),
            tile=experiment.domain.tile,
            trained_on=trained,
        )
    ]


def _panels(experiment: AnyExperiment, done: Mapping[str, Artefact]) -> list[Any]:
    """What only some experiments show: snapshots, fields, maps of an ensemble."""
    if isinstance(experiment, GenerationExperiment):
        return generate.panels(done["generate"].path) if "generate" in done else []
    if isinstance(experiment, EnlargementExperiment):
        if "evaluate" not in done:
            return []
        return likeness.panels(done["evaluate"].path, done["fit"].path)
    if isinstance(experiment, Experiment):
        return _maps(experiment, done)
    if not isinstance(experiment, TuringExperiment):
        return []
    from scaled_mpi.report.patterns import CasePanel, PatternPanel

    found: list[Any] = []
    if "evaluate" in done:
        for preset in experiment.patterns.presets:
            arrays, _ = load_arrays(done["evaluate"].path / f"{preset}.fields.h5")
            found.append(PatternPanel(preset, arrays))
    if "cases" in done and experiment.cases is not None:
        for name in experiment.cases.names:
            arrays, _ = load_arrays(done["cases"].path / f"{name}.case.h5")
            found.append(CasePanel(name, arrays))
    return found


def _maps(experiment: Experiment, done: Mapping[str, Artefact]) -> list[Any]:
    """The last lead of the surrogate's members, where there are several."""
    from scaled_mpi.report.uncertainty import MapsPanel

    if "couple" not in done:
        return []
    folder = done["couple"].path
    names = ensemble_names(trajectory_names(folder), "surrogate")
    if len(names) < 2:
        return []
    runs = [Trajectory(folder, name) for name in names]
    lead = min(len(run) for run in runs)
    truth = Trajectory(done["simulate"].path, "test-0000")
    return [MapsPanel(truth, experiment.history - 1 + lead, runs, lead)]


def _flocks(experiment: EnsembleExperiment, done: Mapping[str, Artefact]) -> list[Any]:
    """The first test run of every initial condition."""
    from scaled_mpi.report import Pictures

    if "forecast" not in done:
        return []
    count = min(experiment.ensemble.test, len(experiment.ensemble.starts))
    return [
        Pictures(
            Trajectory(done["simulate"].path, f"test-{number:04d}"),
            Trajectory(done["forecast"].path, f"test-{number:04d}"),
            truth_label="simulator",
            predicted_label="POD and MVAR",
            heading=f"From {experiment.ensemble.starts[number].replace('_', ' ')}",
        )
        for number in range(count)
    ]
