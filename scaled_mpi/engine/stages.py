"""The runner of stages.

A stage reads finished artefacts and writes one: a folder named stage-hash. The hash covers the
stage's part of the configuration, its inputs and its version, never the ranks; what is finished is
used again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scaled_mpi.config import InputError, plain
from scaled_mpi.engine.artefacts import Artefact, artefact_hash, building
from scaled_mpi.engine.context import Context
from scaled_mpi.engine.kind import Kind, Stage
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.facts import FactLog
from scaled_mpi.parallel.comm import Comm, quiet_barrier
from scaled_mpi.parallel.root import on_root


def artefacts(
    kind: Kind, experiment: ExperimentSpec, root: Path, ranks: int
) -> dict[str, Artefact]:
    """The artefact of every stage, finished or not, by stage name."""
    found: dict[str, Artefact] = {}
    for stage in kind.stages:
        inputs = [found[name].path.name for name in stage.inputs]
        code = artefact_hash(stage.name, stage.version, stage.part(experiment, ranks), inputs)
        found[stage.name] = Artefact(root, stage.name, code)
    return found


@dataclass(frozen=True)
class Published(Artefact):
    """An artefact where a person looks, `outputs/NAME/STAGE`, perhaps copied from elsewhere."""

    @property
    def name(self) -> str:
        """The stage's own name, without a hash."""
        return self.stage


def published(kind: Kind, folder: Path) -> dict[str, Artefact]:
    """The artefacts of a results folder. Errors: `InputError` if one that is read is missing."""
    found: dict[str, Artefact] = {}
    for stage in kind.stages:
        found[stage.name] = Published(folder, stage.name, "published")
        if not stage.again and not found[stage.name].done:
            raise InputError(
                f"{folder}: it has no finished {stage.name}. Needed: a results folder"
            )
    return found


def run_stages(
    kind: Kind,
    experiment: ExperimentSpec,
    found: Mapping[str, Artefact],
    comm: Comm,
    *,
    upto: str | None = None,
    redo: str | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[Stage]:
    """Run the unfinished stages in order; yields after each, so that a report may be written.

    `redo` names a stage that is computed again, with all that reads it; `upto` the last to run.
    """
    for name in (upto, redo):
        known = [*(stage.name for stage in kind.stages), "report"]
        if name is not None and name not in known:
            raise InputError(f"stage: {name} is not allowed: unknown. Allowed: {', '.join(known)}")
    redone: set[str] = set()
    for stage in kind.stages:
        artefact = found[stage.name]
        again = redo == stage.name or not redone.isdisjoint(stage.inputs)
        if again:
            redone.add(stage.name)
        if on_root(comm, partial(_is_done, artefact)) and not again:
            say(f"{stage.name}: done before ({artefact.path.name})")
        else:
            say(f"{stage.name}: {artefact.path.name}")
            _run(stage, artefact, found, experiment, comm, again, say)
        yield stage
        if upto == stage.name:
            return


def _is_done(artefact: Artefact) -> bool:
    return artefact.done


def _run(
    stage: Stage,
    artefact: Artefact,
    found: Mapping[str, Artefact],
    experiment: ExperimentSpec,
    comm: Comm,
    again: bool,
    say: Callable[[str], None],
) -> None:
    inputs = {name: found[name].path for name in stage.inputs}
    provenance = {
        "experiment": plain(experiment),
        "seed": experiment.seed,
        "stage": stage.name,
        "version": stage.version,
        "inputs": [path.name for path in inputs.values()],
    }
    with building(artefact, comm, redo=again, provenance=provenance) as folder:
        path = folder / "facts.jsonl" if comm.rank == 0 else None
        if path is not None:
            path.unlink(missing_ok=True)
        facts = FactLog(path, stage.name, comm.size)
        begun = time.perf_counter()
        stage.work(Context(experiment, comm, folder, inputs, facts, say))
        quiet_barrier(comm)
        facts.record("time.stage", time.perf_counter() - begun, "s")
