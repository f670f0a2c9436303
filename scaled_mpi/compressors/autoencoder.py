"""Autoencoder: a field coded `factor` times coarser by a network that can be cut anywhere.

The network (`learning/networks/autoencoder.py`) is a local operator both ways: a tile with
`encode_reach` cells around it gives the latent that the whole domain gives there, and so does the
decoder with `decode_reach` latent cells; there are no seams to blend. Fields are normalised by
channel, and so are latents, so that what learns on them meets mean 0 and spread 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, plain
from scaled_mpi.learning.training import Training, on_team, train
from scaled_mpi.parallel.blocks import Grid, whole_per_axis
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.store import Trajectory

FILE = "coder.safetensors"
FACTORS = (1, 2, 4, 8)
JUDGED = 16  # patches that a validation looks at
SURVEYED = 64  # patches that the linear start and the spread of the latents are taken from
_JUDGE, _SURVEY = 2**32 - 1, 2**32 - 2  # steps that no training reaches


class Bottleneck(Spec):
    """What stands between encoder and decoder; see `learning/networks/bottlenecks.py`.

    `codes`, `decay` and `commitment` are of vq, `weight` (of the divergence) of kl.
    """

    kind: Literal["identity", "linear", "kl", "vq"] = "identity"
    codes: int = Field(512, ge=2)
    decay: float = Field(0.98, gt=0, lt=1)
    commitment: NonNegativeFloat = 0.25
    weight: NonNegativeFloat = 1e-3


class Autoencoder(Spec):
    """A convolutional autoencoder; lengths are in cells of the field."""

    kind: Literal["autoencoder"] = "autoencoder"
    factor: PositiveInt | tuple[PositiveInt, ...] = 4
    latent_channels: PositiveInt = 8
    bottleneck: Bottleneck = Bottleneck()
    conserve: bool = Field(False, description="keep integrals exactly, in channels of their own")
    width: PositiveInt = Field(32, description="features on the first coarser grid")
    depth: PositiveInt = Field(1, description="blocks on each grid; each reaches one of its cells")
    terms: dict[Literal["gradient", "spectrum"], NonNegativeFloat] = Field(
        {}, description="weights of further terms beside the mean square error"
    )
    patch: PositiveInt = Field(64, description="cells an axis of a training sample")
    symmetric: bool = Field(True, description="learn all flips and turns (scalar fields)")
    held_out: PositiveInt = Field(2, description="last runs, kept for validation")
    training: Training = Training(
        steps=400, batch=8, micro_batches=4, learning_rate=4e-3, warmup=40, ema=0.99,
        validate_every=50,
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> Autoencoder:
        factors = self.factor if isinstance(self.factor, tuple) else (self.factor,)
        if any(f not in FACTORS for f in factors) or max(factors) == 1:
            raise InputError(
                f"compressor.factor: {list(factors)} given; 2, 4 or 8 an axis are allowed, "
                "and 1 beside them"
            )
        if self.patch % max(factors):
            raise InputError(
                f"compressor.patch: {self.patch} given; a multiple of the factor "
                f"{max(factors)} is allowed"
            )
        return self

    def fit(
        self,
        trajectories: Sequence[Trajectory],
        comm: Comm,
        folder: str | Path,
        events: Any,
        seed: int,
    ) -> None:
        """Train on stored runs and leave the coder in `folder`. Collective over `comm`.

        The last `held_out` runs are for validation (of too few runs, the last eighth of each).
        Errors: `InputError` for runs that cannot be used.
        """
        runs = list(trajectories)
        if not runs:
            raise InputError("data: no run is given; the compressor needs at least one")
        self._check(runs[0].grid, runs[0].shape[1])
        on_team(comm, self.training, lambda team: self._train(
            runs, team, Path(folder), events, seed
        ))

    def load(self, folder: str | Path, device: str = "cpu") -> Coder:
        """The coder of a folder that `fit` filled."""
        return Coder(Path(folder) / FILE, device)

    def _check(self, grid: Grid, channels: int) -> None:
        factor = whole_per_axis("compressor.factor", self.factor, grid.axes, 1)
        for n, f in zip(grid.shape, factor, strict=True):
            if n % f:
                raise InputError(f"data.shape: {n} cells; a multiple of the factor {f} is needed")
        most = channels * int(np.prod(factor))
        if self.latent_channels > most:
            raise InputError(
                f"compressor.latent_channels: {self.latent_channels} given; at most {most} "
                f"({channels} channels x {'x'.join(map(str, factor))} cells) are allowed"
            )
        if self.conserve and self.latent_channels <= channels:
            raise InputError(
                f"compressor.latent_channels: {self.latent_channels} with conserve; more than "
                f"the {channels} channels of the means are needed"
            )

    def _train(
        self, runs: list[Trajectory], comm: Comm, folder: Path, events: Any, seed: int
    ) -> None:
        from scaled_mpi.learning.patches import measure

        learned, judged, moments = _hold_out(runs, self.held_out)
        scale = measure(learned, ())
        told = plain(self)
        del told["training"]["checkpoint_every"]  # decides nothing: equal weights, equal files
        meta = {
            "kind": self.kind, "autoencoder": told, "axes": runs[0].grid.axes,
            "channels": runs[0].shape[1], "mean": scale.mean.tolist(),
            "spread": scale.spread.tolist(),
        }
        network = _network(meta, seed)
        lesson = Lesson(self, network, learned, moments[0], scale, seed)
        exam = Lesson(self, network, judged, moments[1], scale, seed)
        lesson.start(network)
        result = train(
            network, lesson.loss, lesson.sample, exam.judge, self.training, comm, folder, events,
            seed, meta=meta,
        )
        meta |= lesson.survey(network) | {"scores": result.best_metrics}

        def finish() -> None:
            from scaled_mpi.learning.weights import save_weights

            save_weights(folder / FILE, network.state_dict(), meta)

        on_root(comm, finish)


def _hold_out(runs: list[Trajectory], count: int) -> tuple[list, list, tuple[slice, slice]]:
    """Runs to learn from, runs to judge by, and the frames used of each."""
    if len(runs) > count:
        return runs[:-count], runs[-count:], (slice(None), slice(None))
    border = min(len(run) for run in runs)
    border -= max(1, border // 8)
    return runs, runs, (slice(0, border), slice(border, None))


def _network(meta: Mapping[str, Any], seed: int) -> Any:
    """A network of the shape that `meta` tells, its first weights decided by `seed`."""
    import torch

    from scaled_mpi.learning.networks.autoencoder import CodingNetwork

    spec = meta["autoencoder"]
    factor = whole_per_axis("compressor.factor", spec["factor"], meta["axes"], 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        keys = dict(spec["bottleneck"])
        return CodingNetwork(
            meta["channels"], spec["latent_channels"], factor, spec["width"], spec["depth"],
            keys.pop("kind"), spec["conserve"], **keys,
        )


class Lesson:
    """Samples and losses of one autoencoder on some runs; see `learning.training.Task`."""

    def __init__(
        self,
        spec: Autoencoder,
        network: Any,
        runs: list[Trajectory],
        moments: slice,
        scale: Any,
        seed: int,
    ) -> None:
        from scaled_mpi.learning.patches import Patches

        self.spec, self.seed = spec, seed
        self.ring = [
            e + f * d
            for e, f, d in zip(
                network.encode_reach, network.factor, network.decode_reach, strict=True
            )
        ]
        core = [
            min(spec.patch, cells // f * f)
            for cells, f in zip(runs[0].grid.shape, network.factor, strict=True)
        ]
        self.patches = Patches(
            runs, scale, (), frames=1, core=core, ring=self.ring, symmetric=spec.symmetric,
            moments=moments,
        )

    def start(self, network: Any) -> None:
        """Let the network begin as the best linear code of the runs."""
        from scaled_mpi.learning.distributed import one_thread
        from scaled_mpi.learning.networks.convolution import crop

        with one_thread():
            survey = self._survey()
            network.start_linear(crop(survey, self.ring))
            network.start_bottleneck(survey)

    def survey(self, network: Any) -> dict[str, list[float]]:
        """Mean and spread of each latent channel over some of the training patches."""
        import torch

        from scaled_mpi.learning.distributed import one_thread

        device = next(network.parameters()).device
        with one_thread(), torch.no_grad():
            latents = torch.cat([
                network.encode(patch[None].to(device)).cpu() for patch in self._survey()
            ]).double()
            cells = (0, *range(2, latents.ndim))
            spread = latents.std(cells).clamp_min(1e-12)
            return {
                "latent_mean": latents.mean(cells).tolist(), "latent_spread": spread.tolist(),
            }

    def _survey(self) -> Any:
        import torch

        fields, _ = self.patches.draw(self.seed, _SURVEY, range(SURVEYED))
        return torch.from_numpy(np.ascontiguousarray(fields[:, 0]))

    def sample(self, step: int, micro: int, size: int) -> np.ndarray:
        """Normalised fields (size, C, *(patch + 2 ring))."""
        fields, _ = self.patches.draw(
            self.seed, step, range(micro * size, (micro + 1) * size)
        )
        return fields[:, 0]

    def loss(self, model: Any, fields: Any) -> Any:
        """Mean square error of what coding leaves, and the further terms; a scalar tensor."""
        from scaled_mpi.learning.networks.convolution import crop
        from scaled_mpi.learning.reconstruction import TERMS

        made, penalty = model.reconstruct(fields)
        made, truth = made.float(), crop(fields, self.ring)
        total = (made - truth).square().mean() + penalty
        for name, weight in sorted(self.spec.terms.items()):
            total = total + weight * TERMS[name](made, truth)
        return total

    def judge(self, model: Any) -> dict[str, float]:
        """The loss, and the variance-scaled error of patches that are not stationary."""
        import torch

        from scaled_mpi.learning.networks.convolution import crop
        from scaled_mpi.metrics import pair_sums, scores_from_sums, summary

        device = next(model.parameters()).device
        losses, scores = [], []
        for number in range(JUDGED):
            fields, _ = self.patches.draw(self.seed, _JUDGE, [number])
            field = torch.from_numpy(np.ascontiguousarray(fields[:, 0])).to(device)
            losses.append(float(self.loss(model, field)))
            made = model(field)[0].float().cpu().numpy()
            truth = crop(field, self.ring)[0].cpu().numpy()
            scores.append(scores_from_sums([pair_sums(made, truth)]))
        error = summary(scores).mean
        found = {"vrmse": error} if np.isfinite(error) else {}
        if self.spec.bottleneck.kind == "vq":
            found["perplexity"], found["codes.used"] = model.bottleneck.usage()
        return {"loss": float(np.mean(losses)), **found}


class Coder:
    """A trained autoencoder, applied one tile a call: one shape, one thread, always the same bits.

    `factor` (cells an axis of one latent cell), `encode_reach` (cells of the field) and
    `decode_reach` (cells of the latent field) are tuples, one entry an axis.
    """

    def __init__(self, path: Path, device: str) -> None:
        import torch

        from scaled_mpi.learning.weights import load_into, load_weights

        torch.set_num_threads(1)
        tensors, meta = load_weights(path)
        if meta.get("kind") != "autoencoder":
            raise InputError(f"{path}: weights of a {meta.get('kind')}, not an autoencoder")
        self.network = _network(meta, 0)
        load_into(self.network, tensors, str(path))
        self.device = torch.device(device)
        self.network.to(self.device).eval()
        self.factor: tuple[int, ...] = self.network.factor
        self.encode_reach: tuple[int, ...] = self.network.encode_reach
        self.decode_reach: tuple[int, ...] = self.network.decode_reach
        self.fields: int = meta["channels"]
        self.latents: int = meta["autoencoder"]["latent_channels"]
        self.bits: float = self.network.bits  # of one latent cell
        self.scores: dict[str, float] = meta["scores"]
        self._mean, self._spread, self._latent_mean, self._latent_spread = (
            np.array(meta[key], np.float32).reshape(-1, *[1] * len(self.factor))
            for key in ("mean", "spread", "latent_mean", "latent_spread")
        )

    def channels(self, fields: int) -> int:
        """Latent channels for `fields` channels, which must be those of the training."""
        if fields != self.fields:
            raise InputError(f"compressor: trained on {self.fields} channels, {fields} given")
        return self.latents

    def encode(self, field: np.ndarray) -> np.ndarray:
        """(C, *(tile + 2 encode_reach)) to (latents, *(tile / factor)), in the type of `field`."""
        tile = [n - 2 * r for n, r in zip(field.shape[1:], self.encode_reach, strict=True)]
        if any(n <= 0 or n % f for n, f in zip(tile, self.factor, strict=True)):
            raise InputError(
                f"domain.tile: {tile} cells for the compressor; multiples of its factor "
                f"{list(self.factor)} are allowed"
            )
        made = self._apply(self.network.encode, (field - self._mean) / self._spread)
        return ((made - self._latent_mean) / self._latent_spread).astype(field.dtype)

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """(latents, *(tile / factor + 2 decode_reach)) to (C, *tile), in the type of `latent`."""
        raw = latent * self._latent_spread + self._latent_mean
        made = self._apply(self.network.decode, raw)
        return (made * self._spread + self._mean).astype(latent.dtype)

    def _apply(self, operation: Any, values: np.ndarray) -> np.ndarray:
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(values[None], np.float32)).to(self.device)
        with torch.inference_mode():
            return operation(batch)[0].cpu().numpy()
