"""Farm out tasks that know nothing of each other: to processes here, or to jobs of a cluster.

`farm` makes the members of an ensemble; `workers` the parts of a fit, whose sums are merged here.

    dask        processes on this machine
    slurm, pbs, htcondor
                jobs of that scheduler, each a worker, as many as wait for work (dask-jobqueue)

A task must leave its result in a file, be safe to start twice and return a few words at most.
Another worker repeats the tasks of a lost one. Workers end themselves before the walltime of their
job, so that no task is cut off there. New jobs follow as long as tasks wait.

The scheduler runs any code that is sent to it. So it listens on loopback here, and on a cluster on
the interface of the machine file alone. All connections are TLS with certificates of this one run
(`cryptography` is needed). There is no dashboard beyond loopback.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from scaled_mpi.config import InputError, Spec, parse, read_yaml
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.files import plain_name, put_in_place
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.ordered import PARTS

if TYPE_CHECKING:
    from dask_jobqueue import JobQueueCluster
    from distributed import Client, LocalCluster

MACHINES = Path("configs/machines")
LOSSES = 20  # workers that may die under one task before it counts as its fault
PATIENCE = "300s"  # a worker waits so long for its scheduler, and a scheduler for slow jobs
CLUSTERS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "htcondor": "HTCondorCluster"}


class Machine(Spec):
    """One site, a file configs/machines/NAME.yaml; "" leaves a choice to the site.

    - `prologue`: shell lines of every job
    - `directives`: further lines for the scheduler
    - `interface`: the network on which jobs see this process
    - `jobs`: most jobs at a time; `minutes`: walltime of a job
    - `data`: folder at which relative paths of data begin; `outputs`: folder of results
    """

    account: str = ""
    partition: str = ""
    prologue: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    interface: str = ""
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")] = "2GB"
    minutes: PositiveInt = 60
    jobs: PositiveInt = 8
    data: str = ""
    outputs: str = ""


def read_machine(name: str | None) -> Machine:
    """The machine file of `name`; None: the machine of SCALED_MPI_MACHINE, or local.

    Errors: `InputError`.
    """
    name = plain_name(name or os.environ.get("SCALED_MPI_MACHINE") or "local", "machine")
    path = MACHINES / f"{name}.yaml"
    if name == "local" and not path.is_file():  # started elsewhere than in the project's folder
        return Machine()
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in MACHINES.glob("*.yaml"))) or "none"
        raise InputError(f"machine: {name!r} is not allowed: not in {MACHINES}. Allowed: {known}")
    return parse(Machine, read_yaml(path))


def at_site(experiment: ExperimentSpec, machine: Machine) -> ExperimentSpec:
    """The experiment with its relative paths of data below the site's `data`."""
    if not machine.data:
        return experiment
    return experiment.at(Path(os.path.expandvars(machine.data)).expanduser())


def output_root(machine: Machine) -> Path:
    """Where a site keeps results: its `outputs`, or the folder of that name here."""
    return Path(os.path.expandvars(machine.outputs or "outputs")).expanduser()


def farm(
    task: Callable[..., Any],
    arguments: Sequence[tuple],
    kind: str,
    machine: str | None,
    say: Callable[[str], None] = print,
) -> list[Any]:
    """`task(*a)` for every a of `arguments`, on workers; the results in the same order.

    Errors: the first that a task raises; `InputError` where dask is missing.
    """
    with _client(kind, machine, len(arguments), say) as client:
        return _all_of(
            client, [client.submit(task, *given, pure=False) for given in arguments], say
        )


def _all_of(client: Client, futures: list[Any], say: Callable[[str], None]) -> list[Any]:
    from distributed import as_completed

    for count, future in enumerate(as_completed(futures), 1):
        future.result()
        if count % max(1, len(futures) // 10) == 0:
            say(f"  {count} of {len(futures)} done")
    return client.gather(futures)


class Workers(SerialComm):
    """One rank whose parts of a fit (`parallel/ordered.py`) are tasks on workers.

    A worker leaves the result of a part in a file of `folder`, which all see. The results are
    merged here in the order of the parts: the same bits as on any number of ranks. The arguments
    of a task must be small; it reads its data itself.
    """

    def __init__(self, client: Client, folder: Path) -> None:
        super().__init__()
        self._client, self._folder, self._calls = client, folder, 0

    def in_order(self, count: int, make: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the results, of any shape, of parts 0, 1, ..., count - 1."""
        self._calls += 1
        paths = [self._folder / f"{self._calls:03d}-{part:03d}.npy" for part in range(count)]
        futures = [
            self._client.submit(_leave, make, part, path, pure=False)
            for part, path in enumerate(paths)
        ]
        for future, path in zip(futures, paths, strict=True):
            future.result()
            yield np.load(path, allow_pickle=False)
            path.unlink()

    def dealt(self, count: int, make: Callable[[int], Any]) -> list[Any]:
        """Return `make(i)`, which is small, of every i below `count`."""
        return self._client.gather(
            [self._client.submit(make, number, pure=False) for number in range(count)]
        )


def _leave(make: Callable[[int], np.ndarray], part: int, path: Path) -> None:
    """One part's numbers in a file, whole or not at all, whoever makes them again."""
    temporary = path.with_name(f"{path.stem}-{platform.node()}-{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(make(part), np.float64), allow_pickle=False)
    put_in_place(temporary, path)


@contextmanager
def workers(
    kind: str, machine: str | None, folder: Path, say: Callable[[str], None] = print
) -> Iterator[Workers]:
    """A communicator for fits whose parts are tasks; its files in `folder` go when it ends."""
    place = folder / ".parts"
    place.mkdir(parents=True, exist_ok=True)
    try:
        with _client(kind, machine, PARTS, say) as client:
            yield Workers(client, place)
    finally:
        shutil.rmtree(place)


@contextmanager
def _client(
    kind: str, machine: str | None, tasks: int, say: Callable[[str], None]
) -> Iterator[Any]:
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise InputError(
            f"launch: {kind} is not allowed: {error}. Allowed: local, or pip install "
            "'scaled_mpi[ensemble]'"
        ) from None
    settings = {
        "distributed.scheduler.allowed-failures": LOSSES,
        "distributed.comm.timeouts.connect": PATIENCE,
        "distributed.scheduler.unknown-task-duration": "1m",
    }
    with dask.config.set(settings), _cluster(kind, machine, tasks, say) as cluster:
        with Client(cluster, security=cluster.security, timeout=PATIENCE) as client:
            address = client.scheduler_info(n_workers=0)["address"]
            if not address.startswith("tls://"):
                raise RuntimeError(
                    f"scheduler: it listens at {address}. Needed: an address under TLS"
                )
            say(f"  workers meet at {address}")
            yield client


@contextmanager
def _cluster(
    kind: str, machine: str | None, tasks: int, say: Callable[[str], None]
) -> Iterator[Any]:
    cluster = _here(tasks) if kind == "dask" else _jobs(kind, read_machine(machine), tasks)
    try:
        yield cluster
    finally:
        try:
            cluster.close(timeout=60)
        except TimeoutError:  # the results are in files: slow workers must not spoil them
            say("  some workers are slow to end; they end with this process or their job")


def _here(tasks: int) -> LocalCluster:
    from distributed import LocalCluster
    from distributed.security import Security

    return LocalCluster(
        n_workers=max(1, min(tasks, len(os.sched_getaffinity(0)))),
        threads_per_worker=1,
        host="127.0.0.1",
        protocol="tls://",
        security=Security.temporary(),
        dashboard_address=None,
    )


def _jobs(kind: str, machine: Machine, tasks: int) -> JobQueueCluster:
    """A cluster of one-worker jobs, grown and shrunk with what waits."""
    cluster = make_cluster(kind, machine)
    cluster.adapt(minimum=0, maximum=min(machine.jobs, tasks), interval="5s", wait_count=20)
    return cluster


def make_cluster(kind: str, machine: Machine) -> JobQueueCluster:
    """The cluster object of dask-jobqueue; `job_script()` of it needs no scheduler."""
    import dask_jobqueue

    keys = Path.home() / ".cache" / "scaled_mpi" / "keys"
    keys.mkdir(parents=True, exist_ok=True)
    keys.chmod(0o700)
    lifetime = max(1, machine.minutes - 5)
    shared: dict[str, Any] = {
        "cores": 1,
        "processes": 1,
        "memory": machine.memory,
        "protocol": "tls://",
        "security": True,
        "shared_temp_directory": str(keys),
        "death_timeout": 300,
        "job_script_prologue": [*machine.prologue, f"cd {_quoted(os.getcwd())}"],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
        "worker_extra_args": ["--lifetime", f"{lifetime}m", "--lifetime-stagger", "1m"],
        "log_directory": "logs",
    }
    if machine.interface:
        shared["interface"] = machine.interface
        shared["scheduler_options"]["interface"] = machine.interface
    hours, minutes = divmod(machine.minutes, 60)
    if kind != "htcondor":
        shared["walltime"] = f"{hours:02d}:{minutes:02d}:00"
        shared |= {
            key: value
            for key, value in (("account", machine.account), ("queue", machine.partition))
            if value
        }
    else:
        shared["disk"] = "1GB"
    if machine.directives:
        shared["job_extra_directives"] = (
            list(machine.directives)
            if kind != "htcondor"
            else dict(line.split("=", 1) for line in machine.directives)
        )
    Path("logs").mkdir(exist_ok=True)  # Slurm writes nothing into a folder that is not there
    return getattr(dask_jobqueue, CLUSTERS[kind])(**shared)


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
