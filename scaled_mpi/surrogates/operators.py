"""The two contracts of a surrogate: the block of YAML, and the local operator that it loads.

A surrogate's block (`Surrogate`) fits weights to stored runs and loads them as an `Operator`,
which advances one tile by one jump. The coupling asks the operator alone:

    class Shift(Operator):
        reach, memory = (1, 1), 1

        def advance(self, window, mask, condition, future=None, noise=None):
            return window[-1][:, 1:-1, :-2]          # every value moves one cell along x

Other members of the contract have a default here: no noise, no conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from scaled_mpi.config import InputError
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.given_weights import TrainedPart
from scaled_mpi.learning.locality import cut_violations
from scaled_mpi.parallel.blocks import whole_per_axis
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.plugins import block_violations, missing

TILE = 16  # cells an axis of the smaller tile of a check; a multiple of what networks gather

Future = tuple[np.ndarray, np.ndarray]  # value (C, *window) and mask (*window) of the halo to come


class Operator(Protocol):
    """A loaded surrogate: a local operator that advances one tile by one jump.

    It reads `reach` cells an axis around a tile and `memory` past frames. A `stochastic` one reads
    white noise of `noises` channels. `conditions` are the parameters of a run that it reads.
    """

    reach: tuple[int, ...]
    memory: int
    stochastic: bool = False
    noises: int = 0
    conditions: tuple[str, ...] = ()

    def condition(self, known: Mapping[str, float]) -> np.ndarray:
        """Return the values (n,), float64, of `conditions` out of a run's parameters.

        Errors: `InputError` for a parameter that the run does not have.
        """
        absent = [name for name in self.conditions if name not in known]
        if absent:
            raise InputError(
                f"condition: parameters without {', '.join(absent)} are not allowed: the "
                "surrogate reads it. Allowed: values of all conditions"
            )
        return np.array([float(known[name]) for name in self.conditions], np.float64)

    def advance(
        self,
        window: np.ndarray,
        mask: np.ndarray,
        condition: np.ndarray,
        future: Future | None = None,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the tile one jump later, (C, *tile), in the type of `window`.

        `window` (memory, C, *(tile + 2 reach)), newest last. `mask` (*(tile + 2 reach)) is 1 where
        the window is known. `condition` (n,) is from the method `condition`. `future` holds the
        value (C, *(tile + 2 reach)) and the mask of the cells known one jump on. `noise` (noises,
        *(tile + 2 reach)) is standard normal, for a `stochastic` operator. Errors: `ValueError`
        for a window that the operator cannot use.
        """
        ...


class Surrogate(TrainedPart):
    """The block of YAML of a surrogate; its fields are its keys. A member adds `kind: Literal`.

    `jump` is in simulator steps. `memory` counts the past frames read, the newest included.
    `reach` counts the cells of its own grid read around a tile, one number or one an axis.
    `weights` is a results folder or a shipped name, in place of a training.
    """

    jump: PositiveInt = 1
    memory: PositiveInt = 1
    reach: NonNegativeInt | tuple[NonNegativeInt, ...] = 0

    def fit(
        self,
        trajectories: Sequence[Trajectory],
        comm: Comm,
        folder: str | Path,
        events: EventLog | None,
        seed: int,
    ) -> None:
        """Fit to stored runs and leave the weights in `folder`; collective over `comm`.

        `events` logs the training; `seed` decides every random number. Errors: `InputError` for
        runs that cannot be used.
        """
        raise TypeError(f"{type(self).__name__}: fit is missing")

    def load(self, folder: str | Path) -> Operator:
        """Return the operator of a folder that `fit` filled. Errors: `InputError`."""
        raise TypeError(f"{type(self).__name__}: load is missing")

    def _check_taken(self, folder: Path, source: Path, seen: Mapping[str, Any] | None) -> None:
        """Raise `InputError` where weights were trained with another memory or reach."""
        operator = load_operator(self, folder)
        axes = len(operator.reach)
        for key, trained, wanted in (
            ("memory", operator.memory, self.memory),
            ("reach", operator.reach, whole_per_axis("surrogate.reach", self.reach, axes, 0)),
        ):
            if trained != wanted:
                raise InputError(
                    f"surrogate.{key}: {wanted} is not allowed: {source} was trained with "
                    f"another. Allowed: {trained}"
                )

    def needs_whole_reach(self) -> bool:
        """Return whether the halo must cover the reach; False where masks stand for the rest."""
        return False


def load_operator(surrogate: Surrogate, folder: str | Path, device: str | None = None) -> Operator:
    """Return the operator of a surrogate's folder, with the contract checked.

    `device` overrides the surrogate's own key where it has one. Errors: `InputError` for weights
    that cannot be used, and one line that names each missing attribute of the operator.
    """
    keys = {} if device is None else {"device": device}
    return checked_operator(surrogate.load(folder, **keys))


def checked_operator(operator: Operator) -> Operator:
    """Return `operator` if it has every attribute of the contract. Errors: `InputError`."""
    absent = missing(operator, ("reach", "memory", "advance", *_DEFAULTS))
    if absent:
        raise InputError(
            f"surrogate: {type(operator).__name__} is not allowed: {'; '.join(absent)}. "
            "Allowed: a class that inherits from scaled_mpi.surrogates.operators.Operator"
        )
    return operator


_DEFAULTS = ("stochastic", "noises", "conditions", "condition")


def member_violations(member: object) -> list[str]:
    """Return faults of the class of a surrogate's block, one line each; it is not built."""
    return block_violations(member, Surrogate, ("fit", "load"))


def violations(operator: Operator, channels: int = 1, seed: int = 0) -> list[str]:
    """Return violations of the contract by an operator, one line each; none if it keeps it.

    `channels` of the field. Two neighbouring tiles are cut out of a random field and advanced.
    They must equal the same cells of one tile that holds both, and a second call the first.
    """
    try:
        checked_operator(operator)
    except InputError as error:
        return [str(error)]
    name, reach = type(operator).__name__, tuple(operator.reach)
    if len(reach) not in (1, 2, 3) or any(int(r) != r or r < 0 for r in reach):
        return [f"{name}: reach is {reach}; one whole number of cells an axis is needed"]
    if int(operator.memory) < 1:
        return [f"{name}: memory is {operator.memory}; at least one frame is needed"]
    tile = (2 * TILE, *[TILE] * (len(reach) - 1))
    cells = tuple(n + 2 * r for n, r in zip(tile, reach, strict=True))
    random = np.random.default_rng(seed)
    inputs = [(random.random((operator.memory, channels, *cells), dtype=np.float32), reach[0])]
    if operator.stochastic:
        noise = random.standard_normal((operator.noises, *cells)).astype(np.float32)
        inputs.append((noise, reach[0]))
    condition = operator.condition(dict.fromkeys(operator.conditions, 1.0))

    def advance(window: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        mask = np.ones(window.shape[2:], np.float32)
        return operator.advance(window, mask, condition, noise=noise)

    found = cut_violations(advance, inputs, (channels, *tile))
    return [f"{name}: advance {line}" for line in found]
