"""Ranks: the one-rank stand-in, groups, quiet waiting, and jobs that end on every rank."""

import math
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.parallel import comm as ranks
from scaled_mpi.parallel.comm import (
    SerialComm,
    check_launcher,
    exact_sum,
    first_ranks,
    largest,
    member_groups,
    quiet_barrier,
    quiet_bcast,
    raise_together,
    shares,
    split,
    world,
)


def everywhere(comm):
    """What each method of the small common set gives on this rank."""
    n = comm.size
    part = comm.Split(0, comm.rank)
    sent, received = np.full(2, comm.rank), np.empty(2 * n, int)
    comm.Allgatherv(sent, [received, [2] * n])
    comm.Bcast(sent)
    return [
        sent.tolist(),
        received.tolist(),
        comm.Ibarrier().Test() or n > 1,
        comm.bcast("x"),
        comm.gather(1),
        comm.allgather(2),
        comm.scatter([3] * n),
        comm.alltoall([6] * n),
        comm.barrier(),
        comm.Barrier(),
        part.size,
        comm.Dup().size,
    ]


@pytest.mark.mpi
def test_the_stand_in_agrees_with_mpi_on_one_rank():
    alone = world().Split(world().rank, 0)
    assert everywhere(SerialComm()) == everywhere(alone)


def test_without_mpi4py_there_is_one_rank(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setattr(os, "environ", {})
    world.cache_clear()
    try:
        assert isinstance(world(), SerialComm)
    finally:
        world.cache_clear()


@pytest.mark.parametrize(
    "size,environment,fails",
    [
        (1, {}, False),
        (1, {"SLURM_NTASKS": "4"}, True),
        (1, {"SLURM_NTASKS": "1"}, False),
        (4, {"SLURM_NTASKS": "4"}, False),
        (1, {"OMPI_COMM_WORLD_SIZE": "2"}, True),
        (1, {"PMI_SIZE": "3"}, True),
        (1, {"WORLD_SIZE": "2"}, True),
        (
            1,
            {"OMPI_COMM_WORLD_SIZE": "1", "SLURM_NTASKS": "4"},
            False,
        ),  # mpirun -n 1 in a job of 4
        (1, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, False),  # srun -n 1 in a job of 4
    ],
)
def test_a_launcher_that_mpi_does_not_see_is_named(size, environment, fails):
    if not fails:
        return check_launcher(size, environment)
    with pytest.raises(InputError, match="^" + next(iter(environment))):
        check_launcher(size, environment)


@pytest.mark.parametrize("items", [0, 1, 5, 64])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_shares_are_even_and_in_order(items, parts):
    dealt = shares(items, parts)
    assert [i for part in dealt for i in part] == list(range(items))
    lengths = [len(part) for part in dealt]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1


@pytest.mark.mpi
@pytest.mark.parametrize("members", [1, 2, 3, 5, 100])
def test_every_member_is_run_by_one_group(members):
    comm = world()
    group, mine = member_groups(members, comm)
    found = comm.allgather((mine, group.rank, group.size))
    led = [m for owned, rank, _ in found if rank == 0 for m in owned]
    assert sorted(led) == list(range(members))
    assert sum(size for _, rank, size in found if rank == 0) == comm.size
    sizes = [size for _, _, size in found]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.mpi
def test_parts_of_the_world():
    comm = world()
    half = split(comm, comm.rank % 2)
    assert (half.rank, half.size) == (comm.rank // 2, len(range(comm.rank % 2, comm.size, 2)))
    few = first_ranks(comm, 2)
    assert few is None if comm.rank > 1 else few.size == min(2, comm.size)
    assert largest(comm, comm.rank) == comm.size - 1


@pytest.mark.mpi
def test_the_exact_sum_does_not_depend_on_the_split():
    comm = world()
    draw = np.random.default_rng(1)
    values = draw.normal(size=999) * 10.0 ** draw.integers(-20, 20, 999)
    mine = values[shares(999, comm.size)[comm.rank]]
    assert exact_sum(comm, mine) == math.fsum(values)


@pytest.mark.mpi(min_size=2)
def test_waiting_ranks_leave_the_core():
    comm = world()
    quiet_barrier(comm)
    cpu = time.process_time()
    if comm.rank == 0:
        time.sleep(0.5)
    assert quiet_bcast(comm, {"made by": comm.rank}) == {"made by": 0}
    assert time.process_time() - cpu < 0.25


@pytest.mark.mpi
def test_one_error_is_raised_by_all():
    comm = world()
    raise_together(comm, None)
    last = comm.size - 1
    error = InputError("tile: 3, must divide 8") if comm.rank == last else None
    with pytest.raises(InputError, match="^tile: 3, must divide 8$"):
        raise_together(comm, error)
    error = OSError("disk full") if comm.rank == last else None
    expected = OSError if comm.rank == last else RuntimeError
    words = "disk full" if comm.rank == last else f"rank {last}: OSError: disk full"
    with pytest.raises(expected, match=words):
        raise_together(comm, error)


# What a job of three ranks does, its exit code, its last words and how often they are printed.
ENDINGS = [
    ("pass", 0, None, 0),
    ("raise InputError('tile: 3')", 2, "scaled_mpi: tile: 3", 1),
    ("raise SystemExit(3)", 3, None, 0),
    (
        "if world().rank == 1: raise ValueError('broken')\n    world().Barrier()",
        1,
        "scaled_mpi: rank 1 of 3: ValueError: broken",
        1,
    ),
    (
        "if world().rank == 2: raise InputError('tile: 3')\n    world().Barrier()",
        2,
        "scaled_mpi: rank 2 of 3: tile: 3",
        1,
    ),
    ("if world().rank == 0: raise SystemExit(4)\n    world().Barrier()", 4, None, 0),
]


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs mpirun")
@pytest.mark.parametrize("body,code,words,times", ENDINGS)
def test_a_job_ends_on_all_ranks(body, code, words, times):
    if ranks.world().size > 1:
        pytest.skip("no mpirun inside mpirun")
    program = (
        "from scaled_mpi.config import InputError\n"
        "from scaled_mpi.parallel.comm import abort_on_error, world\n"
        f"with abort_on_error(patience=1.0):\n    {body}\n"
    )
    # An MPI that is already up in this process has left its variables behind.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "PMI_"))}
    clean |= {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMP_NUM_THREADS": "1",
    }
    job = subprocess.run(
        ["mpirun", "-n", "3", sys.executable, "-c", program],
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert job.returncode == code, job.stderr
    if words:
        assert job.stderr.count(words + "\n") == times, job.stderr


@pytest.mark.parametrize(
    "error,code,words",
    [
        (InputError("tile: 3"), 2, "scaled_mpi: tile: 3\n"),
        (SystemExit(0), 0, ""),
        (SystemExit("stop here"), 1, "scaled_mpi: stop here\n"),
        (KeyboardInterrupt(), 130, "scaled_mpi: rank 0 of 1: KeyboardInterrupt\n"),
    ],
)
def test_one_rank_ends_with_the_same_codes(error, code, words, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "world", SerialComm)
    with pytest.raises(SystemExit) as raised, ranks.abort_on_error():
        raise error
    assert raised.value.code == code
    assert capsys.readouterr().err.endswith(words)
