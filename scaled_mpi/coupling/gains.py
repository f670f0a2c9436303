"""How far a coarse denoiser is believed, by noise level and wavenumber: measured on known fields.

A mean R x has two estimates: a = R D_loc(x_t) from windows and b = D_c(R x_t) from the coarse
field of the whole. The least squares mixture a + g (b - a) has, at every wavenumber,

    g = < Re (R x - a)* (b - a) > / < |b - a|^2 >

over fields, channels and the waves of a ring; it is kept in [0, 1]. Exact denoisers of a Gaussian
field give 1 where the windows are too short. Networks also give less than 1, since at low noise a
window's details determine its mean better than noisy means do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaled_mpi.metrics import joined


def gain_sums(truth: np.ndarray, local: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Sums over one box, fields (C, *cells) of block means: (2, rings), to be joined."""
    axes = tuple(range(1, truth.ndim))
    wrong, change = (
        np.fft.fftn(one.astype(np.float64) - local, axes=axes) for one in (truth, coarse)
    )
    rings = _rings(truth.shape[1:], min(truth.shape[1:])).ravel()
    return np.stack(
        [
            np.bincount(np.rint(rings).astype(int), part.sum(0).ravel())
            for part in ((wrong.conj() * change).real, np.abs(change) ** 2)
        ]
    )


@dataclass(frozen=True)
class Gains:
    """`values` (times, rings) at rising `times`; ring k has k waves along a box of `cells`."""

    times: np.ndarray
    values: np.ndarray
    cells: int

    @classmethod
    def of(cls, times: np.ndarray, sums: Sequence[Sequence[np.ndarray]], cells: int) -> Gains:
        """From the `gain_sums` (2, rings) of all boxes at each of times (n,), exactly rounded."""
        totals = np.stack([joined(boxes) for boxes in sums])
        change = totals[:, 1]
        values = np.divide(totals[:, 0], change, out=np.zeros_like(change), where=change > 0)
        return cls(np.asarray(times, np.float64), np.clip(values, 0.0, 1.0), cells)

    def __call__(self, missing: np.ndarray, t: float) -> np.ndarray:
        """`missing` (..., Y, X) of any periodic field, each wave times its gain at the time."""
        waves = np.fft.fft2(missing) * self.at(t, missing.shape[-2:])
        return np.fft.ifft2(waves).real.astype(missing.dtype)

    def at(self, t: float, shape: Sequence[int]) -> np.ndarray:
        """The gains (*shape) of all waves of a field (*shape), linear in time and wavenumber."""
        now = np.array([np.interp(t, self.times, column) for column in self.values.T])
        return np.interp(_rings(shape, self.cells), np.arange(len(now)), now)


def _rings(shape: Sequence[int], cells: int) -> np.ndarray:
    """Waves along `cells` cells of every Fourier mode of `shape`."""
    squares = sum(
        np.fft.fftfreq(n).reshape([-1 if a == axis else 1 for a in range(len(shape))]) ** 2
        for axis, n in enumerate(shape)
    )
    return np.sqrt(squares) * cells
