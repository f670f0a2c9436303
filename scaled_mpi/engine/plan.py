"""The text of a dry run: arithmetic alone, nothing is written."""

from __future__ import annotations

from scaled_mpi.engine.kind import Found, Kind
from scaled_mpi.engine.settings import ExperimentSpec


def describe(kind: Kind, experiment: ExperimentSpec, artefacts: Found, ranks: int) -> str:
    """The text of `--dry-run`: the kind's own lines, then every stage and its artefact."""
    lines = [f"{experiment.name}: {experiment.title}".rstrip(": ")]
    lines += kind.describe(experiment, ranks)
    lines.append("  stages")
    for name, artefact in artefacts.items():
        state = "done before" if artefact.done else "to run"
        lines.append(f"    {name:10s}{state:13s}{artefact.path.name}")
    return "\n".join(lines)


def times(numbers: tuple[int, ...]) -> str:
    """Cells by axis as a person writes them, such as 64 x 64."""
    return " x ".join(map(str, numbers))
