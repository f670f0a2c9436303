"""Particles on blocks: owners, migration, ghosts against all pairs, the same bits everywhere."""

import itertools

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.parallel.blocks import Blocks, Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.particles import (
    ParticleExchange,
    Particles,
    gather_particles,
    owner_of,
    pack,
    reflect,
    unpack,
    wrap,
)

PERIODIC, CLOSED = Boundary("periodic"), Boundary("neumann")
GRIDS = [
    Grid((24,), 0.5, PERIODIC),
    Grid((12, 18), (0.5, 0.25), (PERIODIC, PERIODIC)),
    Grid((12, 18), (0.5, 0.25), (CLOSED, PERIODIC)),
    Grid((6, 6, 9), 0.7, (PERIODIC, CLOSED, PERIODIC)),
]
TILE = 3


def cloud(grid, count=150, seed=1):
    draw = np.random.default_rng(seed)
    position = draw.uniform(size=(count, grid.axes)) * grid.extent
    payload = {"velocity": draw.normal(size=position.shape), "kind": np.arange(count) % 3 == 0}
    return Particles(draw.permutation(count) * 7, position, payload)


def on_my_ranks(grid):
    blocks = make_blocks(grid, TILE, world().size)
    return blocks, first_ranks(world(), blocks.ranks)


def my_share(particles, comm):
    """Dealt out by number, not by place: migration has to put them right."""
    return particles.take(particles.ids // 7 % comm.size == comm.rank)


def stepped(grid, particles, seed):
    """A long random move, wrapped and reflected; the same whoever does it."""
    moves = np.random.default_rng(seed).normal(size=(200, grid.axes))
    position, signs = reflect(grid, wrap(grid, particles.position + moves[particles.ids // 7]))
    velocity = particles.payload["velocity"] * signs
    return Particles(particles.ids, position, {**particles.payload, "velocity": velocity})


def same(one, other):
    return np.array_equal(pack(one), pack(other))


def test_wrap_and_reflect():
    grid = Grid((4, 3), 1.0, (PERIODIC, CLOSED))
    far = [[4.0, 3.0], [-0.5, -0.5], [9.0, 3.25], [-1e-20, 6.5], [-8.0, 9.5], [3.5, -3.5]]
    inside, signs = reflect(grid, wrap(grid, far))
    assert np.allclose(inside, [[0, 3], [3.5, 0.5], [1, 2.75], [0, 0.5], [0, 2.5], [3.5, 2.5]])
    assert np.array_equal(signs, [[1, 1], [1, -1], [1, -1], [1, 1], [1, -1], [1, 1]])


def test_the_layout_of_travel_loses_nothing():
    particles = cloud(GRIDS[1])
    assert same(unpack(pack(particles)), particles)
    assert same(particles.sorted().take(np.argsort(np.argsort(particles.ids))), particles)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("ranks", [*range(1, 13), 64])
def test_every_place_has_one_owner(grid, ranks):
    blocks = make_blocks(grid, TILE, ranks)
    centres = np.stack(np.meshgrid(*map(grid.centres, range(grid.axes)), indexing="ij"), -1)
    owners = owner_of(
        blocks, Particles(np.arange(centres[..., 0].size), centres.reshape(-1, grid.axes))
    ).reshape(grid.shape)
    corners = [(0.0, length) for length in grid.extent]
    for rank in range(blocks.ranks):
        assert np.all(owners[blocks.block(rank).slices] == rank)
    ends = np.array(list(itertools.product(*corners)))
    assert set(owner_of(blocks, Particles(np.arange(len(ends)), ends))) <= set(range(ranks))


@pytest.mark.parametrize("place", [-1e-9, 6.1, np.nan])
def test_a_lost_particle_is_named(place):
    exchange = ParticleExchange(make_blocks(GRIDS[1], TILE, 1), SerialComm(), 0.5)
    lost = Particles([4, 9], [[1.0, 1.0], [place, 1.0]])
    with pytest.raises(ValueError, match="particle 9:"):
        exchange.migrate(lost)


def test_bad_arguments_are_named():
    blocks = make_blocks(GRIDS[1], TILE, 1)
    for cutoff in (0.0, 0.76, np.nan):
        with pytest.raises(InputError, match="^cutoff: "):
            ParticleExchange(blocks, SerialComm(), cutoff)
    with pytest.raises(ValueError, match="velocity: length 1 is not allowed.*Allowed: 2"):
        Particles([1, 2], np.zeros((2, 2)), {"velocity": np.zeros(1)})
    with pytest.raises(ValueError, match="size 1 is not allowed.*Allowed: 2"):
        ParticleExchange(Blocks(GRIDS[1], (3, 3), (2, 1)), SerialComm(), 0.5)


@pytest.mark.mpi
@pytest.mark.parametrize("grid", GRIDS)
def test_migration_brings_every_particle_home(grid):
    blocks, comm = on_my_ranks(grid)
    if comm is None:
        return
    exchange = ParticleExchange(blocks, comm, 0.6)
    everyone = cloud(grid)
    mine = exchange.migrate(my_share(everyone, comm))
    for step in range(4):
        assert np.all(np.diff(mine.ids) > 0)
        assert np.all((mine.position >= exchange.lower) & (mine.position <= exchange.upper))
        gathered = gather_particles(comm, mine)
        assert gathered is None if comm.rank else same(gathered, everyone.sorted())
        everyone = stepped(grid, everyone, step)
        mine = exchange.migrate(stepped(grid, mine, step))
    nobody = exchange.migrate(mine.take(mine.ids < 0))
    assert len(nobody) == 0 and nobody.payload["kind"].dtype == bool


def neighbours(mine, others, cutoff):
    """(my id, their id, displacement) of all pairs nearer than `cutoff`, in order."""
    away = others.position[None] - mine.position[:, None]
    near = np.argwhere(np.sqrt(np.sum(away**2, axis=-1)) <= cutoff)
    pairs = [(int(mine.ids[i]), int(others.ids[j]), tuple(away[i, j])) for i, j in near]
    return sorted(pair for pair in pairs if any(pair[2]))


def images_of(grid, everyone):
    """All particles and all their images one period away: the reference without blocks."""
    turns = [(-1, 0, 1) if b.periodic else (0,) for b in grid.boundary]
    copies = []
    for turn in itertools.product(*turns):
        image = everyone.take(np.arange(len(everyone)))
        image.position += np.array(turn) * grid.extent
        copies.append(image)
    return Particles(
        np.concatenate([c.ids for c in copies]), np.concatenate([c.position for c in copies])
    )


@pytest.mark.mpi
@pytest.mark.parametrize("cutoff", [0.31, 0.75])
@pytest.mark.parametrize("grid", GRIDS)
def test_pairs_with_ghosts_are_all_pairs(grid, cutoff):
    blocks, comm = on_my_ranks(grid)
    if comm is None:
        return
    exchange = ParticleExchange(blocks, comm, cutoff)
    everyone = cloud(grid)
    mine = exchange.migrate(my_share(everyone, comm))
    ghosts = exchange.ghosts(mine, ["kind"])
    assert list(ghosts.payload) == ["kind"]
    kinds = dict(zip(everyone.ids, everyone.payload["kind"], strict=True))
    assert ghosts.payload["kind"].tolist() == [kinds[i] for i in ghosts.ids]
    around = Particles(
        np.concatenate([mine.ids, ghosts.ids]), np.concatenate([mine.position, ghosts.position])
    )
    reference = neighbours(
        everyone.take(np.isin(everyone.ids, mine.ids)), images_of(grid, everyone), cutoff
    )
    assert neighbours(mine, around, cutoff) == reference
    assert np.all(np.diff(ghosts.ids) >= 0)
    beyond = np.maximum(exchange.lower - ghosts.position, ghosts.position - exchange.upper)
    assert np.all(beyond <= cutoff * (1 + 1e-9)) and np.all(beyond.max(axis=1, initial=-9) >= 0)
    sent = sum(comm.allgather(exchange.messages))
    assert sent <= comm.size * (comm.size - 1) * 3


def flock(exchange, grid, mine, steps):
    """Headings follow the mean of the neighbours', summed by id; then everyone moves."""
    for _ in range(steps):
        ghosts = exchange.ghosts(mine)
        ids = np.concatenate([mine.ids, ghosts.ids])
        place = np.concatenate([mine.position, ghosts.position])
        order = np.lexsort((*place.T[::-1], ids))
        velocity = np.concatenate([mine.payload["velocity"], ghosts.payload["velocity"]])[order]
        place, mean = place[order], np.zeros_like(mine.position)
        for i, here in enumerate(mine.position):
            near = np.sum((place - here) ** 2, axis=1) <= exchange.cutoff**2
            mean[i] = np.cumsum(velocity[near], axis=0)[-1]
        mean /= np.sqrt(np.sum(mean**2, axis=1, keepdims=True))
        position, signs = reflect(grid, wrap(grid, mine.position + 0.2 * mean))
        payload = {**mine.payload, "velocity": mean * signs}
        mine = exchange.migrate(Particles(mine.ids, position, payload))
    return mine


@pytest.mark.mpi
@pytest.mark.ranks6
@pytest.mark.parametrize("grid", GRIDS[1:3])
def test_a_flock_flies_the_same_on_any_rank_count(grid):
    blocks, comm = on_my_ranks(grid)
    if comm is None:
        return
    everyone = cloud(grid)
    exchange = ParticleExchange(blocks, comm, 0.7)
    mine = exchange.migrate(my_share(everyone, comm))
    found = gather_particles(comm, flock(exchange, grid, mine, 8))
    alone = ParticleExchange(make_blocks(grid, TILE, 1), SerialComm(), 0.7)
    expected = flock(alone, grid, alone.migrate(everyone), 8)
    assert found is None if comm.rank else same(found, expected)
