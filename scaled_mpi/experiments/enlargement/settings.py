"""Experiments on patterns larger than the boxes that the denoisers were trained on.

    dataset -> truth -> fit -> generate -> evaluate -> report

The fields are final states of a simulator, and denoisers are trained on its small boxes. The
truth is the simulator on the large domain. Every block is a key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, undecisive
from scaled_mpi.coupling.generation import Fusion, check_fusion, window_extents
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.learning.schedules import AnySchedule, VariancePreserving
from scaled_mpi.learning.settings import with_steps_of
from scaled_mpi.parallel.blocks import Blocks, Grid
from scaled_mpi.simulators.gray_scott import GrayScott
from scaled_mpi.surrogates.denoiser import FieldDenoiser

AXES = 2  # of a pattern


class Boxes(Spec):
    """Simulated states after `steps`: `samples` small boxes and `truth` large ones.

    The last `held_out` of the small boxes validate the training.
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
                f"boxes.held_out: {self.held_out} is not allowed: no box is left to train on. "
                f"Allowed: fewer than the {self.samples} samples"
            )
        return self


class Enlargement(Spec):
    """Generation of `samples` fields of `shape`, all together, from learned denoisers.

    `halo` belongs to the fusion crop, `overlap` to the other fusions, `block` (cells an axis) to
    the coarse correction of crop. `gains`: noise levels at which the gain of the coarse denoiser
    is measured.
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
        """Extents of all windows: the windows of the fusions, and the tile alone."""
        kinds = {self.tile} | {
            extent
            for fusion in ("crop", *self.fusions)
            for extent in window_extents(fusion, self.tile, self.halo, self.overlap)
        }
        return tuple(sorted(kinds))


class EnlargementExperiment(ExperimentSpec):
    """Patterns larger than the boxes of the training, every key typed.

    `windows` denoises tiles with their halo, `coarse` the means of blocks of the whole.
    """

    kind: Literal["enlargement"] = "enlargement"
    launch: Literal["local"] = undecisive("local")
    simulator: GrayScott
    boxes: Boxes = Boxes()
    generation: Enlargement = Enlargement()
    schedule: AnySchedule = VariancePreserving(zero_terminal_snr=True, sigma_min=0.01)
    windows: FieldDenoiser = FieldDenoiser()
    coarse: FieldDenoiser = FieldDenoiser(coarsen=1, smooth=False)

    def with_steps(self) -> EnlargementExperiment:
        """Return the experiment with the epochs of both denoisers as steps."""
        samples = self.boxes.samples - self.boxes.held_out
        parts = {key: with_steps_of(getattr(self, key), samples) for key in ("windows", "coarse")}
        return self.model_copy(update=parts)

    @model_validator(mode="after")
    def _fits(self) -> EnlargementExperiment:
        _check(self)
        return self


def _check(experiment: EnlargementExperiment) -> None:
    """Checks of several blocks: system, tiles and networks on the small boxes."""
    system, boxes, generation = experiment.simulator, experiment.boxes, experiment.generation
    if system.noise or any(b.kind != "periodic" for b in system.boundary(AXES)):
        raise InputError(
            f"simulator: {system.kind} with noise or open boundaries is not allowed: generated "
            "patterns are periodic. Allowed: boundaries periodic and noise 0"
        )
    for cells, tile in zip(boxes.shape, generation.tile, strict=True):
        if cells % tile or tile % generation.block or tile + 2 * generation.halo > cells:
            raise InputError(
                f"generation.tile: {list(generation.tile)} with halo {generation.halo}, block "
                f"{generation.block} is not allowed: tiles fill boxes, and blocks tiles. Allowed: "
                f"multiples of the block that divide boxes.shape {list(boxes.shape)} and fit into "
                "it with the halo"
            )
    shapes = (boxes.shape, generation.shape)
    for key, extents in (
        ("windows", (*generation.extents, generation.shape)),
        ("coarse", [tuple(n // generation.block for n in shape) for shape in shapes]),
    ):
        spec = getattr(experiment, key)
        for extent in extents:
            if any(n % spec.multiple for n in extent):
                raise InputError(
                    f"{key}.network.widths: {len(spec.network.widths)} levels is not allowed: "
                    f"they need multiples of {spec.multiple} cells, and generation has windows of "
                    f"{list(extent)} cells. Allowed: fewer levels, or other tile, halo, overlap, "
                    "block"
                )
        if spec.network.padding == "valid":
            raise InputError(
                f"{key}.network.padding: valid is not allowed: a denoiser keeps the shape of its "
                "window. Allowed: replicate, circular"
            )
        spec.training.check_batch(boxes.samples - boxes.held_out)
