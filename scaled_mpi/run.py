"""The command line: `python -m scaled_mpi.run CONFIG [key.sub=value ...] [flags]`.

The same line under mpirun, srun or torchrun runs on all ranks; typed again it goes on where it
was. Bad input ends with one line and exit code 2; a stop on request ends with code 85.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# Before numpy or torch: ranks are what use the cores, and bits must not depend on threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from scaled_mpi.config import InputError  # noqa: E402
from scaled_mpi.engine.exports import export  # noqa: E402
from scaled_mpi.engine.jobs import Job, job_of, job_of_results  # noqa: E402
from scaled_mpi.engine.plan import describe  # noqa: E402
from scaled_mpi.engine.tracking import SINKS, check_sink, track  # noqa: E402
from scaled_mpi.experiments import kind_of, load  # noqa: E402
from scaled_mpi.parallel.comm import Comm, abort_on_error, world  # noqa: E402
from scaled_mpi.parallel.signals import EXIT_REQUEUE, Stopped, listen  # noqa: E402


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


def _command(job: Job, flag: str, value: Any, comm: Comm) -> None:
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
    return job_of(kind_of(experiment), experiment, ranks, given.outputs)


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
    return job_of_results(kind, experiment, folder)


def _run(job: Job, given: argparse.Namespace, comm: Comm) -> int:
    def say(line: str) -> None:
        _say(comm, line)

    def shown(folder: Path) -> None:
        if given.track and comm.rank == 0:
            track(folder, given.track)

    say(f"{job.experiment.name}: {comm.size} rank{'s' * (comm.size > 1)}")
    last = given.stage or "report"
    upto = None if last == "report" else last
    page = job.perform(comm, upto=upto, redo=given.redo, say=say, shown=shown)
    say(str(page) if page is not None else f"{last}: {job.found[last].path}")
    return 0


def _say(comm: Comm, line: str) -> None:
    if comm.rank == 0:
        print(line, flush=True)


class _Callable(ModuleType):
    """This module: importing it hides `scaled_mpi.run`, the function, behind its own name."""

    def __call__(self, *given: Any, **keys: Any) -> Any:
        from scaled_mpi.api import run

        return run(*given, **keys)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main())
