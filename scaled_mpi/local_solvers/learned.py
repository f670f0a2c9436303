"""A learned solver of the tiles' local problems; see `learning/networks/local_solver.py`.

Trained on residuals that occurred in running solves, by

    loss = || A_i z - r || / || r ||,   z = S(A_i, r).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from scaled_mpi.config import InputError, plain
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.settings import Session, Task, Training
from scaled_mpi.learning.training import on_team, train
from scaled_mpi.local_solvers.residuals import Residuals, residual_files
from scaled_mpi.local_solvers.solvers import LocalSolver, LocalSolverSpec
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.streams import integers
from scaled_mpi.problems.tile_matrices import TileOperators

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.networks.local_solver import LocalSolverNetwork

WEIGHTS = "best.safetensors"
JUDGED = 96  # held-out local problems that a validation looks at
CHUNK = 64  # tiles in one call of the network, so that its fields stay in the cache
MANY = 4096  # the same on a device


class Learned(LocalSolverSpec):
    """A V-cycle of convolutions under gates that see the coefficients, linear in the residual.

    `widths`: channels a level, finest (half the resolution) first. `passes`: V-cycles, with the
    local residual computed between them. `features`: channels of the gates' network. `held_out`:
    last solves, kept for validation. `device`: where it is applied, for example cuda.
    """

    kind: Literal["learned"] = "learned"
    widths: tuple[PositiveInt, ...] = Field(default=(16, 24, 32), min_length=1)
    passes: PositiveInt = 2
    features: PositiveInt = 16
    held_out: PositiveInt = 4
    device: Literal["cpu", "cuda"] = "cpu"
    training: Training = Training(
        steps=1500,
        batch=16,
        micro_batches=2,
        learning_rate=4e-3,
        ema=0.98,
        validate_every=250,
        checkpoint_every=250,
    )

    def fit(
        self, source: Path, comm: Comm, folder: Path, events: EventLog | None, seed: int
    ) -> None:
        """Train on the residuals in `source`, leave the weights in `folder`. Collective."""
        files = residual_files(Path(source))
        if len(files) <= self.held_out:
            raise InputError(
                f"local_solver.held_out: {self.held_out} is not allowed: there are {len(files)} "
                f"solves. Allowed: fewer than {len(files)}"
            )
        on_team(
            comm, self.training, lambda team: self._train(files, team, Path(folder), events, seed)
        )

    def load(self, folder: str | Path | None = None) -> LearnedSolver:
        """The trained solver of a folder that `fit` filled."""
        from scaled_mpi.learning.weights import load_into, load_weights

        if folder is None:
            raise InputError(
                "local_solver: learned is not allowed: no folder has its weights. Allowed: "
                "learned with a folder"
            )
        path = Path(folder) / WEIGHTS
        tensors, meta = load_weights(path)
        if meta.get("kind") != self.kind:
            raise InputError(f"{path}: weights of another kind. Needed: those of a local solver")
        network = make_network(meta, 0)
        load_into(network, tensors, str(path))
        return LearnedSolver(network, self.device)

    def _train(
        self, files: list[Path], comm: Comm, folder: Path, events: EventLog | None, seed: int
    ) -> None:
        lesson = ResidualLesson(Residuals(files[: -self.held_out]), seed)
        exam = ResidualLesson(Residuals(files[-self.held_out :]), seed)
        told = plain(self)
        told.pop("weights", None)
        meta = {"kind": self.kind, "axes": lesson.problems.high.shape[1], "solver": told}
        task = Task(loss, lesson.sample, exam.judge, meta)
        session = Session(comm, folder, events, seed)
        train(make_network(meta, seed), task, self.training, session)


def make_network(meta: Mapping[str, Any], seed: int) -> LocalSolverNetwork:
    """A network of the shape in `meta`, its first weights decided by `seed`."""
    import torch

    from scaled_mpi.learning.networks.local_solver import LocalSolverNetwork

    spec = meta["solver"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LocalSolverNetwork(
            meta["axes"], tuple(spec["widths"]), spec["passes"], spec["features"]
        )


def loss(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Mean of ||A z - r|| / ||r|| over a batch, a scalar tensor."""
    return relative_defects(model, batch).mean()


def relative_defects(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """||A z - r|| / ||r|| of each local problem, a tensor (n,)."""
    from scaled_mpi.learning.networks.local_solver import apply_scaled, scaled

    diagonal, high, residual = batch["diagonal"], batch["high"], batch["residual"]
    scale, couplings = scaled(diagonal, high)
    z = model(diagonal, high, residual)
    defect = apply_scaled(couplings, z / scale) / scale - residual
    return defect.flatten(1).norm(dim=1) / residual.flatten(1).norm(dim=1)


class ResidualLesson:
    """Training samples of residual files; see `learning.settings.Task`."""

    def __init__(self, problems: Residuals, seed: int) -> None:
        self.problems, self.seed = problems, seed

    def sample(self, step: int, micro: int, size: int) -> dict[str, np.ndarray]:
        """Return a batch (size, *window) of local problems that its arguments decide."""
        places = np.arange(micro * size, (micro + 1) * size)
        return self.problems.batch(
            integers(self.seed, step, places, len(self.problems), stream=Stream.LOCAL_PROBLEMS)
        )

    def judge(self, model: Any) -> dict[str, float]:
        """Mean and 95 % point of the relative defect on evenly spread local problems."""
        import torch

        chosen = np.linspace(0, len(self.problems) - 1, JUDGED).astype(int)
        device = next(model.parameters()).device
        batch = {
            name: torch.from_numpy(values).to(device)
            for name, values in self.problems.batch(chosen).items()
        }
        found = relative_defects(model, batch).cpu().numpy()
        return {"loss": float(found.mean()), "defect.high": float(np.quantile(found, 0.95))}


class LearnedSolver(LocalSolver):
    """A trained network at work; `network` is the torch module."""

    exact = False

    def __init__(self, network: Any, device: str = "cpu") -> None:
        import torch

        self.network, self.device = network, torch.device(device)
        self.network.to(self.device).eval()
        self.axes: int = network.axes
        self.prepared: list[tuple[slice, Any]] = []  # tiles, and what the network needs of them
        # A device with thousands of lanes wants all tiles at once.
        self.chunk = CHUNK if device == "cpu" else MANY

    def prepare(self, operators: TileOperators) -> None:
        """Compute the gates of all tiles.

        Errors: `InputError` where the number of axes is not that of the training.
        """
        import torch

        from scaled_mpi.learning.networks.local_solver import scaled

        if len(operators.window) != self.axes:
            raise InputError(
                f"domain.tile: {len(operators.window)} axes are not allowed: the solver learned "
                f"others. Allowed: {self.axes}"
            )
        self.prepared = []
        with torch.inference_mode():
            for part in self._parts(len(operators)):
                diagonal = self._put(operators.diagonal[part])
                scale, couplings = scaled(
                    diagonal, self._put(np.stack([h[part] for h in operators.high], axis=1))
                )
                gates = self.network.gates(diagonal, couplings)
                self.prepared.append((part, (gates, scale, couplings)))

    def correct(self, residual: np.ndarray) -> np.ndarray:
        """z of r, float64 (n, *window)."""
        import torch

        found = np.empty(residual.shape)
        with torch.inference_mode():
            for part, kept in self.prepared:
                # Norms of a Krylov method may lie outside the range of float32.
                size = np.sqrt((residual[part] ** 2).sum(axis=tuple(range(1, residual.ndim))))
                size = np.maximum(size, 1e-300).reshape(-1, *[1] * self.axes)
                z = self.network.solve(*kept, self._put(residual[part] / size))
                found[part] = z.cpu().numpy() * size
        return found

    def _parts(self, count: int) -> list[slice]:
        return [slice(a, min(a + self.chunk, count)) for a in range(0, count, self.chunk)]

    def _put(self, values: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self.device)
