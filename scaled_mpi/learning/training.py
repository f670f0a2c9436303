"""The one training loop, seen from outside: its ranks and its call.

    result = train(model, task, spec, Session(team, folder, events, seed))

One optimiser step averages the gradients of `micro_batches` micro-batches, which are distributed
over the ranks. In the mode `ordered` they are gathered and summed in the order of their index.
Floating-point sums depend on their order alone, so the weights are the same bits on any number of
ranks. In the mode `ddp` torch's DistributedDataParallel sums them in an order of its own.

This module does not import torch, so that ranks which only wait stay light. `settings.py` holds
the block of the configuration, `distributed.py` the two modes, `checkpoint.py` the state of a
resumed run; `loop.py` runs the steps.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scaled_mpi.learning.settings import (
    Result,
    Session,
    Task,
    Training,
    check_steps_known,
    useful_ranks,
)
from scaled_mpi.parallel.comm import Comm, quiet_bcast, split
from scaled_mpi.parallel.signals import Stopped

if TYPE_CHECKING:
    import torch


def train(
    model: torch.nn.Module,
    task: Task,
    spec: Training,
    session: Session,
    should_stop: Callable[[], bool] | None = None,
) -> Result:
    """Train `model` (a torch module); collective over the session's ranks, best `training_comm`.

    Writes best.safetensors and last.safetensors (averaged weights) and state.safetensors into the
    session's folder. A second call with the same arguments continues from the state, to the same
    bits. It returns at once when the training was finished. Every rank calls `should_stop()` at
    every step; after one True all write the state and raise `Stopped`. Errors: `NotFinite`,
    `Stopped`, `InputError` (data, state or ranks that cannot be used).
    """
    from scaled_mpi.learning.loop import Loop

    check_steps_known(spec)
    comm, folder = session.comm, Path(session.folder)
    return Loop(model, task, spec, comm, folder, session.events, session.seed, should_stop).run()


def training_comm(comm: Comm, spec: Training) -> Comm | None:
    """The ranks of `comm` that train, one a core (or one a GPU); None on the others. Collective.

    At most `micro_batches` ranks train, and no more than shorten a step. The cores are those that
    the scheduler granted to the ranks of a node. Only ranks that may train look for a GPU, since
    the search imports torch.
    """
    host = socket.gethostname()
    hosts = comm.allgather((host, _own_cores()))
    leads = host not in [name for name, _ in hosts[: comm.rank]]
    gpus = comm.allgather(_gpus(spec) if leads else 0)
    places = {
        name: max(gpus[r] for r, (other, _) in enumerate(hosts) if other == name)
        or len(set().union(*(cores for other, cores in hosts if other == name)))
        for name, _ in hosts
    }
    used: Counter[str] = Counter()
    chosen = []
    for rank, (name, _) in enumerate(hosts):
        if used[name] < places[name]:
            used[name] += 1
            chosen.append(rank)
    chosen = chosen[: useful_ranks(spec, len(chosen))]
    team = split(comm, 0 if comm.rank in chosen else 1)
    return team if comm.rank in chosen else None


def on_team(comm: Comm, spec: Training, work: Callable[[Comm], None]) -> None:
    """Call `work(team)` on the ranks that train; the others sleep, without torch. Collective.

    When the team is stopped every rank of `comm` raises `Stopped`.
    """
    team = training_comm(comm, spec)
    stopped = None
    if team is not None:
        try:
            work(team)
        except Stopped as error:
            stopped = error
    words = quiet_bcast(comm, stopped and str(stopped))
    if words:
        raise stopped or Stopped(words)


def _own_cores() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _gpus(spec: Training) -> int:
    """GPUs of this node that training may use; 0 where it runs on the CPU."""
    if spec.device == "cpu":
        return 0
    from scaled_mpi.learning.distributed import count_accelerators

    return count_accelerators(spec)
