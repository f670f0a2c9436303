"""One experiment from its settings to its page: the work of the command line and of Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scaled_mpi.engine.kind import Found, Kind
from scaled_mpi.engine.launch import at_site, output_root, read_machine
from scaled_mpi.engine.present import present
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.engine.stages import artefacts, published, run_stages
from scaled_mpi.parallel.comm import Comm

PAGE_AGE = 15.0  # seconds, at least, between two pages of a running job


@dataclass(frozen=True)
class Job:
    """One experiment, its kind, its artefacts and its results folder."""

    kind: Kind
    experiment: ExperimentSpec
    found: Found
    folder: Path

    def perform(
        self,
        comm: Comm,
        *,
        upto: str | None = None,
        redo: str | None = None,
        say: Callable[[str], None] = print,
        shown: Callable[[Path], None] | None = None,
    ) -> Path | None:
        """Run the stages that are not done and write the page; collective.

        `upto` names the last stage to run, `redo` one to compute again. `shown(folder)` is called
        after each page. Returns the path of the page, None where no stage has shown one. Errors:
        `InputError` for an unknown stage, `Stopped` at a request to stop.
        """
        page, waiting, drawn = None, False, time.monotonic()

        def show(partial: bool) -> Path:
            path = present(self.kind, self.experiment, self.found, self.folder, comm, partial)
            if shown is not None:
                shown(self.folder)
            return path

        for stage in run_stages(
            self.kind, self.experiment, self.found, comm, upto=upto, redo=redo, say=say
        ):
            complete = stage.name == self.kind.last and upto is None
            waiting = waiting or stage.shows
            if complete or (waiting and _is_due(comm, drawn)):
                page, waiting, drawn = show(not complete), False, time.monotonic()
        return show(True) if waiting else page


def _is_due(comm: Comm, drawn: float) -> bool:
    """Whether the page of a running job is old enough for another: drawing one takes seconds.

    The clock of rank 0 decides for all ranks; collective.
    """
    return bool(comm.bcast(time.monotonic() - drawn > PAGE_AGE, 0))


def job_of(kind: Kind, experiment: ExperimentSpec, ranks: int, outputs: Path | None) -> Job:
    """Return the job of an experiment; results go to `outputs`, or where its machine says."""
    machine = read_machine(experiment.machine)
    experiment, outputs = at_site(experiment, machine), outputs or output_root(machine)
    found = artefacts(kind, experiment, outputs / "artefacts", ranks)
    return Job(kind, experiment, found, outputs / experiment.name)


def job_of_results(kind: Kind, experiment: ExperimentSpec, folder: Path) -> Job:
    """Return the job of a results folder, perhaps a copy. Errors: `InputError`."""
    return Job(kind, experiment, published(kind, folder), folder)
