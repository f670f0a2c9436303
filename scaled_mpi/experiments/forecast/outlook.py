"""Sizes of a forecast before it runs: tiles, memory, traffic, disk."""

from __future__ import annotations

import math

from scaled_mpi.engine.plan import times
from scaled_mpi.experiments.forecast.settings import ForecastExperiment
from scaled_mpi.parallel.blocks import Blocks, make_blocks
from scaled_mpi.parallel.halo import expected_bytes, expected_messages, tile_bytes
from scaled_mpi.simulators.contract import Simulator

FLOAT = 4  # bytes of a learned number
TORCH = 200e6  # bytes a rank that runs a network holds before its first tile


def describe(experiment: ForecastExperiment, ranks: int) -> list[str]:
    """Return the lines of a dry run."""
    if experiment.simulator is None:
        tile = times(experiment.domain.tile)
        return [f"  domain      of the dataset's files, tiles of {tile}"]
    return _domain(experiment, experiment.simulator, ranks)


def _domain(experiment: ForecastExperiment, simulator: Simulator, ranks: int) -> list[str]:
    grid = experiment.test_grid()
    blocks = make_blocks(grid, experiment.domain.tile, ranks)
    latent = blocks.coarsen(experiment.factor)
    channels = len(simulator.channels)
    crossing = expected_bytes(latent, experiment.halo, channels, FLOAT)
    frames = experiment.history + experiment.coupling.jumps
    compared = 6 * min(experiment.coupling.compare, experiment.coupling.jumps)
    training = experiment.data.runs * experiment.data.frames * math.prod(experiment.data.shape)
    training *= experiment.learns
    stored = (
        channels
        * FLOAT
        * (training + (frames + experiment.coupling.jumps + compared) * math.prod(grid.shape))
    )
    return [
        f"  domain      {times(grid.shape)} cells = {math.prod(blocks.counts)} tiles of "
        f"{times(blocks.tile)}",
        f"  ranks       {blocks.ranks} of {ranks} own tiles, "
        f"{times(blocks.split)} blocks, at most {_most_tiles(blocks)} tiles each",
        _learning(experiment),
        f"  halo        {times(experiment.halo)} under a reach of {times(experiment.reach)}; "
        + (
            "one exchange a jump"
            if _enough(experiment)
            else f"at most {experiment.coupling.sweeps} sweeps a jump"
        ),
        f"  exchange    {crossing} bytes in {expected_messages(latent, experiment.halo)} messages"
        f" ({tile_bytes(latent, experiment.halo, channels, FLOAT)} bytes if every tile were "
        "a rank)",
        f"  memory      about {_memory(experiment, blocks, channels) / 1e6:.0f} MB a rank",
        f"  output      about {stored / 1e6:.0f} MB",
    ]


def _learning(experiment: ForecastExperiment) -> str:
    if not experiment.learns:
        return f"  weights     finished ones of {experiment.surrogate.weights}, no training"
    return (
        f"  learn from  {experiment.data.runs} runs of {times(experiment.data.shape)}, "
        f"{experiment.data.frames} frames, {experiment.surrogate.jump} steps apart"
    )


def _enough(experiment: ForecastExperiment) -> bool:
    return all(h >= r for h, r in zip(experiment.halo, experiment.reach, strict=True))


def _most_tiles(blocks: Blocks) -> int:
    return max(len(blocks.tiles(rank)) for rank in range(blocks.ranks))


def _memory(experiment: ForecastExperiment, blocks: Blocks, channels: int) -> float:
    """Interpreter and torch, the frames that wait to be written, and the windows of a march."""
    cells = max(math.prod(blocks.block(rank).size) for rank in range(blocks.ranks))
    frames = experiment.coupling.checkpoint + 2 * experiment.surrogate.memory + 4
    return TORCH + frames * cells * channels * FLOAT
