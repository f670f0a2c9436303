"""The discrete Vicsek model of self-propelled particles in a box of two axes.

    N_i = {j: |x_j - x_i| <= R}, itself included
    s = sum over N_i of n_j;  m = s / |s|, or n_i itself where |s| < 1e-12
    n_i' = Rot(phi) m,        x_i' = x_i + dt v n_i'

(Vicsek, Czirok, Ben-Jacob, Cohen, Shochet 1995, https://doi.org/10.1103/PhysRevLett.75.1226), n
the unit headings. Noise: phi uniform in [-eta/2, eta/2], or normal of the same variance, standard
deviation eta / sqrt(12). Morse forces between particles within 5 max(lr, la),

    F_i = sum_j f(r_ij) (x_i - x_j) / r_ij,   f(r) = Cr/lr exp(-r/lr) - Ca/la exp(-r/la),

act by `speed_mode`. With `constant` they do not act. With `constant_with_forces` m becomes
(m + mu F/|F|), normalised. With `variable` v becomes v + dt mu F, turned towards m.

The noise of a particle is keyed by its id, and neighbours are summed in fixed point. Trajectories
have the same bits on any number of ranks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec
from scaled_mpi.parallel import streams
from scaled_mpi.parallel.blocks import Blocks, Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.keys import Stream
from scaled_mpi.parallel.particles import ParticleExchange, Particles, joined, reflect, wrap
from scaled_mpi.simulators import flock_starts

Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]

LOST = 1e-12  # a sum of headings shorter than this has no direction
FORCE_CUT = 5.0  # longest of lr and la
FEW = 400  # particles below which all pairs are faster than cells


class Noise(Spec):
    """`eta` is the width of the uniform distribution, in radians, also of the gaussian's twin."""

    kind: Literal["gaussian", "uniform"] = "gaussian"
    eta: Amount = 0.3


class Morse(Spec):
    """Morse forces: Cr, lr of the repulsion, Ca, la of the attraction, mobility mu."""

    Cr: Amount
    Ca: Amount
    lr: Length
    la: Length
    mobility: Amount = 1.0

    @property
    def cut(self) -> float:
        """The distance beyond which there is no force."""
        return FORCE_CUT * max(self.lr, self.la)

    @property
    def largest(self) -> float:
        """No pair pushes or pulls harder."""
        return max(self.Cr / self.lr, self.Ca / self.la)


@dataclass(frozen=True)
class Flock:
    """The particles of one rank (payload "velocity" (N, 2), y and x), and the step they are at."""

    particles: Particles
    step: int
    seed: int


class Vicsek(Spec):
    """Vicsek's particles; `box` (L_y, L_x), `radius` and `speed` share a unit of length.

    Guards: speed dt <= radius / 2, and the interaction range at most half the box. Errors:
    `InputError`.
    """

    kind: Literal["vicsek"] = "vicsek"
    particles: PositiveInt = 40
    box: tuple[Length, Length] = (15.0, 15.0)
    boundaries: Literal["periodic", "reflecting"] = "periodic"
    speed: Amount = 1.0
    radius: Length = 2.0
    dt: Length = 0.1
    noise: Noise = Noise()
    speed_mode: Literal["constant", "constant_with_forces", "variable"] = "constant"
    forces: Morse | None = None
    start: Literal["uniform", "gaussian_cluster", "ring", "two_clusters"] = "uniform"

    @model_validator(mode="after")
    def _guards(self) -> Vicsek:
        if self.speed * self.dt > 0.5 * self.radius:
            raise InputError(
                f"simulator.dt: {self.dt} is not allowed: speed dt is more than half the radius. "
                f"Allowed: at most {0.5 * self.radius / self.speed:.6g}"
            )
        if self.speed_mode != "constant" and self.forces is None:
            raise InputError(
                f"simulator.speed_mode: {self.speed_mode} is not allowed: simulator.forces is "
                "missing. Allowed: constant, or a block simulator.forces"
            )
        if self.boundaries == "periodic" and self.cutoff > min(self.box) / 2:
            raise InputError(
                f"simulator.box: {list(self.box)} is not allowed: a pair would meet twice. "
                f"Allowed: at least {2 * self.cutoff:.6g}, twice the interaction range"
            )
        return self

    @property
    def cutoff(self) -> float:
        """The interaction range: the radius, or that of the forces where they act."""
        if self.speed_mode == "constant" or self.forces is None:
            return self.radius
        return max(self.radius, self.forces.cut)

    @property
    def channels(self) -> tuple[str]:
        """Name of the field: particles an area."""
        return ("density",)

    @property
    def time_step(self) -> float:
        """dt."""
        return self.dt

    def grid(self, shape: Sequence[int]) -> Grid:
        """The box cut into `shape` cells (rows are y)."""
        spacing = tuple(length / n for length, n in zip(self.box, shape, strict=True))
        kind = "periodic" if self.boundaries == "periodic" else "neumann"
        return Grid(tuple(shape), spacing, (Boundary(kind),) * len(spacing))

    def blocks(self, shape: Sequence[int], ranks: int, least: int = 1) -> Blocks:
        """The split of that grid: the smallest tiles not under the cut-off, nor `least` cells."""
        grid = self.grid(shape)
        tile = tuple(
            next(
                (d for d in range(1, n + 1) if n % d == 0 and d >= least and d * h >= self.cutoff),
                n,
            )
            for n, h in zip(grid.shape, grid.spacing, strict=True)
        )
        return make_blocks(grid, tile, ranks)

    def exchange(self, blocks: Blocks, comm: Comm) -> ParticleExchange:
        """The way in which particles move between the blocks of `comm`."""
        return ParticleExchange(blocks, comm, self.cutoff)

    def initial(self, exchange: ParticleExchange, seed: int | tuple[int, int]) -> Flock:
        """The first state, the same particles whatever the split; collective.

        seed: one number, or (seed, run) so that the members of an ensemble differ.
        """
        seed, run = seed if isinstance(seed, tuple) else (seed, 0)
        key = seed | run << 32
        comm = exchange.comm
        first, last = (part * self.particles // comm.size for part in (comm.rank, comm.rank + 1))
        ids = np.arange(first, last)
        position = flock_starts.places(self.start, key, ids, self.box)
        position, _ = reflect(exchange.blocks.grid, wrap(exchange.blocks.grid, position))
        velocity = self.speed * flock_starts.headings(key, ids)
        particles = exchange.migrate(Particles(ids, position, {"velocity": velocity}))
        return Flock(particles, 0, key)

    def advance(self, flock: Flock, steps: int, exchange: ParticleExchange) -> Flock:
        """`steps` steps; collective. Errors: FloatingPointError where a velocity blew up."""
        for _ in range(steps):
            flock = self._step(flock, exchange)
        return flock

    def warm(self, axes: int = 2) -> None:
        """Compile the kernels, or load them from the cache."""
        from scaled_mpi.parallel.comm import SerialComm

        blocks = self.blocks((1, 1), 1)
        exchange = self.exchange(blocks, SerialComm())
        few = self.model_copy(update={"particles": 2})
        few.advance(few.initial(exchange, 0), 1, exchange)

    def _step(self, flock: Flock, exchange: ParticleExchange) -> Flock:
        from scaled_mpi.simulators.flocking import turned

        mine = flock.particles
        heading, force = self._sums(mine, exchange)
        direction = self._direction(mine, heading, force)
        direction = turned(direction, self._angles(flock, mine.ids))
        velocity = self._lengths(mine, force)[:, None] * direction
        if not np.isfinite(velocity).all():
            raise FloatingPointError(f"step {flock.step}: a velocity is not finite")
        grid = exchange.blocks.grid
        position, signs = reflect(grid, wrap(grid, mine.position + self.dt * velocity))
        moved = Particles(mine.ids, position, {"velocity": velocity * signs})
        alone = exchange.blocks.ranks == 1
        return replace(
            flock, particles=moved if alone else exchange.migrate(moved), step=flock.step + 1
        )

    def _sums(self, mine: Particles, exchange: ParticleExchange) -> tuple[np.ndarray, np.ndarray]:
        """Headings and forces of neighbours, summed, (N, 2) each."""
        from scaled_mpi.simulators.flocking import all_pairs, neighbour_sums

        morse, strength = (0.0, 1.0, 0.0, 1.0, 0.0), 1.0
        if self.speed_mode != "constant" and self.forces is not None:
            f = self.forces
            morse, strength = (f.Cr, f.lr, f.Ca, f.la, f.cut), max(f.largest, 1e-300)
        point, force_point = self._point(1.0), self._point(strength)
        if exchange.blocks.ranks == 1 and len(mine) <= FEW:
            return all_pairs(
                mine.position,
                _unit(mine.payload["velocity"]),
                self._shifts(),
                self.radius,
                point,
                morse,
                force_point,
            )
        near = joined([mine, exchange.ghosts(mine, ["velocity"])])
        lower = exchange.lower - self.cutoff
        span = exchange.upper + self.cutoff - lower
        counts = np.maximum(1, np.floor(span / self.cutoff)).astype(np.int64)
        cells = lower, span / counts, counts
        return neighbour_sums(
            len(mine),
            near.position,
            _unit(near.payload["velocity"]),
            cells,
            self.radius,
            point,
            morse,
            force_point,
        )

    def _shifts(self) -> np.ndarray:
        """Where the periodic images of a particle lie, (K, 2), itself first."""
        if self.boundaries != "periodic":
            return np.zeros((1, 2))
        turns = sorted(itertools.product((-1, 0, 1), repeat=2), key=lambda t: t != (0, 0))
        return -np.array(turns) * np.array(self.box)

    def _point(self, largest: float) -> float:
        """Fixed-point units of 1 such that no sum over all particles overflows 63 bits."""
        return 2.0 ** min(52, 62 - math.ceil(math.log2(largest * (self.particles + 1))))

    def _direction(self, mine: Particles, heading: np.ndarray, force: np.ndarray) -> np.ndarray:
        """The unit vectors (N, 2) that the noise then turns."""
        own = _unit(mine.payload["velocity"])
        lost = _length(heading) < LOST
        direction = np.where(lost[:, None], own, _unit(heading))
        if self.speed_mode == "constant_with_forces" and self.forces is not None:
            pushed = direction + self.forces.mobility * _unit(force)
            still = _length(pushed) < LOST
            direction = np.where(still[:, None], direction, _unit(pushed))
        return direction

    def _lengths(self, mine: Particles, force: np.ndarray) -> np.ndarray:
        """Speeds (N,) of the next step."""
        if self.speed_mode != "variable" or self.forces is None:
            return np.full(len(mine), self.speed)
        velocity = mine.payload["velocity"] + self.dt * self.forces.mobility * force
        return _length(velocity)

    def _angles(self, flock: Flock, ids: np.ndarray) -> np.ndarray:
        if self.noise.kind == "uniform":
            draw = streams.uniform(flock.seed, flock.step, ids, stream=Stream.FLOCK_NOISE)
            return self.noise.eta * (draw - 0.5)
        draw = streams.normal(flock.seed, flock.step, ids, stream=Stream.FLOCK_NOISE)
        return self.noise.eta / math.sqrt(12) * draw


def _length(vectors: np.ndarray) -> np.ndarray:
    # Not numpy's hypot: plain products and a root round the same everywhere.
    return np.sqrt(vectors[:, 0] * vectors[:, 0] + vectors[:, 1] * vectors[:, 1])


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, 2) of length 1; those of length 0 stay 0."""
    length = _length(vectors)[:, None]
    return vectors / np.where(length > 0, length, 1.0)
