"""Seconds and peak memory of a POD beside numpy, scikit-learn and dask, at growing size.

    python benchmarks/pod.py [SNAPSHOTS ...]          default 500 1000 2000, of 64 x 64 cells
    python benchmarks/pod.py --cells 128 2000 4000 --skip numpy

Smooth periodic fields are drawn once and lie on disk, as runs of 100 snapshots for ours and as
one .npy file for the others. Every figure is of a process of its own, from the files to mean,
singular values and RANK modes in memory (ours: in a file); reading is inside, imports are outside.
Memory is the process' peak less what it held after the imports. `error` is the largest relative
difference of the first RANK singular values from those of the table's first row, numpy's. What is
not installed is left out with a word. Prints markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from scaled_mpi.compressors.decompositions import METHODS
from scaled_mpi.compressors.pod import Pod
from scaled_mpi.config import parse
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter

RANK, RUN, WAVES = 40, 100, 12
OTHERS = {"numpy": "numpy", "scikit-learn": "sklearn", "dask": "dask.array"}


def draw(folder: Path, cells: int, snapshots: int) -> None:
    """Fields of random waves whose power falls with the wave number, and a little noise."""
    generator, axis = np.random.default_rng(0), 2 * np.pi * np.arange(cells) / cells
    waves = [(a, b) for a in range(WAVES) for b in range(WAVES)]
    shapes = np.array(
        [np.cos(a * axis[:, None] + b * axis + a + 2 * b) / (1 + a * a + b * b) for a, b in waves]
    ).reshape(len(waves), -1)
    matrix = np.lib.format.open_memmap(
        folder / "all.npy", "w+", np.float64, (snapshots, cells * cells)
    )
    grid = Grid((cells, cells), 1.0)
    blocks = make_blocks(grid, grid.shape, 1)
    for first in range(0, snapshots, RUN):
        count = min(RUN, snapshots - first)
        rows = generator.normal(size=(count, len(waves))) @ shapes
        rows += 1e-3 * generator.normal(size=rows.shape)
        matrix[first : first + count] = rows
        with TrajectoryWriter(
            folder, f"train-{first:06d}", blocks, SerialComm(), ("density",), dtype=np.float64
        ) as writer:
            for time_, row in enumerate(rows):
                writer.append(time_, row.reshape(1, cells, cells))


def ours(folder: Path, method: str) -> np.ndarray:
    """Singular values by this program, one process."""
    runs = [Trajectory(folder, path.stem) for path in sorted(folder.glob("train-*.json"))]
    spec = parse(Pod, {"factor": list(runs[0].grid.shape), "rank": RANK, "method": method})
    spec.fit(runs, SerialComm(), folder, None, 0)
    return spec.load(folder).singular_values[:RANK]


def by_numpy(folder: Path) -> np.ndarray:
    """The whole SVD of the centred matrix."""
    matrix = np.load(folder / "all.npy")
    matrix -= matrix.mean(axis=0)
    _, values, modes = np.linalg.svd(matrix, full_matrices=False)
    return values[: len(modes[:RANK])]


def by_sklearn(folder: Path) -> np.ndarray:
    """The randomized SVD of the centred matrix, as many power iterations as ours."""
    from sklearn.utils.extmath import randomized_svd

    matrix = np.load(folder / "all.npy")
    matrix -= matrix.mean(axis=0)
    return randomized_svd(matrix, RANK, n_oversamples=10, n_iter=2, random_state=0)[1]


def by_dask(folder: Path) -> np.ndarray:
    """svd_compressed over blocks of rows, on the threads of this process."""
    import dask
    import dask.array

    matrix = dask.array.from_array(np.load(folder / "all.npy", mmap_mode="r"), (RUN, -1))
    found = dask.array.linalg.svd_compressed(
        matrix - matrix.mean(axis=0), RANK, n_power_iter=2, seed=0
    )
    return dask.compute(*found, scheduler="threads")[1]


def contenders() -> dict[str, Callable[[Path], np.ndarray]]:
    """Name -> how it finds the singular values."""
    found: dict[str, Callable[[Path], np.ndarray]] = {
        f"pod {method}": lambda folder, method=method: ours(folder, method) for method in METHODS
    }
    return {**found, "numpy": by_numpy, "scikit-learn": by_sklearn, "dask": by_dask}


def alone(folder: Path, name: str) -> None:
    """One figure in this process, told as JSON."""
    if name in OTHERS:
        __import__(OTHERS[name])
    before = _mebibytes("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    values = contenders()[name](folder)
    print(
        json.dumps(
            {
                "wall": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
                "memory": _mebibytes("VmHWM") - before,
                "values": list(map(float, values)),
            }
        )
    )


def _mebibytes(name: str) -> float:
    """VmRSS or VmHWM of this process; unlike getrusage's peak it forgets the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def main() -> None:
    """Draw, run every contender in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("snapshots", nargs="*", type=int, default=[500, 1000, 2000])
    parser.add_argument("--cells", type=int, default=64, help="cells an axis")
    parser.add_argument("--skip", nargs="*", default=[], choices=list(contenders()))
    parser.add_argument("--alone", nargs=2, metavar=("FOLDER", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        alone(Path(given.alone[0]), given.alone[1])
        return
    print("| snapshots x cells | | wall s | cpu s | peak MiB | matrix MiB | error |")
    print("|---|---|---|---|---|---|---|")
    for snapshots in given.snapshots:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder), given.cells, snapshots)
            _table(folder, snapshots, given.cells**2, given.skip)


def _table(folder: str, snapshots: int, cells: int, skip: list[str]) -> None:
    exact = None
    for name in sorted(set(contenders()) - set(skip), key=lambda n: n != "numpy"):
        if name in OTHERS and find_spec(OTHERS[name].split(".")[0]) is None:
            print(f"| {snapshots} x {cells} | {name} | not installed | | | | |")
            continue
        done = subprocess.run(
            [sys.executable, __file__, "--alone", folder, name],
            capture_output=True,
            text=True,
            check=True,
        )
        told = json.loads(done.stdout.splitlines()[-1])
        values = np.array(told["values"])
        exact = values if exact is None else exact
        print(
            f"| {snapshots} x {cells} | {name} | {told['wall']:.2f} | {told['cpu']:.2f} | "
            f"{told['memory']:.0f} | {snapshots * cells / 131072:.0f} | "
            f"{np.max(np.abs(values / exact - 1)):.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
