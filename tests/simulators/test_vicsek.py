"""Vicsek's particles against the equations as plain loops, scipy's filter, and any split."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from scaled_mpi.config import InputError, parse
from scaled_mpi.parallel import streams
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.particles import Particles, gather_particles, pack
from scaled_mpi.simulators.density import Density, filter_radius, order_parameters
from scaled_mpi.simulators.flock_starts import STARTS
from scaled_mpi.simulators.vicsek import Vicsek

MORSE = {"Cr": 0.2, "Ca": 0.5, "lr": 0.2, "la": 0.5}
CASES = [
    {},
    {"noise": {"kind": "uniform", "eta": 2.0}},
    {"boundaries": "reflecting", "speed": 5.0},
    {"speed_mode": "constant_with_forces", "forces": MORSE},
    {"speed_mode": "variable", "forces": {**MORSE, "mobility": 2.0}, "boundaries": "reflecting"},
    {"start": "ring", "box": [9.0, 15.0]},
]


def flock_of(spec, shape=(32, 32), comm=None, seed=(3, 1)):
    comm = comm or SerialComm()
    blocks = spec.blocks(shape, comm.size)
    exchange = spec.exchange(blocks, comm)
    return exchange, spec.initial(exchange, seed)


def plain_step(spec, position, velocity, seed, step):
    """The equations of the module, particle by particle, with the minimal image."""
    box, count = np.array(spec.box), len(position)
    angle = (
        spec.noise.eta
        * (streams.uniform(seed, step, np.arange(count), stream=Stream.FLOCK_NOISE) - 0.5)
        if spec.noise.kind == "uniform"
        else spec.noise.eta
        / math.sqrt(12)
        * streams.normal(seed, step, np.arange(count), stream=Stream.FLOCK_NOISE)
    )
    heading = velocity / np.linalg.norm(velocity, axis=1)[:, None]
    new = np.empty_like(velocity)
    for i in range(count):
        away = position[i] - position
        if spec.boundaries == "periodic":
            away -= box * np.round(away / box)
        distance = np.linalg.norm(away, axis=1)
        mean = heading[distance <= spec.radius].sum(axis=0)
        mean /= np.linalg.norm(mean)
        speed = spec.speed
        if spec.speed_mode != "constant":
            f = spec.forces
            near = (distance > 0) & (distance <= f.cut)
            r = distance[near]
            push = f.Cr / f.lr * np.exp(-r / f.lr) - f.Ca / f.la * np.exp(-r / f.la)
            force = (push / r) @ away[near]
            if spec.speed_mode == "variable":
                speed = np.linalg.norm(velocity[i] + spec.dt * f.mobility * force)
            elif np.linalg.norm(force) > 0:
                mean = mean + f.mobility * force / np.linalg.norm(force)
                mean /= np.linalg.norm(mean)
        c, s = math.cos(angle[i]), math.sin(angle[i])
        new[i] = speed * np.array([s * mean[1] + c * mean[0], c * mean[1] - s * mean[0]])
    moved = position + spec.dt * new
    if spec.boundaries == "periodic":
        return moved % box, new
    new = np.where((moved < 0) | (moved > box), -new, new)
    moved = np.abs(moved)
    return np.where(moved > box, 2 * box - moved, moved), new


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_steps_are_those_of_plain_loops(keys):
    spec = parse(Vicsek, {"particles": 60, **keys})
    exchange, flock = flock_of(spec)
    position = flock.particles.position
    velocity = flock.particles.payload["velocity"]
    for step in range(4):
        position, velocity = plain_step(spec, position, velocity, flock.seed, step)
    flock = spec.advance(flock, 4, exchange)
    np.testing.assert_allclose(flock.particles.position, position, atol=1e-9)
    np.testing.assert_allclose(flock.particles.payload["velocity"], velocity, atol=1e-9)


@pytest.mark.mpi
@pytest.mark.parametrize("keys", CASES, ids=str)
def test_any_split_gives_the_same_bits(keys):
    spec = parse(Vicsek, {"particles": 300, **keys})
    exchange, alone = flock_of(spec)
    alone = spec.advance(alone, 12, exchange)
    rho = Density(spec.blocks((32, 32), 1), SerialComm(), 1.0)(alone.particles)
    blocks = spec.blocks((32, 32), world().size)
    comm = first_ranks(world(), blocks.ranks)
    if comm is None:
        return
    exchange = spec.exchange(blocks, comm)
    flock = spec.advance(spec.initial(exchange, (3, 1)), 12, exchange)
    mine = Density(blocks, comm, 1.0)(flock.particles)
    assert np.array_equal(mine, rho[(..., *blocks.block(comm.rank).slices)])
    order = order_parameters(flock.particles, comm)
    assert order == order_parameters(alone.particles, SerialComm())
    together = gather_particles(comm, flock.particles)
    assert together is None or np.array_equal(pack(together), pack(alone.particles))


def test_the_four_starts_differ_as_they_should():
    spread, expected = (
        {},
        {"uniform": 15 / math.sqrt(12), "gaussian_cluster": 2.5, "ring": 15 / 4 / math.sqrt(2)},
    )
    for start in STARTS:
        spec = parse(Vicsek, {"particles": 4000, "start": start})
        _, flock = flock_of(spec)
        assert flock.particles.position.min() >= 0 and flock.particles.position.max() <= 15
        spread[start] = flock.particles.position.std(axis=0)
    for start, value in expected.items():
        np.testing.assert_allclose(spread[start], value, rtol=0.05)
    np.testing.assert_allclose(
        spread["two_clusters"], [15 / 8, math.hypot(15 / 8, 2.5)], rtol=0.05
    )


@pytest.mark.parametrize("boundaries,mode", [("periodic", "wrap"), ("reflecting", "reflect")])
def test_density_is_scipys_and_holds_all_particles(boundaries, mode):
    spec = parse(Vicsek, {"particles": 500, "boundaries": boundaries})
    _, flock = flock_of(spec)
    blocks = spec.blocks((64, 48), 1, least=filter_radius(2.0))
    rho = Density(blocks, SerialComm(), 2.0)(flock.particles)[0]
    counts, *_ = np.histogram2d(
        *flock.particles.position.T, bins=(64, 48), range=[[0, 15], [0, 15]]
    )
    cell = math.prod(blocks.grid.spacing)
    np.testing.assert_allclose(
        rho, gaussian_filter(counts, 2.0, mode=mode) / cell, rtol=1e-10, atol=1e-12
    )
    assert abs(math.fsum(rho.ravel()) * cell / 500 - 1) < 1e-14


def test_order_parameters_of_known_flocks():
    angle = np.linspace(0, 2 * math.pi, 100, endpoint=False)
    round_about = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    opposite = np.array([[0.0, 1.0], [0.0, -1.0]] * 50)

    def order(velocity):
        ids = np.arange(len(velocity))
        position = np.zeros_like(velocity)
        return order_parameters(Particles(ids, position, {"velocity": velocity}), SerialComm())

    assert order(round_about)["polarization"] == pytest.approx(0, abs=1e-10)
    assert order(round_about)["nematic"] == pytest.approx(0, abs=1e-10)
    assert order(opposite)["polarization"] == pytest.approx(0, abs=1e-10)
    assert order(opposite)["nematic"] == pytest.approx(1)
    found = order(np.array([[3.0, 0.0], [1.0, 0.0]]))
    assert found == pytest.approx(
        {"polarization": 1, "nematic": 1, "mean_speed": 2, "speed_std": 1}
    )


def test_the_filter_of_mean_counts_is_the_mean_of_filtered_counts():
    spec = parse(Vicsek, {"particles": 30})
    blocks = spec.blocks((32, 32), 1, filter_radius(2.0))
    exchange = spec.exchange(blocks, SerialComm())
    density = Density(blocks, SerialComm(), 2.0)
    flocks = [spec.initial(exchange, seed).particles for seed in range(3)]
    counts = sum(density.counts(one) for one in flocks)
    assert counts.sum() == 90
    expected = sum(density(one) for one in flocks) / 3
    np.testing.assert_allclose(density.smoothed(counts / 3), expected, atol=1e-14)


def test_noise_decides_between_order_and_disorder():
    """Vicsek's transition: a flock at little noise, a gas at much."""

    def polarization(eta):
        spec = parse(
            Vicsek,
            {
                "particles": 200,
                "box": [7.0, 7.0],
                "radius": 1.0,
                "speed": 0.3,
                "dt": 1.0,
                "noise": {"kind": "uniform", "eta": eta},
            },
        )
        exchange, flock = flock_of(spec, (7, 7))
        flock = spec.advance(flock, 150, exchange)
        values = []
        for _ in range(20):
            flock = spec.advance(flock, 5, exchange)
            values.append(order_parameters(flock.particles, SerialComm())["polarization"])
        return np.mean(values)

    assert polarization(0.5) > 0.9
    assert polarization(6.0) < 0.25


@pytest.mark.parametrize(
    "keys,word",
    [
        ({"dt": 1.1}, "simulator.dt"),
        ({"box": [3.0, 15.0]}, "simulator.box"),
        ({"speed_mode": "variable"}, "simulator.speed_mode"),
        ({"start": "star"}, "start"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(keys, word):
    with pytest.raises(InputError, match=word) as caught:
        parse(Vicsek, keys)
    assert "\n" not in str(caught.value)
