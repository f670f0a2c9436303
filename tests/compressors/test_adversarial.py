"""The adversarial autoencoder: what its critic sees and learns, who gets which gradient."""

import numpy as np
import pytest
import torch

from scaled_mpi.compressors import MEMBERS
from scaled_mpi.config import InputError, parse, plain
from scaled_mpi.facts import EventLog, read_events
from scaled_mpi.learning.networks.coding import CodingNetwork
from scaled_mpi.learning.networks.critic import Judged, PatchCritic, hinge
from tests.compressors.test_autoencoder import ALONE, spec
from tests.compressors.waves import frame, runs


def adversarial(steps=6, critic=None, **keys):
    """A small adversarial autoencoder, otherwise as `spec`."""
    tree = {**plain(spec(steps, **keys)), "kind": "adversarial"}
    return parse(
        MEMBERS["adversarial"],
        {**tree, "critic": {"width": 8, "depth": 2, "start": 2, **(critic or {})}},
    )


def fields(count=6):
    """Normalised fronts (count, 2, 32, 32)."""
    made = torch.from_numpy(np.stack([frame((32, 32), 0.4 * t, t % 3) for t in range(count)]))
    return (made - made.mean((0, 2, 3), True)) / made.std((0, 2, 3), keepdim=True)


def judged(weight=0.3):
    torch.manual_seed(2)
    return Judged(CodingNetwork(2, 4, (4, 4), 8, 1), PatchCritic(2, 2, 8, 2), weight)


@pytest.mark.parametrize(("axes", "depth"), [(1, 3), (2, 1), (2, 2), (3, 1)])
def test_a_number_of_the_critic_judges_the_cells_that_are_declared(axes, depth):
    torch.manual_seed(0)
    critic = PatchCritic(axes, 2, 4, depth).double()
    cells = 3 * 2**depth
    assert adversarial(patch=96, critic={"depth": depth}).critic.patch == cells
    one = torch.randn(1, 2, *(cells,) * axes, dtype=torch.float64, requires_grad=True)
    numbers = critic(one)
    assert numbers.shape == (1, 1, *(1,) * axes)
    numbers.sum().backward()
    seen = one.grad.abs().amax((0, 1)) > 0
    assert bool(seen[(0,) * axes]) and bool(seen[(-1,) * axes])


def test_the_critic_learns_to_tell_a_fixed_fake():
    truth = fields()
    fake = torch.nn.functional.avg_pool2d(truth, 3, 1)
    torch.manual_seed(1)
    critic = PatchCritic(2, 2, 8, 2)
    optimiser = torch.optim.AdamW(critic.parameters(), 4e-3, betas=(0.9, 0.99))
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = hinge(critic, truth, fake)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1.0, abs=0.1)
    assert losses[-1] < 0.8
    other = fields(9)[6:]
    told = critic(other).mean() - critic(torch.nn.functional.avg_pool2d(other, 3, 1)).mean()
    assert float(told.detach()) > 0.2  # also of fields that it has not seen


def test_each_part_of_the_contest_reaches_its_own_network_in_its_own_measure():
    model = judged(weight=0.3)
    truth = fields(2)
    made = (truth + 0.1 * torch.randn_like(truth)).requires_grad_()
    error = (made - truth).square().mean()
    model.contest(made, truth, error).backward()
    pull = torch.autograd.grad((made - truth).square().mean(), made)[0]
    assert float(made.grad.norm()) == pytest.approx(0.3 * float(pull.norm()), rel=1e-4)
    got = [weight.grad.clone() for weight in model.critic.parameters()]
    model.zero_grad()
    hinge(model.critic, truth, made).backward()
    for one, weight in zip(got, model.critic.parameters(), strict=True):
        torch.testing.assert_close(one, weight.grad)
    assert model.truce().item() == 0.0


def test_a_short_training_costs_little_and_keeps_the_coder_alone(tmp_path):
    made = runs(tmp_path)
    keys = {"width": 8, "patch": 16}
    spec(30, **keys).fit(made, ALONE, tmp_path / "plain", None, 0)
    one = adversarial(30, {"start": 8}, **keys)
    one.fit(made, ALONE, tmp_path / "judged", EventLog(tmp_path / "judged", "run", 0), 0)
    before, coder = spec().load(tmp_path / "plain"), one.load(tmp_path / "judged")
    assert coder.scores["vrmse"] < 1.5 * before.scores["vrmse"]
    told = [
        e["metrics"]["critic"]
        for e in read_events(tmp_path / "judged")
        if e["moment"] == "on_epoch_end"
    ]
    assert coder.scores["critic"] == pytest.approx(told[-1], rel=1e-6) and told[-1] < 0.99
    names = [set(c.network.state_dict()) for c in (before, coder)]
    assert names[0] == names[1]
    last = made[-1].read(3, halo=coder.encode_reach)
    assert not np.array_equal(coder.encode(last), before.encode(last))


def test_before_its_start_the_critic_changes_nothing(tmp_path):
    """Up to the step before the start the coder is that of a training without a critic."""
    made = runs(tmp_path, count=2, frames=4)
    training = {**plain(spec(6).training), "clip": 0.0}  # the clipped norm would be of both
    found = []
    for weight in (0.0, 5.0):
        one = adversarial(6, {"start": 5, "weight": weight}, training={**training, "steps": 6})
        one.fit(made, ALONE, tmp_path / str(weight), None, 0)
        tile = made[0].read(0, halo=(6, 6))
        found.append(one.load(tmp_path / str(weight)).encode(tile))
    assert not np.array_equal(*found)  # the one step with it
    assert np.abs(found[0] - found[1]).max() < 0.1


@pytest.mark.parametrize(
    ("critic", "words"),
    [
        ({"depth": 4}, r"critic.depth: 4 is not allowed: its patch of 48 cells .* at most 16"),
        ({"start": 6}, r"critic.start: 6 is not allowed: .* less than training.steps \(6\)"),
        ({"width": 0}, "critic.width"),
    ],
)
def test_keys_that_cannot_be_are_refused(critic, words):
    with pytest.raises(InputError, match=words):
        adversarial(6, critic)
