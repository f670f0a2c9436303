"""Further terms of a reconstruction loss, beside the mean square error. Each is a row.

`gradient` and `spectrum` are on the scale of the mean square error of normalised fields: a weight
of 1 gives them the same importance. `residual` is in variances of the rates of change. These are
small where the fields nearly rest; the term is then large, and weights of 0.001 to 0.01 are
enough.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from scaled_mpi.plugins import members


@dataclass(frozen=True)
class System:
    """The equation that normalised fields (N, C, *cells) obey, as a function of them.

    It returns their rates of change at the inner cells, in units of the spread of the rates in the
    data. `rates` takes physical fields; `mean` and `spread` normalise the fields, `scale` is the
    spread of the rates, each (C, 1, ...).
    """

    rates: Callable[[Tensor], Tensor]
    mean: Tensor
    spread: Tensor
    scale: Tensor

    def __call__(self, fields: Tensor) -> Tensor:
        mean, spread, scale = (x.to(fields) for x in (self.mean, self.spread, self.scale))
        return self.rates(fields * spread + mean) / scale


def gradient(made: Tensor, truth: Tensor, system: System | None = None) -> Tensor:
    """Mean square error of the differences of neighbouring cells, mean over axes; scalar.

    made, truth: (N, C, *cells). It weighs the error at wave number k by 4 sin^2(k / 2). So fronts
    stay sharp where the mean square error alone would smooth them.
    """
    error = made - truth
    axes = range(2, error.ndim)
    return reduce(add, (error.diff(dim=axis).square().mean() for axis in axes)) / len(axes)


def spectrum(made: Tensor, truth: Tensor, system: System | None = None) -> Tensor:
    """Mean square difference of the amplitudes of all Fourier modes of fields (N, C, *cells).

    The transform is orthonormal. By Parseval's identity the term is at most the mean square error.
    It is blind to phase, and asks for the right energy at every scale even where the place is
    lost.
    """
    axes = tuple(range(2, made.ndim))
    amplitudes = [torch.fft.fftn(field, dim=axes, norm="ortho").abs() for field in (made, truth)]
    return (amplitudes[0] - amplitudes[1]).square().mean()


def residual(made: Tensor, truth: Tensor, system: System) -> Tensor:
    """Mean square error of the rates of change of two fields (N, C, *cells).

    It is the residual of the equation for a field beside the true time derivative (Raissi,
    Perdikaris and Karniadakis 2019, https://doi.org/10.1016/j.jcp.2018.10.045). No difference of
    frames in time enters: that derivative is the truth's own right-hand side.
    """
    return (system(made) - system(truth)).square().mean()


Term = Callable[[Tensor, Tensor, System | None], Tensor]  # (made, truth, system) -> scalar

TERMS: dict[str, Term] = {
    "gradient": gradient,
    "spectrum": spectrum,
    "residual": residual,  # type: ignore[dict-item]  # a system is there where it is asked for
}


@functools.cache
def terms() -> dict[str, Term]:
    """Return every term by name: those of TERMS, then those of installed packages."""
    return members("scaled_mpi.losses", TERMS, _violations)


def _violations(term: object) -> list[str]:
    return [] if callable(term) else [f"{type(term).__name__}: a function is needed"]
