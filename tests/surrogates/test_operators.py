"""The contract of an operator: its smallest implementer through the march, and what breaks it."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from scaled_mpi.config import InputError, plain
from scaled_mpi.coupling.chance import chance_of
from scaled_mpi.coupling.schwarz import March
from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.surrogates import MEMBERS
from scaled_mpi.surrogates.operators import (
    Operator,
    Surrogate,
    load_operator,
    member_violations,
    violations,
)
from tests.coupling.heat import Heat


class Shift(Operator):
    """Every value moves one cell along x in a jump: nothing but the contract."""

    reach, memory = (0, 1), 1

    def advance(self, window, mask, condition, future=None, noise=None):
        return window[-1][:, :, :-2].copy()


class Noisy(Shift):
    """A shift that adds its noise, one channel for all fields."""

    stochastic, noises = True, 1

    def advance(self, window, mask, condition, future=None, noise=None):
        return window[-1][:, :, :-2] + noise[:, :, 1:-1]


class Shifting(Surrogate):
    """The block of YAML that loads it; there is nothing to fit."""

    kind: Literal["shifting"] = "shifting"
    reach: tuple[int, ...] = (0, 1)

    def fit(self, trajectories, comm, folder, events, seed):
        Path(folder).mkdir(exist_ok=True)

    def load(self, folder):
        return Shift()


def marched(operator, field, comm, jumps=5, tile=(8, 8), noise=False):
    """The last field (C, Y, X) of a march on rank 0, None elsewhere."""
    blocks = make_blocks(Grid(field.shape[1:], 1.0, Boundary("periodic")), tile, comm.size)
    part = first_ranks(comm, blocks.ranks)
    if part is None:
        return None
    own = blocks.block(part.rank).slices
    march = March(
        operator,
        Halo(blocks, part, tuple(operator.reach)),
        condition=operator.condition({}),
        scale=np.ones(len(field)),
        chance=chance_of(operator, blocks, part.rank, seed=4),
    )
    last = list(march.jumps([field[(..., *own)].copy()] * operator.memory, jumps))[-1].field
    parts = part.gather((own, last))
    if part.rank:
        return None
    whole = np.empty_like(field)
    for slices, values in parts:
        whole[(..., *slices)] = values
    return whole


@pytest.mark.mpi
def test_the_smallest_operator_marches_exactly():
    field = np.random.default_rng(0).random((2, 16, 32), dtype=np.float32)
    found = marched(Shift(), field, world())
    if found is not None:
        np.testing.assert_array_equal(found, np.roll(field, 5, axis=2))


@pytest.mark.mpi
def test_noise_is_that_of_the_cell_on_any_number_of_ranks():
    field = np.zeros((1, 16, 16), np.float32)
    found = marched(Noisy(), field, world(), jumps=2)
    if found is not None:
        np.testing.assert_array_equal(found, marched(Noisy(), field, SerialComm(), jumps=2))
        assert 0.5 < found.std() < 2.5


def test_the_block_of_the_smallest_operator_is_complete(tmp_path):
    assert member_violations(Shifting) == []
    assert "weights" not in plain(Shifting())
    operator = load_operator(Shifting(), tmp_path)
    assert violations(operator, channels=2) == []
    assert (operator.stochastic, operator.noises, operator.conditions) == (False, 0, ())


def test_honest_operators_have_no_violations():
    assert violations(Noisy()) == []
    heat = Heat(steps=3, r=0.1)
    assert "conditions is missing" in violations(heat)[0]  # it does not inherit the defaults


@pytest.mark.parametrize("kind", sorted(MEMBERS))
def test_every_member_keeps_the_contract_of_its_block(kind):
    assert member_violations(MEMBERS[kind]) == []


def test_what_is_missing_is_one_line(tmp_path):
    class Empty:
        memory, reach = 1, (1, 1)

    class Loads(Shifting):
        def load(self, folder):
            return Empty()

    with pytest.raises(InputError, match="surrogate: Empty .* advance is missing") as caught:
        load_operator(Loads(), tmp_path)
    assert "\n" not in str(caught.value)

    class Unfinished(Surrogate):
        kind: Literal["unfinished"] = "unfinished"

    assert member_violations(Unfinished) == [
        "Unfinished: fit is missing",
        "Unfinished: load is missing",
    ]
    assert member_violations(Empty) == ["Empty: a class that inherits from Surrogate is needed"]
    assert member_violations(3) == ["int: a class that inherits from Surrogate is needed"]


def test_breaches_are_found():
    class Far(Shift):
        def advance(self, window, mask, condition, future=None, noise=None):
            return super().advance(window, mask, condition) + window.mean()

    class Small(Shift):
        def advance(self, window, mask, condition, future=None, noise=None):
            return window[-1][:, 1:, :-2]

    class Broken(Shift):
        def advance(self, window, mask, condition, future=None, noise=None):
            raise RuntimeError("no\nway")

    class Wide(Shift):
        def advance(self, window, mask, condition, future=None, noise=None):
            return super().advance(window, mask, condition).astype(np.float64) * np.nan

    assert "the reach is larger" in violations(Far())[0]
    assert "returns (1, 31, 16); (1, 32, 16) is needed" in violations(Small())[0]
    assert violations(Broken()) == ["Broken: advance raises RuntimeError: no way"]
    assert len(violations(Wide())) >= 2

    class Odd(Shift):
        memory = 0

    assert violations(Odd()) == ["Odd: memory is 0; at least one frame is needed"]


def test_conditions_are_read_by_name():
    class Driven(Shift):
        conditions = ("F", "k")

    np.testing.assert_array_equal(Driven().condition({"k": 2, "F": 1.0, "x": 3}), [1.0, 2.0])
    with pytest.raises(InputError, match="without k are not allowed"):
        Driven().condition({"F": 1.0})
