"""Ranks: the world, its parts, quiet waiting, and ending together. The one importer of mpi4py.

MPI starts at the first call of `world()`, never at import. So a Dask worker or a laptop may import
every module of the package. Where mpi4py or the MPI library is absent, a `SerialComm` of one rank
stands in. Rank and size come from MPI alone; a launcher's variables serve only to notice that
MPI did not see it.
"""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np

from scaled_mpi.config import InputError

Item = TypeVar("Item")

# The first of these that is set says how many processes the launcher started. Open MPI, MPICH and
# Intel MPI (PMI), torchrun, a Slurm step, a Slurm allocation.
_LAUNCHERS = (
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_NTASKS",
)
_FIRST_NAP, _LONGEST_NAP = 5e-5, 2e-2  # seconds


class Request(Protocol):
    """A message on its way: the methods of `mpi4py.MPI.Request` that this package uses."""

    def Test(self) -> bool:
        """Return whether the operation is complete, without waiting."""
        ...

    def Waitall(self, requests: Sequence[Any]) -> bool:
        """Wait for all `requests`."""
        ...


class _Done:
    """A request that was complete from the start."""

    def Test(self) -> bool:
        return True

    def Waitall(self, requests: Sequence[Any]) -> bool:
        return True


def _lacks(comm: Comm, method: str) -> TypeError:
    return TypeError(f"{type(comm).__name__}: has no {method}. Needed: on several ranks")


class Comm(Protocol):
    """A group of ranks: the methods of an mpi4py communicator that this package uses.

    An `mpi4py.MPI.Comm` has them all. A class of one's own inherits `Comm`, gives `rank`, `size`
    and `allgather`, and gets the other collectives from defaults built on `allgather`. Messages
    between two ranks (`Isend`, `Irecv`, `send`, `recv`) and a `Split` into parts have no default:
    one rank never needs them. Every collective is called by all ranks in the same
    order. There is no `reduce`, since its order of additions is not fixed; see `exact_sum` here
    and `ordered_sum` in `ordered.py`.
    """

    @property
    def rank(self) -> int:
        """Number of this rank, in [0, size)."""
        ...

    @property
    def size(self) -> int:
        """Number of ranks."""
        ...

    def allgather(self, sendobj: Item) -> list[Item]:
        """Return copies of the objects of all ranks, by rank, on every rank."""
        ...

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return the object of `root` on every rank."""
        return self.allgather(obj if self.rank == root else None)[root]

    def gather(self, sendobj: Item, root: int = 0) -> list[Item] | None:
        """Return the objects of all ranks, by rank, on `root`; None elsewhere."""
        found = self.allgather(sendobj)
        return found if self.rank == root else None

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """Return the entry of `root`'s sequence that has the number of this rank."""
        return self.bcast(sendobj, root)[self.rank]

    def alltoall(self, sendobj: Sequence[Item]) -> list[Item]:
        """Return, by rank, the entry for this rank of each rank's sequence."""
        return [row[self.rank] for row in self.allgather(list(sendobj))]

    def Bcast(self, buf: np.ndarray, root: int = 0) -> None:
        """Copy the array of `root` into the array of every rank; any shape, the same on all."""
        buf[...] = self.bcast(buf, root)

    def Allgatherv(self, sendbuf: np.ndarray, recvbuf: Sequence[Any]) -> None:
        """Copy the arrays of all ranks, by rank, into recvbuf[0], as flat arrays (n,)."""
        parts = [np.ravel(part) for part in self.allgather(sendbuf)]
        recvbuf[0].reshape(-1)[:] = np.concatenate(parts)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.allgather(None)

    def Barrier(self) -> None:
        """Wait for all ranks."""
        self.barrier()

    def Ibarrier(self) -> Request:
        """Return a request that is complete when all ranks have called."""
        self.barrier()
        return _Done()

    def Isend(self, buf: np.ndarray, dest: int, tag: int = 0) -> Request:
        """Begin to send an array of any shape."""
        raise _lacks(self, "Isend")

    def Irecv(self, buf: np.ndarray, source: int, tag: int = 0) -> Request:
        """Begin to receive into an array of any shape."""
        raise _lacks(self, "Irecv")

    def Send(self, buf: np.ndarray, dest: int, tag: int = 0) -> None:
        """Send an array of any shape."""
        request = self.Isend(buf, dest, tag)
        request.Waitall([request])

    def Recv(self, buf: np.ndarray, source: int, tag: int = 0) -> None:
        """Receive into an array of any shape."""
        request = self.Irecv(buf, source, tag)
        request.Waitall([request])

    def send(self, obj: object, dest: int, tag: int = 0) -> None:
        """Send an object."""
        raise _lacks(self, "send")

    def recv(self, buf: None = None, source: int = 0, tag: int = 0) -> Any:
        """Receive an object."""
        raise _lacks(self, "recv")

    def Split(self, color: int = 0, key: int = 0) -> Comm:
        """Return the ranks that gave the same colour; one rank is its own part."""
        if self.size > 1:
            raise _lacks(self, "Split")
        return self

    def Dup(self) -> Comm:
        """Return the same ranks, with messages that are never matched with those of `self`."""
        return self

    def Free(self) -> None:
        """Give up the communicator."""
        return None

    def Abort(self, errorcode: int = 0) -> None:
        """End every rank at once with this exit code."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(errorcode)


class SerialComm(Comm):
    """One rank, without MPI.

    It also serves processes that MPI did not start, such as a Dask worker. They must not touch
    MPI, since they inherit the variables of the launcher that started their parent.
    """

    rank = 0
    size = 1

    def allgather(self, sendobj: Item) -> list[Item]:
        return [sendobj]

    def Bcast(self, buf: np.ndarray, root: int = 0) -> None:
        return None


def by_mpi(comm: Comm) -> bool:
    """Whether a communicator is one of mpi4py, so that libraries in C take it."""
    return type(comm).__module__.partition(".")[0] == "mpi4py"


@lru_cache(maxsize=1)
def world() -> Comm:
    """Return all ranks of this job: MPI's COMM_WORLD, or a SerialComm without MPI.

    Errors: `InputError` where a launcher started several processes that MPI does not see as one
    job. Each would run the whole experiment alone and overwrite the files of the others.
    """
    comm = _mpi_world() or SerialComm()
    check_launcher(comm.size, os.environ)
    return comm


def _mpi_world() -> Comm | None:
    try:
        import mpi4py
    except ImportError:
        return None
    # mpi4py asks for full multithreading; here only one thread at a time ever calls MPI.
    mpi4py.rc.thread_level = "serialized"
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # the wheel is there, but no MPI library to load
        return None
    return MPI.COMM_WORLD


def check_launcher(size: int, environment: Mapping[str, str]) -> None:
    """Raise InputError if MPI sees one rank while the launcher's variables tell of several."""
    if size > 1:
        return
    for name in _LAUNCHERS:
        text = environment.get(name, "")
        if text.isdigit():
            if int(text) > 1:
                raise InputError(
                    f"{name}={text}: MPI sees one rank. Needed: mpirun -n {text}, or srun "
                    f"--mpi=pmix -n {text} with an mpi4py of the same MPI, or srun -n 1"
                )
            return


def split(comm: Comm, color: int) -> Comm:
    """The ranks of `comm` that gave the same colour (>= 0), in the same order; collective."""
    return comm.Split(color, comm.rank)


def first_ranks(comm: Comm, count: int) -> Comm | None:
    """The first `count` ranks of `comm` as a communicator; None on the others. Collective."""
    if count >= comm.size:
        return comm
    part = split(comm, 0 if comm.rank < count else 1)
    return part if comm.rank < count else None


def shares(items: int, parts: int) -> list[range]:
    """`items` in order dealt to `parts`; lengths differ by at most one, the longer ones first."""
    small, extra = divmod(items, parts)
    starts = [part * small + min(part, extra) for part in range(parts + 1)]
    return [range(starts[part], starts[part + 1]) for part in range(parts)]


def member_groups(members: int, comm: Comm) -> tuple[Comm, tuple[int, ...]]:
    """Ranks spread over ensemble members first, over tiles second; collective.

    With more members than ranks every rank is a group of its own and runs several members in turn.
    With fewer, each member gets a communicator of several ranks. Returns (my group, my members).
    """
    groups = min(members, comm.size)
    if groups < 1:
        raise InputError(
            f"members: {members} is not allowed: no group is left. Allowed: at least 1"
        )
    ranks = shares(comm.size, groups)
    mine = next(group for group in range(groups) if comm.rank in ranks[group])
    return split(comm, mine), tuple(shares(members, groups)[mine])


def exact_sum(comm: Comm, values: Iterable[float]) -> float:
    """Sum over all ranks' values, rounded once (math.fsum), hence the same for any split."""
    parts = comm.allgather([float(value) for value in values])
    return math.fsum(value for part in parts for value in part)


def largest(comm: Comm, value: Item) -> Item:
    """The largest of one value a rank, on every rank."""
    return max(comm.allgather(value))  # type: ignore[type-var]


def quiet_barrier(comm: Comm) -> None:
    """Wait for all ranks, asleep: MPI_Barrier polls and takes the core from a rank that works."""
    if comm.size > 1:
        _sleep_until(comm.Ibarrier(), math.inf)


def quiet_bcast(comm: Comm, obj: object, root: int = 0) -> Any:
    """`comm.bcast` for an object that takes `root` long to make: the others sleep meanwhile."""
    quiet_barrier(comm)
    return comm.bcast(obj, root=root)


def _sleep_until(request: Request, seconds: float) -> bool:
    """True as soon as the request is done, False if it is not within `seconds`."""
    end, nap = time.monotonic() + seconds, _FIRST_NAP
    while not request.Test():
        if time.monotonic() > end:
            return False
        time.sleep(nap)
        nap = min(1.5 * nap, _LONGEST_NAP)
    return True


def raise_together(comm: Comm, error: BaseException | None) -> None:
    """Collective: if any rank brings an error, every rank raises that of the lowest such rank.

    An InputError stays one, so that bad input ends the job with one line and exit code 2. Any
    other error becomes a RuntimeError that names the rank; the rank itself raises the original.
    """
    told = None if error is None else (isinstance(error, InputError), _in_words(error))
    for rank, entry in enumerate(comm.allgather(told)):
        if entry is None:
            continue
        if rank == comm.rank and error is not None:
            raise error
        is_input, words = entry
        if is_input:
            raise InputError(words)
        raise RuntimeError(f"rank {rank}: {words}")


def _in_words(error: BaseException) -> str:
    if isinstance(error, InputError):
        return str(error)
    return f"{type(error).__name__}: {error}".rstrip(": ")


@contextmanager
def abort_on_error(patience: float = 5.0) -> Iterator[None]:
    """Wrap the entry point: no rank may die alone and leave the others waiting for ever.

    An InputError or SystemExit on every rank, within `patience` seconds of each other, ends the
    job in order. It leaves one message and its exit code (InputError: 2). Anything else, or one
    rank alone, prints 'scaled_mpi: rank r of n: Cause: message' and aborts all ranks at once.
    """
    comm = world()
    # Collectives of the program and of its ending must never be matched with each other.
    ending = comm.Dup()
    try:
        yield
    except (InputError, SystemExit) as error:
        code, words = _code_and_words(error)
        together = comm.size == 1 or _sleep_until(ending.Ibarrier(), patience)
        if words and (comm.rank == 0 or not together):
            who = "" if together else f"rank {comm.rank} of {comm.size}: "
            print(f"scaled_mpi: {who}{words}", file=sys.stderr)
        _flush()
        if not together:
            comm.Abort(code)
        raise SystemExit(code) from None
    except BaseException as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
        traceback.print_exc()
        print(f"scaled_mpi: rank {comm.rank} of {comm.size}: {_in_words(error)}", file=sys.stderr)
        _flush()
        if comm.size > 1:
            comm.Abort(code)
        raise SystemExit(code) from None


def _code_and_words(error: BaseException) -> tuple[int, str]:
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return int(error.code or 0), ""
        return 1, str(error.code)
    return 2, str(error)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
