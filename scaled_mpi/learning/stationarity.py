"""Fields under which a density stands still, div(p v) = 0, that is div v + v . s = 0.

(Zhang and Levin 2025, arXiv 2509.17990; s = grad log p.) The divergence is estimated by probes z
with unit covariance (Hutchinson 1990), d = mean z^T (J z). Two independent estimates give two
residuals r1, r2 with the same mean. Their product is an unbiased estimate of the squared residual;
the square of one is biased:

    loss = mean(r1 r2) / mean |v|^2  +  symmetry C^2  +  unit (mean |v|^2 / n - 1)^2

C = mean(v . s) / sqrt(mean |v|^2 mean |s|^2) is the part of the flow along the score, squared so
that it cannot be driven below zero. The factor |v|^2 in the first term keeps v = 0 from being a
solution. It is the squared norm of a sample, n its number of values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Field = Callable[[Tensor], Tensor]


class DensityResiduals(NamedTuple):
    """Fields (B, n) of one batch and the residuals of two halves of the probes (B,)."""

    v: Tensor
    score: Tensor
    first: Tensor
    second: Tensor

    @property
    def relative(self) -> Tensor:
        """Squared residual over |v|^2 |s|^2 / n, the size of a field drawn at random; scalar."""
        scale = self.v.square().sum(1).mean() * self.score.square().mean()
        return (self.first * self.second).mean() / scale


def residuals(field: Field, x: Tensor, score: Tensor, probes: int, keep: bool) -> DensityResiduals:
    """Residuals of `field` at x (B, ...) with `probes` (even) probes.

    `keep` keeps the graph, for a loss. `score` has the shape of x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        v = field(x)
        estimates = []
        for _ in range(probes):
            probe = torch.randn_like(v)
            (pulled,) = torch.autograd.grad(v, x, probe, create_graph=keep, retain_graph=True)
            estimates.append((pulled * probe).flatten(1).sum(1))
    v, flat = v.flatten(1), score.flatten(1)
    along = (v * flat).sum(1)
    half = probes // 2
    first, second = (torch.stack(part).mean(0) for part in (estimates[:half], estimates[half:]))
    return DensityResiduals(v, flat, first + along, second + along)


def stationarity_loss(found: DensityResiduals, symmetry: float, unit: float) -> Tensor:
    """The loss of this module's head; scalar."""
    size = found.v.square().sum(1).mean()
    loss = (found.first * found.second).mean() / (size + 1e-8)
    if symmetry:
        along = (found.v * found.score).sum(1).mean()
        loss = loss + symmetry * along.square() / (
            size * found.score.square().sum(1).mean() + 1e-8
        )
    if unit:
        loss = loss + unit * (size / found.v.shape[1] - 1.0).square()
    return loss


def exact_residual(field: Field, x: Tensor, score: Tensor) -> float:
    """The relative squared residual (see `Residuals.relative`) with the divergence itself.

    One derivative an axis, for few dimensions: x and score are (B, d).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        v = field(x)
        divergence = sum(
            torch.autograd.grad(v[:, axis].sum(), x, retain_graph=True)[0][:, axis]
            for axis in range(x.shape[1])
        )
    residual = divergence + (v.detach() * score).sum(1)
    scale = v.detach().square().sum(1).mean() * score.square().mean()
    return float(residual.square().mean() / scale)
