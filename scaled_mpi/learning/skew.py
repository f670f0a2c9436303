"""Skew-symmetric convolutions of a score: fields that keep a density, without any training.

v = K * s with K[o, i](d) = -K[i, o](-d) on a periodic grid is v = A s with A^T = -A, so

    v . s = s^T A^T s = 0        and        div v = tr(A Hess log p) = 0

for every density p (Zhang and Levin 2025, arXiv 2509.17990): both terms of div v + v . s vanish.
Of kernel 1 with two channels there is, up to its factor, one: the turn u -> v, v -> -u.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])[:, :, None, None] / np.sqrt(2.0)


def skew(kernel: np.ndarray) -> np.ndarray:
    """The skew part of a kernel (C, C, k, k), k odd: half of it less its turned transpose."""
    return (kernel - kernel.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]) / 2.0


def basis(size: int, channels: int = 2) -> np.ndarray:
    """An orthonormal basis (n, C, C, k, k) of all skew kernels of one size."""
    whole = channels * channels * size * size
    units = np.eye(whole).reshape(whole, channels, channels, size, size)
    parts = np.stack([skew(unit) for unit in units]).reshape(whole, -1)
    kept, seen = [], set()
    for part in parts:
        support = tuple(np.flatnonzero(part))
        if support and support not in seen:
            seen.add(support)
            kept.append(part / np.linalg.norm(part))
    return np.array(kept).reshape(-1, channels, channels, size, size)


def convolve(kernel: np.ndarray | Tensor, score: Tensor) -> Tensor:
    """K * s on a periodic grid: kernel (O, C, k, k), score (B, C, Y, X) -> (B, O, Y, X)."""
    kernel = torch.from_numpy(kernel.copy()) if isinstance(kernel, np.ndarray) else kernel
    ring = kernel.shape[-1] // 2
    padded = torch.nn.functional.pad(score, (ring,) * 4, "circular") if ring else score
    return torch.nn.functional.conv2d(padded, kernel.to(score))


def fitted(score: Tensor, rate: Tensor, size: int) -> np.ndarray:
    """The skew kernel (C, C, k, k) whose field is nearest to a known rate of change.

    score and rate are (B, C, Y, X); least squares over all cells, of unit norm, or 0 where nothing
    changes.
    """
    parts = basis(size, score.shape[1])
    # One convolution for all: (n C, C, k, k) -> (B, n, C, Y, X).
    fields = convolve(parts.reshape(-1, *parts.shape[2:]), score)
    columns = fields.unflatten(1, (len(parts), -1)).transpose(0, 1).flatten(1).double()
    normal = (columns @ columns.T).cpu().numpy()
    wanted = (columns @ rate.flatten().double()).cpu().numpy()
    weights = np.linalg.lstsq(normal, wanted, rcond=1e-10)[0]
    kernel = np.tensordot(weights, parts, 1)
    return kernel / max(float(np.linalg.norm(kernel)), 1e-300)
