"""Darcy problems, each with a new coefficient and right-hand side, solved by six methods.

    python benchmarks/certified.py outputs/darcy/fit --problems 100 --facts facts.jsonl
    python benchmarks/certified.py outputs/darcy/fit --problems 100 --slow 30 --clock cpu
    mpirun -n 2 python benchmarks/certified.py outputs/darcy/fit --problems 100

Every method solves every problem from nothing (assembly of the matrix left out, all else counted)
to a true residual of 1e-8, recomputed. `certified` is two levels with the learned tiles, `exact`
the same with exact ones, `asm` one-level restricted additive Schwarz on the same tiles with the
same overlap and exact LU, GMRES restart 30; `gamg` and `hypre` precondition conjugate gradients,
`direct` is a sparse Cholesky or LU. `--slow` lets the methods of more than a few seconds solve
only the first problems; every row says how many it solved.

Times are medians over the problems, `cpu` sums the seconds of all ranks; `--clock cpu` takes the
ratios from it, which bears a machine that is shared. `memory` is the largest resident size that a
solve adds on rank 0, `bytes` what the tiles' halo exchanges of all ranks send (nothing on one
rank; those of PETSc's own methods are not counted).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.coupling.certified import Prepared
from scaled_mpi.coupling.solving import NotConverged, Solving
from scaled_mpi.facts import FactLog, read_facts
from scaled_mpi.local_solvers import Exact, Learned
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import first_ranks, largest, world
from scaled_mpi.parallel.petsc import LinearSystem, has_package, subdomains
from scaled_mpi.problems import Darcy
from scaled_mpi.problems.coefficients import LogNormal
from scaled_mpi.problems.elliptic import norm

TOLERANCE = 1e-8
MOST = {"asm": 600}
SLOW = ("certified", "asm", "direct")
KRYLOV = {"asm": "gmres", "gamg": "cg", "hypre": "cg", "direct": "preonly"}


@dataclass(frozen=True)
class Case:
    """One problem on this rank."""

    blocks: Any
    comm: Any
    stencil: Any
    load: np.ndarray


Method = Callable[[Case], tuple[np.ndarray, int, int, int]]


@dataclass(frozen=True)
class Run:
    """One method on one problem; `residual` is the true one."""

    wall: float  # s
    cpu: float  # s, all ranks
    iterations: int
    residual: float
    bytes: int
    memory: float  # MiB
    fallback: int = 0


class Peak:
    """Largest resident size of this process since the last `reset`, from Linux's accounts."""

    def reset(self) -> float:
        """Give back what is free, forget what was; returns what is resident now, MiB."""
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return self.read("VmRSS")

    def read(self, key: str = "VmHWM") -> float:
        """One line of the process's status, MiB."""
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def by_tiles(case: Case, solver: Any) -> tuple[np.ndarray, int, int, int]:
    """The certified method with a local solver: solution, iterations, halo bytes, fallback."""
    spec = Solving(tolerance=TOLERANCE, smooths=0 if solver.exact else 2)
    with Prepared(case.stencil, case.blocks, case.comm, solver, spec) as ready:
        try:
            answer = ready.solve(case.load)
        except NotConverged as error:
            return np.full_like(case.load, np.nan), error.iterations, 0, 0
    return answer.solution, answer.iterations, answer.bytes, answer.fallback_tiles


def by_petsc(case: Case, name: str) -> tuple[np.ndarray, int, int, int]:
    """One of PETSc's own methods; its bytes are not counted."""
    way = subdomains(case.blocks, case.comm, 4) if name == "asm" else name
    with LinearSystem(case.stencil, case.blocks, case.comm) as system:
        course = system.solve(
            case.load,
            way,
            rtol=0.9 * TOLERANCE,
            most=MOST.get(name, 300),
            restart=30,
            method=KRYLOV[name],
        )
    return course.solution, course.iterations, 0, 0


def measure(case: Case, method: Method) -> Run:
    """Time a method, and check its answer by the residual alone."""
    peak = Peak()
    case.comm.Barrier()
    before = peak.reset()
    wall, cpu = time.perf_counter(), time.process_time()
    solution, iterations, sent, fallback = method(case)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    added = peak.read() - before
    with LinearSystem(case.stencil, case.blocks, case.comm) as system:
        rest = case.load - system.multiply(solution)
    residual = norm(rest, case.blocks, case.comm) / norm(case.load, case.blocks, case.comm)
    return Run(
        largest(case.comm, wall),
        math.fsum(case.comm.allgather(cpu)),
        iterations,
        residual,
        sum(case.comm.allgather(sent)),
        added,
        fallback,
    )


def methods(weights: Path | None) -> dict[str, Method]:
    """Name -> method."""
    found = {}
    if weights is not None:
        learned = Learned().load(weights)
        found["certified"] = lambda case: by_tiles(case, learned)
    found["exact"] = lambda case: by_tiles(case, Exact().load())
    names = ["asm", "gamg", *(["hypre"] if has_package("hypre") else []), "direct"]
    for name in names:
        found[name] = lambda case, name=name: by_petsc(case, name)
    return found


def training_seconds(weights: Path | None) -> float:
    """What data and training took, from the facts of `fit` and of `residuals` beside it."""
    if weights is None:
        return 0.0
    folders = (weights, weights.parent / "residuals")
    facts = [fact for folder in folders for fact in read_facts(folder / "facts.jsonl")]
    told = {fact["name"]: fact["value"] for fact in facts}
    return told.get("time.train", 0.0) + told.get("time.data", 0.0)


def report(runs: dict[str, list[Run]], clock: str, log: FactLog) -> dict[str, float]:
    """Print the table and all ratios, those above 1 too; medians of the clock, s a problem."""
    medians = {name: median(some, clock) for name, some in runs.items()}
    print(
        f"\n{'method':10s} {'problems':>8s} {'wall s':>7s} {'cpu s':>7s} {'iterations':>10s} "
        f"{'residual':>9s} {'MiB':>6s} {'bytes':>10s}   {clock} / asm  / gamg  / exact"
    )
    for name, some in runs.items():
        wall, cpu = median(some, "wall"), median(some, "cpu")
        most, worst = max(run.iterations for run in some), max(run.residual for run in some)
        said = f"{worst:.1e}" if worst <= TOLERANCE else "NOT MET"
        memory, sent = median(some, "memory"), median(some, "bytes")
        ratios = [medians[name] / medians[other] for other in ("asm", "gamg", "exact")]
        print(
            f"{name:10s} {len(some):8d} {wall:7.2f} {cpu:7.2f} {most:10d} {said:>9s} "
            f"{memory:6.0f} {sent:10.0f}  " + "".join(f"{ratio:9.2f}" for ratio in ratios)
        )
        for key, value, unit in (
            ("time", wall, "s"),
            ("time.cpu", cpu, "s"),
            ("memory", memory, "MiB"),
            ("bytes", sent, "bytes"),
            ("iterations", most, ""),
            ("residual", worst, ""),
            ("problems", len(some), ""),
            ("ratio.asm", ratios[0], ""),
        ):
            log.record(key, value, unit, method=name)
    return medians


def median(runs: list[Run], key: str) -> float:
    """Median of one field of some runs."""
    return float(np.median([getattr(run, key) for run in runs]))


def break_even(medians: dict[str, float], spent: float, log: FactLog) -> None:
    """Print after how many problems the network has earned its data and training."""
    for name in medians:
        if "certified" in medians and name != "certified":
            gain = medians[name] - medians["certified"]
            count = math.ceil(spent / gain) if gain > 0 else "never"
            print(
                f"break-even of the network against {name}, {spent:.0f} s of data and training "
                f"counted: {count}"
            )
            log.record("breakeven", count, "problems", method=name)


def read() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, nargs="?", help="folder of the stage fit")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--slow", type=int, help="problems that the slow methods solve")
    parser.add_argument("--cells", type=int, default=512)
    parser.add_argument("--contrast", type=float, default=1e3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--facts", type=Path, help="file to append the numbers to")
    return parser.parse_args()


def main() -> None:
    """Run from the command line."""
    given = read()
    comm = world()
    problem = Darcy(coefficient=LogNormal(contrast=given.contrast, length=8))
    blocks = make_blocks(problem.grid((given.cells,) * 2), (32, 32), comm.size)
    comm = first_ranks(comm, blocks.ranks)
    if comm is None:
        return
    chosen = methods(given.weights)
    runs: dict[str, list[Run]] = {name: [] for name in chosen}
    slow = given.problems if given.slow is None else given.slow
    for number in range(given.problems):
        seed = 2_000_000 + number
        case = Case(
            blocks, comm, problem.stencil(blocks, comm, seed), problem.load(blocks, comm, seed)
        )
        for name, method in chosen.items():
            if name in SLOW and number >= slow:
                continue
            runs[name].append(measure(case, method))
            if comm.rank == 0:
                print(
                    json.dumps({"problem": number, "method": name, **vars(runs[name][-1])}),
                    flush=True,
                )
    if comm.rank == 0:
        log = FactLog(given.facts, "benchmark", comm.size, cells=given.cells, clock=given.clock)
        medians = report(runs, given.clock, log)
        break_even(medians, training_seconds(given.weights), log)


if __name__ == "__main__":
    main()
