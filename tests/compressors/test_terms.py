"""The loss term `residual`: rates of change of the simulator, and what training on them gives."""

import numpy as np
import pytest
import torch

from scaled_mpi.compressors.equation import system_of
from scaled_mpi.config import InputError, plain
from scaled_mpi.experiments.forecast.rates import CodingRates
from scaled_mpi.learning.patches import measure
from scaled_mpi.learning.reconstruction import TERMS
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.simulators.gray_scott import GrayScott
from tests.compressors.test_autoencoder import ALONE, spec
from tests.compressors.waves import runs


def system(**keys):
    """Gray-Scott with a pattern that lives on a small domain."""
    return GrayScott(pattern="maze", **keys)


def simulated(folder, simulator, count=3, frames=4, shape=(32, 32), every=40):
    """Runs as the stage `simulate` stores them."""
    grid = simulator.grid(shape)
    blocks = make_blocks(grid, shape, 1)
    exchange = Halo(blocks, SerialComm(), 4)
    attributes = {"condition": simulator.condition, "equation": plain(simulator)}
    for run in range(count):
        state = simulator.initial(blocks.block(0), grid, (7, run))
        state = simulator.advance(state, 400, exchange)
        with TrajectoryWriter(
            folder, f"train-{run:04d}", blocks, SerialComm(), ("u", "v"), attributes=attributes
        ) as writer:
            for frame in range(frames):
                writer.append(float(frame), state)
                state = simulator.advance(state, every, exchange)
    return [Trajectory(folder, f"train-{run:04d}") for run in range(count)]


@pytest.mark.parametrize("shape", [(40,), (12, 16), (6, 8, 10)])
def test_the_rates_are_a_step_of_the_simulator(shape):
    one = system(clamp=False)
    grid = one.grid(shape)
    blocks = make_blocks(grid, shape, 1)
    exchange = Halo(blocks, SerialComm(), 1, np.float64)
    field = np.random.default_rng(0).random((2, *shape))
    stepped = (one.advance(field, 1, exchange) - field) / one.dt
    rates = one.rates(torch.from_numpy(exchange(field))[None])[0]
    np.testing.assert_allclose(rates.numpy(), stepped, atol=1e-12 * np.abs(stepped).max())


def test_the_residual_is_the_error_of_the_rates_in_their_spreads(tmp_path):
    made = simulated(tmp_path, system())
    scale = measure(made, ())
    term = TERMS["residual"]
    known = system_of(made, scale)
    shape = (1, -1, 1, 1)
    mean, spread = (torch.from_numpy(x.reshape(shape)) for x in (scale.mean, scale.spread))
    fields = [torch.from_numpy(made[0].read(t, halo=1).astype(float))[None] for t in (0, 3)]
    normal = [(field - mean) / spread for field in fields]
    one = made[0].grid
    laplace = [
        sum(f.roll(s, d) for s in (1, -1) for d in (2, 3))[..., 1:-1, 1:-1]
        - 4 * f[..., 1:-1, 1:-1]
        for f in fields
    ]
    gs, rates = system(), []
    for f, lap in zip(fields, laplace, strict=True):
        u, v = f[:, 0, 1:-1, 1:-1], f[:, 1, 1:-1, 1:-1]
        lap = lap / one.spacing[0] ** 2
        rates.append(
            torch.stack(
                (
                    gs.Du * lap[:, 0] - u * v**2 + gs.F * (1 - u),
                    gs.Dv * lap[:, 1] + u * v**2 - (gs.F + gs.k) * v,
                ),
                1,
            )
        )
    scaled = (rates[0] - rates[1]) / known.scale
    assert float(term(*normal, known)) == pytest.approx(float(scaled.square().mean()), rel=1e-6)
    assert float(term(normal[0], normal[0], known)) == 0.0
    every = np.concatenate([run.read(slice(None), halo=1) for run in made]).astype(float)
    spreads = gs.rates(torch.from_numpy(every)).std((0, 2, 3), correction=0)
    np.testing.assert_allclose(known.scale.flatten(), spreads, rtol=1e-9)


def test_a_training_on_the_residual_lowers_it(tmp_path):
    made = simulated(tmp_path, system())
    blocks = make_blocks(made[0].grid, 16, 1)
    found = {}
    for name, terms in (("plain", {}), ("physics", {"residual": 0.01})):
        one = spec(40, terms=terms)
        one.fit(made, ALONE, tmp_path / name, None, 0)
        rates = CodingRates(blocks, SerialComm(), list)
        found[name] = rates(one.load(tmp_path / name), made[-1], [1, 3], system())
    assert found["physics"]["residual.error"] < 0.9 * found["plain"]["residual.error"]
    assert found["physics"]["vrmse.reconstruction"] < 0.25


def test_runs_without_one_known_equation_are_refused(tmp_path):
    one = spec(2, terms={"residual": 1.0})
    with pytest.raises(
        InputError,
        match="residual: the run train-0000 is not allowed: it stores no known equation",
    ):
        one.fit(runs(tmp_path / "a", count=2, frames=3), ALONE, tmp_path, None, 0)
    mixed = simulated(tmp_path / "b", system(), 2, 2) + simulated(
        tmp_path / "c", GrayScott(pattern="waves"), 2, 2
    )
    with pytest.raises(InputError, match="residual: runs of different equations are not allowed"):
        one.fit(mixed, ALONE, tmp_path, None, 0)
