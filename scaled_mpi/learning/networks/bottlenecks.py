"""Bottlenecks between encoder and decoder, one row of BOTTLENECKS each.

    identity   the latent as it is
    linear     a 1-wide linear map
    kl         a Gaussian about the latent, held near the standard one (Kingma and Welling 2013,
               arXiv 1312.6114); its spread is a function of the latent
    vq         the nearest of a book of codes (van den Oord et al. 2017, arXiv 1711.00937), the
               gradient straight through

The codes follow the latents that choose them by an exponential mean. Its sums run over the
micro-batches of all ranks in the order of their index. So the book has the same bits on every rank
and for every number of them. A code that hardly any latent chooses is dead: it moves to a latent
of the step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scaled_mpi.learning.networks.convolution import CONVOLUTIONS
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.plugins import members, missing

EPSILON = 1e-5  # Laplace smoothing of the codes' counts
OFFERED = 64  # latents a micro-batch offers to dead codes


class PlainBottleneck(nn.Module):
    """(B, c, *cells) -> (the stored latent, penalty); 32 bits a number."""

    def __init__(self, axes: int, latent: int, **keys: Any) -> None:
        super().__init__()
        self.latent = latent

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent (B, c, *cells) of a training, and the scalar penalty."""
        return self.code(z), z.new_zeros(())

    def code(self, z: Tensor) -> Tensor:
        """Return the stored latent (B, c, *cells)."""
        return z

    def start(self, z: Tensor) -> None:
        """Begin with the latents (B, c, *cells) of the linear start."""

    def after_step(self, comm: Comm) -> None:
        """Nothing to update: only gradients change this bottleneck."""

    @property
    def bits(self) -> float:
        """Bits of one latent cell."""
        return 32.0 * self.latent


class LinearBottleneck(PlainBottleneck):
    """A 1-wide linear map, the identity at first."""

    def __init__(self, axes: int, latent: int, **keys: Any) -> None:
        super().__init__(axes, latent)
        self.map = CONVOLUTIONS[axes](latent, latent, 1)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(latent).view(latent, latent, *(1,) * axes))
            assert self.map.bias is not None
            self.map.bias.zero_()

    def code(self, z: Tensor) -> Tensor:
        return self.map(z)


class Gaussian(PlainBottleneck):
    """A sample of N(z, exp(s(z))) in training, z when stored; penalty KL to N(0, 1), in nats."""

    def __init__(self, axes: int, latent: int, *, weight: float = 1e-3, **keys: Any) -> None:
        super().__init__(axes, latent)
        self.weight = weight
        self.log_variance = CONVOLUTIONS[axes](latent, latent, 1)
        nn.init.zeros_(self.log_variance.weight)
        assert self.log_variance.bias is not None
        nn.init.constant_(self.log_variance.bias, -6.0)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return a sample (B, c, *cells) and the penalty, a mean over numbers times `weight`."""
        log = self.log_variance(z).clamp(-20.0, 10.0)
        sampled = z + torch.exp(0.5 * log) * torch.randn_like(z)
        divergence = 0.5 * (z.square() + log.exp() - 1.0 - log)
        return sampled, self.weight * divergence.mean()


class Quantiser(PlainBottleneck):
    """The nearest of `codes` vectors; penalty `commitment` |z - code|^2, a mean over numbers."""

    book: Tensor
    counts: Tensor
    sums: Tensor
    offer: Tensor

    def __init__(
        self,
        axes: int,
        latent: int,
        *,
        codes: int = 512,
        decay: float = 0.98,
        commitment: float = 0.25,
        **keys: Any,
    ) -> None:
        super().__init__(axes, latent)
        self.codes, self.decay, self.commitment = codes, decay, commitment
        self.register_buffer("book", torch.randn(codes, latent))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.book.clone())
        self.register_buffer("offer", torch.zeros((), dtype=torch.int64))
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return straight-through codes (B, c, *cells); the choices wait for `after_step`."""
        vectors, index = self._nearest(z)
        code = self._as_field(self.book[index], z)
        if self.training:
            self._note(vectors.detach(), index)
        penalty = self.commitment * (z - code).square().mean()
        return z + (code - z).detach(), penalty

    def code(self, z: Tensor) -> Tensor:
        return self._as_field(self.book[self._nearest(z)[1]], z)

    @torch.no_grad()
    def start(self, z: Tensor) -> None:
        """Choose the codes evenly from the latents (B, c, *cells)."""
        vectors = z.movedim(1, -1).flatten(0, -2)
        chosen = torch.linspace(0, len(vectors) - 1, self.codes).long()
        self.book.copy_(vectors[chosen])
        self.sums.copy_(self.book)

    @property
    def bits(self) -> float:
        return math.log2(self.codes)

    @torch.no_grad()
    def after_step(self, comm: Comm) -> None:
        """Move the codes by the latents of all ranks. Collective, the same bits anywhere."""
        parts = [[part.cpu().numpy() for part in seen] for seen in self._seen]
        self._seen.clear()
        everything = [seen for one in comm.allgather(parts) for seen in one]
        counts, sums, offered = (
            [torch.from_numpy(part) for part in row] for row in zip(*everything, strict=True)
        )
        device = self.book.device
        for mean, rows in ((self.counts, counts), (self.sums, sums)):
            total = rows[0].clone()
            for row in rows[1:]:
                total += row
            mean.lerp_(total.to(device), 1.0 - self.decay)
        self._revive(torch.cat(offered).to(device))
        whole = self.counts.sum()
        smoothed = (self.counts + EPSILON) / (whole + self.codes * EPSILON) * whole
        self.book.copy_(self.sums / smoothed[:, None])

    def usage(self) -> tuple[float, int]:
        """(perplexity, codes in use), of the exponential mean over all ranks' latents."""
        share = self.counts.double() / self.counts.double().sum()
        entropy = -(share * share.clamp_min(1e-300).log()).sum()
        return float(entropy.exp()), int((share > 0.01 / self.codes).sum())

    def _revive(self, offered: Tensor) -> None:
        """Dead codes, in order, take the latents offered, in order."""
        mean = self.counts.mean()
        dead = torch.nonzero(self.counts < 0.01 * mean).flatten()
        if len(dead):
            taken = (self.offer + torch.arange(len(dead), device=dead.device)) % len(offered)
            self.counts[dead] = mean
            self.sums[dead] = offered[taken] * mean
            self.offer += len(dead)

    def _note(self, vectors: Tensor, index: Tensor) -> None:
        """One micro-batch's counts (K,), sums (K, c) and offer (OFFERED, c)."""
        chosen = nn.functional.one_hot(index, self.codes).to(vectors.dtype)
        offered = vectors[:: max(1, len(vectors) // OFFERED)][:OFFERED]
        self._seen.append((chosen.sum(0), chosen.T @ vectors, offered))

    def _nearest(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (n, c) of all cells in float32, and the number of each one's code."""
        vectors = z.float().movedim(1, -1).flatten(0, -2)
        distance = self.book.square().sum(1) - 2.0 * vectors @ self.book.T
        return vectors, distance.argmin(1)

    @staticmethod
    def _as_field(vectors: Tensor, like: Tensor) -> Tensor:
        return vectors.view(len(like), *like.shape[2:], -1).movedim(-1, 1)


BOTTLENECKS: dict[str, Callable[..., PlainBottleneck]] = {
    "identity": PlainBottleneck,
    "linear": LinearBottleneck,
    "kl": Gaussian,
    "vq": Quantiser,
}


@functools.cache
def bottlenecks() -> dict[str, Callable[..., PlainBottleneck]]:
    """Return every bottleneck by name: those of BOTTLENECKS, then those of installed packages."""
    return members("scaled_mpi.bottlenecks", BOTTLENECKS, _violations)


def _violations(member: object) -> list[str]:
    return missing(member, ("forward", "code", "start", "after_step", "bits"))
