"""The score of noisy snapshots, s(x) = gradient of log p(x), at one level of noise.

    x_t = signal x + sqrt(variance) eps        signal^2 + variance = 1

Two models learn it (Zhang and Levin 2025, arXiv 2509.17990). A network of a single level predicts
eps, as in their first code. A denoiser of all levels is evaluated at one, as in their paper. By
Tweedie's formula E[x | x_t] = (x_t + variance s) / signal.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scaled_mpi.learning.denoising import Denoiser


class Score(nn.Module):
    """A score model: `signal`, `variance`, and the callables `score` and `loss`."""

    signal: float
    variance: float

    def noisy(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return x (B, ...) at this score's level, in the same shape."""
        return self.signal * x + math.sqrt(self.variance) * noise

    def denoised(self, x: Tensor) -> Tensor:
        """Return E[x | x_t] for x_t (B, ...), in the same shape."""
        return (x + self.variance * self.score(x)) / self.signal

    def score(self, x: Tensor) -> Tensor:
        """Gradient of the log density of the noisy snapshots at x (B, ...)."""
        raise TypeError(f"{type(self).__name__} has no score of its own")


class SingleLevelScore(Score):
    """One level by a network without a notion of time; alpha is signal^2.

    The network predicts eps, or x itself, which is smooth and so easier for a small network.
    Either way the loss is the mean square error of eps. `gaussian_weight` g adds the score of a
    Gaussian: s = -(eps(x) + g x) / sqrt(variance). `clip` bounds E[x | x_t], for snapshots that
    are bounded themselves; 0 does not.
    """

    def __init__(
        self,
        network: nn.Module,
        alpha: float,
        gaussian_weight: float = 0.0,
        *,
        predicts: Literal["epsilon", "x0"] = "epsilon",
        clip: float = 0.0,
    ) -> None:
        super().__init__()
        self.network, self.gaussian_weight, self.clip = network, gaussian_weight, clip
        self.predicts = predicts
        self.signal, self.variance = math.sqrt(alpha), 1.0 - alpha

    def epsilon(self, x: Tensor) -> Tensor:
        """E[eps | x_t] for x_t (B, C, Y, X)."""
        made = self.network(x)
        if self.predicts == "epsilon":
            return made
        return (x - self.signal * made) / math.sqrt(self.variance)

    def loss(self, x: Tensor) -> Tensor:
        """Mean square error of eps; scalar."""
        noise = torch.randn_like(x)
        return (self.epsilon(self.noisy(x, noise)).float() - noise).square().mean()

    def score(self, x: Tensor) -> Tensor:
        """x (B, C, Y, X) -> the same shape."""
        made = self.epsilon(x) + self.gaussian_weight * x
        score = -made / math.sqrt(self.variance)
        if not self.clip:
            return score
        bounded = ((x + self.variance * score) / self.signal).clamp(-self.clip, self.clip)
        return (self.signal * bounded - x) / self.variance


class LevelScore(Score):
    """A denoiser of discrete levels, evaluated at level `tau`; `clip` bounds its estimate of x.

    A share `focus` of the samples is learned at that level, the others at any.
    """

    def __init__(self, denoiser: Denoiser, tau: int, clip: float, focus: float = 0.0) -> None:
        super().__init__()
        self.denoiser, self.clip, self.focus = denoiser, clip, focus
        schedule: Any = denoiser.schedule  # of discrete levels
        self.schedule, self.time = schedule, schedule.time_of(tau)
        self.signal = float(self.schedule.alpha(self.time))
        self.variance = 1.0 - self.signal**2

    def loss(self, x: Tensor) -> Tensor:
        """The denoiser's loss at levels drawn evenly, but for the focus; scalar."""
        levels = torch.randint(0, self.schedule.levels, (len(x),), device=x.device)
        times = (levels + 1).to(x.dtype) / self.schedule.levels
        here = torch.rand(len(x), device=x.device) < self.focus
        times = torch.where(here, self.time, times)
        return self.denoiser.loss(x, times, torch.randn_like(x))

    def score(self, x: Tensor) -> Tensor:
        """x (B, C, Y, X) -> the same shape."""
        made = self.denoiser(x, self.time)
        if self.clip:
            made = made.clamp(-self.clip, self.clip)
        return (self.signal * made - x) / self.variance


def moved(x: Tensor) -> Tensor:
    """Snapshots (B, C, Y, X) under one random translation, mirror images and exchange of axes.

    Patterns of an isotropic law on a periodic square are as likely as their images.
    """
    draws = torch.randint(0, 1 << 30, (5,)).tolist()
    x = torch.roll(x, (draws[0] % x.shape[2], draws[1] % x.shape[3]), (2, 3))
    axes = [axis for axis, draw in zip((2, 3), draws[2:4], strict=True) if draw % 2]
    x = x.flip(axes) if axes else x
    return x.transpose(2, 3) if draws[4] % 2 and x.shape[2] == x.shape[3] else x
