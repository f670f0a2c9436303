"""The command line: `python -m scaled_mpi.run CONFIG [key.sub=value ...] [flags]`.

The same line under mpirun, srun or torchrun runs on all ranks; typed again it goes on where it
was. Bad input ends with one line and exit code 2; a stop on request ends with code 85.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before numpy or torch: ranks are what use the cores, and bits must not depend on threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from scaled_mpi.config import InputError  # noqa: E402
from scaled_mpi.engine import stages  # noqa: E402
from scaled_mpi.engine.exports import export  # noqa: E402
from scaled_mpi.engine.kind import Found, Kind  # noqa: E402
from scaled_mpi.engine.launch import at_site, output_root, read_machine  # noqa: E402
from scaled_mpi.engine.plan import describe  # noqa: E402
from scaled_mpi.engine.present import present  # noqa: E402
from scaled_mpi.engine.settings import ExperimentSpec  # noqa: E402
from scaled_mpi.engine.tracking import SINKS, check_sink, track  # noqa: E402
from scaled_mpi.experiments import kind_of, load  # noqa: E402
from scaled_mpi.parallel.comm import abort_on_error, world  # noqa: E402
from scaled_mpi.parallel.signals import EXIT_REQUEUE, Stopped, listen  # noqa: E402

PAGE_AGE = 15.0  # seconds, at least, between two pages of a running job


@dataclass(frozen=True)
class Job:
    """One experiment, its kind, its artefacts and its results folder."""

    kind: Kind
    experiment: ExperimentSpec
    found: Found
    folder: Path


PAGE_AGE = 15.0  # seconds, at least, between two pages of a running job


def parser() -> argparse.ArgumentParser:
    """The arguments, as `--help` shows them."""
    made = argparse.ArgumentParser(
        prog="scaled_mpi", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument(
        "config",
        metavar="CONFIG",
        help="YAML file of one experiment, or a folder of its results, which is\n"
        "shown again (--redo evaluate: scored again) with nothing else there",
    )
    made.add_argument(
        "overrides",
        metavar="key.sub=value",
        nargs="*",
        help="change one key; surrogate=NAME takes that member's defaults",
    )
    made.add_argument("--preset", help="what the file names so, such as a size: debug; or A,B")
    made.add_argument("--stage", metavar="NAME", help="stop after this stage")
    made.add_argument("--redo", metavar="NAME", help="compute this stage again")
    made.add_argument("--dry-run", action="store_true", help="say what would run, write nothing")
    made.add_argument(
        "--member",
        metavar="train:17",
        help="make only these members of an ensemble: one, a range such as\n"
        "test:0-4, or all of a kind; for array jobs",
    )
    made.add_argument(
        "--status",
        action="store_true",
        help="say which members of an ensemble are done, write nothing",
    )
    made.add_argument(
        "--export",
        metavar="NAME",
        help="write finished results in another form to OUTPUTS/EXPERIMENT/NAME: netcdf (all\n"
        "fields), npz (an ensemble, as the Oscar document's tree of NPZ files)",
    )
    made.add_argument(
        "--track",
        choices=tuple(SINKS),
        help="tell the facts to TensorBoard or Weights & Biases (offline) as well",
    )
    made.add_argument(
        "--outputs",
        type=Path,
        help="folder of results and artefacts (default: that of the machine file,\nor outputs)",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment; returns the exit code."""
    given = parser().parse_intermixed_args(arguments)
    with abort_on_error():
        comm = world()
        job = _prepare(given, comm.size)
        if given.track:
            check_sink(given.track)
        if given.dry_run:
            _say(comm, describe(job.kind, job.experiment, job.found, comm.size))
            return 0
        for flag in ("member", "status"):
            if getattr(given, flag):
                _command(job, flag, getattr(given, flag), comm)
                return 0
        if given.export:
            if comm.rank == 0:
                made = export(job.kind, job.experiment, job.found, given.export, job.folder)
                _say(comm, str(made))
            return 0
        listen()
        try:
            return _run(job, given, comm)
        except Stopped as stop:
            _say(comm, f"{stop}; the same command continues")
            raise SystemExit(EXIT_REQUEUE) from None
    return 1


def _command(job: Job, flag: str, value: Any, comm: Any) -> None:
    """Run one flag of the kind. Errors: `InputError` for a kind without it."""
    if flag not in job.kind.commands:
        raise InputError(
            f"--{flag}: not allowed with an experiment of kind {job.kind.name}. Allowed: "
            f"{', '.join(f'--{name}' for name in job.kind.commands) or 'no such flag'}."
        )
    job.kind.commands[flag](job.experiment, job.found, value, lambda line: _say(comm, line))


def _prepare(given: argparse.Namespace, ranks: int) -> Job:
    """The job of a configuration file, or of a results folder."""
    if Path(given.config).is_dir():
        return _of_results(given)
    experiment = load(given.config, given.overrides, given.preset)
    kind = kind_of(experiment)
    machine = read_machine(experiment.machine)
    experiment, outputs = at_site(experiment, machine), given.outputs or output_root(machine)
    found = stages.artefacts(kind, experiment, outputs / "artefacts", ranks)
    return Job(kind, experiment, found, outputs / experiment.name)


def _of_results(given: argparse.Namespace) -> Job:
    """The job of a results folder, perhaps copied from elsewhere."""
    folder = Path(given.config).resolve()
    experiment = load(folder / "config.yaml")
    kind = kind_of(experiment)
    again = [stage.name for stage in kind.stages if stage.again] + ["report"]
    if given.overrides or given.preset or given.redo not in (None, *again):
        allowed = ", ".join(f"--redo {name}" for name in again)
        raise InputError(
            f"{given.config}: a folder of results; only {allowed} are allowed with it"
        )
    return Job(kind, experiment, stages.published(kind, folder), folder)


def _run(job: Job, given: argparse.Namespace, comm: Any) -> int:
    def say(line: str) -> None:
        _say(comm, line)

    def show(partial: bool) -> Any:
        page = present(job.kind, job.experiment, job.found, job.folder, comm, partial)
        if given.track and comm.rank == 0:
            track(job.folder, given.track)
        return page

    say(f"{job.experiment.name}: {comm.size} rank{'s' * (comm.size > 1)}")
    last = given.stage or "report"
    upto = None if last == "report" else last
    page, waiting, shown = None, False, time.monotonic()
    for stage in stages.run_stages(
        job.kind, job.experiment, job.found, comm, upto=upto, redo=given.redo, say=say
    ):
        complete = stage.name == job.kind.last and upto is None
        waiting = waiting or stage.shows
        if complete or (waiting and _is_due(comm, shown)):
            page, waiting, shown = show(not complete), False, time.monotonic()
    if waiting:
        page = show(True)
    if page is None:
        say(f"{last}: {job.found[last].path}")
    else:
        say(str(page))
    return 0


def _is_due(comm: Any, shown: float) -> bool:
    """Whether the page of a running job is old enough for another: drawing one takes seconds.

    The clock of rank 0 decides for all ranks; collective.
    """
    return bool(comm.bcast(time.monotonic() - shown > PAGE_AGE, 0))


def _say(comm: Any, line: str) -> None:
    if comm.rank == 0:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
