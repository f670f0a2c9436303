"""Initial positions of particles: the same for a particle id whoever asks.

    uniform           anywhere in the box
    gaussian_cluster  normal about the centre, standard deviation min(L) / 6
    ring              on a circle of min(L) / 4 about the centre, its radius normal with a tenth
    two_clusters      normal about two centres L_x / 3 apart, standard deviation min(L) / 8; even
                      ids belong to one, odd ids to the other

What falls outside the box is brought back by its boundary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from scaled_mpi.parallel import streams
from scaled_mpi.parallel.keys import Stream


def _uniform(seed: int, ids: np.ndarray, box: np.ndarray) -> np.ndarray:
    return streams.uniform(seed, 0, ids, 2, Stream.FLOCK_PLACES).T * box


def _gaussian_cluster(seed: int, ids: np.ndarray, box: np.ndarray) -> np.ndarray:
    return box / 2 + streams.normal(seed, 0, ids, 2, Stream.FLOCK_PLACES).T * (box.min() / 6)


def _ring(seed: int, ids: np.ndarray, box: np.ndarray) -> np.ndarray:
    radius = box.min() / 4
    around = 2 * math.pi * streams.uniform(seed, 0, ids, stream=Stream.FLOCK_PLACES)
    distance = radius * (1 + 0.1 * streams.normal(seed, 1, ids, stream=Stream.FLOCK_PLACES))
    return box / 2 + distance[:, None] * np.stack([np.sin(around), np.cos(around)], axis=1)


def _two_clusters(seed: int, ids: np.ndarray, box: np.ndarray) -> np.ndarray:
    places = box / 2 + streams.normal(seed, 0, ids, 2, Stream.FLOCK_PLACES).T * (box.min() / 8)
    places[:, 1] += np.where(ids % 2 == 0, -1, 1) * (box[1] / 6)
    return places


STARTS: dict[str, Callable[[int, np.ndarray, np.ndarray], np.ndarray]] = {
    "uniform": _uniform,
    "gaussian_cluster": _gaussian_cluster,
    "ring": _ring,
    "two_clusters": _two_clusters,
}


def places(start: str, seed: int, ids: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """Positions (N, 2), y and x, of particles `ids`; they may lie outside the box (L_y, L_x)."""
    return STARTS[start](seed, np.asarray(ids, np.int64), np.array(box, np.float64))


def headings(seed: int, ids: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 2) in uniformly drawn directions."""
    angle = 2 * math.pi * streams.uniform(seed, 0, ids, stream=Stream.FLOCK_HEADINGS)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)
