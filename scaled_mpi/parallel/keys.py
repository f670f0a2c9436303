"""The numbers that keep random values apart: streams, runs of a seed, steps.

`streams` keys a value by (seed, step, cell, stream). Each purpose has its own stream, and each
group of runs its own first number, so that two purposes never share draws under one seed. A number
in use must not change: all results that depend on it would.
"""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class Stream(IntEnum):
    """Stream of each purpose, in [0, 65536)."""

    # Initial states of Gray-Scott
    START_COUNTS = 1
    START_SPOTS_U = 2
    START_SPOTS_V = 3
    START_NODES = 4
    KICKS = 5  # noise of the simulator in every cell
    # Elliptic problems and their local solver
    COEFFICIENT = 11  # noise under coefficient fields
    LOAD_SMOOTH = 12
    LOAD_NOISE = 13
    LOCAL_PROBLEMS = 14  # local problems that a training step draws
    # Patches that a training step draws
    PATCHES = 101
    STEPPER_HALOS = 102  # halo widths and passes
    DIFFUSION_HALOS = 103  # halo widths, and whether the future is known
    # Flocks
    FLOCK_PLACES = 210
    FLOCK_HEADINGS = 211
    FLOCK_NOISE = 212
    # Decompositions and ensembles
    SKETCH = 220  # test matrix of the randomised range finder
    BAND = 221  # noise of the members of an uncertainty band
    # Generation
    SAMPLES = 230  # noise of samplers
    SNAPSHOTS = 231  # snapshots that a training step draws
    JUMPS = 240  # noise of a stochastic surrogate
    RANDOM_KERNELS = 241
    RANDOM_MAPS = 242
    # Cases with a known score
    MIXTURE_CENTRES = 251
    MIXTURE_SCATTER = 252
    LORENZ_STARTS = 253
    SKEW_MATRICES = 254
    LYAPUNOV_DIRECTIONS = 255


RUNS_A_GROUP = 1_000_000  # runs kept for each group, and for each pattern of a data set


@unique
class FirstRun(IntEnum):
    """First run number of each group under one seed; elliptic problems add it to their seed."""

    LEARNED = 0
    TEST = 1_000_000  # runs, large fields and the problem of the evaluation: never trained on
    LIMIT = 2_000_000  # forecasts by the simulator itself, the limit of any surrogate
    LESSONS = 10_000_000  # problems that local solvers are trained on


@unique
class FreeStep(IntEnum):
    """Step numbers that no training reaches: their draws are never trained on."""

    VALIDATION = 2**32 - 1
    SURVEY = 2**32 - 2
