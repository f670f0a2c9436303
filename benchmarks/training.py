"""Samples a second of the training loop, beside a bare PyTorch loop on the same network.

    python benchmarks/training.py                    # one rank, about a minute on a quiet core
    mpirun -n 2 python benchmarks/training.py        # the bare loop is then torch's DDP over gloo

The network is the stepper's, the batch is drawn alike, and every rank has one thread. The bare
loop does what a page of PyTorch does: whole batch of the rank, backward, clip, AdamW; no average
of the weights, no check, no progress, no files. Rounds alternate and the fastest counts, so that a
busy spell of the machine hits all alike. `cpu` is processor time, which a shared machine hardly
moves; with several ranks it counts waiting, so there the wall clock is the one to read. What the
loop loses on one rank it loses to the micro-batches: `--micro-batches 2` loses less.
Prints markdown; `--facts FILE` appends `train.throughput.ratio`, one line a mode and a clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from scaled_mpi.facts import FactLog
from scaled_mpi.learning.distributed import join_group
from scaled_mpi.learning.networks.convolution import LocalNetwork
from scaled_mpi.learning.settings import Session, Task, Training
from scaled_mpi.learning.training import train
from scaled_mpi.parallel.comm import SerialComm, world

REACH, CHANNELS, SEED = 8, 2, 0
Seconds = tuple[float, float]  # wall, cpu


def network(width: int) -> torch.nn.Module:
    """The stepper's network, with the same first weights at every call."""
    torch.manual_seed(SEED)
    return LocalNetwork(CHANNELS, CHANNELS, (REACH, REACH), width=width)


def sampler(cells: int) -> Callable[[int, int, int], np.ndarray]:
    """Batches (size, C, cells + 2 reach, cells + 2 reach) cut from one stored field of noise."""
    field = np.random.default_rng(0).standard_normal((CHANNELS, 512, 512), np.float32)
    side = cells + 2 * REACH

    def sample(step: int, micro: int, size: int) -> np.ndarray:
        starts = np.random.default_rng((step, micro)).integers(0, 512 - side, (size, 2))
        return np.stack([field[:, y : y + side, x : x + side] for y, x in starts])

    return sample


def loss(model: Callable, fields: torch.Tensor) -> torch.Tensor:
    """Mean square distance to the fields themselves."""
    return (model(fields) - fields[:, :, REACH:-REACH, REACH:-REACH]).square().mean()


def bare(spec: Training, sample: Callable, width: int, comm: object) -> Seconds:
    """A page of PyTorch."""
    model = network(width)
    if comm.size > 1:
        join_group(comm, torch.device("cpu"))
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=spec.learning_rate, fused=True)
    comm.barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    for step in range(spec.steps):
        optimiser.zero_grad()
        batch = torch.from_numpy(sample(step, comm.rank, spec.batch // comm.size))
        loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip)
        optimiser.step()
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    if comm.size > 1:
        torch.distributed.destroy_process_group()
    return seconds


def ours(spec: Training, sample: Callable, width: int, comm: object) -> Seconds:
    """The loop, as stages call it, from its first sample to its validation."""
    marks: list[Seconds] = []

    def first_noted(step: int, micro: int, size: int) -> np.ndarray:
        if not marks:
            marks.append((time.perf_counter(), time.process_time()))
        return sample(step, micro, size)

    def validate(_: torch.nn.Module) -> dict[str, float]:
        marks.append((time.perf_counter(), time.process_time()))
        return {"loss": 0.0}

    with tempfile.TemporaryDirectory() as folder:
        model = network(width)
        comm.barrier()
        folder_of_all = Path(comm.bcast(folder))
        task = Task(loss, first_noted, validate)
        train(model, task, spec, Session(comm, folder_of_all, None, SEED))
        comm.barrier()
    begun, ended = marks[0], marks[-1]  # rank 0 alone validates, and prints
    return ended[0] - begun[0], ended[1] - begun[1]


def measure(options: argparse.Namespace, comm: object) -> dict[str, list[Seconds]]:
    """Seconds of each way, one entry a round; the first round warms up and is dropped."""
    sample = sampler(options.cells)
    common = {
        "steps": options.steps,
        "batch": options.batch,
        "device": "cpu",
        "warmup": 0,
        "validate_every": options.steps,
        "checkpoint_every": 10**9,
        "micro_batches": options.micro_batches,
    }
    specs = {mode: Training(**common, mode=mode) for mode in ("ordered", "ddp")}
    times: dict[str, list[Seconds]] = {"bare": [], **{mode: [] for mode in specs}}
    for _ in range(options.rounds + 1):
        times["bare"].append(bare(specs["ordered"], sample, options.width, comm))
        for mode, spec in specs.items():
            times[mode].append(ours(spec, sample, options.width, comm))
    return {name: rounds[1:] for name, rounds in times.items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--facts", type=Path, help="file to append the ratios to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    comm = world()
    times = measure(options, comm if comm.size > 1 else SerialComm())
    if comm.rank:
        return
    samples = options.steps * options.batch
    print(
        f"\n{options.rounds} rounds of {options.steps} steps, batch {options.batch}, "
        f"{options.cells}^2 cells, {comm.size} rank(s), torch {torch.__version__}\n"
    )
    print("| loop | samples/s | wall: bare / loop | cpu: bare / loop |")
    print("|---|---|---|---|")
    base = np.min(times["bare"], axis=0)
    for name, rounds in times.items():
        fastest = np.min(rounds, axis=0)
        wall, cpu = base / fastest
        print(f"| {name} | {samples / fastest[0]:.1f} | {wall:.3f} | {cpu:.3f} |")
        if options.facts and name != "bare":
            log = FactLog(options.facts, "benchmark", comm.size, mode=name)
            log.record("train.throughput.ratio", wall, clock="wall")
            log.record("train.throughput.ratio", cpu, clock="cpu")


if __name__ == "__main__":
    main()
