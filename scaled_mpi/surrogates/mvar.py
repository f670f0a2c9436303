"""MVAR: a linear surrogate of latent fields; `autoregression.py` has its equations.

On a POD of the whole domain it is the multivariate autoregression of the Oscar system. On a POD of
tiles with `reach` 1 it is a linear 3 x 3 convolution on the lattice of tiles. It then couples over
a decomposed domain as any other surrogate does, one exchange a jump. With `rank` only the leading
latent channels are modelled; the others are forecast as their training mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from scaled_mpi.config import InputError
from scaled_mpi.facts import EventLog
from scaled_mpi.parallel.arrays import load_arrays, save_arrays
from scaled_mpi.parallel.blocks import whole_per_axis
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.ordered import ordered_sum, parts_of
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.surrogates.autoregression import Linear, Sums, offsets
from scaled_mpi.surrogates.operators import Future, Operator, Surrogate
from scaled_mpi.surrogates.selection import Selection, choose

FILE = "mvar.h5"


class Mvar(Surrogate):
    """A ridge autoregression. `memory` frames are known before a forecast, at most as many lags.

    `selection` chooses rank, lag and alpha on held-out training runs; without it `rank` (None:
    all), `memory` and `alpha` count. `bound` shrinks all eigenvalues until the companion matrix
    has at most this spectral radius.
    """

    file: ClassVar[str] = FILE

    kind: Literal["mvar"] = "mvar"
    jump: PositiveInt = Field(default=1, description="simulator steps of one application")
    memory: PositiveInt = 4
    reach: NonNegativeInt | tuple[NonNegativeInt, ...] = 0
    rank: PositiveInt | None = None
    alpha: NonNegativeFloat = 1e-6
    selection: Selection | None = None
    bound: Annotated[float, Field(gt=0)] | None = None

    def fit(
        self,
        trajectories: Sequence[Trajectory],
        comm: Comm,
        folder: str | Path,
        events: EventLog | None,
        seed: int,
    ) -> None:
        """Fit to latent runs and leave the model in `folder`. Collective.

        Errors: `InputError` for runs that are too short, a rank above the latent channels, or
        equations that `alpha` leaves undetermined.
        """
        runs = list(trajectories)
        self._check(runs)
        reach = whole_per_axis("surrogate.reach", self.reach, runs[0].grid.axes, 0)
        periodic = [boundary.periodic for boundary in runs[0].grid.boundary]
        rank, lag, alpha = self.rank or runs[0].shape[1], self.memory, self.alpha
        scores: dict = {}
        if self.selection is not None:
            latents = [_latents(run, run.shape[1]) for run in runs]
            (rank, lag, alpha), scores = choose(
                self.selection, latents, self.memory, reach, periodic, comm
            )
        sums = _all_sums(runs, rank, lag, reach, periodic, comm)
        weights, covariance = sums.solve(alpha)
        model = Linear(weights, lag, reach)
        if self.bound is not None:
            model = model.bounded(self.bound)
        total = np.trace(sums.squares) - np.sum(sums.total**2) / sums.rows
        told = {
            "memory": self.memory,
            "alpha": alpha,
            "train_r2": 1.0 - _residual(sums, model) / float(total),
            "train_rmse": (max(_residual(sums, model), 0.0) / (sums.rows * rank)) ** 0.5,
            "scores": [[*candidate, value] for candidate, value in sorted(scores.items())],
        }
        mean = _mean(runs)
        on_root(comm, lambda: save_mvar(Path(folder), model, covariance, mean, told))

    def load(self, folder: str | Path) -> MvarOperator:
        """The fitted operator of a folder that `fit` filled."""
        return MvarOperator(Path(folder) / FILE)

    def needs_whole_reach(self) -> bool:
        """Return True: a linear operator has no masks."""
        return True

    def _check(self, runs: Sequence[Trajectory]) -> None:
        if not runs:
            raise InputError(
                "data: 0 runs are not allowed: the surrogate learns from them. Allowed: 1 or more"
            )
        channels = runs[0].shape[1]
        if self.rank is not None and self.rank > channels:
            raise InputError(
                f"surrogate.rank: {self.rank} is not allowed: the latents have fewer channels. "
                f"Allowed: at most {channels}"
            )
        for run in runs:
            if len(run) <= self.memory:
                raise InputError(
                    f"surrogate.memory: {self.memory} is not allowed: {run.name} has {len(run)} "
                    "frames. Allowed: fewer than its frames"
                )
            told = run.attributes.get("jump", self.jump)
            if told != self.jump:
                raise InputError(
                    f"surrogate.jump: {self.jump} is not allowed: the frames of {run.name} have "
                    f"another spacing. Allowed: {told}"
                )


def save_mvar(
    folder: Path, model: Linear, covariance: np.ndarray, mean: np.ndarray, meta: Mapping[str, Any]
) -> None:
    """Write a model to `folder` for `MvarOperator`.

    `covariance` (rank, rank) is that of the one-step residuals, `mean` (latents,) that of every
    latent channel. `meta` has memory, alpha, train_r2, train_rmse and scores.
    """
    arrays = {"weights": model.weights, "covariance": covariance, "mean": mean}
    save_arrays(
        folder / FILE,
        arrays,
        {
            **meta,
            "reach": list(model.reach),
            "lag": model.lag,
            "rank": model.channels,
            "radius": model.radius(),
            "latents": len(mean),
        },
    )


def _latents(run: Trajectory, rank: int) -> np.ndarray:
    """(T, rank, *cells) of one run, float64."""
    return run.read(slice(None), channels=range(rank)).astype(np.float64)


def _all_sums(
    runs: Sequence[Trajectory],
    rank: int,
    lag: int,
    reach: Sequence[int],
    periodic: Sequence[bool],
    comm: Comm,
) -> Sums:
    """The normal equations of all runs, each rank reading its share; the same bits on any."""
    parts = parts_of(len(runs))

    def make(part: int) -> np.ndarray:
        found = [Sums.of_run(_latents(runs[n], rank), lag, reach, periodic) for n in parts[part]]
        return sum(found[1:], found[0]).packed()

    size = 1 + lag * rank * len(offsets(reach))
    return Sums.unpacked(ordered_sum(comm, len(parts), make), size, rank)


def _mean(runs: Sequence[Trajectory]) -> np.ndarray:
    """Mean of every latent channel over all runs."""
    totals = [_latents(run, run.shape[1]) for run in runs]
    rows = sum(values.size // values.shape[1] for values in totals)
    axes = (0, *range(2, totals[0].ndim))
    return sum(values.sum(axis=axes) for values in totals) / rows


def _residual(sums: Sums, model: Linear) -> float:
    """Sum of squared one-step errors over all windows."""
    w = model.weights
    return float(np.trace(sums.squares - 2 * w.T @ sums.cross + w.T @ sums.gram @ w))


class MvarOperator(Operator):
    """A fitted autoregression as a local operator, float64, one tile a call.

    Attributes: `reach`, `memory`, `model`, `rank`, `radius`, `covariance` (rank, rank) of the
    one-step residuals, `mean` (latents,), `meta` (metadata of the fit).
    """

    def __init__(self, path: Path) -> None:
        arrays, self.meta = load_arrays(path)
        self.reach: tuple[int, ...] = tuple(self.meta["reach"])
        self.memory: int = self.meta["memory"]
        self.rank: int = self.meta["rank"]
        self.radius: float = self.meta["radius"]
        self.model = Linear(arrays["weights"], self.meta["lag"], self.reach)
        self.covariance, self.mean = arrays["covariance"], arrays["mean"]

    def advance(
        self,
        window: np.ndarray,
        mask: np.ndarray,
        condition: np.ndarray,
        future: Future | None = None,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """The tile one jump later, (latents, *tile), in the type of `window`.

        window (M, latents, *(tile + 2 reach)), newest last. `noise` (rank, *tile), standard
        normal, is coloured by the residual covariance and added. ValueError where the halo does
        not cover the reach: this operator cannot do without.
        """
        if not mask.all():
            raise ValueError("an autoregression needs the whole of its reach known")
        made = self.model.step(window[:, : self.rank].astype(np.float64))
        if noise is not None:
            made = made + np.tensordot(self.noise_factor(), noise, axes=1)
        rest = np.broadcast_to(
            self.mean[self.rank :].reshape(-1, *[1] * len(self.reach)),
            (len(self.mean) - self.rank, *made.shape[1:]),
        )
        return np.concatenate([made, rest]).astype(window.dtype)

    def noise_factor(self) -> np.ndarray:
        """L (rank, rank) with L L' the residual covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return vectors * np.sqrt(np.maximum(values, 0.0))
