"""No compression: the latent field is the field. The baseline, and the default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from scaled_mpi.compressors.coders import Coder, Compressor
from scaled_mpi.config import InputError
from scaled_mpi.facts import EventLog
from scaled_mpi.files import seal, unseal, write_text
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.store import Trajectory

FILE, FORMAT = "identity.json", "scaled_mpi identity coder"


class Identity(Compressor):
    """The compressor of factor 1, without a training."""

    file: ClassVar[str] = FILE

    kind: Literal["identity"] = "identity"

    def fit(
        self,
        trajectories: Sequence[Trajectory],
        comm: Comm,
        folder: str | Path,
        events: EventLog | None,
        seed: int,
    ) -> None:
        """Note the number of axes in `folder`. Collective over `comm`."""
        if not trajectories:
            raise InputError(
                "data: 0 runs are not allowed: the compressor reads their axes. Allowed: 1 or more"
            )
        path = Path(folder) / FILE
        text = seal({"format": FORMAT, "axes": trajectories[0].grid.axes})
        on_root(comm, lambda: write_text(path, text))

    def load(self, folder: str | Path) -> IdentityCoder:
        """The coder of a folder that `fit` filled."""
        return IdentityCoder(unseal(Path(folder) / FILE, FORMAT)["axes"])


class IdentityCoder(Coder):
    """Returns its input, (C, *cells); factor 1, reach 0 on every axis."""

    def __init__(self, axes: int) -> None:
        self.factor = (1,) * axes
        self.encode_reach = self.decode_reach = (0,) * axes

    def channels(self, fields: int) -> int:
        """Latent channels for `fields` channels."""
        return fields

    def encode(self, field: np.ndarray) -> np.ndarray:
        """(C, *tile) as it is."""
        return field

    def decode(self, latent: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """(C, *tile) as it is."""
        return latent
