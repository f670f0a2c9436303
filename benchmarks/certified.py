"""Darcy problems, each with a new coefficient and right-hand side, solved by eight methods.

    python benchmarks/certified.py outputs/darcy/fit --problems 100 --facts facts.jsonl
    mpirun -n 2 python benchmarks/certified.py outputs/darcy/fit --problems 100

Every method solves every problem from nothing (assembly of the matrix left out, all else counted)
to a true residual of 1e-8, recomputed. `asm` is one-level restricted additive Schwarz on the same
tiles with the same overlap and exact LU, GMRES restart 30. Times are medians over the problems;
CPU seconds of all ranks stand beside wall seconds because they bear a busy machine better.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
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
KRYLOV = {"asm": "gmres", "gamg": "cg", "hypre": "cg", "direct": "preonly"}


@dataclass(frozen=True)
class Case:
    """One problem on this rank."""

    blocks: Any
    comm: Any
    stencil: Any
    load: np.ndarray


@dataclass(frozen=True)
class Run:
    """One method on one problem; `residual` is the true one."""

    seconds: float
    cpu: float
    iterations: int
    residual: float
    bytes: int


def by_network(case: Case, solver: Any) -> tuple[np.ndarray, int, int]:
    """The certified two-level method with a local solver; solution, iterations, halo bytes."""
    spec = Solving(tolerance=TOLERANCE, smooths=0 if solver.exact else 2)
    with Prepared(case.stencil, case.blocks, case.comm, solver, spec) as ready:
        try:
            answer = ready.solve(case.load)
        except NotConverged as error:
            return np.full_like(case.load, np.nan), error.iterations, 0
    return answer.solution, answer.iterations, answer.bytes


def by_petsc(case: Case, name: str) -> tuple[np.ndarray, int, int]:
    """One of PETSc's own methods; its bytes are not counted."""
    tiles = subdomains(case.blocks, case.comm, 4) if name == "asm" else None
    with LinearSystem(case.stencil, case.blocks, case.comm) as system:
        course = system.solve(
            case.load, name, rtol=0.9 * TOLERANCE, most=MOST.get(name, 300), restart=30,
            method=KRYLOV[name], tiles=tiles,
        )
    return course.solution, course.iterations, 0


def measure(case: Case, method: Callable[[Case], tuple[np.ndarray, int, int]]) -> Run:
    """Time a method, and check its answer by the residual alone."""
    case.comm.Barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    solution, iterations, sent = method(case)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    with LinearSystem(case.stencil, case.blocks, case.comm) as system:
        rest = case.load - system.multiply(solution)
    residual = norm(rest, case.blocks, case.comm) / norm(case.load, case.blocks, case.comm)
    return Run(largest(case.comm, wall), math.fsum(case.comm.allgather(cpu)), iterations,
               residual, sum(case.comm.allgather(sent)))


def methods(weights: Path | None) -> dict[str, Callable[[Case], tuple[np.ndarray, int, int]]]:
    """Name -> method."""
    found = {}
    if weights is not None:
        learned = Learned().load(weights)
        found["certified"] = lambda case: by_network(case, learned)
    found["exact"] = lambda case: by_network(case, Exact().load())
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


def report(runs: dict[str, list[Run]], log: FactLog, spent: float) -> None:
    """Print the table, all ratios (those above 1 too) and the break-even count."""
    medians = {name: float(np.median([run.cpu for run in some])) for name, some in runs.items()}
    print(f"{'method':10s} {'wall s':>8s} {'cpu s':>8s} {'iterations':>11s} {'residual':>9s} "
          f"{'bytes':>10s}  cpu / asm  cpu / gamg")
    for name, some in runs.items():
        wall = float(np.median([run.seconds for run in some]))
        most = max(run.iterations for run in some)
        worst = max(run.residual for run in some)
        said = f"{worst:.1e}" if worst <= TOLERANCE else "NOT MET"
        print(f"{name:10s} {wall:8.2f} {medians[name]:8.2f} {most:11d} {said:>9s} "
              f"{some[0].bytes:10d}  {medians[name] / medians['asm']:9.2f}  "
              f"{medians[name] / medians['gamg']:10.2f}")
        log.record(f"time.{name}", wall, "s")
        log.record(f"time.cpu.{name}", medians[name], "s")
        log.record(f"iterations.{name}", most)
        log.record(f"residual.{name}", worst)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of rank 0: {peak:.0f} MiB")
    log.record("memory.peak", peak, "MiB")
    for name in runs:
        if "certified" in runs and name != "certified":
            gain = medians[name] - medians["certified"]
            count = math.ceil(spent / gain) if gain > 0 else "never"
            print(f"break-even of the network against {name}, {spent:.0f} s of data and training "
                  f"counted: {count}")
            log.record(f"breakeven.{name}", count, "problems")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, nargs="?", help="folder of the stage fit")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--cells", type=int, default=512)
    parser.add_argument("--contrast", type=float, default=1e3)
    parser.add_argument("--facts", type=Path, help="file to append the numbers to")
    parser.add_argument("--only", nargs="*", help="methods to run (asm and gamg always)")
    given = parser.parse_args()
    comm = world()
    problem = Darcy(coefficient=LogNormal(contrast=given.contrast, length=8))
    blocks = make_blocks(problem.grid((given.cells,) * 2), (32, 32), comm.size)
    comm = first_ranks(comm, blocks.ranks)
    if comm is None:
        return
    chosen = {name: method for name, method in methods(given.weights).items()
              if not given.only or name in (*given.only, "asm", "gamg")}
    runs: dict[str, list[Run]] = {name: [] for name in chosen}
    for number in range(given.problems):
        seed = 2_000_000 + number
        case = Case(blocks, comm, problem.stencil(blocks, comm, seed),
                    problem.load(blocks, comm, seed))
        for name, method in chosen.items():
            runs[name].append(measure(case, method))
            if comm.rank == 0:
                run = runs[name][-1]
                print(json.dumps({"problem": number, "method": name, **vars(run)}), flush=True)
    if comm.rank == 0:
        report(runs, FactLog(given.facts, "benchmark", comm.size, cells=given.cells,
                             problems=given.problems), training_seconds(given.weights))


if __name__ == "__main__":
    main()
