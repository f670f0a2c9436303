"""Generate Gaussian fields of a large domain from the denoisers of its tiles, and judge them.

Facts, with the place `method` (crop, average, window, collage, and `coarse`: crop with the coarse
score correction): `cov.error.tiled.2d.exponential.l16` and `variance.ratio.2d.exponential.l16`
of each domain, kernel and correlation length; without a place `cov.error.tiled` and
`variance.ratio`, the worst of the corrected ones, and `coarse.block.2d.l16`, cells an axis.
`generated.h5` holds the covariance by distance and samples, all methods from the same noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaled_mpi.coupling.generation import CoarseCorrection, TiledDenoiser
from scaled_mpi.coupling.responses import Impulses, compare, curve_of, symmetry
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.gaussian.settings import Large
from scaled_mpi.learning.gaussian import (
    StationaryDenoiser,
    WindowDenoiser,
    block_covariance,
    field_covariance,
)
from scaled_mpi.learning.samplers import CellNoise, Denoise, sample
from scaled_mpi.parallel.arrays import save_arrays
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import quiet_barrier
from scaled_mpi.parallel.halo import gather_field
from scaled_mpi.parallel.streams import cell_indices

ARRAYS = "generated.h5"


@dataclass
class Worst:
    """The corrected case that is furthest from the truth."""

    error: float = 0.0
    ratio: float = 1.0

    def take(self, error: float, ratio: float) -> None:
        """Keep what is worse."""
        self.error = max(self.error, error)
        self.ratio = max(self.ratio, ratio, key=lambda r: abs(r - 1.0))


class Case:
    """One kernel and correlation length on one domain, on the ranks of `comm`."""

    def __init__(
        self,
        context: Context,
        domain: Large,
        blocks: Blocks,
        comm: Any,
        kernel: str,
        length: float,
    ) -> None:
        self.generation, self.schedule = context.experiment.generation, context.experiment.schedule
        self.seed = context.experiment.seed
        self.domain, self.blocks, self.comm = domain, blocks, comm
        self.covariance = field_covariance(kernel, length, domain.shape)
        self.block = domain.block(length)
        self.label = f"{len(domain.shape)}d.{kernel}.l{length:g}"
        self.windows: dict[tuple[int, ...], Denoise] = {}

    def denoiser(self, method: str) -> Denoise:
        """The fused denoiser; `coarse` is crop corrected."""
        local = TiledDenoiser(
            self.blocks,
            self.comm,
            "crop" if method == "coarse" else method,
            self._window,
            halo=self.domain.halo,
            overlap=self.domain.overlap,
        )
        if method != "coarse":
            return local
        noise = self.block ** (-len(self.domain.shape) / 2)
        small = block_covariance(self.covariance, self.block)
        return CoarseCorrection(local, StationaryDenoiser(small, self.schedule, noise), self.block)

    def generate(self, denoise: Denoise, noise: Callable[[int], np.ndarray]) -> np.ndarray:
        """The whole field on rank 0, None elsewhere; collective."""
        made = sample(
            denoise, noise, self.schedule, self.generation.steps, self.generation.sampler
        )
        return gather_field(self.blocks, self.comm, np.ascontiguousarray(made))

    def noise(self) -> CellNoise:
        """The same for every method and number of ranks."""
        block = self.blocks.block(self.comm.rank)
        return CellNoise(self.seed, cell_indices(block, self.domain.shape))

    def _window(self, extent: tuple[int, ...]) -> Denoise:
        if extent not in self.windows:
            self.windows[extent] = WindowDenoiser(self.covariance, extent, self.schedule)
        return self.windows[extent]


def work(context: Context) -> None:
    """All domains, kernels and lengths; on rank 0 the facts and `generated.h5`."""
    worst, arrays = Worst(), {}
    for domain in context.experiment.generation.domains:
        blocks, comm = context.blocks(domain.grid, domain.tile)
        if comm is not None:
            for kernel in context.experiment.generation.kernels:
                for length in domain.lengths:
                    case = Case(context, domain, blocks, comm, kernel, length)
                    _measure(context, case, length, worst, arrays)
        quiet_barrier(context.comm)
    context.facts.record("cov.error.tiled", worst.error)
    context.facts.record("variance.ratio", worst.ratio)
    if context.comm.rank == 0:
        save_arrays(
            context.folder / ARRAYS,
            arrays,
            {
                f"{len(domain.shape)}d": domain.tile
                for domain in context.experiment.generation.domains
            },
        )


def _measure(
    context: Context, case: Case, length: float, worst: Worst, arrays: dict[str, np.ndarray]
) -> None:
    """Covariance of every method; samples where the field is correlated the furthest."""
    domain, root = case.domain, case.comm.rank == 0
    which = symmetry(domain.shape, domain.tile)
    methods = domain.fusions if length in (domain.compared or domain.lengths) else ()
    context.facts.record(f"coarse.block.{len(domain.shape)}d.l{length:g}", case.block, "cells")
    arrays[f"{case.label}.curve.truth"] = curve_of(case.covariance)
    for method in (*methods, "coarse"):
        begun = time.perf_counter()
        denoise = case.denoiser(method)
        responses = case.generate(denoise, Impulses(which, case.blocks.block(case.comm.rank)))
        if root:
            found = compare(responses, case.covariance, which)
            for name, value in (("cov.error.tiled", found.error), ("variance.ratio", found.ratio)):
                context.facts.record(f"{name}.{case.label}", value, method=method)
            arrays[f"{case.label}.curve.{method}"] = found.curve
            context.say(
                f"  {case.label} {method}: covariance error {found.error:.3f}, variance "
                f"{found.ratio:.3f}, {time.perf_counter() - begun:.1f} s"
            )
            if method == "coarse":
                worst.take(found.error, found.ratio)
        if length == max(domain.lengths):
            made = case.generate(denoise, case.noise())
            if root:
                arrays[f"{case.label}.sample.{method}"] = made[0].astype(np.float32)
    if length == max(domain.lengths) and root:
        exact = StationaryDenoiser(case.covariance, case.schedule)
        noise = CellNoise(case.seed, np.arange(np.prod(domain.shape)).reshape(domain.shape))
        made = sample(exact, noise, case.schedule, case.generation.steps, case.generation.sampler)
        arrays[f"{case.label}.sample.truth"] = made[0].astype(np.float32)
