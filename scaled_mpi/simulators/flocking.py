"""Compiled sums over neighbours within a cut-off: cell lists, and sums that no order can change.

Particles are sorted into square cells as long as the cut-off. All partners of one then lie in the
3 x 3 cells around it. Terms are rounded to a fixed point and added as whole numbers. Such a sum is
the same in any order, hence for any split into blocks and any numbering.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": False,
    "error_model": "numpy",
    "cache": True,
}


@numba.njit(**_OPTIONS)
def sort_into_cells(
    position: np.ndarray, lower: np.ndarray, length: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(order, first): particles of cell c are order[first[c] : first[c + 1]].

    position (M, 2); cells of `length` (2,) from `lower` (2,) on, `counts` (2,) of them; what lies
    outside goes to the outermost cell.
    """
    total = counts[0] * counts[1]
    cell = np.empty(len(position), np.int64)
    first = np.zeros(total + 1, np.int64)
    for i in range(len(position)):
        row = int((position[i, 0] - lower[0]) / length[0])
        column = int((position[i, 1] - lower[1]) / length[1])
        row = min(max(row, 0), counts[0] - 1)
        column = min(max(column, 0), counts[1] - 1)
        cell[i] = row * counts[1] + column
        first[cell[i] + 1] += 1
    for c in range(total):
        first[c + 1] += first[c]
    place = first[:-1].copy()
    order = np.empty(len(position), np.int64)
    for i in range(len(position)):
        order[place[cell[i]]] = i
        place[cell[i]] += 1
    return order, first


@numba.njit(**_OPTIONS)
def neighbour_sums(
    mine: int,
    position: np.ndarray,
    heading: np.ndarray,
    cells: tuple,
    radius: float,
    scale: float,
    morse: tuple,
    force_scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(headings, forces) summed over neighbours, float64 (mine, 2) each.

    The first `mine` of the M particles are asked for; position and heading are (M, 2). Headings
    count within `radius`, the particle itself included. `morse` is (Cr, lr, Ca, la, cut); with
    cut = 0 there are no forces. `cells` is (lower, length, counts).
    """
    lower, length, counts = cells
    order, first = sort_into_cells(position, lower, length, counts)
    headings = np.zeros((mine, 2))
    forces = np.zeros((mine, 2))
    repel, repel_length, attract, attract_length, cut = morse
    for i in range(mine):
        row = min(max(int((position[i, 0] - lower[0]) / length[0]), 0), counts[0] - 1)
        column = min(max(int((position[i, 1] - lower[1]) / length[1]), 0), counts[1] - 1)
        sum_y, sum_x, force_y, force_x = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for r in range(max(row - 1, 0), min(row + 2, counts[0])):
            for c in range(max(column - 1, 0), min(column + 2, counts[1])):
                cell = r * counts[1] + c
                for k in range(first[cell], first[cell + 1]):
                    j = order[k]
                    away_y = position[i, 0] - position[j, 0]
                    away_x = position[i, 1] - position[j, 1]
                    square = away_y * away_y + away_x * away_x
                    if square <= radius * radius:
                        sum_y += np.int64(np.rint(heading[j, 0] * scale))
                        sum_x += np.int64(np.rint(heading[j, 1] * scale))
                    if 0.0 < square <= cut * cut:
                        distance = np.sqrt(square)
                        push = repel / repel_length * np.exp(-distance / repel_length)
                        push -= attract / attract_length * np.exp(-distance / attract_length)
                        force_y += np.int64(np.rint(push * away_y / distance * force_scale))
                        force_x += np.int64(np.rint(push * away_x / distance * force_scale))
        headings[i, 0], headings[i, 1] = sum_y / scale, sum_x / scale
        forces[i, 0], forces[i, 1] = force_y / force_scale, force_x / force_scale
    return headings, forces


@numba.njit(**_OPTIONS)
def all_pairs(
    position: np.ndarray,
    heading: np.ndarray,
    shifts: np.ndarray,
    radius: float,
    scale: float,
    morse: tuple,
    force_scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """As `neighbour_sums`, of a few particles alone on one block, without cells or ghosts.

    `shifts` (K, 2) moves a particle to each of its periodic images, first (0, 0). A partner is
    moved first and then subtracted, as a ghost would be: the same bits.
    """
    count = len(position)
    headings = np.zeros((count, 2))
    forces = np.zeros((count, 2))
    repel, repel_length, attract, attract_length, cut = morse
    reach = max(radius, cut)
    lower_y, upper_y = position[:, 0].min(), position[:, 0].max()
    lower_x, upper_x = position[:, 1].min(), position[:, 1].max()
    for i in range(count):
        sum_y, sum_x, force_y, force_x = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for shift in shifts:
            # An image that lies beyond reach as a whole, by the sums its particles would take.
            if (
                position[i, 0] - (upper_y + shift[0]) > reach
                or position[i, 0] - (lower_y + shift[0]) < -reach
                or position[i, 1] - (upper_x + shift[1]) > reach
                or position[i, 1] - (lower_x + shift[1]) < -reach
            ):
                continue
            for j in range(count):
                away_y = position[i, 0] - (position[j, 0] + shift[0])
                if abs(away_y) > reach:
                    continue
                away_x = position[i, 1] - (position[j, 1] + shift[1])
                square = away_y * away_y + away_x * away_x
                if square <= radius * radius:
                    sum_y += np.int64(np.rint(heading[j, 0] * scale))
                    sum_x += np.int64(np.rint(heading[j, 1] * scale))
                if 0.0 < square <= cut * cut:
                    distance = np.sqrt(square)
                    push = repel / repel_length * np.exp(-distance / repel_length)
                    push -= attract / attract_length * np.exp(-distance / attract_length)
                    force_y += np.int64(np.rint(push * away_y / distance * force_scale))
                    force_x += np.int64(np.rint(push * away_x / distance * force_scale))
        headings[i, 0], headings[i, 1] = sum_y / scale, sum_x / scale
        forces[i, 0], forces[i, 1] = force_y / force_scale, force_x / force_scale
    return headings, forces


@numba.njit(**_OPTIONS)
def turned(heading: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Headings (N, 2) in the order y, x, rotated by angles (N,), one at a time.

    Not numpy's vector functions: their last lanes may round otherwise than the others.
    """
    result = np.empty_like(heading)
    for i in range(len(heading)):
        sine, cosine = np.sin(angle[i]), np.cos(angle[i])
        result[i, 1] = cosine * heading[i, 1] - sine * heading[i, 0]
        result[i, 0] = sine * heading[i, 1] + cosine * heading[i, 0]
    return result
