"""Experiments on tiled generation of Gaussian fields, whose covariance is known.

    generate -> report

Gaussian fields have a covariance in closed form and exact denoisers. So the experiment measures
the effect of a fusion of tiles on the statistics of the whole alone: without a network, training
or sampling error. Every block is a key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, undecisive
from scaled_mpi.coupling.generation import Fusion, check_fusion
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.learning.schedules import AnySchedule, VariancePreserving
from scaled_mpi.parallel.blocks import Blocks, Grid

Kernel = Literal["squared_exponential", "exponential"]


class Large(Spec):
    """One periodic domain: its shape, tiles and windows, and the correlation lengths, in cells.

    `halo` belongs to the fusion crop, `overlap` to the other fusions. Each of `fusions` is
    measured without a coarse level at the lengths `compared` (empty: at all lengths).
    """

    shape: tuple[PositiveInt, ...] = (512,)
    tile: tuple[PositiveInt, ...] = (64,)
    halo: NonNegativeInt = 16
    overlap: NonNegativeInt = 32
    lengths: tuple[PositiveFloat, ...] = Field(default=(8.0, 16.0, 32.0, 64.0), min_length=1)
    fusions: tuple[Fusion, ...] = ("crop", "average", "window", "collage")
    compared: tuple[PositiveFloat, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Large:
        Blocks(self.grid, self.tile, (1,) * len(self.shape))  # refuses tiles that do not divide
        for fusion in ("crop", *self.fusions):
            check_fusion(fusion, self.tile, self.halo, self.overlap)
        for length in self.compared:
            if length not in self.lengths:
                raise InputError(
                    f"generation.compared: {length:g} is not allowed: it is not in lengths. "
                    f"Allowed: {', '.join(f'{allowed:g}' for allowed in self.lengths)}"
                )
        return self

    @property
    def grid(self) -> Grid:
        """Grid of the periodic domain."""
        return Grid(self.shape)

    def block(self, length: float) -> int:
        """Return cells an axis of a coarse block: the largest divisor of tile <= length / 4."""
        fits = [
            n
            for n in range(1, min(self.tile) + 1)
            if n <= length / 4 and all(tile % n == 0 for tile in self.tile)
        ]
        return max(fits, default=1)


class Generation(Spec):
    """Domains, covariances (`kernels`) and sampler of the fields; samplers are deterministic."""

    domains: tuple[Large, ...] = Field(default=(Large(),), min_length=1)
    kernels: tuple[Kernel, ...] = Field(
        default=("squared_exponential", "exponential"), min_length=1
    )
    sampler: Literal["ddim", "euler", "heun"] = "heun"
    steps: Annotated[int, Field(ge=2)] = 40


class GaussianExperiment(ExperimentSpec):
    """One experiment on generation, every key typed."""

    kind: Literal["gaussian"] = "gaussian"
    launch: Literal["local"] = undecisive("local")
    generation: Generation
    schedule: AnySchedule = VariancePreserving(zero_terminal_snr=True, sigma_min=0.01)
