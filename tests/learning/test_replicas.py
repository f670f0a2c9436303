"""Data-parallel training of real networks: jump, book of codes, critic. Same weights on all ranks.

What has state beside its weights is the hard case: a codebook that follows its latents, a critic
that starts later, an average. Each must be the same bits on every rank, for every number of ranks,
and after an interruption.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from scaled_mpi.learning.settings import Session, Task, Training, useful_ranks
from scaled_mpi.learning.training import train
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.signals import Stopped
from tests.compressors.waves import frame

ALONE = SerialComm()
RING, CELLS = 14, 12  # of a coding network of factor 4
KEYS = {
    "steps": 8,
    "batch": 8,
    "micro_batches": 4,
    "learning_rate": 2e-3,
    "warmup": 2,
    "ema": 0.9,
    "validate_every": 4,
    "checkpoint_every": 100,
    "device": "cpu",
}


class Case(NamedTuple):
    """A network, its samples and its loss."""

    network: Any
    sample: Any
    loss: Any


def fronts(step, micro, size, frames=1):
    """(size, frames, 2, 40, 40), normalised, that depend on the arguments alone."""
    draw = np.random.default_rng((step, micro))
    shape = (CELLS + 2 * RING,) * 2
    made = []
    for _ in range(size):
        phase, kind = draw.uniform(0, 6), int(draw.integers(3))
        made.append([frame(shape, phase + 0.2 * t, kind) for t in range(frames)])
    mean, spread = (np.array(x, np.float32).reshape(2, 1, 1) for x in ((0.5, 0.03), (0.3, 0.04)))
    return (np.array(made) - mean) / spread


def jump():
    """A jump network with its second network for Schwarz sweeps."""
    import torch

    from scaled_mpi.learning.losses import jump_errors, sweep_errors
    from scaled_mpi.learning.networks.jump import JumpNetwork

    def loss(model, frames):
        errors = jump_errors(model, frames, 2, None)
        return sum(errors + sweep_errors(model, frames, 2, None, (2, 2), 2))

    torch.manual_seed(3)
    network = JumpNetwork(2, 2, (4, 4), (0.3, 0.3), masked=True, agreement=8, width=12, depth=2)
    return Case(network, lambda *key: fronts(*key, frames=3)[..., :24, :24], loss)


def coding():
    """A fresh coding network with a book of 16 codes, begun on fixed fields."""
    import torch

    from scaled_mpi.learning.networks.coding import CodingNetwork
    from scaled_mpi.learning.networks.convolution import crop

    torch.manual_seed(3)
    network = CodingNetwork(2, 4, (4, 4), 8, 1, "vq", codes=16, decay=0.8)
    assert network.ring == (RING, RING)
    survey = torch.from_numpy(fronts(1000, 0, 16)[:, 0])
    network.start_linear(crop(survey, network.ring))
    network.start_bottleneck(survey)
    return network


def book():
    """An autoencoder whose latents are codes."""

    def loss(model, fields):
        made, penalty = model.reconstruct(fields[:, 0])
        return (made - fields[:, 0, :, RING:-RING, RING:-RING]).square().mean() + penalty

    return Case(coding(), fronts, loss)


def contest():
    """The same with a critic from the third step on."""
    from scaled_mpi.learning.networks.critic import Judged, PatchCritic

    def loss(model, batch):
        made, penalty = model.reconstruct(batch["fields"])
        truth = batch["fields"][..., RING:-RING, RING:-RING]
        error = (made - truth).square().mean() + penalty
        if batch["step"] < 2:
            return error + model.truce()
        return error + model.contest(made, truth, error)

    def sample(step, micro, size):
        return {"fields": fronts(step, micro, size)[:, 0], "step": step}

    return Case(Judged(coding(), PatchCritic(2, 2, 4, 2), 0.3), sample, loss)


CASES = {"jump": jump, "vq": book, "adversarial": contest}


def validation(case):
    """The loss on samples that no step draws."""
    import torch

    from scaled_mpi.learning.distributed import move

    batch = move(case.sample(10**6, 0, 4), torch.device("cpu"))

    def judge(model):
        with torch.enable_grad():  # the contest weighs its parts by gradients
            return {"loss": case.loss(model, batch).item()}

    return judge


def learn(name, folder, comm, should_stop=None, **changes):
    """Train a case; returns its network."""
    case = CASES[name]()
    task = Task(case.loss, case.sample, validation(case))
    session = Session(comm, folder, None, 3)
    train(case.network, task, Training(**{**KEYS, **changes}), session, should_stop)
    return case.network


def bits(state):
    """SHA-256 of all tensors of a state dictionary, nested ones too."""
    total = hashlib.sha256()

    def add(name, value):
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                add(f"{name}.{key}", value[key])
        elif hasattr(value, "numpy"):
            total.update(name.encode() + value.detach().contiguous().numpy().tobytes())

    add("", state)
    return total.hexdigest()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["jump", "vq"])
def test_ddp_is_one_rank_to_1e_6_after_fifty_steps(mpi_tmp_path, name):
    """Same global batch, other order of summation: what is left is rounding."""
    comm, root = world(), Path(mpi_tmp_path)
    keys = {"steps": 50, "validate_every": 50, "batch": 4, "learning_rate": 1e-3, "mode": "ddp"}
    ranks = useful_ranks(Training(**{**KEYS, **keys}), comm.size)
    team = comm.Split(int(comm.rank >= ranks), comm.rank)
    if comm.rank < ranks:
        many = learn(name, root / "many", team, **keys).state_dict()
        assert len(set(team.allgather(bits(many)))) == 1
        if comm.rank == 0:
            one = learn(name, root / "one", ALONE, **keys).state_dict()
            for key, value in one.items():
                np.testing.assert_allclose(many[key], value, atol=1e-6, err_msg=key)
    comm.barrier()


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["vq", "adversarial"])
def test_weights_book_average_and_moments_are_the_same_bits_everywhere(mpi_tmp_path, name):
    from scaled_mpi.learning.loop import Loop

    comm, root = world(), Path(mpi_tmp_path)

    def course(comm, folder):
        """Hashes of all weights and buffers before each step; of average and optimiser after."""
        case, told = CASES[name](), []
        task = Task(case.loss, case.sample, validation(case))
        loop = Loop(
            case.network,
            task,
            Training(**KEYS),
            comm,
            folder,
            None,
            3,
            lambda: bool(told.append(bits(case.network.state_dict()))),
        )
        loop.run()
        assert len(set(told)) == KEYS["steps"]  # every step has changed something
        return [*told, bits(loop.average.state_dict()), bits(loop.optimiser.state_dict()["state"])]

    mine = course(comm, root / "together")
    assert all(other == mine for other in comm.allgather(mine))
    if comm.rank == 0 and comm.size > 1:
        assert course(ALONE, root / "alone") == mine
    comm.barrier()


@pytest.mark.parametrize("name", list(CASES))
def test_an_interruption_changes_no_bit(tmp_path, name):
    straight = learn(name, tmp_path / "straight", ALONE)
    for stop_after in (1, 4):  # before the critic starts, and after; within and after an epoch
        asked = iter([False] * (stop_after - 1) + [True])
        with pytest.raises(Stopped):
            learn(name, tmp_path / "pieces", ALONE, lambda asked=asked: next(asked))
    resumed = learn(name, tmp_path / "pieces", ALONE)
    assert bits(resumed.state_dict()) == bits(straight.state_dict())
    for file in ("best", "last"):
        pair = [tmp_path / f / f"{file}.safetensors" for f in ("straight", "pieces")]
        assert pair[0].read_bytes() == pair[1].read_bytes()
