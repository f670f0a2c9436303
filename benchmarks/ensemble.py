"""Members of an ensemble a second, simulated and stored, and the whole experiment, on 2 cores.

    python benchmarks/ensemble.py                     120 members of configs/oscar.yaml
    python benchmarks/ensemble.py --members 40 --workers 4

    serial            this program, one process
    dask              this program, WORKERS processes of Dask, their start included
    mpi               this program, WORKERS ranks, mpirun's start and the imports included
    plain loop        what a page of numpy does: all pairs, headings, histogram, scipy's Gaussian
                      filter, two NPZ files a member; one process
    multiprocessing   the plain loop over a pool of WORKERS processes, their start included

The plain loop leaves files that no one has synced or hashed and that a kill may cut short; ours
are synced and renamed, with order parameters, velocities, checksums, an index and a ledger, and at
40 particles that is what a member's time goes into. The compiled kernel is in its cache before the
clock starts. The document's own scripts took 228 s for the 120 simulations on 2 cores, mostly the
start of a Python each. Prints markdown; `--whole` adds the seconds of the experiment's stages up
to the page (without its network) over WORKERS ranks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.ndimage import gaussian_filter

from scaled_mpi.engine.launch import farm
from scaled_mpi.experiments import load
from scaled_mpi.experiments.ensemble.members import write_member
from scaled_mpi.experiments.ensemble.settings import EnsembleExperiment

CONFIG = str(Path(__file__).resolve().parents[1] / "configs" / "oscar.yaml")
DOCUMENT = 228.0  # seconds of the document's scripts for 120 simulations on 2 cores
ALONE = ["rival=null", "transition=null"]


def plain_member(folder: str, number: int) -> None:
    """One run of the same size as a user would write it first."""
    draw, box, cells = np.random.default_rng(number), 15.0, 64
    position = draw.uniform(0, box, (40, 2))
    angle = draw.uniform(-np.pi, np.pi, 40)
    positions, densities = [], []
    for _ in range(21):
        positions.append(position)
        density, _, _ = np.histogram2d(position[:, 1], position[:, 0], cells, [[0, box], [0, box]])
        densities.append(gaussian_filter(density / (box / cells) ** 2, 2.0, mode="wrap"))
        apart = position[:, None] - position
        apart -= box * np.rint(apart / box)
        near = (apart**2).sum(-1) <= 4.0
        angle = np.arctan2(near @ np.sin(angle), near @ np.cos(angle))
        angle = angle + draw.normal(0, 0.3 / np.sqrt(12), 40)
        position = (position + 0.1 * np.stack([np.cos(angle), np.sin(angle)], 1)) % box
    times = 0.1 * np.arange(21)
    np.savez(Path(folder) / f"{number}_traj.npz", positions=positions, times=times)
    np.savez(Path(folder) / f"{number}_density.npz", rho=densities, times=times)


def serial(folder: Path, experiment: EnsembleExperiment, workers: int) -> None:
    """All members one after another."""
    for member in experiment.members():
        write_member(experiment, folder, member)


def by_dask(folder: Path, experiment: EnsembleExperiment, workers: int) -> None:
    """All members as tasks; the workers are as many as this process may use cores."""
    farm(
        write_member,
        [(experiment, folder, m) for m in experiment.members()],
        "dask",
        None,
        lambda line: None,
    )


def by_ranks(folder: Path, experiment: EnsembleExperiment, workers: int, stage: str) -> None:
    """The command line on ranks, up to `stage`."""
    counts = [
        f"ensemble.training={experiment.ensemble.training}",
        f"ensemble.test={experiment.ensemble.test}",
    ]
    subprocess.run(
        [
            "mpirun",
            "-n",
            str(workers),
            sys.executable,
            "-m",
            "scaled_mpi.run",
            CONFIG,
            *ALONE,
            *counts,
            "--outputs",
            str(folder),
            "--stage",
            stage,
        ],
        check=True,
        capture_output=True,
    )


def plain_loop(folder: Path, experiment: EnsembleExperiment, workers: int) -> None:
    """The page of numpy."""
    for number in range(len(experiment.members())):
        plain_member(str(folder), number)


def pool(folder: Path, experiment: EnsembleExperiment, workers: int) -> None:
    """The page of numpy over processes."""
    with multiprocessing.get_context("spawn").Pool(workers) as processes:
        tasks = [(str(folder), number) for number in range(len(experiment.members()))]
        processes.starmap(plain_member, tasks)


WAYS: dict[str, Callable[[Path, EnsembleExperiment, int], None]] = {
    "serial": serial,
    "dask": by_dask,
    "mpi": lambda folder, experiment, workers: by_ranks(folder, experiment, workers, "simulate"),
    "plain loop": plain_loop,
    "multiprocessing": pool,
}


def main() -> None:
    """Every way once, in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=120)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--whole", action="store_true", help="the whole experiment too")
    given = parser.parse_args()
    test = max(1, given.members // 6)
    experiment = load(
        CONFIG, [*ALONE, f"ensemble.training={given.members - test}", f"ensemble.test={test}"]
    )
    with tempfile.TemporaryDirectory() as folder:
        write_member(experiment, Path(folder), experiment.members()[0])
    print("| way | seconds | members a second |")
    print("|---|---|---|")
    for name, way in WAYS.items():
        _row(name, experiment, given, way)
    if given.whole:
        _row(
            "mpi, up to the page",
            experiment,
            given,
            lambda folder, one, workers: by_ranks(folder, one, workers, "report"),
        )
    if given.members == 120:
        print(
            f"| the document's scripts, a process a member | {DOCUMENT:.1f} | "
            f"{120 / DOCUMENT:.2f} |"
        )


def _row(
    name: str,
    experiment: EnsembleExperiment,
    given: argparse.Namespace,
    way: Callable[[Path, EnsembleExperiment, int], None],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        way(Path(folder), experiment, given.workers)
        seconds = time.perf_counter() - begun
    print(f"| {name} | {seconds:.1f} | {given.members / seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
