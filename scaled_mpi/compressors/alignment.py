"""Alignment of periodic fields on top of each other before their modes are computed.

A structure that travels without changing its shape needs many modes where it passes, and one or
none where it is followed. (Rowley, Marsden 2000, https://doi.org/10.1016/S0167-2789(00)00042-7.)
The shift s (whole cells) of a field x is the one with the largest correlation with a reference,

    s = argmax_s sum_i x(i + s) ref(i),

all at once by FFT. The reference is the mean of all frames aligned to the first one. The plain
mean of a structure that travels round the domain is flat. A shift is periodic, so as a latent it
is the two numbers (cos, sin)(2 pi s / n) an axis. They turn at a constant speed where the field
travels at one, and an autoregression forecasts them as it does the modes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.ordered import ordered_sum, parts_of


def shift_of(field: np.ndarray, reference: np.ndarray) -> tuple[int, ...]:
    """Cells by which (C, *cells) lies beyond `reference`, one number in [0, n) an axis."""
    axes = tuple(range(1, field.ndim))
    spectrum = np.fft.rfftn(field, axes=axes) * np.conj(np.fft.rfftn(reference, axes=axes))
    match = np.fft.irfftn(spectrum.sum(axis=0), s=field.shape[1:], axes=range(len(axes)))
    return tuple(int(n) for n in np.unravel_index(int(match.argmax()), match.shape))


def moved(field: np.ndarray, shift: Iterable[int]) -> np.ndarray:
    """(C, *cells) by `shift` cells onwards, round the domain; moved(x, -s) undoes s."""
    return np.roll(field, tuple(shift), axis=tuple(range(1, field.ndim)))


def aligned(field: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the field (C, *cells) moved to where the reference (C, *cells) lies."""
    return moved(field, (-n for n in shift_of(field, reference)))


def common_reference(read: Callable[[int], np.ndarray], frames: int, comm: Comm) -> np.ndarray:
    """The mean of `read(i)` (C, *cells) of all frames aligned to frame 0; collective."""
    first, parts = read(0), parts_of(frames)

    def total(part: int) -> np.ndarray:
        return np.asarray(sum(aligned(read(frame), first) for frame in parts[part]))

    return ordered_sum(comm, len(parts), total) / frames


def phases(shift: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Return cos and sin of every axis' shift, an array (n,) of n = 2 axes."""
    angles = 2 * np.pi * np.array(shift, np.float64) / np.array(shape)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(-1)


def shift_from(values: np.ndarray, shape: Sequence[int]) -> tuple[int, ...]:
    """The inverse of `phases`, values (n,), to the nearest cell, for any length of (cos, sin)."""
    cosine, sine = values.reshape(-1, 2).T
    cells = np.rint(np.arctan2(sine, cosine) * np.array(shape) / (2 * np.pi))
    return tuple(int(n) for n in cells)
