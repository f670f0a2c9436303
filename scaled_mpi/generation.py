"""Experiments on generation: large fields from denoisers of tiles.

    generate -> report                                       Gaussian fields, covariance known
    dataset -> truth -> fit -> generate -> evaluate -> report       Gray-Scott patterns, learned

A file with a key `generation` is such an experiment. Gaussian fields have a covariance in closed
form and exact denoisers, so that what a fusion of tiles does to the statistics of the whole stands
alone: no network, no training, no sampling error. With a key `simulator` the fields are final
states of that simulator and the denoisers are learned from small boxes of it; the simulator on the
large domain is the truth. Every block is a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, apply_overrides, parse
from scaled_mpi.coupling.generation import check_fusion, window_extents
from scaled_mpi.learning.schedules import AnySchedule, VariancePreserving
from scaled_mpi.parallel.blocks import Blocks, Grid
from scaled_mpi.simulators.gray_scott import GrayScott
from scaled_mpi.surrogates.denoiser import FieldDenoiser

FAMILIES = {"schedule": "vp", "simulator": "gray_scott"}
AXES = 2  # of a pattern
Fusion = Literal["crop", "average", "window", "collage"]
Kernel = Literal["squared_exponential", "exponential"]


class Large(Spec):
    """One periodic domain: its shape, tiles and windows, and the correlation lengths, in cells.

    `halo` belongs to the fusion crop, `overlap` to the others. Each of `fusions` is measured
    without a coarse level at the lengths `compared` (none given: at all).
    """

    shape: tuple[PositiveInt, ...] = (512,)
    tile: tuple[PositiveInt, ...] = (64,)
    halo: NonNegativeInt = 16
    overlap: NonNegativeInt = 32
    lengths: tuple[PositiveFloat, ...] = Field((8.0, 16.0, 32.0, 64.0), min_length=1)
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
                    f"generation.compared: {length:g} given; of lengths "
                    f"{', '.join(f'{one:g}' for one in self.lengths)}"
                )
        return self

    @property
    def grid(self) -> Grid:
        """The periodic domain."""
        return Grid(self.shape)

    def block(self, length: float) -> int:
        """Cells an axis of a coarse block: the largest divisor of the tile <= length / 4."""
        fits = [
            n
            for n in range(1, min(self.tile) + 1)
            if n <= length / 4 and all(tile % n == 0 for tile in self.tile)
        ]
        return max(fits, default=1)


class Generation(Spec):
    """What is generated and how. `kernels`: covariances; `sampler`: deterministic ones only."""

    domains: tuple[Large, ...] = Field((Large(),), min_length=1)
    kernels: tuple[Kernel, ...] = Field(("squared_exponential", "exponential"), min_length=1)
    sampler: Literal["ddim", "euler", "heun"] = "heun"
    steps: Annotated[int, Field(ge=2)] = 40


class GenerationExperiment(Spec):
    """One experiment on generation, every key typed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    title: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    generation: Generation
    schedule: AnySchedule = VariancePreserving(zero_terminal_snr=True, sigma_min=0.01)
    launch: Literal["local"] = "local"
    machine: str | None = None


class Boxes(Spec):
    """Simulated states after `steps`: `samples` small boxes to learn from, `truth` large ones.

    The last `held_out` of the small ones are not trained on.
    """

    shape: tuple[PositiveInt, PositiveInt] = (128, 128)
    samples: Annotated[int, Field(ge=2)] = 256
    held_out: PositiveInt = 32
    truth: PositiveInt = 64
    steps: PositiveInt = 1500

    @model_validator(mode="after")
    def _fits(self) -> Boxes:
        if self.held_out >= self.samples:
            raise InputError(
                f"boxes.held_out: {self.held_out} given; fewer than the {self.samples} samples "
                "are allowed"
            )
        return self


class Enlargement(Spec):
    """What is generated from learned denoisers: `samples` fields of `shape`, all together.

    `halo` belongs to the fusion crop, `overlap` to the others, `block` (cells an axis) to the
    coarse correction of crop. `gains`: noise levels at which the coarse denoiser is weighed.
    """

    shape: tuple[PositiveInt, PositiveInt] = (256, 256)
    tile: tuple[PositiveInt, PositiveInt] = (32, 32)
    halo: NonNegativeInt = 8
    overlap: NonNegativeInt = 16
    block: PositiveInt = 8
    fusions: tuple[Fusion, ...] = ("crop", "average", "window", "collage")
    samples: PositiveInt = 3
    sampler: Literal["ddim", "euler", "heun", "sde"] = "ddim"
    steps: Annotated[int, Field(ge=2)] = 20
    gains: Annotated[int, Field(ge=2)] = 9

    @model_validator(mode="after")
    def _fits(self) -> Enlargement:
        Blocks(Grid(self.shape), self.tile, (1, 1))  # refuses tiles that do not divide
        for fusion in ("crop", *self.fusions):
            check_fusion(fusion, self.tile, self.halo, self.overlap)
        return self

    @property
    def extents(self) -> tuple[tuple[int, ...], ...]:
        """Every kind of window that a denoiser is asked for: the fusions' and the tile alone."""
        kinds = {self.tile} | {
            extent
            for fusion in ("crop", *self.fusions)
            for extent in window_extents(fusion, self.tile, self.halo, self.overlap)
        }
        return tuple(sorted(kinds))


class EnlargementExperiment(Spec):
    """Patterns larger than what was learned from, every key typed.

    `windows` denoises tiles with their halo, `coarse` the means of blocks of the whole.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    title: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    simulator: GrayScott
    boxes: Boxes = Boxes()
    generation: Enlargement = Enlargement()
    schedule: AnySchedule = VariancePreserving(zero_terminal_snr=True, sigma_min=0.01)
    windows: FieldDenoiser = FieldDenoiser()
    coarse: FieldDenoiser = FieldDenoiser(coarsen=1, smooth=False)
    launch: Literal["local"] = "local"
    machine: str | None = None


def load_generation(
    tree: Mapping[str, Any], overrides: Iterable[str]
) -> GenerationExperiment | EnlargementExperiment:
    """Override and check. Errors: `InputError`, one line."""
    kind = EnlargementExperiment if "simulator" in tree else GenerationExperiment
    experiment = parse(kind, apply_overrides(tree, overrides, FAMILIES))
    if isinstance(experiment, EnlargementExperiment):
        _check(experiment)
    return experiment


def _check(experiment: EnlargementExperiment) -> None:
    """What no single block can know: system, tiles and networks on the small boxes."""
    system, boxes, made = experiment.simulator, experiment.boxes, experiment.generation
    if system.noise or any(b.kind != "periodic" for b in system.boundary(AXES)):
        raise InputError(
            "simulator: noise or boundaries that are not periodic given; neither is allowed where "
            "patterns are generated"
        )
    for cells, tile in zip(boxes.shape, made.tile, strict=True):
        if cells % tile or tile % made.block or tile + 2 * made.halo > cells:
            raise InputError(
                f"generation.tile: {list(made.tile)} given with halo {made.halo}, block "
                f"{made.block}; a multiple of the block that divides boxes.shape "
                f"{list(boxes.shape)}, and no wider than it with the halo, is allowed"
            )
    for key, extents in (
        ("windows", (*made.extents, made.shape)),
        ("coarse", [tuple(n // made.block for n in shape) for shape in (boxes.shape, made.shape)]),
    ):
        spec = getattr(experiment, key)
        for extent in extents:
            if any(n % spec.multiple for n in extent):
                raise InputError(
                    f"{key}.network.widths: multiples of {spec.multiple} cells are needed; "
                    f"{list(extent)} is asked for by generation.tile, halo, overlap and block"
                )
        if spec.network.padding == "valid":
            raise InputError(
                f"{key}.network.padding: valid given; replicate, circular are allowed"
            )
        spec.training.check_batch(boxes.samples - boxes.held_out)
