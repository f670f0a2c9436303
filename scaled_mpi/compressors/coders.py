"""The two contracts of a compressor: the block of YAML, and the coder that it loads.

A latent field is again a field, `factor` times coarser. A coder works on one tile with the cells
around it that it reads; `crop(encode(whole)) == encode(tile and ring)`, so there are no seams:

    class Average(Coder):
        factor, encode_reach, decode_reach = (2, 2), (0, 0), (0, 0)

        def channels(self, fields):
            return fields

        def encode(self, field):
            channels, rows, columns = field.shape
            return field.reshape(channels, rows // 2, 2, columns // 2, 2).mean((2, 4))

        def decode(self, latent):
            return latent.repeat(2, 1).repeat(2, 2)

Other members of the contract have a default here: no noise, no scores and no price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.given_weights import TrainedPart
from scaled_mpi.learning.locality import cut_violations
from scaled_mpi.parallel.blocks import whole_per_axis
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.plugins import block_violations, missing

CELLS = 4  # latent cells an axis of the smaller tile of a check


class Coder(Protocol):
    """A loaded compressor. Lengths are one whole number an axis.

    One latent cell stands for `factor` cells of the field. Around a tile `encode` reads
    `encode_reach` cells of the field, `decode` reads `decode_reach` latent cells. `decode` takes
    `noises` channels of white noise, decided by `seed`. `scores` are errors on held-out runs.
    `bits` is the price of one latent cell, None for all bits of its numbers.
    """

    factor: tuple[int, ...]
    encode_reach: tuple[int, ...]
    decode_reach: tuple[int, ...]
    noises: int = 0
    seed: int = 0
    bits: float | None = None
    scores: Mapping[str, float] = MappingProxyType({})

    def channels(self, fields: int) -> int:
        """Return the latent channels for `fields` channels. Errors: `InputError` for others."""
        ...

    def encode(self, field: np.ndarray) -> np.ndarray:
        """Return the latent field (c, *latent) of a tile (C, *cells), in the same type.

        latent = tile / factor, cells = tile + 2 encode_reach.
        """
        ...

    def decode(self, latent: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Return the tile (C, *tile) of a latent field (c, *latent), in the same type.

        latent = tile / factor + 2 decode_reach. noise (noises, *cells) on cells = latent factor
        is given where `noises` > 0; None leaves it out.
        """
        ...


class Compressor(TrainedPart):
    """The block of YAML of a compressor; its fields are its keys. A member adds `kind: Literal`.

    `weights`: a results folder or a shipped name, in place of a training.
    """

    if TYPE_CHECKING:

        @property
        def kind(self) -> str:
            """Name of the member in YAML."""

    def fit(
        self,
        trajectories: Sequence[Trajectory],
        comm: Comm,
        folder: str | Path,
        events: EventLog | None,
        seed: int,
    ) -> None:
        """Fit to stored runs and leave the coder in `folder`; collective over `comm`.

        `events` logs the training; `seed` decides every random number. Errors: `InputError` for
        runs that cannot be used.
        """
        raise TypeError(f"{type(self).__name__}: fit is missing")

    def load(self, folder: str | Path) -> Coder:
        """Return the coder of a folder that `fit` filled. Errors: `InputError`."""
        raise TypeError(f"{type(self).__name__}: load is missing")

    def _check_taken(self, folder: Path, source: Path, seen: Mapping[str, Any] | None) -> None:
        """Raise `InputError` where a coder has another factor or reach, or other channels."""
        coder = load_coder(self, folder)
        axes = len(coder.factor)
        if seen is not None:
            coder.channels(seen["channels"])
            if seen["axes"] != axes:
                raise InputError(
                    f"{source}: it codes {axes} axes. Needed: a coder of {seen['axes']} axes"
                )
        for key, trained, wanted in (
            ("factor", coder.factor, self.cells(axes)),
            ("decode_reach", coder.decode_reach, self.decode_reach(axes)),
        ):
            if tuple(trained) != tuple(wanted):
                raise InputError(
                    f"compressor.{key}: {list(wanted)} is not allowed: {source} was trained with "
                    f"another. Allowed: {list(trained)}"
                )

    def cells(self, axes: int) -> tuple[int, ...]:
        """Return the cells of the field for one latent cell, one number an axis: `factor`."""
        return whole_per_axis("compressor.factor", getattr(self, "factor", 1), axes, 1)

    def decode_reach(self, axes: int) -> tuple[int, ...]:
        """Return the latent cells that the decoder reads around a tile, one number an axis."""
        return (0,) * axes


def load_coder(compressor: Compressor, folder: str | Path) -> Coder:
    """Return the coder of a compressor's folder, with the contract checked.

    Errors: `InputError` for a folder that cannot be used, and one line that names each missing
    attribute of the coder.
    """
    return checked_coder(compressor.load(folder))


def checked_coder(coder: Coder) -> Coder:
    """Return `coder` if it has every attribute of the contract. Errors: `InputError`."""
    absent = missing(coder, (*_OWN, "noises", "seed", "bits", "scores"))
    if absent:
        raise InputError(
            f"compressor: {type(coder).__name__} is not allowed: {'; '.join(absent)}. "
            "Allowed: a class that inherits from scaled_mpi.compressors.coders.Coder"
        )
    return coder


_OWN = ("factor", "encode_reach", "decode_reach", "channels", "encode", "decode")


def member_violations(member: object) -> list[str]:
    """Return faults of the class of a compressor's block, one line each; it is not built."""
    return block_violations(member, Compressor, ("fit", "load"))


def violations(coder: Coder, fields: int = 1, seed: int = 0) -> list[str]:
    """Return violations of the contract by a coder, one line each; none for one that keeps it.

    `fields`: channels of the field. Two neighbouring tiles are cut out of a random field, coded
    and decoded; they must equal the same cells of one tile that holds both.
    """
    try:
        checked_coder(coder)
    except InputError as error:
        return [str(error)]
    name, axes = type(coder).__name__, len(coder.factor)
    if len(coder.encode_reach) != axes or len(coder.decode_reach) != axes:
        return [f"{name}: factor, encode_reach and decode_reach differ in their number of axes"]
    random, latents = np.random.default_rng(seed), coder.channels(fields)
    small = (2 * CELLS, *[CELLS] * (axes - 1))  # latent cells of a tile
    tile = tuple(n * f for n, f in zip(small, coder.factor, strict=True))

    def drawn(channels: int, cells: Sequence[int], reach: Sequence[int]) -> np.ndarray:
        shape = [n + 2 * r for n, r in zip(cells, reach, strict=True)]
        return random.random((channels, *shape), dtype=np.float32)

    field = drawn(fields, tile, coder.encode_reach)
    coded = cut_violations(coder.encode, [(field, coder.encode_reach[0])], (latents, *small))
    inputs = [(drawn(latents, small, coder.decode_reach), coder.decode_reach[0])]
    if coder.noises:
        ring = [r * f for r, f in zip(coder.decode_reach, coder.factor, strict=True)]
        inputs.append((drawn(coder.noises, tile, ring), ring[0]))
    decoded = cut_violations(coder.decode, inputs, (fields, *tile))
    return [f"{name}: encode {line}" for line in coded] + [
        f"{name}: decode {line}" for line in decoded
    ]
