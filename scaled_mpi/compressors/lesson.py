"""Training samples, loss and validation of an autoencoder: patches of stored runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi.learning.held_out import RunPart
from scaled_mpi.parallel.blocks import whole_per_axis
from scaled_mpi.parallel.keys import FreeStep

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.networks.coding import CodingNetwork

JUDGED = 16  # patches that a validation looks at
SURVEYED = 64  # patches that the linear start and the spread of the latents are taken from


@dataclass(frozen=True)
class Material:
    """Training and validation parts of stored runs; `scale` normalises the fields of both.

    `system` is the equation that the fields obey, where a term of the loss asks for it.
    """

    learned: RunPart
    judged: RunPart
    scale: Any
    system: Any = None


@dataclass(frozen=True)
class Recipe:
    """The keys of an autoencoder that decide its samples and its losses."""

    patch: int  # cells an axis of a sample
    factor: int | tuple[int, ...]  # cells of the field a latent cell
    symmetric: bool  # all flips and turns are samples too
    terms: Mapping[str, float]  # weights of the further terms, by name
    quantised: bool  # the bottleneck has a book of codes, whose use is reported


class CodingLesson:
    """Samples and losses of one autoencoder on some runs; see `learning.settings.Task`."""

    def __init__(
        self, recipe: Recipe, material: Material, part: RunPart, ring: Sequence[int], seed: int
    ) -> None:
        """`ring`: cells of the field beside a patch that coding spends, one entry an axis."""
        from scaled_mpi.learning.patches import Patches

        self.recipe, self.system, self.seed, self.ring = recipe, material.system, seed, ring
        runs, moments = part
        shape = runs[0].grid.shape
        factor = whole_per_axis("compressor.factor", recipe.factor, len(shape), 1)
        core = [min(recipe.patch, n // f * f) for n, f in zip(shape, factor, strict=True)]
        self.patches = Patches(
            runs,
            material.scale,
            (),
            frames=1,
            core=core,
            ring=self.ring,
            symmetric=recipe.symmetric,
            moments=moments,
        )

    def start(self, network: CodingNetwork) -> None:
        """Let the network begin as the best linear code of the runs."""
        from scaled_mpi.learning.distributed import one_thread
        from scaled_mpi.learning.networks.convolution import crop

        with one_thread():
            survey = self.surveyed()
            network.start_linear(crop(survey, self.ring))
            network.start_bottleneck(survey)

    def survey(self, network: CodingNetwork) -> dict[str, list[float]]:
        """Mean and spread of each latent channel over some of the training patches."""
        import torch

        from scaled_mpi.learning.distributed import one_thread

        device = next(network.parameters()).device
        with one_thread(), torch.no_grad():
            latents = torch.cat(
                [network.encode(patch[None].to(device)).cpu() for patch in self.surveyed()]
            ).double()
            cells = (0, *range(2, latents.ndim))
            spread = latents.std(cells).clamp_min(1e-12)
            return {
                "latent_mean": latents.mean(cells).tolist(),
                "latent_spread": spread.tolist(),
            }

    def surveyed(self) -> torch.Tensor:
        """Return normalised fields (N, C, *cells) of N = SURVEYED patches, always the same."""
        import torch

        fields, _ = self.patches.draw(self.seed, FreeStep.SURVEY, range(SURVEYED))
        return torch.from_numpy(np.ascontiguousarray(fields[:, 0]))

    def sample(self, step: int, micro: int, size: int) -> Any:
        """Return normalised fields (size, C, *(patch + 2 ring))."""
        fields, _ = self.patches.draw(self.seed, step, range(micro * size, (micro + 1) * size))
        return fields[:, 0]

    def loss(self, model: Any, fields: Any) -> Any:
        """Mean square error of the decoded fields, and the further terms; a scalar tensor."""
        return self.remade(model, fields)[2]

    def remade(
        self, model: Any, fields: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The decoded fields (B, C, *cells), the truth there, and the scalar loss between them."""
        from scaled_mpi.learning.networks.convolution import crop
        from scaled_mpi.learning.reconstruction import terms

        made, penalty = model.reconstruct(fields)
        made, truth = made.float(), crop(fields, self.ring)
        total = (made - truth).square().mean() + penalty
        for name, weight in sorted(self.recipe.terms.items()):
            total = total + weight * terms()[name](made, truth, self.system)
        return made, truth, total

    def judge(self, model: Any) -> dict[str, float]:
        """The loss, and the variance-scaled error of patches that are not stationary."""
        rows, pairs = [], []
        for field in self.examples(model):
            _, truth, total = self.remade(model, field)
            made = model(field).float()
            rows.append({"loss": float(total), **self.further_scores(model, made, truth)})
            pairs.append((made, truth))
        found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        if self.recipe.quantised:
            found["perplexity"], found["codes.used"] = model.bottleneck.usage()
        return {**found, **mean_vrmse(pairs)}

    def examples(self, model: Any) -> Iterator[torch.Tensor]:
        """Yield the patches (1, C, *cells) of a validation, on the device of `model`."""
        import torch

        device = next(model.parameters()).device
        for number in range(JUDGED):
            fields, _ = self.patches.draw(self.seed, FreeStep.VALIDATION, [number])
            yield torch.from_numpy(np.ascontiguousarray(fields[:, 0])).to(device)

    def further_scores(
        self, model: Any, made: torch.Tensor, truth: torch.Tensor
    ) -> dict[str, float]:
        """Further scores of one patch, decoded and true, (1, C, *cells) each."""
        return {}


def mean_vrmse(pairs: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """`vrmse` over (made, truth), each (1, C, *cells), but for those that are stationary."""
    from scaled_mpi.metrics import pair_sums, scores_from_sums, summary

    error = summary(
        [scores_from_sums([pair_sums(*(one[0].cpu().numpy() for one in pair))]) for pair in pairs]
    ).mean
    return {"vrmse": error} if np.isfinite(error) else {}
