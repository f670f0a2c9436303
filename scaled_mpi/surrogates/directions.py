"""How well fields learned from snapshots point along the true dynamics.

Two protocols, on held-out snapshots x0 in normalised units:

    marched         dx = (v + eta s) dt + sqrt(2 eta) dW from x0 by Heun's method; the cosine of
                    its displacement (the running mean of the path, less x0) with that of a few
                    steps of the simulator, in absolute value, the better of v and -v. This is
                    upstream's: it looks at the truth to choose a sign.
    instantaneous   the cosine of v(signal x0), without noise, with the simulator's rate of change
                    at x0, with its sign; v's sign is fixed beforehand. This is the fair one.

The baselines are random linear maps of the score, random skew kernels and a network of the same
weights' statistics. Skew kernels fitted to the rates of a few training snapshots are a further
one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scaled_mpi.learning import skew
from scaled_mpi.learning.scores import Score
from scaled_mpi.learning.stationarity import residuals
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import normal

PROBES = 8
SLICES = {"cpu": 2, "cuda": 64}  # snapshots of one call of a network: few stay in the cache
FILMED = 4  # steps of a march between two pictures of it

Field = Callable[[Tensor, Tensor], Tensor]  # (x, score at x) -> v, all (B, 2, Y, X)


class Truth(NamedTuple):
    """Snapshots (N, 2, Y, X) in normalised units and their change under the simulator.

    `rate` is the change in one step, `moved` (of the first snapshots) the change in several steps.
    """

    snapshots: np.ndarray
    rate: np.ndarray
    moved: np.ndarray


class DirectionMarch(NamedTuple):
    """The stochastic march: see the head of this module."""

    steps: int
    dt: float
    eta: float
    memory: float


def kernel_field(kernel: np.ndarray, device: str | torch.device = "cpu") -> Field:
    """Return v = K * s of fields (B, 2, Y, X); the kernel (2, 2, k, k) lies on the device."""
    placed = torch.from_numpy(kernel.copy()).float().to(device)
    return lambda _, score: skew.convolve(placed, score)


def network_field(network: Callable[[Tensor], Tensor]) -> Field:
    """Return v = network(x) of fields (B, 2, Y, X)."""
    return lambda x, _: network(x)


def opposite(field: Field) -> Field:
    """The field -v."""
    return lambda x, score: -field(x, score)


def cosines(one: Tensor | np.ndarray, other: Tensor | np.ndarray) -> np.ndarray:
    """The cosine of each sample's two fields (B, ...), (B,) float64; 0 where a field is 0."""
    a, b = (torch.as_tensor(f).detach().cpu().double().flatten(1) for f in (one, other))
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-300)).numpy()


def random_skew(size: int, seed: int, draw: int) -> np.ndarray:
    """A skew kernel (2, 2, k, k), k = size, of unit norm whose weights are normal."""
    values = normal(seed, draw, np.arange(4 * size * size), stream=Stream.RANDOM_KERNELS)
    kernel = skew.skew(values.reshape(2, 2, size, size))
    return kernel / np.linalg.norm(kernel)


def random_linear(seed: int, draw: int) -> np.ndarray:
    """Return a kernel (O, C, k, k) = (2, 2, 1, 1) of unit norm without any symmetry."""
    kernel = normal(seed, draw, np.arange(4), stream=Stream.RANDOM_MAPS).reshape(2, 2, 1, 1)
    return kernel / np.linalg.norm(kernel)


def reweighted(score: Score, seed: int, draw: int) -> Callable[[Tensor], Tensor]:
    """Return the score (B, 2, Y, X) of a model with weights drawn from the law of each tensor."""
    other = copy.deepcopy(score)
    generator = torch.Generator().manual_seed((seed << 16) + draw)
    with torch.no_grad():
        for weights in other.parameters():
            noise = torch.randn(weights.shape, generator=generator).to(weights)
            spread = weights.std() if weights.numel() > 1 else 0.0
            weights.copy_(weights.mean() + spread * noise)
    return other.score


@torch.no_grad()
def in_slices(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return `work(x)` of samples (B, ...), a few at a time."""
    return torch.cat([work(part) for part in x.split(SLICES.get(x.device.type, 16))])


@torch.no_grad()
def marched(
    fields: Sequence[Field],
    score: Score,
    start: Tensor,
    march: DirectionMarch,
    seed: int,
    seen: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Displacements (F, B, 2, Y, X) of `start` under every field, the same noise.

    `start` is (B, 2, Y, X), or (F, B, 2, Y, X) where every field has its own. `seen(step, x)` is
    shown all states (F, B, 2, Y, X) before every step.
    """
    count, generator = len(fields), torch.Generator(start.device).manual_seed(seed)
    x = start.expand(count, *start.shape[-4:]).clone()
    mean, size = x.clone(), math.sqrt(2.0 * march.eta * march.dt)

    def drift(x: Tensor) -> Tensor:
        s = in_slices(score.score, x.flatten(0, 1)).view_as(x)
        moved = torch.stack([f(*pair) for f, *pair in zip(fields, x, s, strict=True)])
        return moved + march.eta * s

    for step in range(march.steps):
        if seen is not None:
            seen(step, x)
        mean = march.memory * mean + (1.0 - march.memory) * x
        noise = size * torch.randn(x.shape[1:], generator=generator, device=start.device)
        first = drift(x)
        ahead = x + march.dt * first + noise
        x = x + 0.5 * march.dt * (first + drift(ahead)) + noise
    return mean - start


class Instants(NamedTuple):
    """Snapshots without noise as the score sees them, and the score there; (B, 2, Y, X) each."""

    x: Tensor
    score: Tensor


def instants(score: Score, snapshots: Tensor) -> Instants:
    """Return the states at which fields are compared, of snapshots (B, 2, Y, X)."""
    x = score.signal * snapshots
    return Instants(x, in_slices(score.score, x))


@torch.no_grad()
def instantaneous(field: Field, at: Instants) -> Tensor:
    """v at snapshots without noise, (B, 2, Y, X)."""
    parts = zip(at.x.split(1), at.score.split(1), strict=True)
    return torch.cat([field(x, s) for x, s in parts])


def relative_residual(field: Field, score: Score, snapshots: Tensor, seed: int) -> float:
    """How far v is from keeping the density: 0 keeps it, 1 is a field drawn at random.

    With a learned score on snapshots (B, 2, Y, X): the square of div v + v . s, in units of
    |v|^2 |s|^2 / n.
    """
    with torch.random.fork_rng(devices=[snapshots.device] if snapshots.is_cuda else []):
        torch.manual_seed(seed)
        x = score.noisy(snapshots, torch.randn_like(snapshots))
        with torch.no_grad():
            s = score.score(x)
        found = residuals(lambda y: field(y, score.score(y)), x, s, PROBES, keep=False)
    return float(found.relative.detach())


class Contest:
    """All fields of one preset, compared with the truth by both protocols."""

    def __init__(
        self,
        score: Score,
        flow: Callable[[Tensor], Tensor],
        lesson: Truth,
        test: Truth,
        sizes: Sequence[int],
        draws: int,
        seed: int,
        device: str | torch.device,
    ) -> None:
        self.score, self.seed, self.draws, self.device = score, seed, draws, device
        self.test, self.snapshots = test, self._there(test.snapshots)
        seen, rate = self._there(lesson.snapshots), self._there(lesson.rate)
        self.instants, learned = instants(score, self.snapshots), instants(score, seen).score
        self.kernels = {f"fitted{size}": skew.fitted(learned, rate, size) for size in sizes}
        without_score = skew.fitted(seen, rate, max(sizes))
        self.fields: dict[str, list[Field]] = {
            "trainingfree": [kernel_field(skew.TURN, device)],
            "flow": [network_field(flow)],
            **{name: [kernel_field(k, device)] for name, k in self.kernels.items()},
            "unscored": [lambda x, _: skew.convolve(without_score, x)],
            "score": [lambda _, s: s],
            "random": [kernel_field(random_linear(seed, d), device) for d in range(draws)],
            **{
                f"random{size}": [
                    kernel_field(random_skew(size, seed, d), device) for d in range(draws)
                ]
                for size in sizes
                if size > 1
            },
            "reweighted": [network_field(reweighted(score, seed, draw)) for draw in range(draws)],
        }

    def _there(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).float().to(self.device)

    def fair(self) -> dict[str, tuple[float, float]]:
        """name -> mean and spread over snapshots; of random fields of |mean cosine| over draws."""
        found = {}
        for name, fields in self.fields.items():
            each = [cosines(instantaneous(f, self.instants), self.test.rate) for f in fields]
            values = each[0] if len(fields) == 1 else np.array([abs(e.mean()) for e in each])
            found[name] = float(values.mean()), float(values.std())
        return found

    def upstream(
        self, march: DirectionMarch
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """name -> |cosine| of each sample (or draw), (n,); and pictures of the first sample.

        The pictures are of the better sign. `marched.NAME` (2, Y, X) is the displacement.
        `film.NAME` (T, Y, X) shows the last channel of the denoised states at the times
        `film.steps`. A draw of a random field starts from one sample, the next from the next.
        """
        start = self.snapshots[: len(self.test.moved)]
        named = ["trainingfree", "flow"]
        fields = [
            f for name in named for f in (self.fields[name][0], opposite(self.fields[name][0]))
        ]
        film: list[Tensor] = []

        def keep(step: int, x: Tensor) -> None:
            if step % FILMED == 0:
                shown = self.score.denoised(x[:, 0]) if step else x[:, 0]
                film.append(shown[:, -1].cpu())

        moved = marched(fields, self.score, start, march, self.seed, keep)
        along = np.abs([cosines(one, self.test.moved) for one in moved])
        found, pictures = {}, {"film.steps": FILMED * np.arange(len(film))}
        for place, name in zip(range(0, len(fields), 2), named, strict=True):
            found[name] = along[place : place + 2].max(0)
            better = place + int(along[place : place + 2, 0].argmax())
            pictures["marched." + name] = moved[better, 0].cpu().numpy()
            pictures["film." + name] = torch.stack(film)[:, better].numpy()
        for name in ("random", "reweighted"):
            found[name] = self._drawn(self.fields[name], start, march)
        return found, pictures

    def _drawn(self, fields: Sequence[Field], start: Tensor, march: DirectionMarch) -> np.ndarray:
        """|cosine| of every random field (F,), each from one of the samples in turn."""
        places = np.arange(len(fields)) % len(start)
        moved = marched(fields, self.score, start[places][:, None], march, self.seed)
        return np.abs(cosines(moved[:, 0], self.test.moved[places]))

    def residuals(self, samples: int = 8) -> dict[str, float]:
        """name -> relative residual of the fields that claim to keep the density, and of one
        random linear map, which does not."""
        some = self.snapshots[:samples]
        named = ("trainingfree", "flow", "random")
        return {
            name: relative_residual(self.fields[name][0], self.score, some, self.seed)
            for name in named
        }

    def pictures(self) -> Mapping[str, np.ndarray]:
        """The fields of the first snapshot, (2, Y, X) each."""
        first = Instants(*(part[:1] for part in self.instants))
        names = ("trainingfree", "flow", *self.kernels)
        return {
            name: instantaneous(self.fields[name][0], first)[0].cpu().numpy() for name in names
        }
