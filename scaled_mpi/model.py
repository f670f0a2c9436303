"""A trained surrogate that advances fields of any domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaled_mpi.compressors.coders import Coder
from scaled_mpi.config import InputError
from scaled_mpi.coupling.forecasting import TiledDomain, begin, march_and_store
from scaled_mpi.coupling.schwarz import Sweeping
from scaled_mpi.labelled import Describing, as_dataset, fields_of
from scaled_mpi.parallel.blocks import handy_tile, whole_per_axis
from scaled_mpi.parallel.comm import Comm, world
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.scratch import check_unused, scratch_folder
from scaled_mpi.surrogates.operators import Operator

if TYPE_CHECKING:
    import xarray

    from scaled_mpi.labelled import Fields


@dataclass(frozen=True)
class Coupled:
    """How a model's tiles are coupled.

    `tile` in cells of the field, one entry an axis (None: the largest divisor of the domain from 8
    to 64). `halo` in cells of the latent grid (None: the surrogate's reach, one exchange a jump).
    With a shorter halo a jump is swept until the mismatch is below `tolerance`, at most `sweeps`
    times.
    """

    tile: Sequence[int] | None = None
    halo: int | Sequence[int] | None = None
    sweeps: int = 8
    tolerance: float = 0.02
    fixed: bool = False


@dataclass(frozen=True)
class Model:
    """A loaded surrogate with its coder; `advance` takes fields of any domain further.

    `span` is the time of one jump, `jump` its simulator steps; `seed` decides the noise of a
    stochastic surrogate. `known` describes the fields of the training.
    """

    operator: Operator
    coder: Coder
    jump: int
    span: float | None = None
    coupled: Coupled = field(default_factory=Coupled)
    known: Describing = field(default_factory=Describing)
    seed: int = 0

    @property
    def memory(self) -> int:
        """Past frames that a forecast starts from."""
        return self.operator.memory

    def advance(
        self,
        state: Fields,
        jumps: int = 1,
        *,
        member: int = 0,
        comm: Comm | None = None,
        folder: str | Path | None = None,
        **coupled: object,
    ) -> xarray.Dataset:
        """Return the forecast of `jumps` jumps from the last frames of `state`; collective.

        `state`: a dataset with dims (time, [z,] [y,] x) or an array (C, *cells) or (T, C, *cells)
        that ends with the newest frame; at least `memory` frames. Its domain must be a multiple of
        the tile. `coupled` replaces keys of `Coupled`, such as halo=6. Fields are float32, lazy,
        and lie in `folder` (None: one that goes when Python ends). Errors: `InputError`.
        """
        comm = comm or world()
        place = scratch_folder(folder, comm)
        (truth,) = _one(fields_of(state, place, "state", comm, self.known))
        return self.march(truth, len(truth) - 1, jumps, place, comm, member, coupled)

    def march(
        self,
        truth: Trajectory,
        start: int,
        jumps: int,
        folder: Path,
        comm: Comm,
        member: int = 0,
        coupled: Mapping[str, Any] | None = None,
    ) -> xarray.Dataset:
        """As `advance`, from frame `start` of a stored trajectory; collective."""
        how = replace(self.coupled, **{k: v for k, v in (coupled or {}).items() if v is not None})
        self._check(truth, start, jumps)
        tile = tuple(how.tile) if how.tile is not None else handy_tile(truth.grid.shape)
        domain = TiledDomain.of(truth, self.coder, self._tile(truth, tile), start, comm)
        name = "forecast" if not member else f"forecast-{member:04d}"
        check_unused(folder, [name], comm)
        if domain is not None:
            domain = replace(domain, span=self.span)
            sweeping = Sweeping(how.sweeps, how.tolerance, how.fixed)
            halo = self._halo(how, domain)
            begun = begin(domain, self.operator, halo, sweeping, self.seed, member)
            march_and_store(folder, name, domain, begun, jumps)
        comm.Barrier()
        return as_dataset(Trajectory(folder, name))

    def _check(self, truth: Trajectory, start: int, jumps: int) -> None:
        if jumps < 1:
            raise InputError(f"jumps: {jumps} is not allowed: too few. Allowed: 1 or more.")
        if start + 1 < self.memory:
            raise InputError(
                f"state: {start + 1} frames are not allowed: the surrogate reads {self.memory}. "
                f"Allowed: {self.memory} frames or more."
            )
        channels = self.known.channels
        if channels is not None and len(channels) != truth.shape[1]:
            raise InputError(
                f"state: {truth.shape[1]} channels are not allowed: not those of the training. "
                f"Allowed: {len(channels)}, {', '.join(channels)}."
            )
        if truth.grid.axes != len(self.operator.reach):
            raise InputError(
                f"state: {truth.grid.axes} axes are not allowed: not those of the training. "
                f"Allowed: {len(self.operator.reach)}."
            )

    def _tile(self, truth: Trajectory, tile: tuple[int, ...]) -> tuple[int, ...]:
        """The tile, where it divides the domain and the coder's factor divides it."""
        shape = truth.grid.shape
        if len(tile) != len(shape) or any(n % t for n, t in zip(shape, tile, strict=True)):
            raise InputError(
                f"tile: {list(tile)} is not allowed: it does not divide the domain {list(shape)}. "
                "Allowed: divisors of the domain, one an axis."
            )
        if any(t % f for t, f in zip(tile, self.coder.factor, strict=True)):
            raise InputError(
                f"tile: {list(tile)} is not allowed: no multiple of the compressor's factor. "
                f"Allowed: multiples of {list(self.coder.factor)}."
            )
        return tile

    def _halo(self, how: Coupled, domain: TiledDomain) -> tuple[int, ...]:
        """The halo in latent cells, at most a tile."""
        axes, reach = len(domain.latent.tile), self.operator.reach
        halo = tuple(reach) if how.halo is None else whole_per_axis("halo", how.halo, axes, 0)
        if any(max(h, r) > t for h, r, t in zip(halo, reach, domain.latent.tile, strict=True)):
            raise InputError(
                f"halo: {list(halo)} with reach {list(reach)} is not allowed: wider than a tile. "
                f"Allowed: at most {list(domain.latent.tile)} latent cells."
            )
        return halo


def _one(runs: Sequence[Trajectory]) -> Sequence[Trajectory]:
    if len(runs) != 1:
        raise InputError(
            f"state: {len(runs)} runs are not allowed: a forecast follows one. Allowed: one run."
        )
    return runs
