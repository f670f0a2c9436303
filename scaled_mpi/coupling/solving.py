"""How elliptic systems are solved: the blocks of the configuration, light to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from scaled_mpi.config import Spec


class Coarse(Spec):
    """`geneo` takes the eigenvectors under `threshold`, from `least` to `most` of them a tile."""

    kind: Literal["hats", "geneo", "none"] = "hats"
    threshold: float = Field(default=0.15, gt=0)
    least: PositiveInt = 4
    most: PositiveInt = 6


class Solving(Spec):
    """How a system is solved. `most` iterations; `gain` is the least an iteration must bring.

    `overlap`: cells a tile is widened by on every side; `smooths` damped Jacobi steps of weight
    `omega` after the tiles; `restart` of the Krylov method.
    """

    tolerance: float = Field(default=1e-8, gt=0, lt=1)
    overlap: PositiveInt = 4
    coarse: Coarse = Coarse()
    smooths: NonNegativeInt = 2
    omega: float = Field(default=0.7, gt=0, le=1)
    restart: PositiveInt = 60
    most: PositiveInt = 300
    gain: float = Field(default=0.02, ge=0, lt=1)


class Harvest(Spec):
    """Running solves to learn from: `solves` problems of `tiles` tiles an axis each.

    `roughness` is the relative error of their local solutions.
    """

    solves: PositiveInt = 60
    tiles: PositiveInt = 4
    roughness: float = Field(default=0.2, ge=0)


class NotConverged(ArithmeticError):
    """No answer under the tolerance. `iterations` and the true relative `residual` reached.

    `history`: relative residuals that the method saw, iteration 0 first.
    """

    def __init__(
        self,
        iterations: int,
        residual: float,
        tolerance: float,
        history: tuple[float, ...] = (),
    ) -> None:
        super().__init__(
            f"not converged: true residual {residual:.2e} after {iterations} iterations, "
            f"{tolerance:.1e} was asked for"
        )
        self.iterations, self.residual, self.history = iterations, residual, history
