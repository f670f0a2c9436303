"""PETSc: matrices on a DMDA, Krylov solvers, coarse spaces. The one importer of petsc4py.

A DMDA numbers the cells rank by rank, and the cells of a rank like a C array. It gets our ranks
and blocks, so the local part of a vector *is* our block, reshaped. Context managers destroy all
objects explicitly: destruction is collective, and Python's collector is not. Everything here is
collective over the communicator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import petsc4py

from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm, by_mpi

petsc4py.init(["scaled_mpi", "-no_signal_handler"])  # signals stay with whoever started the job
from petsc4py import PETSc  # noqa: E402

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

Apply = Callable[[np.ndarray], np.ndarray]
Watch = Callable[[int, float], None]
DIVERGED_LIMIT = 1e8  # growth of the residual over its start at which a solve is given up


@dataclass(frozen=True)
class KrylovCourse:
    """The course of a solve: my block of u, the residual norms it saw, its own verdict."""

    solution: np.ndarray
    residuals: tuple[float, ...]
    iterations: int
    reason: int  # PETSc's KSPConvergedReason: > 0 converged, < 0 not


def petsc_comm(comm: Comm) -> Comm | PETSc.Comm:
    """Return the communicator that PETSc takes: one rank without MPI becomes COMM_SELF."""
    return comm if by_mpi(comm) else PETSc.COMM_SELF


class Subdomains(NamedTuple):
    """Global rows of each of my tiles: with its overlap, and its own cells alone."""

    overlapping: list[np.ndarray]
    owned: list[np.ndarray]


class Rows(Protocol):
    """Stencil rows of one rank's block; see `problems.stencil`. Fields are (*block.size)."""

    @property
    def singular(self) -> bool:
        """Whether constants are the kernel of the matrix."""

    @property
    def diagonal(self) -> np.ndarray:
        """Diagonal of the matrix."""

    @property
    def low(self) -> Sequence[np.ndarray]:
        """Entries of the lower neighbour, one array an axis."""

    @property
    def high(self) -> Sequence[np.ndarray]:
        """Entries of the upper neighbour, one array an axis."""


class Lattice:
    """A DMDA with exactly our blocks; a context manager."""

    def __init__(self, blocks: Blocks, comm: Comm, width: int = 1) -> None:
        if comm.size != blocks.ranks:
            raise ValueError(
                f"comm: size {comm.size} is not allowed: each rank owns a block. Allowed: "
                f"{blocks.ranks} ranks"
            )
        self.blocks, self.block, self.width = blocks, blocks.block(comm.rank), width
        kinds = {True: PETSc.DM.BoundaryType.PERIODIC, False: PETSc.DM.BoundaryType.NONE}
        grid = blocks.grid
        self.dm = PETSc.DMDA().create(
            dim=grid.axes,
            dof=1,
            sizes=grid.shape[::-1],
            proc_sizes=blocks.split[::-1],
            ownership_ranges=blocks.ownership()[::-1],
            boundary_type=[kinds[b.periodic] for b in grid.boundary[::-1]],
            stencil_type=PETSc.DMDA.StencilType.BOX,
            stencil_width=width,
            comm=petsc_comm(comm),
        )

    def numbering(self) -> np.ndarray:
        """Return the global row of every cell of the padded block, (*padded_size); -1 outside."""
        ranges = self.dm.getGhostRanges()[::-1]
        known = self.dm.getLGMap().getIndices().reshape([b - a for a, b in ranges])
        numbers = np.full([n + 2 * self.width for n in self.block.size], -1, np.int64)
        inside = tuple(
            slice(a - start + self.width, b - start + self.width)
            for (a, b), start in zip(ranges, self.block.start, strict=True)
        )
        numbers[inside] = known
        return numbers

    def __enter__(self) -> Lattice:
        return self

    def __exit__(self, *error: object) -> None:
        self.dm.destroy()


class LinearSystem:
    """A u = b from one rank's stencil rows (see problems.stencil); a context manager."""

    def __init__(self, stencil: Rows, blocks: Blocks, comm: Comm) -> None:
        self.blocks, self.comm, self.singular = blocks, comm, stencil.singular
        self.shape = tuple(blocks.block(comm.rank).size)
        self._stack = ExitStack()
        self.lattice = self._stack.enter_context(Lattice(blocks, comm))
        self.matrix = self._keep(_assemble(stencil, self.lattice, petsc_comm(comm)))
        if self.singular:
            constants = self._keep(PETSc.NullSpace().create(constant=True, comm=petsc_comm(comm)))
            self.matrix.setNullSpace(constants)
            self.matrix.setTransposeNullSpace(constants)
        self._x, self._y = (self._keep(v) for v in self.matrix.createVecs())

    def _keep(self, thing: PETSc.Object) -> PETSc.Object:
        """Note a PETSc object for destruction."""
        self._stack.callback(thing.destroy)
        return thing

    def __enter__(self) -> LinearSystem:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def multiply(self, field: np.ndarray) -> np.ndarray:
        """Return A u of my block, float64 (*block.size), from u of the same shape."""
        self._x.array[:] = field.ravel()
        self.matrix.mult(self._x, self._y)
        return self._y.array_r.reshape(self.shape).copy()

    def solve(
        self,
        load: np.ndarray,
        precondition: Apply | Subdomains | str,
        *,
        rtol: float = 1e-8,
        most: int = 500,
        restart: int = 30,
        method: str = "fgmres",
        start: np.ndarray | None = None,
        watch: Watch | None = None,
    ) -> KrylovCourse:
        """Run a Krylov method on b = `load` until ||b - A u|| <= rtol ||b||, or `most` steps.

        Fields are float64 (*block.size). `precondition` maps a residual block to a correction
        block, from the right, so that residual norms are true. It may also be a name of
        `PRECONDITIONERS`, or the subdomains of restricted additive Schwarz ("asm").
        `watch(iteration, norm)` is called at every iteration; its exceptions end the solve.
        """
        course: list[float] = []

        def monitor(_: PETSc.KSP, iteration: int, norm: float) -> None:
            course.append(norm)
            if watch is not None:
                watch(iteration, norm)

        with ExitStack() as stack:
            ksp = PETSc.KSP().create(petsc_comm(self.comm))
            stack.callback(ksp.destroy)
            ksp.setOperators(self.matrix)
            ksp.setType(method)
            if method in ("gmres", "fgmres"):
                ksp.setGMRESRestart(restart)
                ksp.setPCSide(PETSc.PC.Side.RIGHT)
            ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
            ksp.setTolerances(rtol=rtol, atol=1e-300, divtol=DIVERGED_LIMIT, max_it=most)
            if isinstance(precondition, Subdomains):
                _asm(ksp, precondition, stack)
            elif callable(precondition):
                ksp.getPC().setType("python")
                ksp.getPC().setPythonContext(AsPreconditioner(precondition, self.shape))
            else:
                PRECONDITIONERS[precondition](ksp)
            ksp.setMonitor(monitor)
            b, x = (stack.enter_context(_vector(self.matrix)) for _ in range(2))
            b.array[:] = load.ravel()
            if start is not None:
                x.array[:] = start.ravel()
                ksp.setInitialGuessNonzero(True)
            ksp.solve(b, x)
            solution = x.array_r.reshape(self.shape).copy()
            return KrylovCourse(
                solution, tuple(course), ksp.getIterationNumber(), ksp.getConvergedReason()
            )


class _vector:
    """A vector for the rows of a matrix, zero, destroyed at the end of the block."""

    def __init__(self, matrix: PETSc.Mat) -> None:
        self.vector = matrix.createVecLeft()
        self.vector.set(0.0)

    def __enter__(self) -> PETSc.Vec:
        return self.vector

    def __exit__(self, *error: object) -> None:
        self.vector.destroy()


class AsPreconditioner:
    """A PC context: PETSc hands vectors, the callable sees blocks."""

    def __init__(self, precondition: Apply, shape: tuple[int, ...]) -> None:
        self.precondition, self.shape = precondition, shape

    def apply(self, _: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.array[:] = self.precondition(x.array_r.reshape(self.shape)).ravel()


def _assemble(stencil: Rows, lattice: Lattice, comm: Comm | PETSc.Comm) -> PETSc.Mat:
    """The matrix of a stencil: one row a cell, entries of the row in one go from arrays."""
    numbers = lattice.numbering()
    axes = numbers.ndim
    core = (slice(1, -1),) * axes
    beside_rows, flows = [numbers[core]], [stencil.diagonal]
    for axis in range(axes):
        for part, flow in (
            (slice(0, -2), stencil.low[axis]),
            (slice(2, None), stencil.high[axis]),
        ):
            beside = tuple(part if a == axis else s for a, s in enumerate(core))
            beside_rows.append(numbers[beside])
            flows.append(-flow)
    columns = np.stack([c.ravel() for c in beside_rows], axis=1)
    values = np.stack([v.ravel() for v in flows], axis=1)
    present = (columns >= 0) & ((values != 0) | (np.arange(columns.shape[1]) == 0))
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    rows, total = len(columns), int(np.prod(lattice.blocks.grid.shape))
    matrix = PETSc.Mat().createAIJ(
        ((rows, total), (rows, total)),
        comm=comm,
        csr=(
            indptr.astype(PETSc.IntType),
            columns[present].astype(PETSc.IntType),
            values[present],
        ),
    )
    matrix.setDM(lattice.dm)
    return matrix


class Basis:
    """Coarse vectors of each tile and their Galerkin matrix; a context manager.

    `rows` are my tiles' coarse vectors as CSR (indptr, global cells, values), as many rows as
    vectors. Coarse dofs are numbered rank by rank. A periodic axis with one or two tiles lets a
    vector meet itself: entries of one cell are then added.
    """

    def __init__(self, system: LinearSystem, rows: tuple[np.ndarray, ...]) -> None:
        indptr, cells, values = rows
        comm, self.comm = petsc_comm(system.comm), system.comm
        fine = (int(np.prod(system.shape)), int(np.prod(system.blocks.grid.shape)))
        counts = system.comm.allgather(len(indptr) - 1)
        self.count, self.shape = sum(counts), system.shape
        self.mine = slice(sum(counts[: system.comm.rank]), sum(counts[: system.comm.rank + 1]))
        self._stack = ExitStack()
        index = PETSc.IntType
        transposed = PETSc.Mat().createAIJ(
            ((counts[system.comm.rank], self.count), fine),
            comm=comm,
            csr=(indptr.astype(index), cells.astype(index), values),
        )
        self._stack.callback(transposed.destroy)
        self.columns = PETSc.Mat()
        transposed.transpose(self.columns)
        self._stack.callback(self.columns.destroy)
        self._coarse, self._fine = self.columns.createVecs()
        self._stack.callback(self._coarse.destroy)
        self._stack.callback(self._fine.destroy)

    def __enter__(self) -> Basis:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def galerkin(self, system: LinearSystem) -> csc_matrix:
        """Return Z^T A Z on every rank, a scipy CSC matrix (count, count)."""
        from scipy import sparse

        product = system.matrix.ptap(self.columns)
        indptr, columns, values = (np.array(part) for part in product.getValuesCSR())
        product.destroy()
        parts = self.comm.allgather((np.diff(indptr), columns, values))
        lengths, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return sparse.csr_matrix((values, columns, starts), (self.count, self.count)).tocsc()

    def restrict(self, field: np.ndarray) -> np.ndarray:
        """Return Z^T r (count,) on every rank, from r (*block.size): one global reduction."""
        self._fine.array[:] = field.ravel()
        self.columns.multTranspose(self._fine, self._coarse)
        return np.concatenate(self.comm.allgather(self._coarse.array_r.copy()))

    def prolong(self, weights: np.ndarray) -> np.ndarray:
        """Return Z w on my block, (*block.size), from all weights (count,)."""
        self._coarse.array[:] = weights[self.mine]
        self.columns.mult(self._coarse, self._fine)
        return self._fine.array_r.reshape(self.shape).copy()


def subdomains(blocks: Blocks, comm: Comm, overlap: int) -> Subdomains:
    """Return my tiles as subdomains of "asm", each with `overlap` cells around it; collective."""
    with Lattice(blocks, comm, overlap) as lattice:
        numbers = lattice.numbering()
    wide: list[np.ndarray] = []
    own: list[np.ndarray] = []
    for index in blocks.tiles(comm.rank):
        for found, halo in ((wide, overlap), (own, 0)):
            box = blocks.local_slices(comm.rank, index, halo, overlap)
            rows = np.unique(numbers[box])
            found.append(rows[rows >= 0])
    return Subdomains(wide, own)


def _asm(ksp: PETSc.KSP, tiles: Subdomains, stack: ExitStack) -> None:
    """One-level restricted additive Schwarz on the given subdomains, exact LU in each."""
    pc = ksp.getPC()
    pc.setType("asm")
    overlapping, owned = ([_index_set(rows, stack) for rows in sets] for sets in tiles)
    pc.setASMLocalSubdomains(len(overlapping), overlapping, owned)
    pc.setASMOverlap(0)
    pc.setASMType(PETSc.PC.ASMType.RESTRICT)
    ksp.setUp()
    for inner in pc.getASMSubKSP():
        inner.setType("preonly")
        inner.getPC().setType("lu")


def _index_set(rows: np.ndarray, stack: ExitStack) -> PETSc.IS:
    made = PETSc.IS().createGeneral(np.sort(rows).astype(PETSc.IntType), PETSc.COMM_SELF)
    stack.callback(made.destroy)
    return made


def _plain(kind: str) -> Callable[[PETSc.KSP], None]:
    def prepare(ksp: PETSc.KSP) -> None:
        ksp.getPC().setType(kind)

    return prepare


def _direct(ksp: PETSc.KSP) -> None:
    ksp.setType("preonly")
    ksp.setNormType(PETSc.KSP.NormType.NONE)
    ksp.getPC().setType("lu")
    ksp.getPC().setFactorSolverType("mumps")


PRECONDITIONERS = {
    "direct": _direct,
    **{kind: _plain(kind) for kind in ("gamg", "hypre", "jacobi", "none")},
}


def has_package(name: str) -> bool:
    """Whether this PETSc was built with an external package, such as hypre."""
    return PETSc.Sys.hasExternalPackage(name)
