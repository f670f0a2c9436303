"""The surroundings of a stage at work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.facts import EventLog, FactLog
from scaled_mpi.parallel.blocks import Blocks, Grid, make_blocks
from scaled_mpi.parallel.comm import first_ranks

Settings = TypeVar("Settings", bound=ExperimentSpec)


@dataclass(frozen=True)
class Context(Generic[Settings]):
    """One stage at work: all ranks of `comm` call it together.

    `folder` is being filled and becomes the artefact by rename; `inputs` are finished artefacts by
    stage name; `say` prints a line on rank 0.
    """

    experiment: Settings
    comm: Any
    folder: Path
    inputs: dict[str, Path]
    facts: FactLog
    say: Callable[[str], None]

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

    def events(self, folder: Path | None = None, label: str = "") -> EventLog:
        """Return the event log of this stage's training, or of one in a folder within it.

        `label` names one of several trainings of the stage.
        """
        folder = folder or self.folder
        run = f"{self.experiment.name}-{label or self.folder.stem}"
        return EventLog(folder, run, self.experiment.seed, self.comm.rank, self.comm.size)
