"""Files of local problems of running solves: the training data of a learned solver.

One `residuals-0000.npz` a solve:

    diagonal  (n, *window)        float32   of the n tiles of that solve
    high      (n, axes, *window)  float32   couplings with the next cell along each axis
    residual  (m, *window)        float32   right-hand sides of local problems, each of norm 1
    tile      (m,)                int32     number of the tile of each
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.files import put_in_place
from scaled_mpi.problems.tile_matrices import TileOperators

PATTERN = "residuals-*.npz"


def write_residuals(
    folder: Path,
    number: int,
    operators: TileOperators,
    residuals: Sequence[np.ndarray],
    tiles: Sequence[int],
) -> None:
    """Write the residuals (n, *window) of one solve, whole or not at all."""
    path = folder / f"residuals-{number:04d}.npz"
    draft = path.with_suffix(".draft")
    with open(draft, "wb") as file:
        np.savez(
            file,
            diagonal=operators.diagonal.astype(np.float32),
            high=np.stack(operators.high, axis=1).astype(np.float32),
            residual=np.stack(residuals).astype(np.float32),
            tile=np.array(tiles, np.int32),
        )
    put_in_place(draft, path)


class Residuals:
    """All local problems of the files, in memory: `diagonal`, `high`, `residual`, `tile`."""

    def __init__(self, files: Sequence[Path]) -> None:
        if not files:
            raise InputError(
                "residuals: 0 files are not allowed: the solver learns from them. Allowed: 1 "
                "or more"
            )
        parts: dict[str, list[np.ndarray]] = {}
        tiles = 0
        for path in files:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in ("diagonal", "high", "residual", "tile")}
            found["tile"] = found["tile"] + tiles
            tiles += len(found["diagonal"])
            for name, values in found.items():
                parts.setdefault(name, []).append(values)
        shapes = {values.shape[1:] for values in parts["residual"]}
        if len(shapes) > 1:
            raise InputError(
                f"residuals: windows of {sorted(shapes)} are not allowed: a batch has one "
                "shape. Allowed: one shape"
            )
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        self.diagonal, self.high = joined["diagonal"], joined["high"]
        self.residual, self.tile = joined["residual"], joined["tile"]

    def __len__(self) -> int:
        return len(self.residual)

    def batch(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Return local problems (m, *window) by their numbers (m, ), with their matrices."""
        tile = self.tile[chosen]
        return {
            "diagonal": self.diagonal[tile],
            "high": self.high[tile],
            "residual": self.residual[chosen],
        }


def residual_files(folder: Path) -> list[Path]:
    """The files of a folder, in order."""
    return sorted(folder.glob(PATTERN))
