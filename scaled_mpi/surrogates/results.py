"""The surrogate in a results folder, read from its resolved configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaled_mpi import simulators, surrogates
from scaled_mpi.config import InputError, Spec, parse, read_yaml


@dataclass(frozen=True)
class FinishedForecast:
    """A finished forecast of a simulator: simulator, surrogate and place of the weights."""

    simulator: Any
    surrogate: Any
    compressor: str
    folder: Path

    @property
    def weights(self) -> Path:
        """The folder of the surrogate's weights."""
        return self.folder / "fit"


def finished_forecast(key: str, folder: str | Path) -> FinishedForecast:
    """Read a results folder such as outputs/ddm; `key` is the configuration's key that names it.

    Errors: `InputError` for a folder that holds no forecast of a simulator.
    """
    folder = Path(folder)
    tree = read_yaml(folder / "config.yaml")
    simulator = _block(simulators.MEMBERS, tree.get("simulator"))
    surrogate = _block(surrogates.MEMBERS, tree.get("surrogate"))
    compressor = tree.get("compressor")
    if simulator is None or surrogate is None or not isinstance(compressor, Mapping):
        raise InputError(
            f"{key}: {folder} is not allowed: not a forecast of a simulator. Allowed: a "
            "results folder such as outputs/ddm"
        )
    return FinishedForecast(simulator, surrogate, str(compressor.get("kind")), folder)


def _block(members: Mapping[str, type[Spec]], block: Any) -> Spec | None:
    """The member that a block of a resolved configuration is; None for another block."""
    kind = str(block.get("kind")) if isinstance(block, Mapping) else ""
    return parse(members[kind], block) if kind in members else None
