"""What the work of a stage is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaled_mpi.experiment import Experiment
from scaled_mpi.facts import FactLog
from scaled_mpi.parallel.blocks import Blocks, Grid, make_blocks
from scaled_mpi.parallel.comm import first_ranks


@dataclass(frozen=True)
class Context:
    """One stage at work: all ranks of `comm` call it together.

    `folder` is being filled and becomes the artefact by rename; `inputs` are finished artefacts by
    stage name; `say` prints a line on rank 0.
    """

    experiment: Experiment
    comm: Any
    folder: Path
    inputs: dict[str, Path]
    facts: FactLog
    say: Callable[[str], None]
    notes: dict[str, Any] = field(default_factory=dict)

    def blocks(self, grid: Grid, tile: tuple[int, ...]) -> tuple[Blocks, Any]:
        """The split of a grid for these ranks, and the communicator of those that own a block.

        The communicator is None on a rank without a block; collective.
        """
        blocks = make_blocks(grid, tile, self.comm.size)
        if blocks.ranks < self.comm.size:
            self.say(
                f"{blocks.ranks} of {self.comm.size} ranks own tiles "
                f"({' x '.join(map(str, blocks.counts))} tiles); the others wait"
            )
        return blocks, first_ranks(self.comm, blocks.ranks)
