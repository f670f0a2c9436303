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
from typing import Any

# Before numpy or torch: ranks are what use the cores, and bits must not depend on threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from scaled_mpi import stages  # noqa: E402
from scaled_mpi.artefacts import Artefact  # noqa: E402
from scaled_mpi.config import InputError  # noqa: E402
from scaled_mpi.experiment import AnyExperiment, load  # noqa: E402
from scaled_mpi.launch import at_site, output_root, read_machine  # noqa: E402
from scaled_mpi.parallel.comm import abort_on_error, world  # noqa: E402
from scaled_mpi.parallel.signals import EXIT_REQUEUE, Stopped, listen  # noqa: E402
from scaled_mpi.pipeline.exchange import export_npz  # noqa: E402
from scaled_mpi.pipeline.members import only_members  # noqa: E402
from scaled_mpi.pipeline.plan import describe  # noqa: E402
from scaled_mpi.pipeline.present import present  # noqa: E402
from scaled_mpi.tracking import SINKS, check_sink, track  # noqa: E402


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
    made.add_argument("--stage", choices=stages.NAMES, help="stop after this stage")
    made.add_argument("--redo", choices=stages.NAMES, help="compute this stage again")
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
        choices=("npz",),
        help="write a finished ensemble as OUTPUTS/NAME/npz, the Oscar document's\n"
        "tree of NPZ files",
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
        experiment, found, folder = _prepare(given, comm.size)
        if given.track:
            check_sink(given.track)
        if given.dry_run:
            _say(comm, describe(experiment, found, comm.size))
            return 0
        if given.member or given.status:
            only_members(experiment, found["simulate"], given.member, lambda s: _say(comm, s))
            return 0
        if given.export:
            if comm.rank == 0:
                _say(comm, str(export_npz(experiment, found, folder / given.export)))
            return 0
        listen()
        try:
            return _run(experiment, found, folder, given, comm)
        except Stopped as stop:
            _say(comm, f"{stop}; the same command continues")
            raise SystemExit(EXIT_REQUEUE) from None
    return 1


def _prepare(
    given: argparse.Namespace, ranks: int
) -> tuple[AnyExperiment, dict[str, Artefact], Path]:
    """The experiment, its artefacts and its results folder, from a file or from that folder."""
    if Path(given.config).is_dir():
        if given.overrides or given.preset or given.redo not in (None, "evaluate", "report"):
            raise InputError(
                f"{given.config}: a folder of results; only --redo evaluate, --redo report are "
                "allowed with it"
            )
        folder = Path(given.config).resolve()
        experiment = load(folder / "config.yaml")
        return experiment, stages.published(folder, experiment), folder
    experiment = load(given.config, given.overrides, given.preset)
    machine = read_machine(experiment.machine)
    experiment, outputs = at_site(experiment, machine), given.outputs or output_root(machine)
    found = stages.artefacts(experiment, outputs / "artefacts", ranks)
    return experiment, found, outputs / experiment.name


def _run(
    experiment: AnyExperiment,
    found: dict[str, Artefact],
    folder: Path,
    given: argparse.Namespace,
    comm: Any,
) -> int:
    def say(line: str) -> None:
        _say(comm, line)

    say(f"{experiment.name}: {comm.size} rank{'s' * (comm.size > 1)}")
    page, last = None, given.stage or "report"
    upto = None if last == "report" else last
    finished = stages.run_stages(experiment, found, comm, upto=upto, redo=given.redo, say=say)
    for name in finished:
        complete = name == stages.stages_of(experiment)[-1].name and upto is None
        if complete or name in ("fit", "couple"):
            page = present(experiment, found, folder, comm, partial=not complete)
            if given.track and comm.rank == 0:
                track(folder, given.track)
    if page is None:
        say(f"{last}: {found[last].path}")
    else:
        say(str(page))
    return 0


def _say(comm: Any, line: str) -> None:
    if comm.rank == 0:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
