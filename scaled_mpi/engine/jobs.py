"""One experiment from its settings to its page: the work of the command line and of Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scaled_mpi.engine.kind import Found, Kind
from scaled_mpi.engine.launch import at_site, output_root, read_machine
from scaled_mpi.engine.present import present
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.engine.stages import artefacts, published, run_stages
from scaled_mpi.parallel.comm import Comm


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
        page = None
        stages = run_stages(
            self.kind, self.experiment, self.found, comm, upto=upto, redo=redo, say=say
        )
        for stage in stages:
            complete = stage.name == self.kind.last and upto is None
            if complete or stage.shows:
                page = present(
                    self.kind, self.experiment, self.found, self.folder, comm, not complete
                )
                if shown is not None:
                    shown(self.folder)
        return page


def job_of(kind: Kind, experiment: ExperimentSpec, ranks: int, outputs: Path | None) -> Job:
    """Return the job of an experiment; results go to `outputs`, or where its machine says."""
    machine = read_machine(experiment.machine)
    experiment, outputs = at_site(experiment, machine), outputs or output_root(machine)
    found = artefacts(kind, experiment, outputs / "artefacts", ranks)
    return Job(kind, experiment, found, outputs / experiment.name)


def job_of_results(kind: Kind, experiment: ExperimentSpec, folder: Path) -> Job:
    """Return the job of a results folder, perhaps a copy. Errors: `InputError`."""
    return Job(kind, experiment, published(kind, folder), folder)
