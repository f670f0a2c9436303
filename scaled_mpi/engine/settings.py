"""The keys that experiments of every kind share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from scaled_mpi.config import Spec, undecisive


class ExperimentSpec(Spec):
    """One experiment. A kind adds its blocks and its own `kind`, and checks them together.

    `kind` names the folder in `experiments/` that runs it. `launch` says where independent parts
    run: on the ranks (local), on processes (dask), or as jobs of a scheduler. `machine` names a
    site. None of `kind`, `name`, `title`, `launch`, `machine` decides a result.
    """

    kind: str
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    title: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    launch: str = undecisive("local")
    machine: str | None = undecisive(None)

    def with_steps(self) -> Self:
        """Return the experiment with every `training.epochs` turned into steps.

        Errors: `InputError` where the number of samples is not known before the run.
        """
        return self

    def at(self, root: Path) -> Self:
        """Return the experiment with its relative paths of data below `root`."""
        return self
