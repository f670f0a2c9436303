"""A known solution with a smooth coefficient, for the order of convergence.

    u = prod phi_a(x_a),  phi = sin(pi x) (dirichlet), cos(pi x) (neumann), sin(2 pi x) (periodic)
    k = exp(prod cos(2 pi x_a) / 2),    f = -(grad k . grad u + k laplace u) + s u

on the unit square, cube or interval. All derivatives are written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scaled_mpi.parallel.blocks import Grid

_WAVES = {"dirichlet": (1, 0.0), "neumann": (1, 0.5), "periodic": (2, 0.0)}


def _product(factors: Sequence[np.ndarray]) -> np.ndarray:
    """Outer product of one 1-D array an axis."""
    result = np.ones(())
    for factor in factors:
        result = np.multiply.outer(result, factor)
    return result


def _axis(grid: Grid, axis: int, ring: int) -> np.ndarray:
    """Cell centres of an axis in units of the domain, `ring` cells beyond both ends included."""
    n = grid.shape[axis]
    return (np.arange(-ring, n + ring) + 0.5) / n


def solution(grid: Grid) -> np.ndarray:
    """u at the cell centres, float64 (*shape)."""
    return _product([_phi(grid, axis, 0) for axis in range(grid.axes)])


def coefficient(grid: Grid, ring: int = 1) -> np.ndarray:
    """k at the cell centres, float64 (*size), size = shape + 2 ring."""
    waves = [np.cos(2 * np.pi * _axis(grid, axis, ring)) for axis in range(grid.axes)]
    return np.exp(_product(waves) / 2)


def source(grid: Grid, reaction: float = 0.0) -> np.ndarray:
    """f at the cell centres, float64 (*shape), for a domain of extent 1 on every axis."""
    axes = range(grid.axes)
    k = coefficient(grid, 0)
    u = [_phi(grid, axis, 0) for axis in axes]
    waves = [np.cos(2 * np.pi * _axis(grid, axis, 0)) for axis in axes]
    total = reaction * _product(u)
    for axis in axes:
        steep = -2 * np.pi * np.sin(2 * np.pi * _axis(grid, axis, 0)) / 2
        grad_k = k * _product([steep if a == axis else waves[a] for a in axes])
        first = _product([_phi(grid, a, int(a == axis)) for a in axes])
        second = _product([_phi(grid, a, 2 * int(a == axis)) for a in axes])
        total = total - grad_k * first - k * second
    return total


def _phi(grid: Grid, axis: int, order: int) -> np.ndarray:
    """The factor of u along an axis, differentiated `order` times: sin(w x + phase)."""
    waves, phase = _WAVES[grid.boundary[axis].kind]
    w = math.pi * waves
    return w**order * np.sin(w * _axis(grid, axis, 0) + math.pi * (phase + order / 2))
