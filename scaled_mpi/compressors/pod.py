"""POD: a field on tiles as a few coefficients a tile, the best linear code of the training runs.

A snapshot is one tile of one frame, x (n,) with n = channels x cells of a tile. With the mean mu
and the orthonormal modes Phi (n, r) of largest variance (Lumley 1967; Sirovich 1987)

    z = Phi' (x - mu),        x ~ mu + Phi z.

The latent field has r channels and one cell a tile, so that a POD of the whole domain is the case
of one tile. Modes of snapshots of equal mass sum to zero: then every decoded field has that mass,
to rounding. With `transform` = sqrt the code is of sqrt(x + 1e-10), which keeps densities positive
but not their mass. `mass` restores it: rescale (by a factor) or simplex. The latter is the nearest
field that is not negative and has the mass (Duchi et al. 2008,
https://doi.org/10.1145/1390156.1390191). With `align` periodic the code is of the field moved onto
a reference. The first latent channels then hold its shift (`alignment.py`).

The shorter side of the snapshot matrix decides. With fewer snapshots than cells the cells are
spread over the ranks (method of snapshots), else the snapshots. Neither is ever gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.compressors.alignment import (
    aligned,
    common_reference,
    moved,
    phases,
    shift_from,
    shift_of,
)
from scaled_mpi.compressors.coders import Coder, Compressor
from scaled_mpi.compressors.snapshot_matrix import SnapshotMatrix, from_snapshots, to_snapshots
from scaled_mpi.config import InputError
from scaled_mpi.facts import EventLog
from scaled_mpi.parallel.arrays import load_arrays, save_arrays
from scaled_mpi.parallel.blocks import Grid, whole_per_axis
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.store import Trajectory

FILE = "pod.h5"
FLOOR = 1e-10  # added under the root
SMALLEST = 1e-8  # of the first singular value: below, the Gram matrix knows nothing


class Pod(Compressor):
    """POD on tiles of `factor` cells; keeps `rank` modes, or as many as hold `energy`.

    `normalise` divides each channel by its standard deviation first, for channels of different
    units. `mass` other than "free" needs one tile that is the whole domain, `align` also a
    periodic one.
    """

    file: ClassVar[str] = FILE

    kind: Literal["pod"] = "pod"
    factor: PositiveInt | tuple[PositiveInt, ...] = 16
    rank: PositiveInt | None = None
    energy: Annotated[float, Field(gt=0, le=1)] = 0.995
    method: Literal["gram", "tsqr", "randomized"] = "gram"
    normalise: bool = False
    transform: Literal["none", "sqrt"] = "none"
    mass: Literal["free", "rescale", "simplex"] = "free"
    align: Literal["none", "periodic"] = "none"

    @model_validator(mode="after")
    def _enough_said(self) -> Pod:
        if self.method == "randomized" and self.rank is None:
            raise InputError(
                "compressor.rank: None is not allowed: method randomized sketches a fixed "
                "rank. Allowed: 1 or more"
            )
        return self

    def fit(
        self,
        trajectories: Sequence[Trajectory],
        comm: Comm,
        folder: str | Path,
        events: EventLog | None,
        seed: int,
    ) -> None:
        """Find mean and modes of stored runs and leave them in `folder`. Collective.

        Errors: `InputError` for a rank above the number of snapshots, or tiles that do not fit.
        """
        runs = list(trajectories)
        if not runs:
            raise InputError(
                "data: 0 runs are not allowed: the compressor learns from them. Allowed: 1 or more"
            )
        grid = runs[0].grid
        factor = whole_per_axis("compressor.factor", self.factor, grid.axes, 1)
        if any(n % f for n, f in zip(grid.shape, factor, strict=True)):
            raise InputError(
                f"compressor.factor: {list(factor)} is not allowed: such tiles do not divide "
                f"the domain {list(grid.shape)}. Allowed: divisors, one an axis"
            )
        self._check_whole(grid, factor)
        reference, forward = self._reference(runs, comm), self._forward
        if reference is not None:

            def forward(field: np.ndarray) -> np.ndarray:
                return aligned(self._forward(field), reference)

        shots = SnapshotMatrix(runs, factor, comm, forward, self.normalise)
        self._check_rank(shots.count)
        values, modes, total = shots.modes(self.method, self._wanted, seed)
        pod = PodModel(
            modes,
            shots.mean,
            values,
            total,
            factor,
            spread=shots.spread,
            fields=runs[0].shape[1],
            mass=shots.mass,
            transform=self.transform,
            restore=self.mass,
            reference=reference,
            snapshots=shots.count,
        )
        on_root(comm, lambda: save_pod(Path(folder), pod))

    def load(self, folder: str | Path) -> PodCoder:
        """The coder of a folder that `fit` filled."""
        return PodCoder(Path(folder) / FILE)

    def cells(self, axes: int) -> tuple[int, ...]:
        """Return the cells of a tile, one number an axis."""
        return whole_per_axis("compressor.factor", self.factor, axes, 1)

    def _check_whole(self, grid: Grid, factor: tuple[int, ...]) -> None:
        whole = factor == grid.shape
        if self.mass != "free" and not whole:
            raise InputError(
                f"compressor.mass: {self.mass} is not allowed: a tile {list(factor)} is not the "
                f"whole domain {list(grid.shape)}. Allowed: free"
            )
        periodic = all(boundary.periodic for boundary in grid.boundary)
        if self.align == "periodic" and not (whole and periodic):
            raise InputError(
                f"compressor.align: periodic is not allowed: a tile {list(factor)} is not the "
                f"whole of a periodic domain {list(grid.shape)}. Allowed: none"
            )

    def _reference(self, runs: list[Trajectory], comm: Comm) -> np.ndarray | None:
        """What fields are moved onto, (C, *cells), or None."""
        if self.align == "none":
            return None
        frames = [(run, frame) for run in runs for frame in range(len(run))]

        def read(number: int) -> np.ndarray:
            run, frame = frames[number]
            return self._forward(run.read(frame).astype(np.float64))

        return common_reference(read, len(frames), comm)

    def _check_rank(self, count: int) -> None:
        if self.rank is not None and self.rank > count - 1:
            raise InputError(
                f"compressor.rank: {self.rank} is not allowed: there are {count} snapshots. "
                f"Allowed: at most {count - 1}"
            )

    def _forward(self, field: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(field, 0.0) + FLOOR) if self.transform == "sqrt" else field

    def _wanted(self, values: np.ndarray, total: float) -> int:
        """How many modes to keep, out of all singular values and the sum of their squares."""
        real = max(1, int(np.count_nonzero(values > SMALLEST * values[0])))
        if self.rank is not None:
            if self.rank > real:
                raise InputError(
                    f"compressor.rank: {self.rank} is not allowed: the further modes are zero. "
                    f"Allowed: at most {real}"
                )
            return self.rank
        held = np.cumsum(values**2) / total if total > 0 else np.ones(len(values))
        return min(real, int(np.searchsorted(held, self.energy - 1e-15)) + 1)


@dataclass(frozen=True)
class PodModel:
    """A POD of snapshots of n numbers: r modes (n, r), mean (n,) and singular values (k,).

    `total` is the sum of all squared singular values. Snapshots are divided by `spread` (n,), and
    fields are moved onto `reference` (C, *cells), where these are given. `fields` counts the
    channels, `mass` is the sum over a raw snapshot; `restore` and `transform` are keys of `Pod`.
    """

    modes: np.ndarray
    mean: np.ndarray
    singular_values: np.ndarray
    total: float
    factor: Sequence[int]
    spread: np.ndarray | None = None
    fields: int = 1
    mass: float | None = None
    transform: str = "none"
    restore: str = "free"
    reference: np.ndarray | None = None
    snapshots: int | None = None


def save_pod(folder: Path, pod: PodModel) -> None:
    """Leave a POD in `folder` for `PodCoder`."""
    arrays = {
        "singular_values": pod.singular_values,
        "modes": pod.modes,
        "mean": pod.mean,
        "spread": np.ones(len(pod.mean)) if pod.spread is None else pod.spread,
    }
    if pod.reference is not None:
        arrays["reference"] = pod.reference
    told = {
        "factor": list(pod.factor),
        "fields": pod.fields,
        "mass": pod.mass,
        "transform": pod.transform,
        "restore": pod.restore,
        "snapshots": pod.snapshots,
        "total": pod.total,
    }
    save_arrays(folder / FILE, arrays, told)


class PodCoder(Coder):
    """Mean and modes, applied one tile a call. `modes` (n, r), `mean` (n,), `energy` held.

    `shifts` latent channels, cos and sin an axis where fields are aligned, precede the modes'.
    They have the size of the first mode's, so that none is lost where leading channels are kept.
    """

    def __init__(self, path: Path) -> None:
        arrays, meta = load_arrays(path)
        self.modes, self.mean, self.spread = arrays["modes"], arrays["mean"], arrays["spread"]
        self.singular_values = arrays["singular_values"]
        self.factor: tuple[int, ...] = tuple(meta["factor"])
        self.fields: int = meta["fields"]
        self.transform, self.restore, self.mass = meta["transform"], meta["restore"], meta["mass"]
        self.rank = self.modes.shape[1]
        kept = float(np.sum(self.singular_values[: self.rank] ** 2))
        self.energy = kept / meta["total"] if meta["total"] > 0 else 1.0
        self.encode_reach = self.decode_reach = (0,) * len(self.factor)
        self.reference = arrays.get("reference")
        self.shifts = 0 if self.reference is None else 2 * len(self.factor)
        if self.shifts:
            self.size = float(self.singular_values[0] / max(meta["snapshots"], 1) ** 0.5) or 1.0

    def channels(self, fields: int) -> int:
        """Latent channels for `fields` channels, as many as in the training."""
        if fields != self.fields:
            raise InputError(
                f"compressor: {fields} channels are not allowed: it was trained on others. "
                f"Allowed: {self.fields}"
            )
        return self.shifts + self.rank

    def encode(self, field: np.ndarray) -> np.ndarray:
        """(C, *tile) to (r, *(tile / factor)), in the type of `field`."""
        x = field.astype(np.float64)
        if self.transform == "sqrt":
            x = np.sqrt(np.maximum(x, 0.0) + FLOOR)
        shift = None
        if self.reference is not None:
            shift = shift_of(x, self.reference)
            x = moved(x, (-n for n in shift))
        places, shots = to_snapshots(x, self.factor)
        code = ((shots - self.mean) / self.spread) @ self.modes
        if shift is not None:
            code = np.hstack([self.size * phases(shift, self.factor)[None], code])
        return np.ascontiguousarray(code.T).reshape(-1, *places).astype(field.dtype)

    def decode(self, latent: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """(r, *(tile / factor)) to (C, *tile), in the type of `latent`."""
        places = latent.shape[1:]
        code = latent.reshape(self.shifts + self.rank, -1).T.astype(np.float64)
        turned, code = code[:, : self.shifts], code[:, self.shifts :]
        shots = self.mean + self.spread * (code @ self.modes.T)
        field = from_snapshots(shots, places, self.factor, self.fields)
        if self.transform == "sqrt":
            field = np.maximum(np.maximum(field, 0.0) ** 2 - FLOOR, 0.0)
        if self.shifts:
            field = moved(field, shift_from(turned[0], self.factor))
        return self._with_mass(field).astype(latent.dtype)

    def _with_mass(self, field: np.ndarray) -> np.ndarray:
        if self.restore == "rescale":
            return field * (self.mass / field.sum())
        if self.restore == "simplex":
            return onto_simplex(field.ravel(), self.mass).reshape(field.shape)
        return field


def onto_simplex(values: np.ndarray, mass: float) -> np.ndarray:
    """The nearest point to `values` (n,) with no negative entry and the sum `mass`."""
    falling = np.sort(values)[::-1]
    excess = np.cumsum(falling) - mass
    support = int(np.count_nonzero(falling > excess / np.arange(1, len(values) + 1)))
    return np.maximum(values - excess[support - 1] / support, 0.0)
