"""The U-Net: the same weights on a whole periodic field and on a tile with its halo."""

import pytest
import torch

from scaled_mpi.config import InputError
from scaled_mpi.learning.networks.unet import Condition, UNet
from scaled_mpi.learning.sizes import UNetSize


def network(axes, scalars=0, fields=0, **size):
    """A U-Net whose every weight counts."""
    torch.manual_seed(0)
    made = UNet(axes, 2, UNetSize(groups=4, **size), scalars=scalars, fields=fields)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return made


@pytest.mark.parametrize(
    ("axes", "widths", "blocks"),
    [(1, (8, 16), 1), (2, (8,), 1), (2, (4, 8, 8), 1), (3, (4, 4), 1)],
)
def test_a_tile_with_halo_gives_the_numbers_of_the_whole(axes, widths, blocks):
    size = {"widths": widths, "blocks": blocks, "norm": "cell"}
    whole = network(axes, scalars=1, **size)
    part = network(axes, scalars=1, **size, padding="valid")
    part.load_state_dict(whole.state_dict())
    cells, start, tile = 8 * whole.multiple, whole.multiple, 2 * whole.multiple
    x, level = torch.randn(1, 2, *[cells] * axes), torch.tensor([0.3])
    told = Condition(scalars=torch.ones(1, 1))
    reach, seen, wanted = part.reach[0], x, whole(x, level, told)
    for axis in range(2, 2 + axes):
        window = torch.arange(start - reach, start + tile + reach) % cells
        seen = seen.index_select(axis, window)
        wanted = wanted.narrow(axis, start, tile)
    torch.testing.assert_close(part(seen, level, told), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["group", "cell"])
def test_a_shifted_field_gives_the_shifted_answer(norm):
    made = network(2, widths=(8, 8), norm=norm, attention=True).double()
    x, level = torch.randn(2, 2, 8, 12).double(), torch.tensor([0.3, 1.1]).double()
    moved = made(torch.roll(x, (2, 4), (2, 3)), level)
    torch.testing.assert_close(
        moved, torch.roll(made(x, level), (2, 4), (2, 3)), atol=1e-9, rtol=1e-9
    )


def test_every_condition_and_each_sample_counts_for_itself():
    made = network(2, scalars=2, fields=1, widths=(8, 8))
    x, level = torch.randn(2, 2, 8, 8), torch.tensor([0.3, 1.2])
    told = Condition(torch.randn(2, 1, 8, 8), torch.randn(2, 2))
    both = made(x, level, told)
    alone = made(x[1:], level[1:], Condition(told.fields[1:], told.scalars[1:]))
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)
    for other in (Condition(told.fields + 1, told.scalars), Condition(told.fields, -told.scalars)):
        assert (made(x, level, other) - both).abs().max() > 1e-3
    assert (made(x, level + 0.05, told) - both).abs().max() > 1e-3


def test_it_begins_at_zero_and_pads_as_it_is_told():
    size = UNetSize(widths=(8, 8))
    assert (UNet(2, 2, size)(torch.randn(1, 2, 8, 8), torch.ones(1)) == 0).all()
    ramp = torch.linspace(0, 1, 8).expand(1, 2, 8, 8)
    around, flat = (network(2, widths=(8, 8), padding=p) for p in ("circular", "replicate"))
    assert (around(ramp, torch.ones(1)) - flat(ramp, torch.ones(1))).abs().max() > 1e-3


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="valid is not allowed: norm group"):
        UNetSize(padding="valid")
    with pytest.raises(ValueError, match="groups does not divide them"):
        UNetSize(widths=(12,))
    with pytest.raises(InputError, match="Allowed: multiples of"):
        network(1, widths=(8, 8))(torch.randn(1, 2, 7), torch.ones(1))
