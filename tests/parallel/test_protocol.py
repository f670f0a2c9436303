"""Communicators written from the Protocol alone do all that the package asks of one."""

import copy
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import Comm, SerialComm, by_mpi, exact_sum, raise_together, split
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.ordered import dealt, ordered_sum
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter


class Alone(Comm):
    """The smallest one: a rank, a size, one collective."""

    rank = 0
    size = 1

    def allgather(self, sendobj):
        return [sendobj]


class Post:
    """The letter boxes and the meeting place of several threads."""

    def __init__(self, size):
        self.size, self.meeting = size, threading.Barrier(size, timeout=20)
        self.table = [None] * size
        self.boxes = {(a, b): queue.Queue() for a in range(size) for b in range(size)}


class Arrival:
    """A message that is copied when it is waited for."""

    def __init__(self, finish=None):
        self.finish = finish

    def Test(self):
        return True

    def Waitall(self, requests):
        for request in requests:
            if request.finish is not None:
                request.finish()


class Thread(Comm):
    """One of several threads that play ranks: messages, and again a single collective."""

    def __init__(self, post, rank):
        self.post, self._rank = post, rank

    rank = property(lambda self: self._rank)
    size = property(lambda self: self.post.size)

    def allgather(self, sendobj):
        self.post.table[self.rank] = sendobj
        self.post.meeting.wait()
        found = copy.deepcopy(self.post.table)  # as if it had been sent
        self.post.meeting.wait()
        return found

    def send(self, obj, dest, tag=0):
        self.post.boxes[self.rank, dest].put((tag, obj))

    def recv(self, buf=None, source=0, tag=0):
        sent, obj = self.post.boxes[source, self.rank].get(timeout=20)
        assert sent == tag
        return obj

    def Isend(self, buf, dest, tag=0):
        self.send(buf.copy(), dest, tag)
        return Arrival()

    def Irecv(self, buf, source, tag=0):
        return Arrival(lambda: np.copyto(buf, self.recv(None, source, tag)))


def on_threads(size, work):
    """What `work(comm)` returns on each of `size` ranks that are threads."""
    post = Post(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(Thread(post, rank)), range(size)))


GRID = Grid((8, 12))
FIELD = np.random.default_rng(3).random((2, *GRID.shape)).astype(np.float32)


def laplacian(comm):
    blocks = make_blocks(GRID, 4, comm.size)
    block = blocks.block(comm.rank)
    padded = Halo(blocks, comm, 1)(FIELD[(..., *block.slices)])
    core = padded[:, 1:-1, 1:-1]
    sides = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]
    return blocks, block, sides - 4 * core


def everything(comm, folder):
    """Halo, store, sums and errors of one rank."""
    blocks, block, values = laplacian(comm)
    with TrajectoryWriter(folder, "run", blocks, comm, ["a", "b"]) as writer:
        writer.append(0.0, values)
    random = np.random.default_rng(4).random((16, 5))
    total = ordered_sum(comm, 16, lambda part: random[part])
    numbers = dealt(comm, 5, lambda i: i * i)
    error = None
    try:
        raise_together(comm, ValueError("full") if comm.rank == comm.size - 1 else None)
    except (ValueError, RuntimeError) as caught:
        error = str(caught)
    return total.tobytes(), numbers, exact_sum(comm, values.ravel()[:3]), "full" in error


def stored(folder):
    return Trajectory(folder, "run").read(0).tobytes()


def test_the_smallest_communicator_is_enough(tmp_path):
    comm = Alone()
    found = everything(comm, tmp_path / "mine")
    assert found == everything(SerialComm(), tmp_path / "serial")
    assert stored(tmp_path / "mine") == stored(tmp_path / "serial")
    assert split(comm, 3).size == comm.Dup().size == 1 and not by_mpi(comm)
    with pytest.raises(TypeError, match="Alone: has no Isend"):
        comm.Isend(np.zeros(1), 0)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_threads_that_play_ranks_give_the_bits_of_one_rank(tmp_path, size):
    alone = everything(SerialComm(), tmp_path / "serial")
    found = on_threads(size, lambda comm: everything(comm, tmp_path / "threads"))
    assert {(one[0], tuple(one[1]), one[3]) for one in found} == {
        (alone[0], tuple(alone[1]), alone[3])
    }
    assert len({one[2] for one in found}) == 1
    assert stored(tmp_path / "threads") == stored(tmp_path / "serial")


def test_collectives_built_on_allgather():
    def work(comm):
        received = np.empty(6)
        comm.Allgatherv(np.full(2, float(comm.rank)), [received, [2, 2, 2]])
        told = np.full(2, comm.rank)
        comm.Bcast(told, root=2)
        return (
            comm.bcast(comm.rank, root=1),
            comm.gather(comm.rank, root=2),
            comm.scatter([5, 6, 7] if comm.rank == 0 else None),
            comm.alltoall([10 * comm.rank + i for i in range(3)]),
            received.tolist(),
            told.tolist(),
        )

    received = [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    assert on_threads(3, work) == [
        (1, None, 5, [0, 10, 20], received, [2, 2]),
        (1, None, 6, [1, 11, 21], received, [2, 2]),
        (1, [0, 1, 2], 7, [2, 12, 22], received, [2, 2]),
    ]
