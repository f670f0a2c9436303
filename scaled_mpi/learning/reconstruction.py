"""Terms that a reconstruction can be held to beside its mean square error. Each is a row.

Both are on the scale of the mean square error of normalised fields, so a weight of 1 counts as
much as it does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def gradient(made: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean square error of the differences of neighbouring cells, mean over axes.

    made, truth: (N, C, *cells). Weighs the error at wave number k by 4 sin^2(k / 2), so that
    fronts stay sharp where the mean square error alone would smooth them.
    """
    error = made - truth
    axes = range(2, error.ndim)
    return sum(error.diff(dim=axis).square().mean() for axis in axes) / len(axes)


def spectrum(made: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean square difference of the amplitudes of all Fourier modes (orthonormal transform).

    By Parseval's identity at most the mean square error itself; blind to phase, so it asks for
    the right energy at every scale even where the place is lost.
    """
    axes = tuple(range(2, made.ndim))
    amplitudes = [torch.fft.fftn(field, dim=axes, norm="ortho").abs() for field in (made, truth)]
    return (amplitudes[0] - amplitudes[1]).square().mean()


TERMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "gradient": gradient,
    "spectrum": spectrum,
}
