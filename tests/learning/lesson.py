"""A small learning problem that the tests of the training loop share."""

import hashlib
import json

import numpy as np

from scaled_mpi.learning.settings import Session, Task, Training
from scaled_mpi.learning.training import train

SMALL = {
    "steps": 12,
    "batch": 8,
    "micro_batches": 4,
    "learning_rate": 1e-2,
    "warmup": 2,
    "validate_every": 4,
    "checkpoint_every": 3,
    "device": "cpu",
    "ema": 0.9,
}


def network(layout=None):
    """Two convolutions with a dropout between them, so that random numbers matter too."""
    import torch

    torch.manual_seed(5)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 8, 3),
        torch.nn.GELU(),
        torch.nn.Dropout(0.1),
        torch.nn.Conv2d(8, 2, 3),
    )
    return net.to(memory_format=layout) if layout else net


def sample(step, micro, size):
    """Fields (size, 2, 12, 12) that depend on the arguments alone."""
    return np.random.default_rng((step, micro)).standard_normal((size, 2, 12, 12), np.float32)


def loss(model, fields):
    """Mean square distance to a smoothed copy."""
    import torch

    target = torch.nn.functional.avg_pool2d(fields, 5, 1)
    return (model(fields) - target).square().mean()


def validate(model):
    """The loss on samples that no step draws."""
    import torch

    with torch.no_grad():
        value = loss(model, torch.from_numpy(sample(10**6, 0, 8)))
    return {"loss": float(value), "rmse": float(value) ** 0.5}


def learn(folder, comm, *, net=None, events=None, seed=3, should_stop=None, **changes):
    """Train the small network; `changes` are keys of Training, or a callable of the lesson."""
    calls = {"loss": loss, "sample": sample, "validate": validate}
    calls |= {name: changes.pop(name) for name in list(changes) if name in calls}
    spec = Training(**{**SMALL, **changes})
    net = network() if net is None else net
    task = Task(calls["loss"], calls["sample"], calls["validate"])
    result = train(net, task, spec, Session(comm, folder, events, seed), should_stop)
    return result, net


def sha(net):
    """Hash of all weights."""
    total = hashlib.sha256()
    for name, value in net.state_dict().items():
        total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def story(folder):
    """What the events tell, without the times and machines."""
    dropped = ("meta", "epoch_time_s", "total_time_s", "throughput", "max_memory_mib")
    lines = (folder / "events.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    return [{k: v for k, v in event.items() if k not in dropped} for event in told]
