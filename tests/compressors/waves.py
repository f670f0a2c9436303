"""Fields with fronts, for compressors to learn: a closed form, so that any rank can make them."""

import numpy as np

from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter


def frame(shape, phase, kind):
    """Two channels (2, *shape): steep periodic fronts, and their blurred square."""
    axes = np.meshgrid(*[2 * np.pi * (np.arange(n) + 0.5) / n for n in shape], indexing="ij")
    waves = [np.sin((1 + (kind + i) % 2) * x + phase * (1 + 0.3 * i)) for i, x in enumerate(axes)]
    wave = sum(waves)
    front = np.tanh(3.0 * wave + np.sin(3 * axes[-1] + kind))
    return np.stack([0.5 + 0.3 * front, 0.1 * np.exp(-(wave**2))]).astype(np.float32)


def runs(folder, shape=(32, 32), count=4, frames=12, boundary="periodic"):
    """`count` stored runs; each is a different pattern that drifts."""
    grid = Grid(shape, 1.0, Boundary(boundary))
    blocks = make_blocks(grid, shape, 1)
    for run in range(count):
        with TrajectoryWriter(folder, f"train-{run:04d}", blocks, SerialComm(), ("u", "v")) as w:
            for t in range(frames):
                w.append(float(t), frame(shape, 0.4 * t + 1.7 * run, run))
    return [Trajectory(folder, f"train-{run:04d}") for run in range(count)]
