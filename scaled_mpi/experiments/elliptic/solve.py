"""Solve one elliptic problem on growing numbers of tiles; iterations and time of each method.

Facts and their places. `tiles` is the number of tiles; `method` is certified, exact, onelevel, asm
or gamg.

    iterations         method, tiles; a text if the method did not converge
    residual           method, tiles; of a method that did not converge
    growth             of iterations from the second to the last number of tiles
    residual.true      the largest
    fallback.tiles     of all solves; also by tiles
    coarse.vectors     tiles; a tile
    halo.bytes         tiles
    convergence        method, N (tiles), iteration; a history
    error.reference    relative difference from the solution of another method
    floor.ratio, floor.coupled, floor.residual, floor.sweeps, floor.vectors
                       space: onelevel, hats (with hats) or twolevel (with the coarse space of
                       the comparison)
    floor.local, floor.tiles

Seconds of a whole solve after the assembly of the matrix are `time`, with the places method and
tiles. Those of the most tiles also stand with the method alone. `time.setup` is the part of the
certified solve before the iterations, with the place tiles and without.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi.coupling.solving import Coarse, NotConverged
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.elliptic import steps
from scaled_mpi.experiments.elliptic.settings import EllipticExperiment
from scaled_mpi.local_solvers.solvers import LocalSolver, load_local_solver
from scaled_mpi.parallel.blocks import Blocks, make_blocks
from scaled_mpi.parallel.comm import Comm, first_ranks, largest, quiet_barrier
from scaled_mpi.parallel.keys import FirstRun
from scaled_mpi.parallel.store import TrajectoryWriter
from scaled_mpi.problems.elliptic import mean, norm

if TYPE_CHECKING:
    from scaled_mpi.coupling.certified import Prepared
    from scaled_mpi.parallel.petsc import KrylovCourse

TIGHT = 1e-11  # residual of the solution that floors are measured against
NO_ERROR = 1e-9  # error of a local solver under which no ratio to it is recorded
MOST = 600  # iterations of PETSc's own methods
KRYLOV = {"asm": "gmres", "gamg": "cg", "direct": "preonly"}


def work(context: Context[EllipticExperiment]) -> None:
    """Solve on all lattices, then measure the floor of solution-form coupling; or step in time."""
    experiment = context.experiment
    if experiment.implicit is not None:
        steps.work(context, experiment.implicit)
        return
    solver = load_local_solver(experiment.local_solver, context.inputs["fit"])
    table = _Table(context)
    for lattice in experiment.domain.lattices:
        case = _case(context, lattice)
        if case is not None:
            solution = table.certified(case, solver)
            table.by_tiles(case)
            table.by_petsc(case)
            if lattice == max(experiment.domain.lattices):
                case.write_coefficient()
                case.write("solution", solution, "u")
                if experiment.comparison.reference:
                    table.referred(case, solution)
        quiet_barrier(context.comm)
    table.finish()
    if experiment.comparison.floor:
        case = _case(context, experiment.comparison.floor)
        if case is not None:
            _floor(case, solver)
        quiet_barrier(context.comm)


def _case(context: Context[EllipticExperiment], lattice: int) -> _Case | None:
    """The problem on one lattice; None on a rank without a block. Collective."""
    experiment = context.experiment
    grid = experiment.problem.grid(experiment.shape(lattice))
    blocks = make_blocks(grid, experiment.domain.tile, context.comm.size)
    comm = first_ranks(context.comm, blocks.ranks)
    return None if comm is None else _Case(context, blocks, comm)


class _Case:
    """The problem on one lattice: rows and load of this rank."""

    def __init__(self, context: Context[EllipticExperiment], blocks: Blocks, comm: Comm) -> None:
        self.context, self.problem = context, context.experiment.problem
        self.solving = context.experiment.solving
        self.seed = context.experiment.seed + FirstRun.TEST
        self.blocks, self.comm, self.tiles = blocks, comm, math.prod(blocks.counts)
        self.stencil = self.problem.stencil(blocks, comm, self.seed)
        self.load = self.problem.load(blocks, comm, self.seed)

    def by_petsc(self, name: str, rtol: float) -> tuple[KrylovCourse, float]:
        """The course of one of PETSc's own methods, and its true relative residual."""
        from scaled_mpi.parallel.petsc import LinearSystem, Subdomains, subdomains

        way: Subdomains | str = name
        if name == "asm":
            way = subdomains(self.blocks, self.comm, self.solving.overlap)
        with LinearSystem(self.stencil, self.blocks, self.comm) as system:
            course = system.solve(
                self.load, way, rtol=rtol, most=MOST, restart=30, method=KRYLOV[name]
            )
            rest = self.load - system.multiply(course.solution)
        sizes = [norm(field, self.blocks, self.comm) for field in (rest, self.load)]
        return course, sizes[0] / sizes[1]

    def prepared(self, solver: LocalSolver, **changes: object) -> Prepared:
        """The prepared matrix, with `changes` of the experiment's solving."""
        from scaled_mpi.coupling.certified import Prepared

        solving = self.solving.model_copy(update=changes)
        return Prepared(self.stencil, self.blocks, self.comm, solver, solving)

    def write(self, name: str, field: np.ndarray, channel: str) -> None:
        """One field (*block.size) as a trajectory of one frame."""
        with TrajectoryWriter(
            self.context.folder, name, self.blocks, self.comm, (channel,), dtype=np.float64
        ) as writer:
            writer.append(0.0, field[None])

    def write_coefficient(self) -> None:
        """log10 of k on the largest domain."""
        k = self.problem.coefficient_values(self.blocks, self.comm, self.seed)
        inner = k[(slice(1, -1),) * k.ndim]
        self.write("coefficient", np.log10(inner), "log10_k")


class _Table:
    """Iterations by number of tiles."""

    def __init__(self, context: Context[EllipticExperiment]) -> None:
        self.context, self.facts = context, context.facts
        self.iterations: list[int] = []
        self.residual, self.fallback = 0.0, 0
        self.setup = 0.0
        self.seconds: dict[str, float | str] = {}  # by method, on the last and largest lattice

    def certified(self, case: _Case, solver: LocalSolver) -> np.ndarray:
        """The certified solve. Errors: `NotConverged`, which ends the stage."""
        with case.prepared(solver) as ready:
            answer = ready.solve(case.load)
        tiles = case.tiles
        self.iterations.append(answer.iterations)
        self.residual = max(self.residual, answer.residual)
        self.fallback += answer.fallback_tiles
        self.facts.record("iterations", answer.iterations, method="certified", tiles=tiles)
        self.facts.record("fallback.tiles", answer.fallback_tiles, "tiles", tiles=tiles)
        self.facts.record("coarse.vectors", answer.vectors / tiles, "a tile", tiles=tiles)
        crossed = sum(case.comm.allgather(answer.bytes))
        self.facts.record("halo.bytes", crossed, "bytes", tiles=tiles)
        self.setup = largest(case.comm, answer.seconds_setup)
        self.facts.record("time.setup", self.setup, "s", tiles=tiles)
        self._time(case, "certified", answer.seconds_setup + answer.seconds)
        self._history(answer.history, "certified", case)
        self._say(
            case,
            "certified",
            f"{answer.iterations} iterations, true residual "
            f"{answer.residual:.1e}, {answer.fallback_tiles} tiles fell back",
        )
        return answer.solution

    def by_tiles(self, case: _Case) -> None:
        """Exact local solves: with the same coarse space, and without any."""
        from scaled_mpi.local_solvers.exact import ExactSolver

        comparison = self.context.experiment.comparison
        methods: dict[str, dict[str, Any]] = {}
        if comparison.exact:
            methods["exact"] = {"smooths": 0}
        if comparison.onelevel:
            methods["onelevel"] = {
                "smooths": 0,
                "coarse": Coarse(kind="none"),
                "most": comparison.onelevel,
            }
        for name, changes in methods.items():
            with case.prepared(ExactSolver(), **changes) as ready:
                try:
                    answer = ready.solve(case.load)
                except NotConverged as error:
                    self._failed(case, name, error.iterations, error.residual)
                    self._history(error.history, name, case)
                    continue
            self._done(case, name, answer.iterations, answer.seconds_setup + answer.seconds)
            self._history(answer.history, name, case)

    def by_petsc(self, case: _Case) -> None:
        """PETSc's own methods, to the same true residual."""
        comparison = self.context.experiment.comparison
        for name in ("asm", "gamg"):
            if not getattr(comparison, name):
                continue
            quiet_barrier(case.comm)
            begun = time.perf_counter()
            course, residual = case.by_petsc(name, 0.9 * case.solving.tolerance)
            seconds = time.perf_counter() - begun
            if residual <= case.solving.tolerance:
                self._done(case, name, course.iterations, seconds)
            else:
                self._failed(case, name, course.iterations, residual)

    def referred(self, case: _Case, solution: np.ndarray) -> None:
        """Another method's solution, direct unless the matrix is singular; its difference."""
        course, residual = case.by_petsc("gamg" if case.stencil.singular else "direct", TIGHT)
        reference = course.solution
        if case.stencil.singular:  # both are known up to a constant
            reference, solution = (
                field - mean(field, case.blocks, case.comm) for field in (reference, solution)
            )
        error, size = (
            norm(field, case.blocks, case.comm) for field in (solution - reference, reference)
        )
        self.facts.record("error.reference", error / size)
        self.facts.record("residual.reference", residual)
        case.write("reference", reference, "u")
        self._say(case, "another method's answer", f"relative difference {error / size:.1e}")

    def finish(self) -> None:
        """Record the facts of all lattices, and the seconds on the largest."""
        for method, seconds in self.seconds.items():
            self.facts.record("time", seconds, _unit(seconds), method=method)
        self.facts.record("time.setup", self.setup, "s")
        self.facts.record("residual.true", self.residual)
        self.facts.record("residual.tolerance", self.context.experiment.solving.tolerance)
        self.facts.record("fallback.tiles", self.fallback, "tiles")
        if len(self.iterations) > 2:
            self.facts.record("growth", self.iterations[-1] / self.iterations[1])

    def _done(self, case: _Case, name: str, iterations: int, seconds: float) -> None:
        self.facts.record("iterations", iterations, method=name, tiles=case.tiles)
        self._time(case, name, seconds)
        self._say(case, name, f"{iterations} iterations, {seconds:.2f} s")

    def _failed(self, case: _Case, name: str, iterations: int, residual: float) -> None:
        words = "not converged"
        where: dict[str, Any] = {"method": name, "tiles": case.tiles}
        self.facts.record("iterations", words, **where)
        self.facts.record("time", words, **where)
        self.facts.record("residual", residual, "", **where, iterations=iterations)
        self.seconds[name] = words
        self._say(case, name, words)

    def _time(self, case: _Case, name: str, seconds: float) -> None:
        slowest = largest(case.comm, seconds)
        self.facts.record("time", slowest, "s", method=name, tiles=case.tiles)
        self.seconds[name] = slowest

    def _history(self, history: tuple[float, ...], method: str, case: _Case) -> None:
        for iteration, residual in enumerate(history):
            self.facts.record(
                "convergence", residual, "", method=method, N=case.tiles, iteration=iteration
            )

    def _say(self, case: _Case, method: str, words: str) -> None:
        self.context.say(f"  {case.tiles} tiles, {method}: {words}")


def _unit(seconds: float | str) -> str:
    return "" if isinstance(seconds, str) else "s"


def _floor(case: _Case, solver: LocalSolver) -> None:
    """Solution-form coupling of the same local solver, with and without a coarse level."""
    from scaled_mpi.coupling.stationary import floor

    facts, comparison = case.context.facts, case.context.experiment.comparison
    with case.prepared(solver, tolerance=TIGHT) as ready:
        exact = ready.solve(case.load).solution
    case.write("floor_exact", exact, "u")
    spaces = {"onelevel": Coarse(kind="none"), "hats": Coarse(), "twolevel": comparison.coarse}
    for name, space in spaces.items():
        with case.prepared(solver, coarse=space) as ready:
            limit = floor(ready, case.load, exact, refinements=comparison.refinements)
            vectors = ready.coarse.vectors if ready.coarse is not None else 0
        if limit.local > NO_ERROR:
            facts.record("floor.ratio", limit.ratio, space=name)
        facts.record("floor.coupled", limit.coupled, space=name)
        facts.record("floor.residual", limit.residual, space=name)
        facts.record("floor.sweeps", limit.sweeps, space=name)
        facts.record("floor.vectors", vectors / case.tiles, "a tile", space=name)
        case.write(f"floor_{name}", limit.solution, "u")
        case.context.say(
            f"  {case.tiles} tiles, solutions coupled, {name}: error {limit.coupled:.2e}, "
            f"the surrogate's own {limit.local:.2e}"
        )
    facts.record("floor.local", limit.local)
    facts.record("floor.tiles", case.tiles)
