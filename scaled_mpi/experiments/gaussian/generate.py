"""Generate Gaussian fields of a large domain from the denoisers of its tiles, and judge them.

The place `method` is crop, average, window, collage, or `coarse`: crop with the coarse score
correction. `cov.error.tiled` and `variance.ratio` have this place and `axes`, `kernel` and
`length`; without a place they are the worst of the corrected cases. `coarse.block`, in cells an
axis, has the places `axes` and `length`. `generated.h5` holds the covariance by distance and
samples, all methods from the same noise.
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
from scaled_mpi.experiments.gaussian.settings import GaussianExperiment, Large
from scaled_mpi.learning.gaussian import (
    StationaryDenoiser,
    WindowDenoiser,
    block_covariance,
    field_covariance,
)
from scaled_mpi.learning.samplers import CellNoise, Denoise, sample
from scaled_mpi.parallel.arrays import save_arrays
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm, quiet_barrier
from scaled_mpi.parallel.halo import gather_field
from scaled_mpi.parallel.streams import cell_indices

ARRAYS = "generated.h5"


@dataclass
class Worst:
    """The largest differences from the truth among the corrected cases."""

    error: float = 0.0
    ratio: float = 1.0

    def take(self, error: float, ratio: float) -> None:
        """Keep the larger differences from a relative error of 0 and a variance ratio of 1."""
        self.error = max(self.error, error)
        self.ratio = max(self.ratio, ratio, key=lambda r: abs(r - 1.0))


class Case:
    """One kernel and correlation length on one domain, on the ranks of `comm`."""

    def __init__(
        self,
        context: Context[GaussianExperiment],
        domain: Large,
        blocks: Blocks,
        comm: Comm,
        kernel: str,
        length: float,
    ) -> None:
        self.generation, self.schedule = context.experiment.generation, context.experiment.schedule
        self.seed = context.experiment.seed
        self.domain, self.blocks, self.comm, self.kernel = domain, blocks, comm, kernel
        self.covariance = field_covariance(kernel, length, domain.shape)
        self.block = domain.block(length)
        self.label = f"{len(domain.shape)}d.{kernel}.l{length:g}"
        self.windows: dict[tuple[int, ...], Denoise] = {}

    def denoiser(self, method: str) -> Denoise:
        """Return the denoiser of the whole; `coarse` is crop with the coarse score correction."""
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

    def generate(self, denoise: Denoise, noise: Callable[[int], np.ndarray]) -> np.ndarray | None:
        """Return the fields (n, *shape) of a sample on rank 0, None elsewhere; collective.

        `noise(k)` gives standard normals or impulses (n, *block.size).
        """
        fields = sample(
            denoise, noise, self.schedule, self.generation.steps, self.generation.sampler
        )
        return gather_field(self.blocks, self.comm, np.ascontiguousarray(fields))

    def noise(self) -> CellNoise:
        """Return the noise of the sample, the same for every method and number of ranks."""
        block = self.blocks.block(self.comm.rank)
        return CellNoise(self.seed, cell_indices(block, self.domain.shape))

    def _window(self, extent: tuple[int, ...]) -> Denoise:
        if extent not in self.windows:
            self.windows[extent] = WindowDenoiser(self.covariance, extent, self.schedule)
        return self.windows[extent]


def work(context: Context[GaussianExperiment]) -> None:
    """Measure all domains, kernels and lengths; rank 0 writes `generated.h5`. Collective."""
    worst = Worst()
    arrays: dict[str, np.ndarray] = {}
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
    context: Context[GaussianExperiment],
    case: Case,
    length: float,
    worst: Worst,
    arrays: dict[str, np.ndarray],
) -> None:
    """Covariance of every method; samples at the largest correlation length."""
    domain = case.domain
    which = symmetry(domain.shape, domain.tile)
    methods = domain.fusions if length in (domain.compared or domain.lengths) else ()
    where = {"axes": len(domain.shape), "length": length}
    context.facts.record("coarse.block", case.block, "cells", **where)
    arrays[f"{case.label}.curve.truth"] = curve_of(case.covariance)
    for method in (*methods, "coarse"):
        begun = time.perf_counter()
        denoise = case.denoiser(method)
        responses = case.generate(denoise, Impulses(which, case.blocks.block(case.comm.rank)))
        if responses is not None:
            law = compare(responses, case.covariance, which)
            place: dict[str, Any] = {**where, "kernel": case.kernel, "method": method}
            context.facts.record("cov.error.tiled", law.error, **place)
            context.facts.record("variance.ratio", law.ratio, **place)
            arrays[f"{case.label}.curve.{method}"] = law.curve
            context.say(
                f"  {case.label} {method}: covariance error {law.error:.3f}, variance "
                f"{law.ratio:.3f}, {time.perf_counter() - begun:.1f} s"
            )
            if method == "coarse":
                worst.take(law.error, law.ratio)
        if length == max(domain.lengths):
            fields = case.generate(denoise, case.noise())
            if fields is not None:
                arrays[f"{case.label}.sample.{method}"] = fields[0].astype(np.float32)
    if length == max(domain.lengths) and case.comm.rank == 0:
        exact = StationaryDenoiser(case.covariance, case.schedule)
        noise = CellNoise(case.seed, np.arange(np.prod(domain.shape)).reshape(domain.shape))
        true = sample(exact, noise, case.schedule, case.generation.steps, case.generation.sampler)
        arrays[f"{case.label}.sample.truth"] = true[0].astype(np.float32)
