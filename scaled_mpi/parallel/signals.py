"""Stopping in good order: a signal sets a flag, and all ranks agree to stop at the same step.

A scheduler warns a job before it ends it (SIGUSR2 in the job files here; SIGUSR1 belongs to NCCL).
The handler only notes the signal. Work in progress asks `stop_agreed` at every step boundary,
saves itself, and raises `Stopped`; the command then exits with a code that means 'requeue me'.
"""

from __future__ import annotations

import signal

from scaled_mpi.parallel.comm import Comm

EXIT_REQUEUE = 85  # HTCondor's self-checkpoint code, used for every scheduler

_received: list[int] = []


class Stopped(Exception):
    """The work was saved and ended on request; the same command continues it."""


def listen() -> None:
    """Note SIGUSR2, SIGTERM and SIGINT instead of dying of them. A second SIGINT does end it."""
    for name in ("SIGUSR2", "SIGTERM", "SIGINT"):
        signal.signal(getattr(signal, name), _note)


def _note(number: int, _frame: object) -> None:
    if number == signal.SIGINT and number in _received:
        raise KeyboardInterrupt
    _received.append(number)


def stop_agreed(comm: Comm) -> bool:
    """Whether any rank has been asked to stop. Collective: every rank gets the same answer."""
    return any(comm.allgather(bool(_received)))
