"""The command line: `python -m scaled_mpi.run CONFIG [key.sub=value ...] [flags]`.

The same line under mpirun, srun or torchrun runs on all ranks; a second run continues an
unfinished one. Bad input ends with one line and exit code 2; a stop on request ends with code 85.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# Before numpy or torch: each rank uses one core, and bits must not depend on threads.
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
    """Return the parser of the command line."""
    flags = argparse.ArgumentParser(
        prog="scaled_mpi", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    flags.add_argument(
        "config",
        metavar="CONFIG",
        help="YAML file of one experiment, or a folder of its results: renews the page\n"
        "(--redo evaluate: also the scores) from this folder alone",
    )
    flags.add_argument(
        "overrides",
        metavar="key.sub=value",
        nargs="*",
        help="change one key; surrogate=NAME selects that member's defaults",
    )
    flags.add_argument("--preset", help="a preset of the file, such as debug, or several: A,B")
    flags.add_argument("--stage", metavar="NAME", help="stop after this stage")
    flags.add_argument("--redo", metavar="NAME", help="compute this stage again")
    flags.add_argument(
        "--dry-run", action="store_true", help="print the stages that would run, write nothing"
    )
    flags.add_argument(
        "--member",
        metavar="train:17",
        help="simulate only these members of an ensemble: one, a range such as\n"
        "test:0-4, or all of a kind; for array jobs",
    )
    flags.add_argument(
        "--status",
        action="store_true",
        help="print which members of an ensemble are done, write nothing",
    )
    flags.add_argument(
        "--export",
        metavar="NAME",
        help="write finished results in another form to OUTPUTS/EXPERIMENT/NAME: netcdf (all\n"
        "fields), npz (an ensemble, as the Oscar document's tree of NPZ files)",
    )
    flags.add_argument(
        "--track",
        choices=tuple(SINKS),
        help="also send the facts to TensorBoard or Weights & Biases (offline)",
    )
    flags.add_argument(
        "--outputs",
        type=Path,
        help="folder of results and artefacts (default: that of the machine file,\nor outputs)",
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment and return the exit code."""
    options = parser().parse_intermixed_args(arguments)
    with abort_on_error():
        comm = world()
        job = _prepare(options, comm.size)
        if options.track:
            check_sink(options.track)
        if options.dry_run:
            _say(comm, describe(job.kind, job.experiment, job.found, comm.size))
            return 0
        for flag in ("member", "status"):
            if getattr(options, flag):
                _command(job, flag, getattr(options, flag), comm)
                return 0
        if options.export:
            if comm.rank == 0:
                folder = export(job.kind, job.experiment, job.found, options.export, job.folder)
                _say(comm, str(folder))
            return 0
        listen()
        try:
            return _run(job, options, comm)
        except Stopped as stop:
            _say(comm, f"{stop}; the same command continues")
            raise SystemExit(EXIT_REQUEUE) from None
    return 1


def _command(job: Job, flag: str, value: str, comm: Comm) -> None:
    """Run one flag of the kind. Errors: `InputError` for a kind without it."""
    if flag not in job.kind.commands:
        raise InputError(
            f"--{flag}: {value} is not allowed: an experiment of kind {job.kind.name} has no such "
            f"flag. Allowed: {', '.join(f'--{name}' for name in job.kind.commands) or 'none'}"
        )
    job.kind.commands[flag](job.experiment, job.found, value, lambda line: _say(comm, line))


def _prepare(options: argparse.Namespace, ranks: int) -> Job:
    """The job of a configuration file, or of a results folder."""
    if Path(options.config).is_dir():
        return _of_results(options)
    experiment = load(options.config, options.overrides, options.preset)
    return job_of(kind_of(experiment), experiment, ranks, options.outputs)


def _of_results(options: argparse.Namespace) -> Job:
    """The job of a results folder, perhaps copied from elsewhere."""
    folder = Path(options.config).resolve()
    experiment = load(folder / "config.yaml")
    kind = kind_of(experiment)
    again = [stage.name for stage in kind.stages if stage.again] + ["report"]
    if options.overrides or options.preset or options.redo not in (None, *again):
        allowed = ", ".join(f"--redo {name}" for name in again)
        raise InputError(
            f"CONFIG: {options.config} with further options is not allowed: it is a folder of "
            f"results. Allowed: {allowed}"
        )
    return job_of_results(kind, experiment, folder)


def _run(job: Job, options: argparse.Namespace, comm: Comm) -> int:
    def say(line: str) -> None:
        _say(comm, line)

    def shown(folder: Path) -> None:
        if options.track and comm.rank == 0:
            track(folder, options.track)

    say(f"{job.experiment.name}: {comm.size} rank{'s' * (comm.size > 1)}")
    last = options.stage or "report"
    upto = None if last == "report" else last
    page = job.perform(comm, upto=upto, redo=options.redo, say=say, shown=shown)
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
