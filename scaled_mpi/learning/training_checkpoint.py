"""State of an interrupted training, in one safetensors file.

The file is written by rename and carries its own hash (see `weights.py`). It is old or new as a
whole at every moment. It holds the weights, the averaged weights, the optimiser's tensors, the
losses of the running epoch, and a few numbers. Random numbers and learning rates depend on the
step alone and need no place in it.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scaled_mpi.config import InputError, canonical, decisive
from scaled_mpi.learning.weights import load_into, load_weights, save_weights, sweep_drafts

if TYPE_CHECKING:
    from scaled_mpi.learning.settings import Training

FILE = "state.safetensors"
FORMAT = 1


@dataclass
class Account:
    """Numbers that grow with a training; JSON in the state file."""

    step: int = 0  # optimiser steps taken
    best_loss: float | None = None
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_sha256: str = ""
    last_loss: float | None = None
    stale: int = 0  # epochs since the best one
    seconds: float = 0.0  # in optimiser steps
    seconds_at_epoch: float = 0.0  # `seconds` when the running epoch began
    finished: bool = False
    stopped_early: bool = False


def fingerprint(model: torch.nn.Module, spec: Training, seed: int, ranks: int) -> str:
    """Hash of the settings that decide the weights, without the data and the loss."""
    keys = decisive(spec)
    del keys["device"]  # a training may go on where another kind of device is
    shapes = [(name, list(value.shape)) for name, value in model.state_dict().items()]
    whole = [FORMAT, keys, shapes, seed, ranks if spec.rank_dependent else 0]
    return hashlib.sha256(canonical(whole).encode()).hexdigest()


class Checkpoint:
    """The state file of one folder. Only one rank writes; any rank may read."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.path, self.mark = folder / FILE, mark

    def save(
        self,
        account: Account,
        modules: dict[str, torch.nn.Module],
        optimiser: torch.optim.Optimizer | None,
        history: torch.Tensor,
    ) -> None:
        """Write the state, tensors of any shape; a finished training keeps only its numbers.

        `history`: losses of the running epoch, (n, micro_batches) of n steps.
        """
        tensors = {"history": history}
        for part, module in modules.items():
            tensors |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
        if optimiser is not None:
            for index, entries in optimiser.state_dict()["state"].items():
                for name, value in entries.items():
                    if isinstance(value, torch.Tensor):
                        tensors[f"optimizer.{index}.{name}"] = value
        meta = {"fingerprint": self.mark, "account": asdict(account)}
        save_weights(self.path, tensors, meta)

    def read(self) -> tuple[Account, dict[str, torch.Tensor]]:
        """Return the numbers and the tensors of the state, tensors of any shape by name.

        Errors: `InputError` for a damaged file or the state of another training.
        """
        tensors, meta = load_weights(self.path)
        if meta.get("fingerprint") != self.mark:
            raise InputError(
                f"{self.path}: it holds the state of another training (other settings, seed or "
                "network). Needed: another folder, or this file removed"
            )
        return Account(**meta["account"]), tensors

    def sweep(self) -> None:
        """Remove the drafts of writers that were killed."""
        sweep_drafts(self.path.parent)


def restore(
    tensors: dict[str, torch.Tensor],
    modules: dict[str, torch.nn.Module],
    optimiser: torch.optim.Optimizer,
    source: str,
) -> torch.Tensor:
    """Copy the tensors of a state, of any shape, into the modules and the optimiser.

    Returns the losses of the running epoch, (n, micro_batches) of n steps. `source` is the name of
    the state in error lines. Errors: `InputError` for weights of another architecture.
    """
    for part, module in modules.items():
        load_into(module, _under(tensors, f"{part}."), source)
    entries: dict[int, dict[str, Any]] = {}
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for name, value in _under(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        like = parameters[int(index)]
        if value.shape == like.shape:
            # A file keeps no memory order, and fused optimisers need that of the parameter.
            value = torch.empty_like(like, dtype=value.dtype, device="cpu").copy_(value)
        entries.setdefault(int(index), {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": entries, "param_groups": groups})
    return tensors["history"]


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
