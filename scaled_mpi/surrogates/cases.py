"""Stationary fields of densities in few dimensions, and how their trajectories part.

In the plane the score is exact (`problems/mixtures.py`). A skew matrix turns it into a flow along
the level lines of p, v = J grad log p. This flow has a first integral and so no chaos: its
exponents are zero, and log p stays along every path. Of Lorenz's attractor score and flow are both
learned from states without time. Fields have no scale of their own. So exponents are of a field of
unit root mean square speed, on Lorenz of one as fast as Lorenz's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from scaled_mpi.learning.networks.periodic import Dense
from scaled_mpi.learning.scores import SingleLevelScore
from scaled_mpi.learning.settings import Session, Training
from scaled_mpi.learning.skew import TURN
from scaled_mpi.learning.stationarity import exact_residual, residuals, stationarity_loss
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import normal
from scaled_mpi.problems.mixtures import MIXTURES, Mixture
from scaled_mpi.simulators.lorenz import Rate, lorenz_rate, lorenz_states, runge_kutta
from scaled_mpi.surrogates.directions import cosines
from scaled_mpi.surrogates.lyapunov import lyapunov_exponents, separation
from scaled_mpi.surrogates.score import SnapshotLesson, seeded, train_on

WIDTH = 64
PROBES = 4
SAMPLES = 4096
JUDGED = 512  # held-out samples of a validation: few dimensions tell little each
STARTS = 4  # trajectories whose exponents are averaged
STEP = 0.005  # of the plane, at unit speed
SHOWN = 6  # paths of the page
PATH = 2000  # steps of one
SHARE = 0.2  # of Lorenz's horizon is that of the plane
LORENZ_ALPHA = 0.911  # signal^2 of the noisy states
LORENZ_STEP = 0.01
LORENZ_RUNS = 10
SKEWS = 10  # random skew matrices in three dimensions
BOUND = 4.0  # standardised states beyond which a path has left, as published
APART, APART_STEP = 64, 0.1  # paths and time of a step, as published

Found = list[tuple[str, float, dict[str, str]]]  # name, value, places
Module = Callable[[torch.Tensor], torch.Tensor]


def study(
    name: str, noise: float, steps: int, horizon: float, apart: int, seed: int, folder: Path
) -> tuple[Found, dict[str, np.ndarray]]:
    """Learn and measure one case: facts by name and places, and arrays (n, ...) for its picture.

    `horizon` is the time of the exponents, `apart` the steps of the published separation.
    """
    if name == "lorenz":
        return _lorenz(steps, horizon, apart, seed, folder)
    return _plane(name, MIXTURES[name](noise), steps, SHARE * horizon, seed, folder)


def _plane(
    name: str, mixture: Mixture, steps: int, horizon: float, seed: int, folder: Path
) -> tuple[Found, dict[str, np.ndarray]]:
    samples = mixture.sample(seed, SAMPLES)
    score = _exact(mixture)
    flow = _flow(score, lambda x: x, samples, steps, seed, folder / name)
    turn = torch.from_numpy(TURN[:, :, 0, 0])

    def turned(x: torch.Tensor) -> torch.Tensor:
        return score(x) @ turn.T.to(x)

    x = torch.from_numpy(samples[:512])
    fields = {"trainingfree": turned, "flow": flow}
    found: Found = []
    for kind, field in fields.items():
        at = x.float() if kind == "flow" else x
        where = {"field": kind, "system": name}
        found.append(("stationarity", exact_residual(field, at, score(at)), where))
        rate = _as_rate(field, samples, 1.0)
        exponents = lyapunov_exponents(rate, samples[:STARTS], STEP, round(horizon / STEP))
        found.append(("lyapunov", float(exponents[:, 0].mean()), where))
        found.append(("lyapunov.sum", float(exponents.sum(1).mean()), where))
        found.append(("density.drift", _drift(mixture, rate, samples[:64]), where))
    paths = {
        f"paths.{kind}": _paths(_as_rate(field, samples, 1.0), samples[:SHOWN], STEP, horizon)
        for kind, field in fields.items()
    }
    return found, {"samples": samples[:1024], **paths, **_on_grid(mixture)}


def _lorenz(
    steps: int, horizon: float, apart: int, seed: int, folder: Path
) -> tuple[Found, dict[str, np.ndarray]]:
    states = lorenz_states(seed, LORENZ_RUNS, SAMPLES // LORENZ_RUNS * 4, LORENZ_STEP)
    mean, spread = states.mean(0), states.std(0)
    samples = (states - mean) / spread
    model = seeded(lambda: SingleLevelScore(Dense(3, WIDTH), LORENZ_ALPHA), seed)
    _train(model, lambda m, x: m.loss(x), samples, steps, seed, folder / "lorenz_score")
    score = model.requires_grad_(False).score
    flow = _flow(
        score,
        lambda x: model.noisy(x, torch.randn_like(x)),
        samples,
        steps,
        seed,
        folder / "lorenz",
    )
    true = _standardised(mean, spread)
    some = slice(None, None, len(samples) // 1024)
    speed = float(np.sqrt((true(samples[some]) ** 2).sum(1).mean()))
    starts = samples[:: len(samples) // STARTS][:STARTS]
    rates = {"truth": true, "flow": _as_rate(flow, samples, speed)}
    found, pictures = [], {"samples": samples[some]}
    for kind, rate in rates.items():
        found += _chaos(kind, rate, samples[some], starts, horizon, apart)
        pictures[f"path.{kind}"] = _paths(rate, starts[:1], LORENZ_STEP, horizon)[0]
    x = torch.from_numpy(model.signal * samples[some]).float()
    fields = {
        "flow": flow(x),
        "score": score(x),
        **{f"skew{k}": score(x) @ _skew_matrix(seed, k).T for k in range(SKEWS)},
    }
    along = {kind: abs(_cosine(field, true(samples[some]))) for kind, field in fields.items()}
    turned = float(np.mean([along[f"skew{k}"] for k in range(SKEWS)]))
    found += [
        ("stationarity", exact_residual(flow, x, score(x)), _on_lorenz("flow")),
        ("cos", along["flow"], _on_lorenz("flow")),
        ("cos", along["score"], _on_lorenz("score")),
        ("cos", turned, _on_lorenz("trainingfree")),
    ]
    return found, pictures


def _on_lorenz(kind: str) -> dict[str, str]:
    """The places of a fact of one field."""
    return {"field": kind, "system": "lorenz"}


def _standardised(mean: np.ndarray, spread: np.ndarray) -> Rate:
    """Lorenz's rate of change of standardised states."""
    return lambda x: lorenz_rate(x * spread + mean) / spread


def _chaos(
    kind: str, rate: Rate, samples: np.ndarray, starts: np.ndarray, horizon: float, steps: int
) -> Found:
    """Exponents, that of a unit of path, and separation in the published units of speed.

    Of paths that stay near the attractor, `lyapunov.kept` of all; of none, where all leave.
    """
    exponents = lyapunov_exponents(
        rate, starts, LORENZ_STEP, round(horizon / LORENZ_STEP), bound=BOUND
    )
    kept = exponents[np.isfinite(exponents[:, 0])]
    speeds = np.sqrt((rate(samples) ** 2).sum(1))
    slow = np.sqrt(samples.shape[1]) / np.sqrt((speeds**2).mean())  # |v|^2 / dims = 1
    apart = separation(
        lambda x: slow * rate(x), samples[:: len(samples) // APART][:APART], APART_STEP, steps
    )
    where = _on_lorenz(kind)
    found: Found = [("lyapunov.kept", len(kept) / len(exponents), where)]
    if len(kept):
        largest = float(kept[:, 0].mean())
        found += [
            ("lyapunov", largest, where),
            ("lyapunov.sum", float(kept.sum(1).mean()), where),
            ("lyapunov.path", largest / float(speeds.mean()), where),
        ]
    return found + ([] if apart is None else [("lyapunov.separation", apart, where)])


def _exact(mixture: Mixture) -> Module:
    """The score of a mixture as a function of tensors (B, d)."""
    centres, variance = torch.from_numpy(mixture.centres), mixture.spread**2

    def score(x: torch.Tensor) -> torch.Tensor:
        c = centres.to(x)
        square = (x[:, None] - c).square().sum(-1)
        return (torch.softmax(-0.5 * square / variance, 1) @ c - x) / variance

    return score


def _flow(
    score: Module, noisy: Module, samples: np.ndarray, steps: int, seed: int, folder: Path
) -> Module:
    """A dense network under the stationarity loss of the score."""

    def loss(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        at = noisy(x)
        with torch.no_grad():
            s = score(at)
        return stationarity_loss(residuals(model, at, s, PROBES, keep=True), 0.1, 1.0)

    model = seeded(lambda: Dense(samples.shape[1], WIDTH), seed)
    _train(model, loss, samples, steps, seed, folder)
    return model.requires_grad_(False)


def _train(
    model: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    samples: np.ndarray,
    steps: int,
    seed: int,
    folder: Path,
) -> None:
    folder.mkdir(exist_ok=True)
    border = len(samples) * 7 // 8
    training = Training(
        steps=steps,
        batch=256,
        micro_batches=1,
        learning_rate=3e-3,
        warmup=50,
        device="cpu",
        validate_every=max(1, steps // 5),
        checkpoint_every=steps,
        ema=0.99,
    )
    values = samples.astype(np.float32)
    lesson = SnapshotLesson(
        loss, values[:border], values[border:], {"kind": "case"}, judged=JUDGED
    )
    train_on(model, lesson, training, Session(SerialComm(), folder, None, seed))


def _as_rate(field: Module, samples: np.ndarray, speed: float) -> Rate:
    """A field of tensors (B, d) as one of arrays (..., d), as fast as asked on the samples.

    In double precision, since exponents are measured on states very near to one another.
    """
    exact = copy.deepcopy(field).double() if isinstance(field, torch.nn.Module) else field

    def raw(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            flat = torch.from_numpy(np.ascontiguousarray(x)).flatten(0, -2)
            return exact(flat).view(x.shape).numpy()

    scale = speed / np.sqrt((raw(samples[:1024]) ** 2).sum(1).mean())
    return lambda x: scale * raw(x)


def _drift(mixture: Mixture, rate: Rate, start: np.ndarray) -> float:
    """Mean absolute change of log p along paths of unit time."""
    x = start
    for _ in range(round(1.0 / STEP)):
        x = runge_kutta(rate, x, STEP)
    return float(np.abs(mixture.log_density(x) - mixture.log_density(start)).mean())


def _skew_matrix(seed: int, draw: int) -> torch.Tensor:
    values = normal(seed, draw, np.arange(9), stream=Stream.SKEW_MATRICES).reshape(3, 3)
    return torch.from_numpy(values - values.T).float()


def _cosine(field: torch.Tensor, rate: np.ndarray) -> float:
    """Mean over states of the cosine of two vectors, (B, d) each."""
    return float(cosines(field, rate).mean())


def _on_grid(mixture: Mixture) -> dict[str, np.ndarray]:
    """p on a lattice over the samples, for the page."""
    reach = float(np.abs(mixture.centres).max()) + 4 * mixture.spread
    line = np.linspace(-reach, reach, 65)
    points = np.stack(np.meshgrid(line, line), -1)
    return {"points": points, "density": np.exp(mixture.log_density(points))}


def _paths(rate: Rate, start: np.ndarray, step: float, horizon: float) -> np.ndarray:
    """Paths (B, T, d) of starts (B, d) over at most PATH steps, every second state."""
    path = [start]
    for _ in range(min(PATH, round(horizon / step))):
        path.append(runge_kutta(rate, path[-1], step))
    return np.stack(path[::2], 1)
