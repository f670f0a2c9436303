"""A law whose future is known in distribution: x' = 0.8 x + 0.3 N in every cell on its own."""

import numpy as np

from scaled_mpi.learning.settings import Training

DECAY, FORCE = 0.8, 0.3


def forced(shape, seed, frames, rate):
    """Frames (2, *shape) of the law, from its stationary state on."""
    random = np.random.default_rng(seed)
    field = FORCE / (1 - DECAY**2) ** 0.5 * random.standard_normal((2, *shape))
    kept = []
    for _ in range(frames):
        kept.append(field.astype(np.float32))
        field = DECAY * field + FORCE * random.standard_normal(field.shape)
    return kept


def training(steps, **keys):
    """A short training on the CPU."""
    return Training(
        **{
            "steps": steps,
            "batch": 8,
            "micro_batches": 4,
            "learning_rate": 1e-2,
            "warmup": 10,
            "ema": 0.95,
            "validate_every": steps,
            "checkpoint_every": steps,
            "device": "cpu",
            **keys,
        }
    )


def moments(operator, field, samples, seed=0):
    """Mean and spread over samples of one jump of a periodic line (2, cells) in one tile."""
    random = np.random.default_rng(seed)
    (r,) = operator.reach
    window = np.pad(field, ((0, 0), (r, r)), mode="wrap")[None]
    made = [
        operator.advance(
            window,
            np.ones(window.shape[2:], np.float32),
            np.zeros(0),
            noise=random.standard_normal((operator.noises, *window.shape[2:])).astype(np.float32),
        )
        for _ in range(samples)
    ]
    return np.mean(made, axis=0), np.std(made, axis=0, ddof=1)
