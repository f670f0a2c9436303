"""Where a training step runs, and how the gradients of several ranks become one.

Both modes are called once a step, leave the averaged gradient in the parameters and return the
losses of all micro-batches, known to every rank. `Ordered` needs only MPI; `Replicated` starts a
torch process group from MPI's rank and size (no environment variables, no fixed port).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from scaled_mpi.config import InputError
from scaled_mpi.parallel.comm import Comm, shares

if TYPE_CHECKING:
    from scaled_mpi.learning.settings import Task, Training


@dataclass(frozen=True)
class Outcome:
    """Losses and stop request of one step, equal on all ranks."""

    losses: np.ndarray  # (micro_batches,) float32, in the order of their index
    stop: bool  # some rank was asked to stop


def count_accelerators(spec: Training) -> int:
    """GPUs of this node that `spec.device` admits, 0 for a CPU."""
    kind = _device_kind(spec)
    return torch.cuda.device_count() if kind == "cuda" else int(kind == "mps")


def pick_device(spec: Training, comm: Comm) -> torch.device:
    """This rank's device: the GPUs of a node are dealt in turn to its ranks. Collective."""
    hosts = comm.allgather(socket.gethostname())
    kind = _device_kind(spec)
    if kind != "cuda":
        return torch.device(kind)
    local = hosts[: comm.rank].count(hosts[comm.rank])
    return torch.device("cuda", local % torch.cuda.device_count())


def _device_kind(spec: Training) -> str:
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if spec.device == "auto":
        return next(kind for kind, here in present.items() if here)
    if not present[spec.device]:
        have = ", ".join(kind for kind, here in present.items() if here)
        raise InputError(
            f"training.device: {spec.device} is not allowed: this machine has none. "
            f"Allowed: {have}"
        )
    return spec.device


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums over several are rounded otherwise than over one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_one_thread() -> None:
    """Set torch to one thread from now on, so that a loaded network always makes the same bits."""
    torch.set_num_threads(1)


class Micro:
    """Loss of one micro-batch on one device: its samples, its random numbers, its precision."""

    def __init__(self, task: Task, spec: Training, device: torch.device, seed: int) -> None:
        self.task, self.size, self.device, self.seed = task, spec.micro_size, device, seed
        self.cast = spec.precision == "bf16"

    def loss(self, model: torch.nn.Module, step: int, micro: int) -> torch.Tensor:
        """Scalar loss; every random number of the model is keyed by (seed, step, micro) alone."""
        batch = move(self.task.sample(step, micro, self.size), self.device)
        key = np.random.SeedSequence((self.seed % 2**63, step, micro))
        number = int(key.generate_state(1, np.uint64)[0] >> 1)
        torch.default_generator.manual_seed(number)  # torch.manual_seed looks for every device
        if self.device.type != "cpu":
            getattr(torch, self.device.type).manual_seed(number)
        kind = torch.autocast(self.device.type, torch.bfloat16) if self.cast else nullcontext()
        with kind:
            return self.task.loss(model, batch)

    def explain(self, step: int, micro: int) -> str | None:
        """Error line if the samples themselves are not finite, else None."""
        for tensor in _tensors(self.task.sample(step, micro, self.size)):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                return f"data: the samples of step {step} hold values that are not finite"
        return None


def move(batch: Any, device: torch.device) -> Any:
    """A batch (tensor, array, number, or tuple, list, dict of them) as tensors on `device`."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(batch)).to(device)
    if isinstance(batch, dict):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(move(value, device) for value in batch)
    return batch


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    batch = move(batch, torch.device("cpu"))
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, (tuple, list, dict)):
        for value in batch.values() if isinstance(batch, dict) else batch:
            yield from _tensors(value)


class Ordered:
    """Gradients gathered and added in the order of the micro-batches: any ranks, same bits.

    A micro-batch's gradient is one row of float32 numbers. Its loss and its stop request follow in
    the same row, so a step costs a single Allgatherv.
    """

    def __init__(self, model: torch.nn.Module, micro: Micro, spec: Training, comm: Comm) -> None:
        self.model, self.micro, self.comm = model, micro, comm
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.weights = sum(p.numel() for p in self.parameters)
        self.deal = shares(spec.micro_batches, comm.size)
        self.rows = torch.zeros(len(self.deal[comm.rank]), self.weights + 2, device=micro.device)
        self.gathered = torch.empty(spec.micro_batches, self.weights + 2)
        self.total = torch.zeros(self.weights, device=micro.device)
        self.row_views = [self._as_parameters(row) for row in self.rows]
        self.total_views = self._as_parameters(self.total)

    def __call__(self, step: int, stop: bool) -> Outcome:
        self.rows.zero_()
        for index, micro in enumerate(self.deal[self.comm.rank]):
            self._point_gradients(self.row_views[index])
            loss = self.micro.loss(self.model, step, micro)
            loss.backward()
            self.rows[index, -2] = loss.detach()
        self.rows[:, -1] = float(stop)
        return self._add(self._gather())

    def close(self) -> None:
        """Nothing was started."""

    def _gather(self) -> torch.Tensor:
        if self.comm.size == 1:
            return self.rows
        own = self.rows.cpu().numpy()
        counts = [len(part) * self.gathered.shape[1] for part in self.deal]
        self.comm.Allgatherv(own, [self.gathered.numpy(), counts])
        return self.gathered

    def _add(self, rows: torch.Tensor) -> Outcome:
        total = rows[0, :-2].clone()
        for row in rows[1:]:
            total += row[:-2]
        total /= len(rows)
        self.total.copy_(total)
        self._point_gradients(self.total_views)
        tail = rows[:, -2:].cpu().numpy()
        return Outcome(tail[:, 0].copy(), bool(tail[:, 1].any()))

    def _as_parameters(self, flat: torch.Tensor) -> list[torch.Tensor]:
        # In the memory order of the parameter, which need not be that of its axes.
        views, start = [], flat.storage_offset()
        for parameter in self.parameters:
            views.append(flat.as_strided(parameter.shape, parameter.stride(), start))
            start += parameter.numel()
        return views

    def _point_gradients(self, views: list[torch.Tensor]) -> None:
        for parameter, view in zip(self.parameters, views, strict=True):
            parameter.grad = view


class _Loss(torch.nn.Module):
    """The loss as a module: one forward a backward, whatever the loss does with the model."""

    def __init__(self, model: torch.nn.Module, micro: Micro) -> None:
        super().__init__()
        self.model, self.micro = model, micro

    def forward(self, step: int, micro: int) -> torch.Tensor:
        return self.micro.loss(self.model, step, micro)


class Replicated:
    """DistributedDataParallel: summed while backward still runs, in an order of torch's own."""

    def __init__(self, model: torch.nn.Module, micro: Micro, spec: Training, comm: Comm) -> None:
        if spec.micro_batches % comm.size:
            raise InputError(
                f"training.micro_batches: {spec.micro_batches} is not allowed: mode ddp runs on "
                f"{comm.size} ranks. Allowed: multiples of the ranks"
            )
        self.comm = comm
        self.mine = shares(spec.micro_batches, comm.size)[comm.rank]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.loss: torch.nn.Module = _Loss(model, micro)
        self.replicas: DistributedDataParallel | None = None
        if comm.size > 1:
            join_group(comm, micro.device)
            self.replicas = DistributedDataParallel(self.loss, gradient_as_bucket_view=True)
            self.loss = self.replicas

    def __call__(self, step: int, stop: bool) -> Outcome:
        for parameter in self.parameters:
            parameter.grad = None
        losses = []
        for micro in self.mine:
            last, replicas = micro == self.mine[-1], self.replicas
            with nullcontext() if last or replicas is None else replicas.no_sync():
                loss = self.loss(step, micro)
                (loss / len(self.mine)).backward()
            losses.append(loss.detach())
        told = self.comm.allgather(([float(loss) for loss in losses], stop))
        values = np.array([value for part, _ in told for value in part], np.float32)
        return Outcome(values, any(wish for _, wish in told))

    def close(self) -> None:
        """Leave the process group. Collective."""
        if self.comm.size > 1:
            torch.distributed.destroy_process_group()


MODES: dict[str, Callable[..., Ordered | Replicated]] = {"ordered": Ordered, "ddp": Replicated}


def join_group(comm: Comm, device: torch.device) -> None:
    """Start torch's process group on the ranks of `comm`: nccl with a GPU a rank, else gloo."""
    hosts = comm.allgather(socket.gethostname())
    alone = len(set(hosts)) == 1
    name = "127.0.0.1" if alone else comm.bcast(socket.gethostbyname(socket.gethostname()))
    store = None
    if comm.rank == 0:
        # A listener of our own binds to one interface; the store itself would open all of them.
        listener = socket.create_server((name, 0))
        port = listener.getsockname()[1]
        store = torch.distributed.TCPStore(
            name,
            port,
            comm.size,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
    port = comm.bcast(store.port if store else None)
    store = store or torch.distributed.TCPStore(name, port, comm.size, is_master=False)
    devices = comm.allgather((socket.gethostname(), str(device)))
    own_gpu = device.type == "cuda" and len(set(devices)) == comm.size
    with _loopback(alone):
        torch.distributed.init_process_group(
            "nccl" if own_gpu else "gloo", store=store, rank=comm.rank, world_size=comm.size
        )


@contextmanager
def _loopback(alone: bool) -> Iterator[None]:
    """Ranks of one node talk over its loopback, unless the site has named an interface."""
    name = "GLOO_SOCKET_IFNAME"
    if not alone or name in os.environ or "lo" not in [n for _, n in socket.if_nameindex()]:
        yield
        return
    os.environ[name] = "lo"
    try:
        yield
    finally:
        del os.environ[name]
