"""The training loop itself; `training.py` is its face.

Every rank holds the same weights, averaged weights and optimiser state, and takes the same
decisions from the same numbers. Rank 0 validates and writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from scaled_mpi.config import InputError
from scaled_mpi.facts import EventLog
from scaled_mpi.learning.distributed import MODES, Micro, Outcome, one_thread, pick_device
from scaled_mpi.learning.optimisers import averaged, learning_rate, make_optimiser, set_rate
from scaled_mpi.learning.settings import NotFinite, Result, Task, Training
from scaled_mpi.learning.training_checkpoint import Account, Checkpoint, fingerprint, restore
from scaled_mpi.learning.weights import load_into, load_weights, save_weights
from scaled_mpi.parallel.comm import Comm, SerialComm, shares
from scaled_mpi.parallel.root import on_root
from scaled_mpi.parallel.signals import Stopped, stop_agreed
from scaled_mpi.progress import Progress

BEST, LAST = "best.safetensors", "last.safetensors"


class Loop:
    """One training from its first step, or its last written state, to its end."""

    def __init__(
        self,
        model: torch.nn.Module,
        task: Task,
        spec: Training,
        comm: Comm,
        folder: Path,
        events: EventLog | None,
        seed: int,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.model, self.task, self.spec, self.comm = model, task, spec, comm
        self.folder, self.seed = folder, seed
        self.events = events if comm.rank == 0 else None
        self.should_stop = should_stop or (lambda: stop_agreed(SerialComm()))
        self.account = Account()
        self.restored: dict[str, torch.Tensor] | None = None  # tensors of a state, until placed
        self.history = torch.zeros(spec.validate_every, spec.micro_batches)
        self.state = Checkpoint(folder, fingerprint(model, spec, seed, comm.size))

    def run(self) -> Result:
        """Train to the end; see `training.train`."""
        with _settings(self.spec):
            if not self._finished_before():
                self._begin()
                try:
                    self._march()
                except Exception as error:
                    if self.events is not None and not isinstance(error, Stopped):
                        self.events.exception(error)
                    raise
                finally:
                    self.gradients.close()
                self._end()
            return self._result()

    def _finished_before(self) -> bool:
        """Read the state, if rank 0 sees one; True where nothing is left to do. Collective."""
        if self.comm.bcast(self.state.path.exists()):
            self.account, self.restored = self.state.read()
        return self.account.finished

    def _begin(self) -> None:
        """Put model, average and optimiser on the device, as new or as they were left."""
        device = pick_device(self.spec, self.comm)
        self.model.to(device).train()
        _same_on_all(self.model, self.comm)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = make_optimiser(self.parameters, self.spec, device)
        self.average = averaged(self.model, self.spec.ema) if self.spec.ema else None
        self.modules = {"model": self.model}
        if self.average is not None:
            self.modules["ema"] = self.average
        if self.restored is not None:
            source = str(self.state.path)
            self.history = restore(self.restored, self.modules, self.optimiser, source)
            self.restored = None
        micro = Micro(self.task, self.spec, device, self.seed)
        self.explain = micro.explain
        # What a network follows by other means than gradients, a book of codes say. Collective.
        self.after_step = getattr(self.model, "after_step", lambda comm: None)
        self.gradients = MODES[self.spec.mode](self.model, micro, self.spec, self.comm)
        if self.comm.rank == 0:
            self.state.sweep()
        if self.events is not None:
            self._announce(device)

    def _announce(self, device: torch.device) -> None:
        assert self.events is not None
        self.events.truncate(self.account.step // self.spec.validate_every)
        if self.account.step == 0:
            weights = sum(parameter.numel() for parameter in self.parameters)
            self.events.start(parameters=weights, device=str(device), mode=self.spec.mode)

    def _march(self) -> None:
        spec, account = self.spec, self.account
        what = f"training {self.folder.name}"
        with Progress(what, spec.steps, self.comm.rank, account.step) as progress:
            while account.step < spec.steps and not account.stopped_early:
                begun = time.perf_counter()
                outcome = self._one_step(account.step)
                account.step += 1
                account.seconds += time.perf_counter() - begun
                progress.step(1, f"loss {outcome.losses.mean():.4g}")
                at_end = account.step == spec.steps
                if account.step % spec.validate_every == 0 or at_end:
                    self._epoch()
                if outcome.stop or account.step % spec.checkpoint_every == 0:
                    self._save_state()
                if outcome.stop and not at_end:
                    raise Stopped(f"{what} stopped after step {account.step}, state saved")

    def _one_step(self, step: int) -> Outcome:
        """Gradients, clipping, optimiser, average. Nothing that is not finite changes a weight."""
        outcome = self.gradients(step, self.should_stop())
        if not np.isfinite(outcome.losses).all():
            self._refuse(step, outcome.losses)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.clip or math.inf)
        if not math.isfinite(norm):
            raise NotFinite(f"training: gradient of norm {float(norm)} in step {step}")
        set_rate(self.optimiser, learning_rate(self.spec, step))
        self.optimiser.step()
        self.after_step(self.comm)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.history[step % self.spec.validate_every] = torch.from_numpy(outcome.losses)
        return outcome

    def _refuse(self, step: int, losses: np.ndarray) -> None:
        """Say which step and rank made a loss that is not finite. Every rank raises the same."""
        micro = int(np.flatnonzero(~np.isfinite(losses))[0])
        cause = self.explain(step, micro)
        if cause:
            raise InputError(cause)
        owners = [micro in part for part in shares(self.spec.micro_batches, self.comm.size)]
        raise NotFinite(
            f"training: loss {losses[micro]} in step {step}, micro-batch {micro}, on rank "
            f"{owners.index(True)}; a smaller learning_rate (now {self.spec.learning_rate:g}) "
            "or clip may help"
        )

    def _epoch(self) -> None:
        """Validate, keep the best weights, write the events, decide whether to go on."""
        spec, account = self.spec, self.account
        metrics = self._validate()
        loss = metrics.pop("loss")
        if not math.isfinite(loss):
            raise NotFinite(f"training: validation loss {loss} after step {account.step}")
        account.stale += 1
        if account.best_loss is None or loss < account.best_loss - spec.min_delta:
            account.best_loss, account.best_step, account.stale = loss, account.step, 0
            account.best_metrics = metrics
            account.best_sha256 = self._save_weights(BEST, loss, metrics)
        account.last_loss = loss
        account.stopped_early = 0 < spec.patience <= account.stale
        steps = (account.step - 1) % spec.validate_every + 1
        if self.events is not None:
            seconds = account.seconds - account.seconds_at_epoch
            self.events.epoch(
                -(-account.step // spec.validate_every),
                account.step,
                math.fsum(self.history[:steps].flatten().tolist()) / (steps * spec.micro_batches),
                loss,
                metrics=metrics,
                epoch_time_s=seconds,
                throughput=steps * spec.batch / max(seconds, 1e-9),
            )
        account.seconds_at_epoch = account.seconds

    def _validate(self) -> dict[str, float]:
        """Numbers of the averaged weights, computed on rank 0, known to all."""
        model = self._used()

        def numbers() -> dict[str, float]:
            model.eval()
            with torch.no_grad():
                found = self.task.validate(model)
            return {name: float(value) for name, value in found.items()}

        found = on_root(self.comm, numbers)
        self.model.train()
        return found

    def _used(self) -> torch.nn.Module:
        """The network whose weights count: the averaged one where there is an average."""
        return self.model if self.average is None else self.average.module

    def _save_weights(self, name: str, loss: float, metrics: dict[str, float]) -> str:
        meta = {**self.task.meta, "step": self.account.step, "loss": loss, "metrics": metrics}
        state = self._used().state_dict()
        return on_root(self.comm, lambda: save_weights(self.folder / name, state, meta))

    def _save_state(self) -> None:
        """Rank 0 writes what a resumed run needs; the others hold the same."""
        kept = (self.modules, self.optimiser, self.history)
        on_root(self.comm, lambda: self.state.save(self.account, *kept))

    def _end(self) -> None:
        """Write the last weights, and mark the training as finished. Collective."""
        account = self.account
        assert account.last_loss is not None
        self._save_weights(LAST, account.last_loss, {})
        account.finished = True
        on_root(self.comm, lambda: self.state.save(account, {}, None, self.history[:0]))
        if self.events is not None:
            self.events.end(
                best_step=account.best_step, best_loss=account.best_loss, steps=account.step
            )

    def _result(self) -> Result:
        """The account, and the best weights put into the model."""
        account, spec = self.account, self.spec
        assert account.best_loss is not None
        tensors, _ = load_weights(self.folder / BEST)
        load_into(self.model, tensors, str(self.folder / BEST))
        self.model.eval()
        return Result(
            steps=account.step,
            best_step=account.best_step,
            best_loss=account.best_loss,
            best_metrics=account.best_metrics,
            best=self.folder / BEST,
            last=self.folder / LAST,
            sha256=account.best_sha256,
            seconds=account.seconds,
            throughput=account.step * spec.batch / max(account.seconds, 1e-9),
            stopped_early=account.stopped_early,
        )


def _same_on_all(model: torch.nn.Module, comm: Comm) -> None:
    """Rank 0's weights on every rank. Collective."""
    if comm.size > 1:
        own = {name: value.cpu() for name, value in model.state_dict().items()}
        model.load_state_dict(comm.bcast(own if comm.rank == 0 else None))


@contextmanager
def _settings(spec: Training) -> Iterator[None]:
    """Torch's global settings for the time of a training; put back afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        if spec.mode == "ordered":
            stack.enter_context(one_thread())
            cudnn.benchmark, cudnn.deterministic = False, True
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.deterministic = before
