"""What would run: tiles, ranks, memory, traffic, disk. Arithmetic alone, nothing is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scaled_mpi.elliptic import EllipticExperiment
from scaled_mpi.ensemble import EnsembleExperiment
from scaled_mpi.experiment import AnyExperiment, Experiment
from scaled_mpi.generation import EnlargementExperiment, GenerationExperiment
from scaled_mpi.parallel.blocks import Blocks, Grid, make_blocks
from scaled_mpi.parallel.halo import expected_bytes, expected_messages, tile_bytes
from scaled_mpi.turing import TuringExperiment

FLOAT = 4  # bytes of a learned number
TORCH = 200e6  # bytes a rank that runs a network holds before its first tile


def describe(experiment: AnyExperiment, artefacts: Mapping[str, Any], ranks: int) -> str:
    """The text of `--dry-run`."""
    lines = [f"{experiment.name}: {experiment.title}".rstrip(": ")]
    if isinstance(experiment, EllipticExperiment):
        lines += _without_time(experiment, ranks)
    elif isinstance(experiment, EnsembleExperiment):
        lines += _members(experiment, ranks)
    elif isinstance(experiment, TuringExperiment):
        lines += _patterns(experiment, ranks)
    elif isinstance(experiment, GenerationExperiment):
        lines += _fields(experiment, ranks)
    elif isinstance(experiment, EnlargementExperiment):
        lines += _larger(experiment, ranks)
    elif experiment.simulator is not None:
        lines += _domain(experiment, ranks)
    else:
        lines.append(
            "  domain      as the files of the dataset say, tiles "
            + _times(experiment.domain.tile)
        )
    lines.append("  stages")
    for name, artefact in artefacts.items():
        state = "done before" if artefact.done else "to run"
        lines.append(f"    {name:10s}{state:13s}{artefact.path.name}")
    return "\n".join(lines)


def _without_time(experiment: EllipticExperiment, ranks: int) -> list[str]:
    lines = [
        f"  problem     {experiment.problem.kind}, tiles of {_times(experiment.domain.tile)}, "
        f"overlap {experiment.solving.overlap}, coarse space {experiment.solving.coarse.kind}"
    ]
    for lattice in experiment.domain.lattices:
        grid = experiment.problem.grid(experiment.shape(lattice))
        blocks = make_blocks(grid, experiment.domain.tile, ranks)
        crossing = expected_bytes(blocks, experiment.solving.overlap, 1, 8)
        lines.append(
            f"  domain      {_times(grid.shape)} cells = {math.prod(blocks.counts)} tiles; "
            f"{blocks.ranks} of {ranks} ranks, {crossing} bytes a halo exchange"
        )
    return lines


def _fields(experiment: GenerationExperiment, ranks: int) -> list[str]:
    lines = []
    for domain in experiment.generation.domains:
        blocks = make_blocks(domain.grid, domain.tile, ranks)
        lines.append(
            f"  domain      {_times(domain.shape)} cells = {math.prod(blocks.counts)} tiles of "
            f"{_times(domain.tile)}, {len(domain.lengths)} correlation lengths; {blocks.ranks} of "
            f"{ranks} ranks"
        )
    return lines


def _larger(experiment: EnlargementExperiment, ranks: int) -> list[str]:
    boxes, spec = experiment.boxes, experiment.generation
    blocks = make_blocks(Grid(spec.shape), spec.tile, ranks)
    return [
        f"  learned     from {boxes.samples} boxes of {_times(boxes.shape)} cells, windows of "
        + ", ".join(map(_times, spec.extents)),
        f"  domain      {_times(spec.shape)} cells = {math.prod(blocks.counts)} tiles of "
        f"{_times(spec.tile)}, {spec.samples} samples; {blocks.ranks} of {ranks} ranks",
    ]


def _patterns(experiment: TuringExperiment, ranks: int) -> list[str]:
    spec = experiment.patterns
    values = len(spec.presets) * spec.samples * 2 * spec.height * spec.width
    chunks = len(spec.chunks())
    return [
        f"  patterns    {', '.join(spec.presets)}: {spec.samples} samples of 2 x {spec.height} x "
        f"{spec.width} cells after {spec.steps} steps, {values / 2 * spec.steps:.2g} cell updates",
        f"  files       {chunks} of at most {spec.chunk} samples, dealt to {min(chunks, ranks)} "
        f"of {ranks} ranks; {FLOAT * values / 1e9:.2g} GB",
    ]


def _members(experiment: EnsembleExperiment, ranks: int) -> list[str]:
    members, cells = len(experiment.members()), math.prod(experiment.density.shape)
    particles = experiment.simulator.particles
    frames = sum(experiment.frames_of(member.kind) for member in experiment.members())
    stored = frames * 8 * (cells + 4 * particles)
    return [
        f"  members     {experiment.ensemble.training} to learn from, {experiment.ensemble.test} "
        f"to be forecast; {frames} frames of {particles} particles in all",
        f"  density     {_times(experiment.density.shape)} cells",
        f"  ranks       {ranks}, at most {-(-members // ranks)} members each"
        + ("" if experiment.launch == "local" else f"; members as jobs of {experiment.launch}"),
        f"  output      about {stored / 1e6:.0f} MB",
    ]


def _domain(experiment: Experiment, ranks: int) -> list[str]:
    grid, simulator = experiment.test_grid(), experiment.simulator
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
        f"  domain      {_times(grid.shape)} cells = {math.prod(blocks.counts)} tiles of "
        f"{_times(blocks.tile)}",
        f"  ranks       {blocks.ranks} of {ranks} own tiles, "
        f"{_times(blocks.split)} blocks, at most {_most_tiles(blocks)} tiles each",
        _learning(experiment),
        f"  halo        {_times(experiment.halo)} under a reach of {_times(experiment.reach)}; "
        + (
            "one exchange a jump"
            if _enough(experiment)
            else f"at most {experiment.coupling.sweeps} sweeps a jump"
        ),
        f"  exchange    {crossing} bytes in {expected_messages(latent, experiment.halo)} messages"
        f" ({tile_bytes(latent, experiment.halo, channels, FLOAT)} bytes if every tile were "
        "a rank)",
        f"  memory      about {_memory(experiment, blocks) / 1e6:.0f} MB a rank",
        f"  output      about {stored / 1e6:.0f} MB",
    ]


def _learning(experiment: Experiment) -> str:
    if not experiment.learns:
        return f"  weights     finished ones, {experiment.surrogate.weights}; nothing is learned"
    return (
        f"  learn from  {experiment.data.runs} runs of {_times(experiment.data.shape)}, "
        f"{experiment.data.frames} frames, {experiment.surrogate.jump} steps apart"
    )


def _enough(experiment: Experiment) -> bool:
    return all(h >= r for h, r in zip(experiment.halo, experiment.reach, strict=True))


def _most_tiles(blocks: Blocks) -> int:
    return max(len(blocks.tiles(rank)) for rank in range(blocks.ranks))


def _memory(experiment: Experiment, blocks: Blocks) -> float:
    """Interpreter and torch, the frames that wait to be written, and the windows of a march."""
    cells = max(math.prod(blocks.block(rank).size) for rank in range(blocks.ranks))
    frames = experiment.coupling.checkpoint + 2 * experiment.surrogate.memory + 4
    return TORCH + frames * cells * len(experiment.simulator.channels) * FLOAT


def _times(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))
