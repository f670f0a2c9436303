"""The learned local solver: linear, blind to scale, told the true matrix; trained, it helps."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("petsc4py")

import torch

from scaled_mpi.config import InputError
from scaled_mpi.coupling.certified import Prepared
from scaled_mpi.coupling.harvest import harvest
from scaled_mpi.coupling.solving import Harvest, Solving
from scaled_mpi.learning.networks.local_solver import LocalSolverNetwork, apply_scaled, scaled
from scaled_mpi.local_solvers import MEMBERS, Exact, Learned
from scaled_mpi.local_solvers.residuals import Residuals, residual_files
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.problems import Darcy, Poisson
from scaled_mpi.problems.coefficients import LogNormal
from scaled_mpi.problems.tile_matrices import TileOperators

ALONE = SerialComm()
MIX = (Poisson(), Darcy(coefficient=LogNormal(contrast=30, length=4)))
SOLVING = Solving(overlap=2, tolerance=1e-6)
TRAINING = {
    "steps": 60,
    "batch": 8,
    "micro_batches": 2,
    "validate_every": 30,
    "warmup": 10,
    "checkpoint_every": 60,
    "ema": 0.9,
    "learning_rate": 4e-3,
}


def operators_of(problem, cells=16, tile=8, overlap=2, seed=3):
    blocks = make_blocks(problem.grid((cells, cells)), (tile, tile), 1)
    return TileOperators(problem.stencil(blocks, ALONE, seed), blocks, ALONE, overlap)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    source, folder = (tmp_path_factory.mktemp(name) for name in ("residuals", "fit"))
    harvest(Harvest(solves=4, tiles=2), MIX, (8, 8), SOLVING, source, ALONE, 5)
    spec = Learned(widths=(8, 12), features=8, held_out=1, training=TRAINING)
    spec.fit(source, ALONE, folder, None, 5)
    return spec, source, folder


def test_the_scaled_matrix_is_the_matrix():
    operators = operators_of(MIX[1])
    z = np.random.default_rng(0).normal(size=(4, 12, 12)) * operators.inside
    diagonal, high = torch.tensor(operators.diagonal), torch.tensor(np.stack(operators.high, 1))
    scale, couplings = scaled(diagonal, high)
    found = apply_scaled(couplings, torch.tensor(z) / scale) / scale
    np.testing.assert_allclose(found.numpy(), operators.apply(z), atol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_linear_in_the_residual_and_inverse_in_the_coefficient(axes):
    torch.manual_seed(0)
    network = LocalSolverNetwork(axes, (4, 6), 2, 4).double()
    window = (10,) * axes
    diagonal = 6 + torch.rand(3, *window).double()
    high = torch.rand(3, axes, *window).double()
    for axis in range(axes):
        high[(slice(None), axis, *[slice(None)] * axis, -1)] = 0
    a, b = torch.randn(2, 3, *window).double()
    with torch.no_grad():
        one = network(diagonal, high, a + 2 * b)
        two = network(diagonal, high, a) + 2 * network(diagonal, high, b)
        stiff = network(1e3 * diagonal, 1e3 * high, a)
        plain = network(diagonal, high, a)
    np.testing.assert_allclose(one, two, atol=1e-12)
    np.testing.assert_allclose(1e3 * stiff, plain, atol=1e-12)


def test_harvest_writes_what_the_tiles_met(trained):
    _, source, _ = trained
    files = residual_files(source)
    assert len(files) == 4
    found = Residuals(files)
    assert len(found.diagonal) == 16 and found.tile.max() == 15
    sizes = np.linalg.norm(found.residual.reshape(len(found), -1), axis=1)
    np.testing.assert_allclose(sizes, 1, rtol=1e-5)
    operators = operators_of(MIX[1], seed=5 + 10_000_000 + 1)
    np.testing.assert_allclose(found.diagonal[4:8], operators.diagonal, rtol=1e-6)


def test_training_helps_and_the_answer_is_certified(trained):
    spec, _, folder = trained
    solver = spec.load(folder)
    blocks = make_blocks(MIX[1].grid((32, 32)), (8, 8), 1)
    stencil, load = MIX[1].stencil(blocks, ALONE, 1), MIX[1].load(blocks, ALONE, 1)
    counts = {}
    for name, one, spec_ in (("learned", solver, SOLVING), ("exact", Exact().load(), SOLVING)):
        with Prepared(stencil, blocks, ALONE, one, spec_) as ready:
            answer = ready.solve(load)
            rest = load - ready.system.multiply(answer.solution)
        assert np.linalg.norm(rest) <= 1e-6 * np.linalg.norm(load)
        counts[name] = answer.iterations
    assert counts["learned"] <= 2.5 * counts["exact"]


def test_sizes_outside_the_range_of_float32(trained):
    spec, _, folder = trained
    solver, operators = spec.load(folder), operators_of(MIX[0])
    solver.prepare(operators)
    r = np.random.default_rng(1).normal(size=(4, 12, 12))
    np.testing.assert_allclose(
        1e60 * solver.correct(1e-60 * r), solver.correct(r), rtol=1e-4, atol=1e-5
    )
    assert (solver.correct(0 * r) == 0).all()


def test_refusals(trained, tmp_path):
    spec, source, _ = trained
    with pytest.raises(InputError, match="held_out"):
        spec.model_copy(update={"held_out": 4}).fit(source, ALONE, tmp_path, None, 0)
    with pytest.raises(InputError, match="weights"):
        spec.load(None)
    assert all(member().kind == name for name, member in MEMBERS.items())
