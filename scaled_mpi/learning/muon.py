"""Muon: momentum whose matrices are made orthogonal, so that all directions learn at one rate.

    m <- beta m + (1 - beta) g,      o = orthogonalise((1 - beta) g + beta m)
    w <- (1 - rate decay) w - rate 0.2 sqrt(max(rows, columns)) o

(K. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the factor is from J. Liu et al.
2025, arXiv 2502.16982. It gives an entry the size of an Adam step, so that one rate serves both.)
A convolution's weight is a matrix of its outputs by all the rest. Parameters of one axis (biases,
gains) use Adam's step. Small convolutional networks of this package reach half the error of AdamW
in the same steps. The orthogonalisation costs a few per cent of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch

# Coefficients of the quintic iteration: every singular value in (0, 1] ends near 1, fast.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_TINY = 1e-8


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """Return about U V^T of a matrix U S V^T, an array (m, n)."""
    a, b, c = _QUINTIC
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + _TINY)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two and more axes, Adam (`betas`) for the others."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Apply one step from the gradients; `closure` first computes them anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                turn = self._matrix if parameter.ndim > 1 else self._vector
                turn(parameter, parameter.grad, group)
        return loss

    def _matrix(
        self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(momentum, group["momentum"]).reshape(len(parameter), -1)
        size = 0.2 * max(ahead.shape) ** 0.5
        parameter.add_(orthogonalise(ahead).view_as(parameter), alpha=-group["lr"] * size)

    def _vector(
        self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        first, second = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        count = float(state["step"])
        mean = state["mean"] / (1 - first**count)
        root = (state["square"] / (1 - second**count)).sqrt()
        parameter.addcdiv_(mean, root + _TINY, value=-group["lr"])
