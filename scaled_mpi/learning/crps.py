"""The almost fair CRPS as a loss of an ensemble: of cells, and of means over blocks.

    mean_m |x_m - y|  -  (1 - e) / (2 M (M - 1)) sum_mn |x_m - x_n|,       e = (1 - a) / M

is the continuous ranked probability score. It is fair (unbiased in M) for a = 1; for a = 0 it is
the score of the finite ensemble. With a slightly below 1 a single member cannot stray from the
others at no cost (Lang et al. 2024, arXiv 2412.15832). A score of cells alone ignores their
correlations: a forecast could be right in every cell and wrong over any distance. The CRPS of
means over blocks of cells is a proper score too, and it measures these correlations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

from torch import Tensor

from scaled_mpi.learning.networks.convolution import POOLS


def almost_fair_crps(members: Tensor, truth: Tensor, alpha: float = 0.95) -> Tensor:
    """Mean CRPS over all cells, a scalar; members (B, M, ...) with M >= 2, truth (B, ...)."""
    count = members.shape[1]
    skill = (members - truth[:, None]).abs().mean()
    pairs = sum(
        (members[:, m + 1 :] - members[:, m : m + 1]).abs().sum(1).mean() for m in range(count - 1)
    )
    return skill - (1.0 - (1.0 - alpha) / count) * pairs / (count * (count - 1))


def crps_of_scales(
    members: Tensor, truth: Tensor, scales: Sequence[int], alpha: float = 0.95
) -> Tensor:
    """Mean over `scales` of the CRPS of block means, each scale a number of cells an axis; scalar.

    members (B, M, C, *cells), truth (B, C, *cells); in float32 whatever the network's precision.
    """
    batch, count = members.shape[:2]
    pool = POOLS[truth.ndim - 2]
    flat, truth = members.float().flatten(0, 1), truth.float()
    scores = []
    for scale in scales:
        made, true = (x if scale == 1 else pool(x, scale) for x in (flat, truth))
        scores.append(almost_fair_crps(made.unflatten(0, (batch, count)), true, alpha))
    return reduce(add, scores) / len(scores)
