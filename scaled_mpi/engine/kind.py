"""A kind of experiment: all that the engine asks of one.

A kind is a folder in `scaled_mpi/experiments/`, or a module of another package under the
entry-point group `scaled_mpi.experiments`. Its `Kind` names its settings, stages and page; the
engine plans, runs, resumes and shows an experiment from these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaled_mpi.engine.artefacts import Artefact
from scaled_mpi.engine.context import Context

if TYPE_CHECKING:
    from scaled_mpi.report.page import Page

Found = Mapping[str, Artefact]  # artefacts by stage name
Export = Callable[[Any, Found, Path], Path]  # experiment, artefacts, folder to write -> folder
Command = Callable[[Any, Found, str, Callable[[str], None]], None]


@dataclass(frozen=True)
class Stage:
    """One step of a kind.

    `part(experiment, ranks)` is the part of the configuration that decides the result. `work` runs
    on all ranks. Raise `version` whenever results change. `shows`: a page follows the stage.
    `again`: a copied results folder holds all that the stage reads.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    part: Callable[[Any, int], dict[str, Any]]
    work: Callable[[Context], None]
    shows: bool = False
    again: bool = False


@dataclass(frozen=True)
class Kind:
    """One kind of experiment.

    `families` maps each key that chooses a member to the default member. `describe(experiment,
    ranks)` gives the lines of a dry run. `page(experiment, done)` gives the page of the finished
    stages. `commands` are further flags, `exports` further rows of `--export`.
    """

    name: str
    settings: type[Any]
    families: Mapping[str, str]
    stages: tuple[Stage, ...]
    describe: Callable[[Any, int], list[str]]
    page: Callable[[Any, Found], Page]
    commands: Mapping[str, Command] = field(default_factory=dict)
    exports: Mapping[str, Export] = field(default_factory=dict)

    @property
    def last(self) -> str:
        """Name of the last stage."""
        return self.stages[-1].name
