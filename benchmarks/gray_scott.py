"""Gray-Scott in 2-D: cell updates a second of the compiled stencil, side by side with others.

    python benchmarks/gray_scott.py                       # about 5 minutes on two quiet cores
    python benchmarks/gray_scott.py --sizes 128 512 --repeats 3 --ranks 1

Every call advances the same periodic field of noise in float32 (py-pde in its own float64), one
explicit Euler step after another. Repeats go round robin over the methods and the fastest counts,
so that a busy spell of the machine hits all of them alike. `plain loop` is the same arithmetic,
compiled, one step at a time over the whole field; `bound` is the cells a second that one core's
measured bandwidth (triad) allows it: 24 bytes a cell, two fields read, written and fetched before
they are written (a field that fits the cache can pass it). Ratios are of `ours` on one rank.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numba
import numpy as np

from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.simulators import warm
from scaled_mpi.simulators.gray_scott import GrayScott

BATCH = 16  # steps are taken in multiples of it
SLOT = 1.0  # seconds a repeat, where 16 to 800 steps take that long
STENCIL_BYTES = 24
SLOW = {"py-pde": 512, "numpy": 4096, "torch conv2d": 1024}  # largest size that is worth the wait
MARK = "cell updates a second: "
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}

System = GrayScott(F=0.06, k=0.04)  # noise settles in a state that lives everywhere
Advance = Callable[[int], object]


def noise(n: int, dtype: type = np.float32) -> np.ndarray:
    """A field near that state: no empty places, where denormal numbers slow the others down."""
    spread = np.random.default_rng(0).random((2, n, n))
    return (np.array([0.2, 0.4])[:, None, None] + 0.1 * spread).astype(dtype)


def halo_width(n: int) -> int:
    """Steps between two exchanges: deeper where the field does not fit the cache."""
    return 8 if n < 1024 else 16


def ours(n: int, comm: object) -> Advance:
    """The simulator on this communicator's ranks."""
    grid = System.grid((n, n))
    blocks = make_blocks(grid, n // 4, comm.size)
    halo = Halo(blocks, comm, halo_width(n))
    state = noise(n)[(..., *blocks.block(comm.rank).slices)].copy()
    return lambda steps: System.advance(state, steps, halo)


@numba.njit(fastmath=False, nogil=True, error_model="numpy")
def _plain(old, new, steps, c):
    a_u, a_v, dt, f, g, low, high, one, four = c
    n = old.shape[1] - 2
    for _ in range(steps):
        for field in range(2):
            old[field, 0], old[field, n + 1] = old[field, n], old[field, 1]
            for y in range(n + 2):
                old[field, y, 0], old[field, y, n + 1] = old[field, y, n], old[field, y, 1]
        for y in range(1, n + 1):
            un, uc, us = old[0, y - 1], old[0, y], old[0, y + 1]
            vn, vc, vs = old[1, y - 1], old[1, y], old[1, y + 1]
            new_u, new_v = new[0, y], new[1, y]
            for x in range(1, n + 1):
                u, v = uc[x], vc[x]
                r = dt * ((u * v) * v)
                around_u = (un[x] + us[x]) + (uc[x - 1] + uc[x + 1])
                around_v = (vn[x] + vs[x]) + (vc[x - 1] + vc[x + 1])
                p = u + ((a_u * (around_u - four * u) - r) + f * (one - u))
                q = v + ((a_v * (around_v - four * v) + r) - g * v)
                new_u[x] = low if p < low else (high if p > high else p)
                new_v[x] = low if q < low else (high if q > high else q)
        old, new = new, old


def plain_loop(n: int) -> Advance:
    """The same arithmetic compiled, one step at a time, without blocking for the cache."""
    start = np.pad(noise(n), [(0, 0), (1, 1), (1, 1)], "wrap")
    new = start.copy()
    c = tuple(np.float32(x) for x in (*System._numbers(), 1, 4))
    return lambda steps: _plain(start.copy(), new, steps, c)


def plain_numpy(n: int) -> Advance:
    """Whole-array numpy with slices of a padded field."""
    one = np.float32(1)
    a_u, a_v, dt, f, g, _, _ = (np.float32(x) for x in System._numbers())

    def advance(steps: int) -> np.ndarray:
        field = np.pad(noise(n), [(0, 0), (1, 1), (1, 1)], "wrap")
        for _ in range(steps):
            inner = field[:, 1:-1, 1:-1]
            around = (
                field[:, :-2, 1:-1] + field[:, 2:, 1:-1] + field[:, 1:-1, :-2] + field[:, 1:-1, 2:]
            ) - 4 * inner
            u, v = inner
            r = dt * u * v * v
            u += a_u * around[0] - r + f * (one - u)
            v += a_v * around[1] + r - g * v
            np.clip(inner, 0, 1, out=inner)
            field[:, 0], field[:, -1] = field[:, -2], field[:, 1]
            field[:, :, 0], field[:, :, -1] = field[:, :, -2], field[:, :, 1]
        return field

    return advance


def torch_convolution(n: int) -> Advance:
    """torch: one grouped 3x3 convolution with circular padding a step, one thread."""
    import torch

    torch.set_num_threads(1)
    a_u, a_v, dt, f, g, low, high = System._numbers()
    stencil = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    weight = torch.stack([a_u * stencil, a_v * stencil])[:, None]
    start = torch.from_numpy(noise(n))[None]

    @torch.no_grad()
    def advance(steps: int) -> torch.Tensor:
        field = start
        for _ in range(steps):
            padded = torch.nn.functional.pad(field, (1, 1, 1, 1), mode="circular")
            spread = torch.nn.functional.conv2d(padded, weight, groups=2)
            u, v = field[:, :1], field[:, 1:]
            r = dt * u * v * v
            change = torch.cat([f * (1 - u) - r, r - g * v], 1)
            field = (field + spread + change).clamp_(low, high)
        return field

    return advance


def py_pde(n: int) -> Advance:
    """py-pde (Zwicker 2020, https://doi.org/10.21105/joss.02158), numba backend, fixed steps."""
    import pde

    pde.config["backend.numba.multithreading"] = "never"
    equation = pde.PDE(
        {
            "u": f"{System.Du} * laplace(u) - u * v**2 + {System.F} * (1 - u)",
            "v": f"{System.Dv} * laplace(v) + u * v**2 - {System.F + System.k} * v",
        }
    )
    grid = pde.CartesianGrid([[0, n], [0, n]], n, periodic=True)
    state = pde.FieldCollection([pde.ScalarField(grid, part) for part in noise(n, np.float64)])
    solver = pde.EulerSolver(equation, backend="numba")
    stepper = solver.make_stepper(state, dt=System.dt)
    return lambda steps: stepper(state.copy(), 0.0, steps * System.dt)


METHODS: dict[str, Callable[[int], Advance]] = {
    "ours": lambda n: ours(n, SerialComm()),
    "plain loop": plain_loop,
    "numpy": plain_numpy,
    "torch conv2d": torch_convolution,
    "py-pde": py_pde,
}


def measure(advances: dict[str, Advance], n: int, repeats: int, clock: str) -> dict[str, float]:
    """Cell updates a second of each method, the fastest of `repeats` round-robin slots."""
    now, steps = CLOCKS[clock], {}
    for name, advance in advances.items():
        advance(BATCH)  # compiles
        begun = now()
        advance(BATCH)
        each = (now() - begun) / BATCH
        steps[name] = BATCH * max(1, min(50, round(SLOT / max(each, 1e-9) / BATCH)))
    best = dict.fromkeys(advances, 0.0)
    for _ in range(repeats):
        for name, advance in advances.items():
            begun = now()
            advance(steps[name])
            best[name] = max(best[name], steps[name] * n * n / (now() - begun))
    return best


def triad(clock: str, cells: int = 1 << 24) -> float:
    """Memory bandwidth of one core in bytes/s: a = b + s c, three streams and one fetch."""

    @numba.njit(nogil=True)
    def run(a, b, c, s):
        for i in range(a.size):
            a[i] = b[i] + s * c[i]

    a, b, c = (np.full(cells, x, np.float32) for x in (0, 1, 2))
    now, best = CLOCKS[clock], 0.0
    run(a, b, c, np.float32(3))
    for _ in range(10):
        begun = now()
        run(a, b, c, np.float32(3))
        best = max(best, 4 * a.nbytes / (now() - begun))
    return best


def on_ranks(ranks: int, options: argparse.Namespace) -> dict[int, float]:
    """Cell updates a second of `ours` on more ranks, by size, from this program under mpirun."""
    command = [
        "mpirun",
        "-n",
        str(ranks),
        sys.executable,
        __file__,
        "--as-rank",
        "--repeats",
        str(options.repeats),
        "--clock",
        "wall",
        "--sizes",
        *map(str, options.sizes),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not found:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return {int(n): rate for n, rate in json.loads(found[0].removeprefix(MARK)).items()}


def as_rank(options: argparse.Namespace) -> None:
    """What one rank of `on_ranks` does: every slot starts together and ends with the last rank."""
    comm, rates = world(), {}
    warm(System, comm, 2)
    for n in options.sizes:
        advance = ours(n, comm)

        def together(steps: int, advance: Advance = advance) -> None:
            comm.Barrier()
            advance(steps)
            comm.Barrier()

        steps = BATCH * max(1, round(2e8 / n / n / BATCH))
        together(BATCH)
        best = 0.0
        for _ in range(options.repeats):
            begun = time.perf_counter()
            together(steps)
            best = max(best, steps * n * n / (time.perf_counter() - begun))
        rates[n] = best
    if comm.rank == 0:
        print(MARK + json.dumps(rates), flush=True)


def table(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the markdown table, each as soon as it is measured."""
    names = [name for name in METHODS if name not in options.without]
    more = {ranks: on_ranks(ranks, options) for ranks in options.ranks if ranks > 1}
    bandwidth = triad(options.clock)
    bound = bandwidth / STENCIL_BYTES / 1e6
    yield f"One core, {options.clock} time; triad {bandwidth / 1e9:.1f} GB/s."
    yield ""
    heads = [*names, *(f"ours, {ranks} ranks" for ranks in more), "bound"]
    ratios = [f"ours / {name}" for name in names if name != "ours"]
    yield "| cells | " + " | ".join([*heads, *ratios]) + " |"
    yield "|---" * (1 + len(heads) + len(ratios)) + "|"
    for n in options.sizes:
        run = [name for name in names if n <= SLOW.get(name, n)]
        best = measure({name: METHODS[name](n) for name in run}, n, options.repeats, options.clock)
        million = {name: rate / 1e6 for name, rate in best.items()}
        cells = [f"{million[name]:.4g}" if name in million else "" for name in names]
        cells += [f"{rates[n] / 1e6:.4g}" for rates in more.values()] + [f"{bound:.4g}"]
        cells += [
            f"{million['ours'] / million[name]:.3g}" if name in million else ""
            for name in names
            if name != "ours"
        ]
        yield f"| {n}^2 | " + " | ".join(cells) + " |"


def main() -> None:
    """Millions of cell updates a second, as a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: time of this thread alone, for a machine shared with others",
    )
    parser.add_argument("--without", nargs="*", default=[], choices=list(METHODS)[1:])
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_rank:
        as_rank(options)
        return
    print("Gray-Scott, millions of cell updates a second\n")
    for line in table(options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
