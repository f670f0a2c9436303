"""The training loop against closed forms, a bare torch loop, other rank counts, and bad input."""

import math
import subprocess
import sys

import numpy as np
import pytest

from scaled_mpi.config import InputError, parse
from scaled_mpi.facts import EventLog
from scaled_mpi.learning import training
from scaled_mpi.learning.settings import NotFinite, Training, useful_ranks
from scaled_mpi.learning.training import on_team, training_comm
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.signals import Stopped
from tests.learning.lesson import SMALL, learn, loss, network, sample, sha, story

ALONE = SerialComm()


@pytest.fixture
def shared(tmp_path):
    """Rank 0's folder on every rank; it is removed after the test, so all leave together."""
    yield world().bcast(tmp_path)
    world().barrier()


# ------------------------------------------------------------------ closed forms


def rates(**keys):
    from scaled_mpi.learning.optimisers import learning_rate

    spec = Training(**{"learning_rate": 2.0, "warmup": 0, "steps": 100, **keys})
    return [learning_rate(spec, step) for step in range(spec.steps + 1)]


def test_cosine_is_half_a_cosine_down_to_its_floor():
    got = rates(scheduler="cosine", floor=0.1)
    want = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * s / 100)) / 2) for s in range(101)]
    np.testing.assert_allclose(got, want, rtol=1e-14)


def test_step_halves_every_so_many_steps():
    got = rates(scheduler="step", decay=0.5, decay_every=40)
    assert got == [2.0] * 40 + [1.0] * 40 + [0.5] * 21


def test_none_is_constant_after_a_linear_warm_up():
    got = rates(scheduler="none", warmup=4)
    np.testing.assert_allclose(got[:6], [0.4, 0.8, 1.2, 1.6, 2.0, 2.0], rtol=1e-15)


def test_cosine_starts_where_the_warm_up_ends():
    got = rates(scheduler="cosine", warmup=10, floor=0.0)
    assert got[10] == 2.0 and got[100] == pytest.approx(0.0, abs=1e-15)
    assert got[55] == pytest.approx(1.0)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_ordered_equals_a_bare_torch_loop_over_whole_batches(tmp_path, optimizer):
    import torch

    net, plain = network()[::3], network()[::3]  # without dropout
    keys = {"optimizer": optimizer, "scheduler": "none", "warmup": 0, "clip": 0, "ema": 0}
    _, net = learn(tmp_path, ALONE, net=net, **keys, weight_decay=0.1, steps=8)
    groups = [
        {"params": [p for p in plain.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in plain.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    bare = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99)),
        "adam": lambda: torch.optim.Adam(groups, lr=1e-2, betas=(0.9, 0.99)),
        "sgd": lambda: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
    }[optimizer]()
    for step in range(8):
        bare.zero_grad()
        batch = np.concatenate([sample(step, micro, 2) for micro in range(4)])
        loss(plain, torch.from_numpy(batch)).backward()
        bare.step()
    learnt = np.concatenate([p.detach().flatten() for p in net.parameters()])
    wanted = np.concatenate([p.detach().flatten() for p in plain.parameters()])
    np.testing.assert_allclose(learnt, wanted, atol=2e-6)


def test_clipping_bounds_the_step(tmp_path):
    keys = {"optimizer": "sgd", "momentum": 0, "scheduler": "none", "warmup": 0, "ema": 0}
    start = [p.detach().clone() for p in network().parameters()]
    _, net = learn(
        tmp_path,
        ALONE,
        **keys,
        weight_decay=0,
        clip=0.5,
        steps=1,
        loss=lambda model, fields: 1000 * loss(model, fields),
    )
    steps = [p.detach() - s for p, s in zip(net.parameters(), start, strict=True)]
    moved = sum(float((step**2).sum()) for step in steps)
    assert math.sqrt(moved) == pytest.approx(0.5 * SMALL["learning_rate"], rel=1e-4)


def test_average_follows_its_recursion():
    import torch

    from scaled_mpi.learning.optimisers import averaged

    net = torch.nn.Linear(3, 1)
    average = averaged(net, 0.9)
    expected = None
    for update in range(40):
        with torch.no_grad():
            net.weight.copy_(torch.tensor([[1.0, -2.0, 0.5]]) * (update + 1))
        average.update_parameters(net)
        value = net.weight.detach().double().clone()
        keep = min(0.9, (1 + update) / (10 + update))
        expected = value if expected is None else keep * expected + (1 - keep) * value
    np.testing.assert_allclose(average.module.weight.detach(), expected, rtol=1e-5)


def test_best_and_last_hold_the_averaged_weights(tmp_path):
    from scaled_mpi.learning.weights import load_weights

    plain, _ = learn(tmp_path / "plain", ALONE, ema=0)
    smooth, _ = learn(tmp_path / "smooth", ALONE, ema=0.9)
    raw, _ = load_weights(plain.last)
    kept, meta = load_weights(smooth.last)
    assert any(not np.array_equal(raw[name], kept[name]) for name in raw)
    assert meta["step"] == 12 and meta["loss"] > 0


def test_early_stopping_keeps_the_best(tmp_path):
    losses = iter([5.0, 4.0, 3.0, 2.95, 2.94, 2.93])
    result, _ = learn(
        tmp_path,
        ALONE,
        steps=100,
        validate_every=2,
        patience=2,
        min_delta=0.1,
        validate=lambda model: {"loss": next(losses)},
    )
    assert result.stopped_early and result.steps == 10
    assert (result.best_step, result.best_loss) == (6, 3.0)
    again, _ = learn(tmp_path, ALONE, steps=100, validate_every=2, patience=2, min_delta=0.1)
    assert again.best_loss == 3.0 and again.stopped_early


def test_bf16_learns_nearly_the_same(tmp_path):
    fine, _ = learn(tmp_path / "a", ALONE, steps=40)
    coarse, _ = learn(tmp_path / "b", ALONE, steps=40, precision="bf16")
    assert coarse.best_loss == pytest.approx(fine.best_loss, rel=0.05)
    assert coarse.sha256 != fine.sha256


# ------------------------------------------------------------------ ranks


@pytest.mark.mpi
@pytest.mark.ranks6
def test_ordered_gives_the_same_bits_on_any_ranks(tmp_path, shared):
    comm = world()
    alone, one = learn(tmp_path / f"alone{comm.rank}", ALONE)
    together, many = learn(shared / "together", comm)
    assert sha(one) == sha(many)
    assert alone.best_loss == together.best_loss and alone.sha256 == together.sha256


@pytest.mark.mpi
def test_ordered_with_channels_last_weights(tmp_path, shared):
    import torch

    comm = world()

    def net(layout):
        return network(layout)[::3]  # dropout draws in the order of the memory

    _, one = learn(tmp_path / f"alone{comm.rank}", ALONE, net=net(torch.channels_last))
    _, many = learn(shared / "together", comm, net=net(torch.channels_last))
    _, contiguous = learn(tmp_path / f"contiguous{comm.rank}", ALONE, net=net(None))
    assert sha(one) == sha(many)
    for p, q in zip(one.parameters(), contiguous.parameters(), strict=True):
        np.testing.assert_allclose(p.detach(), q.detach(), atol=1e-4)


@pytest.mark.mpi
def test_ddp_agrees_with_ordered_after_fifty_steps(tmp_path, shared):
    comm = world()
    keys = {"steps": 50, "validate_every": 25, "learning_rate": 1e-3}
    _, one = learn(tmp_path / f"alone{comm.rank}", ALONE, **keys)
    ranks = useful_ranks(Training(**SMALL, mode="ddp"), comm.size)
    team = comm.Split(int(comm.rank >= ranks), comm.rank)
    if comm.rank < ranks:
        _, many = learn(shared / "ddp", team, **keys, mode="ddp")
        for p, q in zip(one.parameters(), many.parameters(), strict=True):
            np.testing.assert_allclose(p.detach(), q.detach(), atol=1e-6)
        assert len(set(team.allgather(sha(many)))) == 1


@pytest.mark.mpi(min_size=2)
def test_a_loss_that_is_not_finite_is_named_on_every_rank(shared):
    comm = world()
    owner = comm.size - 1
    folder = shared / "nan"

    calls = iter(range(1000))

    def broken(model, fields):
        rotten = next(calls) > 5 and comm.rank == owner
        return loss(model, fields) * (float("nan") if rotten else 1.0)

    with pytest.raises(NotFinite, match=rf"loss nan in step \d+, .* on rank {owner}"):
        learn(folder, comm, steps=40, loss=broken)
    comm.barrier()
    import torch

    from scaled_mpi.learning.weights import load_weights

    for path in folder.glob("*.safetensors"):
        assert all(bool(torch.isfinite(t).all()) for t in load_weights(path)[0].values())


@pytest.mark.mpi
def test_one_rank_a_core_trains_and_the_others_wait(monkeypatch):
    comm = world()
    asked = []
    monkeypatch.setattr(training, "_gpus", lambda spec: asked.append(1) or 0)
    monkeypatch.setattr(training, "_own_cores", lambda: (0, 1))
    spec = Training(**SMALL)
    team = training_comm(comm, spec)
    assert (team is not None) == (comm.rank < 2)
    assert len(asked) == int(comm.rank == 0)  # only one rank a node may import torch to look
    assert team is None or (team.size == min(2, comm.size) and team.rank == comm.rank)
    done = []
    on_team(comm, spec, lambda team: done.append(team.size))
    assert done == ([min(2, comm.size)] if comm.rank < 2 else [])

    def stopped(team):
        raise Stopped("step 7")

    with pytest.raises(Stopped, match="step 7"):
        on_team(comm, spec, stopped)


@pytest.mark.parametrize(
    ("mode", "ranks", "useful"),
    [
        ("ordered", 1, 1),
        ("ordered", 3, 2),
        ("ordered", 4, 4),
        ("ordered", 64, 4),
        ("ddp", 3, 2),
        ("ddp", 64, 4),
    ],
)
def test_no_more_ranks_than_shorten_a_step(mode, ranks, useful):
    assert useful_ranks(Training(batch=8, micro_batches=4, mode=mode), ranks) == useful


def test_only_ddp_depends_on_ranks():
    assert Training(mode="ddp").rank_dependent and not Training().rank_dependent


def test_the_spec_and_its_team_need_no_torch():
    code = (
        "import sys\n"
        "from scaled_mpi.learning.training import Training, training_comm\n"
        "from scaled_mpi.parallel.comm import SerialComm\n"
        "training_comm(SerialComm(), Training(device='cpu'))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ------------------------------------------------------------------ bad input


def test_not_finite_data_are_told_from_a_loss_that_diverged(tmp_path):
    def rotten(step, micro, size):
        fields = sample(step, micro, size)
        fields[0, 0, 3, 3] = np.nan if step == 5 else 0.0
        return fields

    with pytest.raises(InputError, match="samples of step 5 hold values that are not finite"):
        learn(tmp_path / "data", ALONE, sample=rotten)
    keys = {"optimizer": "sgd", "learning_rate": 1e30, "clip": 0, "scheduler": "none"}
    log = EventLog(tmp_path / "loss", "run", 3)
    with pytest.raises(NotFinite, match="in step 1, micro-batch 0, on rank 0; a smaller"):
        learn(tmp_path / "loss", ALONE, events=log, warmup=0, checkpoint_every=1, **keys)
    assert story(tmp_path / "loss")[-1]["moment"] == "on_exception"


def test_a_gradient_that_is_not_finite_never_reaches_a_file(tmp_path):
    import torch

    calls = iter(range(100))

    def steep(model, fields):
        value = loss(model, fields)
        # sqrt has the value 0 and the slope infinity here
        return value + (torch.sqrt(0 * value) if next(calls) >= 4 * 5 else 0.0)

    with pytest.raises(NotFinite, match="gradient of norm nan in step 5"):
        learn(tmp_path, ALONE, loss=steep, checkpoint_every=1)
    from scaled_mpi.learning.weights import first_not_finite, load_weights

    tensors, meta = load_weights(tmp_path / "state.safetensors")
    assert meta["account"]["step"] == 5 and first_not_finite(tensors) is None


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="training.batch: 10 is not allowed: no multiple"):
        parse(Training, {"batch": 10, "micro_batches": 4})
    with pytest.raises(InputError, match="at most its 7 samples"):
        Training(batch=8).check_batch(7)


def test_a_device_that_is_not_here_is_refused(tmp_path):
    import torch

    absent = "cuda" if not torch.cuda.is_available() else "mps"
    with pytest.raises(
        InputError, match=f"training.device: {absent} is not allowed: this machine has none"
    ):
        learn(tmp_path, ALONE, device=absent)


def test_torch_is_left_as_it_was(tmp_path):
    import torch

    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    keep = torch.get_rng_state()
    learn(tmp_path, ALONE, net=network()[::3])
    torch.set_rng_state(keep)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(torch.rand(3), expected)
