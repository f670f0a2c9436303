"""One application of the local solvers to all tiles: the network against exact factors.

    python benchmarks/local_solvers.py                      # about 20 seconds on one core
    python benchmarks/local_solvers.py --device cuda        # needs neither PETSc nor MPI

256 tiles of 32 x 32 cells with an overlap of 4 in one log-normal medium of contrast 1000. The
network has the configured sizes and random weights, which cost as much as trained ones: that of
configs/darcy.yaml, and its preset `large`. `whole` is what the preconditioner waits for, from
float64 on the host back to it; `device` the network alone. Exact factors are always on the CPU.
Milliseconds, the fastest of some rounds. Prints markdown.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from scaled_mpi.config import plain
from scaled_mpi.local_solvers import Exact, Learned
from scaled_mpi.local_solvers.learned import LearnedSolver, make_network
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.problems import Darcy
from scaled_mpi.problems.coefficients import LogNormal
from scaled_mpi.problems.tile_matrices import TileOperators

SIZES = {"darcy": Learned(), "large": Learned(widths=(32, 64, 96), passes=3)}


def tiles(count: int) -> TileOperators:
    """The operators of count x count tiles."""
    problem, alone = Darcy(coefficient=LogNormal(contrast=1e3, length=8)), SerialComm()
    blocks = make_blocks(problem.grid((32 * count,) * 2), (32, 32), 1)
    return TileOperators(problem.stencil(blocks, alone, 1), blocks, alone, 4)


def fastest(work: Callable[[], Any], rounds: int) -> float:
    """Milliseconds of the fastest of some calls, one more before them."""
    found = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        work()
        found.append(1e3 * (time.perf_counter() - begun))
    return min(found[1:])


def alone(solver: LearnedSolver, residual: np.ndarray) -> Callable[[], None]:
    """The network without what brings its numbers; waits until the device is done."""
    put = torch.from_numpy(residual.astype(np.float32)).to(solver.device)

    def work() -> None:
        with torch.inference_mode():
            for part, kept in solver.prepared:
                solver.network.solve(*kept, put[part])
        if solver.device.type == "cuda":
            torch.cuda.synchronize()

    return work


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tiles", type=int, default=16, help="an axis")
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    operators = tiles(given.tiles)
    residual = np.random.default_rng(0).normal(size=operators.diagonal.shape)
    where = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    print(
        f"{len(operators)} windows of {operators.window}; {where}, "
        f"{torch.get_num_threads()} CPU threads\n"
    )
    print("| solver | prepare ms | whole ms | device ms |\n|---|---:|---:|---:|")
    exact = Exact().load()
    prepare = fastest(lambda: exact.prepare(operators), 1)
    whole = fastest(lambda: exact.correct(residual), given.rounds)
    print(f"| exact factors, CPU | {prepare:.0f} | {whole:.1f} | |")
    for name, spec in SIZES.items():
        network = make_network({"axes": 2, "solver": plain(spec)}, 0)
        solver = LearnedSolver(network, given.device)
        prepare = fastest(lambda solver=solver: solver.prepare(operators), 1)
        whole = fastest(lambda solver=solver: solver.correct(residual), given.rounds)
        device = fastest(alone(solver, residual), given.rounds)
        print(f"| network {name}, {given.device} | {prepare:.0f} | {whole:.1f} | {device:.1f} |")


if __name__ == "__main__":
    main()
