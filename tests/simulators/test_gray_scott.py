"""Gray-Scott: bits against numpy, exact solutions, measured order, special cases, errors."""

import subprocess
import sys

import numpy as np
import pytest

from scaled_mpi.config import InputError, parse, plain
from scaled_mpi.parallel.blocks import Block, Blocks, make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import Halo, gather_field
from scaled_mpi.simulators import MEMBERS, warm
from scaled_mpi.simulators.gray_scott import GrayScott, advance_together
from scaled_mpi.simulators.patterns import FAMILIES, SLOW_DIFFUSION
from tests.simulators.reference import march


def whole(grid):
    """The block of one rank that owns the grid."""
    return Blocks(grid, grid.shape, (1,) * grid.axes).block(0)


def serial_halo(grid, width, dtype=np.float32):
    return Halo(Blocks(grid, grid.shape, (1,) * grid.axes), SerialComm(), width, dtype)


def rough(shape, dtype, seed=3):
    """A state without any smoothness, so that an exchanged order of additions shows."""
    return np.random.default_rng(seed).random((2, *shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape, width, boundaries",
    [
        ((37,), 5, "periodic"),
        ((37,), 3, "neumann"),
        ((20, 33), 1, "periodic"),
        ((20, 33), 4, ("periodic", "neumann")),
        ((20, 33), (7, 5), "neumann"),
        ((20, 33), 3, ("dirichlet", "periodic")),
        ((8, 9, 21), 3, "periodic"),
        ((8, 9, 21), 2, ("neumann", "periodic", "dirichlet")),
    ],
)
def test_bits_equal_plain_numpy_whatever_the_depth_of_the_halo(shape, width, boundaries, dtype):
    system = GrayScott(pattern="spots", dt=0.9, boundaries=boundaries, boundary_value=0.25)
    grid = system.grid(shape)
    state = rough(shape, dtype)
    halo = serial_halo(grid, width, dtype)
    expected = march(state, grid, system._numbers(), 13)
    result = system.advance(state, 13, halo)
    assert result.dtype == dtype and result.flags.c_contiguous
    np.testing.assert_array_equal(result, expected)


def test_strips_of_long_rows_leave_the_bits_alone(monkeypatch):
    from scaled_mpi.simulators import stencil

    system = GrayScott()
    grid = system.grid((12, 100))
    state = rough(grid.shape, np.float32)
    monkeypatch.setattr(stencil, "STRIP", 32)
    result = system.advance(state, 9, serial_halo(grid, 5))
    np.testing.assert_array_equal(result, march(state, grid, system._numbers(), 9))


def test_advance_of_no_steps_copies_and_never_writes_into_the_state():
    system = GrayScott()
    state = rough((8, 8), np.float32)
    before = state.copy()
    halo = serial_halo(system.grid((8, 8)), 2)
    same = system.advance(state, 0, halo)
    system.advance(state, 5, halo)
    assert same is not state
    np.testing.assert_array_equal(same, before)
    np.testing.assert_array_equal(state, before)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_fourier_mode_decays_by_the_discrete_factor(axes):
    system = GrayScott(F=0.0, k=0.0, dx=0.5, dt=0.2, clamp=False)
    n, waves, steps = 16, (3, 1, 2)[:axes], 10
    grid = system.grid((n,) * axes)
    mode = np.zeros(grid.shape)
    for axis, number in enumerate(waves):
        phase = 2 * np.pi * number * np.arange(n) / n
        mode = mode + np.expand_dims(phase, [a for a in range(axes) if a != axis])
    state = np.stack([0.5 + 0.3 * np.cos(mode), np.zeros(grid.shape)])
    result = system.advance(state, steps, serial_halo(grid, 4, np.float64))
    eigenvalue = sum(4 * np.sin(np.pi * m / n) ** 2 for m in waves) / system.dx**2
    factor = (1 - system.dt * system.Du * eigenvalue) ** steps
    np.testing.assert_allclose(result[0], 0.5 + 0.3 * factor * np.cos(mode), atol=1e-13)
    assert not result[1].any()


def test_without_gradients_it_is_the_ordinary_differential_equation():
    system = GrayScott(F=0.03, k=0.05, dt=0.01, clamp=False)
    grid = system.grid((4, 4))
    state = np.empty((2, 4, 4))
    state[0], state[1] = 0.7, 0.2
    result = system.advance(state, 1000, serial_halo(grid, 4, np.float64))

    def slope(y):
        r = y[0] * y[1] ** 2
        return np.array([-r + 0.03 * (1 - y[0]), r - 0.08 * y[1]])

    exact, h = np.array([0.7, 0.2]), 0.1
    for _ in range(100):  # Runge-Kutta 4, error 1e-9
        a = slope(exact)
        b = slope(exact + h / 2 * a)
        c = slope(exact + h / 2 * b)
        exact = exact + h / 6 * (a + 2 * b + 2 * c + slope(exact + h * c))
    np.testing.assert_allclose(result[:, 0, 0], exact, atol=3e-4)  # Euler: first order in dt
    assert np.ptp(result, axis=(1, 2)).max() == 0


def test_order_in_space_is_two():
    errors = []
    fine = _smooth_run(256)
    for n in (32, 64):
        coarse = _smooth_run(n)
        f = 256 // n
        means = fine.reshape(2, n, f, n, f).mean((2, 4))
        errors.append(np.abs(coarse - means).max())
    assert 1.9 < np.log2(errors[0] / errors[1]) < 2.2


def _smooth_run(n):
    """The same smooth field on n^2 cells of the unit square, the same small steps in time."""
    system = GrayScott(F=0.03, k=0.06, Du=2e-3, Dv=1e-3, dx=1 / n, dt=1 / 1024, clamp=False)
    grid = system.grid((n, n))
    x = 2 * np.pi * grid.centres(0)
    wave = np.sinc(1 / n) ** 2 * np.cos(x)[:, None] * np.sin(x)  # means over cells
    state = np.stack([0.6 + 0.3 * wave, 0.3 - 0.2 * wave])
    return system.advance(state, 512, serial_halo(grid, 8, np.float64))


def test_clamp_holds_both_species_in_the_unit_interval_and_lets_nan_through():
    state = rough((16, 16), np.float32) * 8 - 4
    grid = GrayScott().grid((16, 16))
    halo = serial_halo(grid, 1)
    clamped = GrayScott().advance(state, 1, halo)
    assert clamped.min() == 0.0 and clamped.max() == 1.0
    free = GrayScott(clamp=False).advance(state, 1, halo)
    np.testing.assert_array_equal(clamped, np.clip(free, 0, 1))
    state[:, 8, 8] = np.nan
    assert np.isnan(GrayScott().advance(state, 1, halo)[:, 8, 8]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_pattern_is_alive_and_finite(family):
    for pattern, (F, k) in FAMILIES[family].rates.items():
        system = GrayScott(parameters=family, pattern=pattern)
        assert system.condition == {"F": F, "k": k}
        slow = family == "pattern" and pattern in SLOW_DIFFUSION
        expected = (2e-5, 1e-5) if family == "the_well" else (0.10, 0.05) if slow else (0.16, 0.08)
        assert (system.Du, system.Dv) == expected
        grid = system.grid((128, 128))
        state = system.initial(whole(grid), grid, 1)
        state = system.advance(state, 500, serial_halo(grid, 8))
        assert np.isfinite(state).all() and state.min() > -0.1 and state.max() < 1.1
        # The feed (dots: the starvation) is too much for small spots: they die at once.
        assert state[1].max() > 0.005 or pattern in ("dots", "bubbles"), (family, pattern)


def test_the_well_is_in_physical_units():
    system = GrayScott(parameters="the_well", pattern="gliders")
    assert (system.F, system.k, system.dt, system.clamp) == (0.014, 0.054, 1.0, False)
    grid = system.grid((128, 128))
    assert grid.extent == (2.0, 2.0)
    assert system.stability_limit == pytest.approx((2 / 128) ** 2 / (4 * 2e-5))
    # The same system in cells: only D / dx^2 counts.
    scaled = GrayScott(
        pattern="custom", F=0.014, k=0.054, Du=2e-5 * 64**2, Dv=1e-5 * 64**2, clamp=False
    )
    state = system.initial(whole(grid), grid, 0)
    halo = serial_halo(grid, 8)
    np.testing.assert_allclose(
        system.advance(state, 20, halo), scaled.advance(state, 20, halo), atol=1e-6
    )


@pytest.mark.parametrize(
    "tree, words",
    [
        ({"dt": 1.6}, ["simulator.dt", "1.6", "1.5625"]),
        ({"parameters": "the_well", "dt": 4.0}, ["simulator.dt", "4.0", "3.05"]),
        ({"pattern": "wave"}, ["simulator.pattern", "'wave'", "waves", "u_skate"]),
        ({"parameters": "the_well", "pattern": "waves"}, ["simulator.pattern", "gliders"]),
        ({"pattern": "waves", "F": 0.02}, ["simulator.F", "0.02", "0.018"]),
        ({"F": 0.02}, ["simulator.k", "missing"]),
        ({"pattern": "custom", "k": 0.02}, ["simulator.F", "missing"]),
        ({"Du": -1.0}, ["Du", "-1.0"]),
        ({"dx": 0.0}, ["dx", "0.0"]),
        ({"boundaries": ["open"]}, ["boundaries"]),
        ({"speed": 1}, ["speed"]),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tree, words):
    with pytest.raises(InputError) as caught:
        parse(GrayScott, tree)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


def test_three_axes_have_a_smaller_limit_and_boundaries_must_fit():
    system = GrayScott(dt=1.5)
    assert system.boundary(2)
    with pytest.raises(InputError, match=r"simulator.dt: 1.5 .* 1.04"):
        system.boundary(3)
    with pytest.raises(InputError, match="boundaries"):
        GrayScott(boundaries=("periodic", "neumann")).boundary(3)


def test_a_resolved_tree_gives_the_same_object():
    for tree in (
        {},
        {"pattern": "chaos"},
        {"F": 0.01, "k": 0.05},
        {"parameters": "the_well", "start": "gaussians", "boundaries": ["neumann"] * 2},
    ):
        system = parse(GrayScott, tree)
        again = parse(GrayScott, plain(system))
        assert plain(again) == plain(system)
    # What a pattern fills in does not count as given: another pattern takes its own.
    assert GrayScott(pattern="waves").model_dump(exclude_unset=True) == {"pattern": "waves"}
    assert MEMBERS["gray_scott"]().channels == ("u", "v")


@pytest.mark.parametrize("start", ["discs", "gaussians", "noise", "uniform"])
@pytest.mark.parametrize("boundaries", ["periodic", "neumann"])
@pytest.mark.parametrize(
    "shape, tile", [((96,), (16,)), ((96, 64), (16, 32)), ((24, 32, 16), (8, 8, 8))]
)
def test_initial_state_is_the_same_in_every_split(shape, tile, start, boundaries):
    system = GrayScott(start=start, density=40.0, boundaries=boundaries)
    grid = system.grid(shape)
    expected = system.initial(whole(grid), grid, (5, 2))
    for ranks in (2, 3, 5):
        blocks = make_blocks(grid, tile, ranks)
        for rank in range(blocks.ranks):
            block = blocks.block(rank)
            part = system.initial(block, grid, (5, 2))
            np.testing.assert_array_equal(part, expected[(..., *block.slices)])


def test_discs_lie_inside_and_hold_the_spot_values():
    system = GrayScott()
    grid = system.grid((128, 128))
    u, v = system.initial(whole(grid), grid, 0)
    assert set(np.unique(u)) == {np.float32(0.5), np.float32(1.0)}
    np.testing.assert_array_equal(v, np.where(u == 0.5, np.float32(0.25), np.float32(0)))
    # Five discs, none smaller than radius 3 (29 cells) nor larger than radius 7 (149 cells).
    assert 29 <= v.astype(bool).sum() <= 5 * 149
    alone = GrayScott(density=0.001)
    for seed in range(20):
        cells = np.argwhere(alone.initial(whole(grid), grid, seed)[1])
        spans = np.ptp(cells, axis=0)
        assert spans[0] == spans[1] and 6 <= spans[0] <= 14  # an undivided disc, 2 r across
        radius = spans[0] // 2
        inside = sum(y * y + x * x <= radius**2 for y in range(-7, 8) for x in range(-7, 8))
        assert len(cells) == inside


def test_more_domain_means_more_spots_and_runs_differ():
    system = GrayScott(start="gaussians")
    grid = system.grid((64, 64))
    states = [system.initial(whole(grid), grid, (seed, run)) for seed in (0, 1) for run in (0, 1)]
    for i, one in enumerate(states):
        assert all((one != other).any() for other in states[:i])
    from scaled_mpi.simulators.starts import spot_count

    assert spot_count(system.grid((128, 128)), 5.0) == 5
    assert spot_count(system.grid((512, 512)), 5.0) == 80
    assert spot_count(system.grid((16, 16)), 5.0) == 1


def test_a_bump_wraps_around_a_periodic_axis_only():
    edge = {}
    for boundaries in ("periodic", "neumann"):
        system = GrayScott(start="gaussians", density=1e-3, boundaries=boundaries)
        grid = system.grid((32, 32))
        edge[boundaries] = [
            system.initial(Block(0, (0, 0), (32, 32), (0, 0), (1, 1)), grid, seed)[1]
            for seed in range(10)
        ]
    wrapped = [(p - n) for p, n in zip(edge["periodic"], edge["neumann"], strict=True)]
    assert min(w.min() for w in wrapped) == 0 and max(w.max() for w in wrapped) > 0.01


@pytest.mark.mpi
@pytest.mark.parametrize(
    "shape, tile, width, boundaries",
    [
        ((64, 48), (16, 12), 4, "periodic"),
        ((64, 48), (16, 12), (8, 12), ("neumann", "periodic")),
        ((64, 48), (16, 12), 2, ("periodic", "dirichlet")),
        ((40,), (5,), 5, "neumann"),
        ((16, 12, 8), (4, 4, 4), 3, "periodic"),
    ],
)
def test_blocks_give_the_bits_of_one_rank(shape, tile, width, boundaries):
    system = GrayScott(boundaries=boundaries)
    grid = system.grid(shape)
    blocks = make_blocks(grid, tile, world().size)
    comm = first_ranks(world(), blocks.ranks)
    if comm is None:
        return
    warm(system, comm, grid.axes)
    state = system.initial(blocks.block(comm.rank), grid, 7)
    state = system.advance(state, 50, Halo(blocks, comm, width))
    result = gather_field(blocks, comm, state)
    if comm.rank == 0:
        start = system.initial(whole(grid), grid, 7)
        np.testing.assert_array_equal(result, march(start, grid, system._numbers(), 50))


@pytest.mark.mpi
def test_an_ensemble_costs_the_messages_of_one_run():
    systems = [GrayScott(pattern=p) for p in ("waves", "maze", "chaos")]
    grid = systems[0].grid((32, 32))
    blocks = make_blocks(grid, (8, 8), world().size)
    comm = first_ranks(world(), blocks.ranks)
    if comm is None:
        return
    warm(systems[0], comm, 2)
    block = blocks.block(comm.rank)
    states = np.stack([s.initial(block, grid, (0, run)) for run, s in enumerate(systems)])
    together, alone = Halo(blocks, comm, 4), Halo(blocks, comm, 4)
    result = advance_together(systems, states, 20, together)
    for run, system in enumerate(systems):
        before = alone.messages
        np.testing.assert_array_equal(result[run], system.advance(states[run], 20, alone))
        assert alone.messages - before == together.messages


def test_an_ensemble_needs_a_simulator_for_every_state():
    grid = GrayScott().grid((8, 8))
    with pytest.raises(ValueError, match="1 simulators for 2 states"):
        advance_together([GrayScott()], rough((2, 8, 8), np.float32), 1, serial_halo(grid, 1))


def test_a_ring_of_no_cells_is_refused():
    grid = GrayScott().grid((8, 8))
    with pytest.raises(ValueError, match="ring of 1 cell"):
        GrayScott().advance(rough((8, 8), np.float32), 1, serial_halo(grid, 0))


@pytest.mark.parametrize("pattern", ["waves", "maze", "chaos"])
def test_the_largest_step_divides_the_span_and_stays_near_the_solution(pattern):
    system = GrayScott(pattern=pattern)
    steps, large = system.with_largest_step(50.0)
    assert steps * large.dt == pytest.approx(50.0)
    assert system.dt < large.dt < system.stability_limit
    grid = system.grid((64, 64))
    halo = serial_halo(grid, 8)
    start = system.advance(system.initial(whole(grid), grid, 0), 500, halo)
    far = system.advance(start, 500, halo)
    near = large.advance(start, 10 * steps, halo)
    assert np.abs(near - far).mean() < 0.2 * np.abs(start - far).mean()


def test_half_the_grid_keeps_everything_but_the_spacing():
    system = GrayScott(parameters="the_well", pattern="maze", start="gaussians")
    half = system.on_half_grid()
    assert half.dx == 2 * system.dx
    assert plain(half) == {**plain(system), "dx": half.dx}
    assert half.stability_limit == pytest.approx(4 * system.stability_limit)
    steps, _ = half.with_largest_step(100.0)
    assert steps < system.with_largest_step(100.0)[0]


def test_noise_is_about_the_state_in_which_v_lives_on():
    from scaled_mpi.simulators.starts import REST, steady_state

    F, k = FAMILIES["the_well"].rates["bubbles"]
    u, v = steady_state(F, k)
    assert u * v**2 == pytest.approx(F * (1 - u)) == pytest.approx((F + k) * v)
    assert steady_state(0.014, 0.054) == REST == steady_state(0.0, 0.0)
    system = GrayScott(parameters="the_well", pattern="bubbles", start="noise")
    grid = system.grid((128, 128))
    state = system.initial(whole(grid), grid, 0)
    np.testing.assert_allclose(state.mean((1, 2)), (u, v), atol=0.01)
    later = system.advance(state, 200, serial_halo(grid, 8))
    assert later[1].max() > 0.3


def test_importing_the_family_loads_no_compiler_and_no_torch():
    code = "import sys, scaled_mpi.simulators; print({'numba', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
