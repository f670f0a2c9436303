"""Autoencoder: a field coded `factor` times coarser by a network that can be cut anywhere.

The network (`learning/networks/coding.py`) is a local operator both ways. A tile with
`encode_reach` cells around it has the latent of the whole domain. The decoder needs `decode_reach`
latent cells; there are no seams to blend. Fields are normalised by channel, and so are latents: a
network that learns on them meets mean 0 and spread 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from scaled_mpi.compressors.coders import Compressor
from scaled_mpi.compressors.equation import system_of
from scaled_mpi.compressors.lesson import CodingLesson, Material, Recipe
from scaled_mpi.compressors.network_coder import FILE, NetworkCoder, coding_network, seeded
from scaled_mpi.config import InputError, Spec, check_name, decisive
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.held_out import hold_out, learned_frames
from scaled_mpi.learning.reaches import decode_margins
from scaled_mpi.learning.settings import Result, Session, Task, Training
from scaled_mpi.learning.training import on_team, train
from scaled_mpi.parallel.blocks import Grid, whole_per_axis
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.plugins import names

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.networks.coding import CodingNetwork

FACTORS = (1, 2, 4, 8)


BOTTLENECKS = ("identity", "linear", "kl", "vq")
TERMS = ("gradient", "spectrum", "residual")


class Bottleneck(Spec):
    """The bottleneck between encoder and decoder; see `learning/networks/bottlenecks.py`.

    `codes`, `decay` and `commitment` are of vq, `weight` (of the divergence) of kl.
    """

    kind: str = "identity"
    codes: int = Field(default=512, ge=2)
    decay: float = Field(default=0.98, gt=0, lt=1)
    commitment: NonNegativeFloat = 0.25
    weight: NonNegativeFloat = 1e-3

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        known = names("scaled_mpi.bottlenecks", BOTTLENECKS)
        return check_name("compressor.bottleneck.kind", kind, known)


class Autoencoder(Compressor):
    """A convolutional autoencoder; lengths are in cells of the field."""

    file: ClassVar[str] = FILE

    kind: Literal["autoencoder"] = "autoencoder"
    factor: PositiveInt | tuple[PositiveInt, ...] = 4
    latent_channels: PositiveInt = 8
    bottleneck: Bottleneck = Bottleneck()
    conserve: bool = Field(
        default=False, description="keep integrals exactly, in channels of their own"
    )
    width: PositiveInt = Field(default=32, description="features on the first coarser grid")
    depth: PositiveInt = Field(
        default=1, description="blocks on each grid; each reaches one of its cells"
    )
    terms: dict[str, NonNegativeFloat] = Field(
        default={}, description="weights of further terms beside the mean square error"
    )
    patch: PositiveInt = Field(default=64, description="cells an axis of a training sample")
    symmetric: bool = Field(default=True, description="learn all flips and turns (scalar fields)")
    held_out: PositiveInt = Field(default=2, description="last runs, kept for validation")
    training: Training = Training(
        steps=400,
        batch=8,
        micro_batches=4,
        learning_rate=4e-3,
        warmup=40,
        ema=0.99,
        validate_every=50,
    )

    @field_validator("terms")
    @classmethod
    def _terms_known(cls, terms: dict[str, float]) -> dict[str, float]:
        for name in terms:
            check_name("compressor.terms", name, names("scaled_mpi.losses", TERMS))
        return terms

    @model_validator(mode="after")
    def _sizes_fit(self) -> Autoencoder:
        factors = self.factor if isinstance(self.factor, tuple) else (self.factor,)
        if any(f not in FACTORS for f in factors) or max(factors) == 1:
            raise InputError(
                f"compressor.factor: {list(factors)} is not allowed: stages halve an axis one "
                "to three times. Allowed: 2, 4 or 8 an axis, and 1 beside them"
            )
        if self.patch % max(factors):
            raise InputError(
                f"compressor.patch: {self.patch} is not allowed: the factor does not divide it. "
                f"Allowed: multiples of {max(factors)}"
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
        """Train on stored runs and leave the coder in `folder`. Collective over `comm`.

        The last `held_out` runs are for validation (of too few runs, the last eighth of each).
        Errors: `InputError` for runs that cannot be used.
        """
        runs = list(trajectories)
        if not runs:
            raise InputError(
                "data: 0 runs are not allowed: the compressor learns from them. Allowed: 1 or more"
            )
        self._check(runs[0].grid, runs[0].shape[1])
        on_team(
            comm, self.training, lambda team: self._train(runs, team, Path(folder), events, seed)
        )

    def sample_count(
        self, runs: int, frames: int, shape: Sequence[int], periodic: Sequence[bool]
    ) -> int:
        """Return the training samples without a cell in common in `runs` runs of `frames` frames.

        `shape`: cells of a run; `periodic` changes nothing.
        """
        learned, kept = (runs - self.held_out, frames) if runs > self.held_out else (runs, 0)
        kept = kept or learned_frames(frames)
        factor = whole_per_axis("compressor.factor", self.factor, len(shape), 1)
        cores = [min(self.patch, n // f * f) for n, f in zip(shape, factor, strict=True)]
        return learned * kept * math.prod(n // c for n, c in zip(shape, cores, strict=True))

    def load(self, folder: str | Path, device: str = "cpu") -> NetworkCoder:
        """The coder of a folder that `fit` filled."""
        return NetworkCoder(Path(folder) / FILE, device)

    def cells(self, axes: int) -> tuple[int, ...]:
        """Return the cells of the field for one latent cell, one number an axis."""
        return whole_per_axis("compressor.factor", self.factor, axes, 1)

    def decode_reach(self, axes: int) -> tuple[int, ...]:
        """Latent cells that the decoder needs at both ends of each of `axes` axes."""
        factor = whole_per_axis("compressor.factor", self.factor, axes, 1)
        return decode_margins(factor, self.depth)[0]

    def _check(self, grid: Grid, channels: int) -> None:
        factor = whole_per_axis("compressor.factor", self.factor, grid.axes, 1)
        for n, f in zip(grid.shape, factor, strict=True):
            if n % f:
                raise InputError(
                    f"data.shape: {n} cells are not allowed: the factor does not divide them. "
                    f"Allowed: multiples of {f}"
                )
        most = channels * int(np.prod(factor))
        if self.latent_channels > most:
            raise InputError(
                f"compressor.latent_channels: {self.latent_channels} is not allowed: a latent "
                f"cell stands for {channels} channels x {'x'.join(map(str, factor))} cells. "
                f"Allowed: at most {most}"
            )
        if self.conserve and self.latent_channels <= channels:
            raise InputError(
                f"compressor.latent_channels: {self.latent_channels} is not allowed: with "
                f"conserve the means use {channels} of them. Allowed: more than {channels}"
            )

    def _train(
        self,
        runs: Sequence[Trajectory],
        comm: Comm,
        folder: Path,
        events: EventLog | None,
        seed: int,
    ) -> None:
        from scaled_mpi.learning.patches import measure
        from scaled_mpi.learning.weights import save_weights

        learned, judged = hold_out(runs, self.held_out)
        scale = measure(learned.runs, ())
        system = system_of(learned.runs, scale) if self.terms.get("residual") else None
        material = Material(learned, judged, scale, system)
        network, meta = self._learn(material, comm, folder, events, seed)
        on_root(comm, lambda: save_weights(folder / FILE, network.state_dict(), meta))

    def _learn(
        self, material: Material, comm: Comm, folder: Path, events: EventLog | None, seed: int
    ) -> tuple[Any, dict[str, Any]]:
        """The trained network, and all that is told beside its weights. Collective."""
        meta = self._meta(material)
        network = seeded(seed, lambda: coding_network(meta))
        lesson, exam = (
            self._lesson(material, part, network.ring, seed)
            for part in (material.learned, material.judged)
        )
        self.training.check_batch(lesson.patches.distinct)
        lesson.start(network)
        pupil = self._pupil(network, seed)
        task = Task(lesson.loss, lesson.sample, exam.judge, meta)
        result = train(pupil, task, self.training, Session(comm, folder, events, seed))
        scores = self._chosen(pupil, result, exam, comm)
        return network, {**meta, **lesson.survey(network), "scores": scores}

    def _recipe(self) -> Recipe:
        quantised = self.bottleneck.kind == "vq"
        return Recipe(self.patch, self.factor, self.symmetric, self.terms, quantised)

    def _lesson(self, *of: Any) -> CodingLesson:
        return CodingLesson(self._recipe(), *of)

    def _pupil(self, network: CodingNetwork, seed: int) -> torch.nn.Module:
        """The module that is trained: the network, or what holds it."""
        return network

    def _chosen(
        self, pupil: torch.nn.Module, result: Result, exam: CodingLesson, comm: Comm
    ) -> dict[str, float]:
        """Leave in `pupil` the weights to be used; returns their scores. Collective."""
        return result.best_metrics

    def _meta(self, material: Material) -> dict[str, Any]:
        """What the network is built from, and what its fields are normalised by."""
        run, scale = material.learned.runs[0], material.scale
        told = decisive(self)  # equal weights, equal files
        told.pop("weights", None)
        return {
            "kind": self.kind,
            "autoencoder": told,
            "axes": run.grid.axes,
            "channels": run.shape[1],
            "mean": scale.mean.tolist(),
            "spread": scale.spread.tolist(),
        }
