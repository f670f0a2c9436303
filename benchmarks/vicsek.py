"""Particle updates a second of Vicsek's model, beside a plain loop over scipy's cKDTree.

    python benchmarks/vicsek.py [N ...]                     default 1000 10000 100000
    mpirun -n 4 python benchmarks/vicsek.py --hash 1000000  the same bits as on one rank

Four particles a unit area, radius 1; seconds are of the processor, of the fastest of three steps.
With --hash the plain loop is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time

import numpy as np

from scaled_mpi.parallel.comm import first_ranks, world
from scaled_mpi.parallel.particles import gather_particles, pack
from scaled_mpi.simulators.vicsek import Vicsek

DENSITY, STEPS = 4.0, 3


def system(count: int) -> Vicsek:
    side = math.sqrt(count / DENSITY)
    return Vicsek(particles=count, box=(side, side), radius=1.0, speed=0.3, dt=1.0)


def plain_step(position: np.ndarray, heading: np.ndarray, box: float, draw) -> np.ndarray:
    """What a user would write first: a tree, pairs, sums."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(position, boxsize=box).query_pairs(1.0, output_type="ndarray")
    total = heading.copy()
    for axis in range(2):
        total[:, axis] += np.bincount(pairs[:, 0], heading[pairs[:, 1], axis], len(position))
        total[:, axis] += np.bincount(pairs[:, 1], heading[pairs[:, 0], axis], len(position))
    angle = np.arctan2(total[:, 0], total[:, 1]) + draw.normal(0, 0.0866, len(position))
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def fastest(step, times: int = STEPS) -> float:
    seconds = []
    for _ in range(times):
        begun = time.process_time()
        step()
        seconds.append(time.process_time() - begun)
    return min(seconds)


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("counts", nargs="*", type=int, default=[1000, 10_000, 100_000])
    given.add_argument("--hash", action="store_true", help="say the sha256 after 3 steps")
    options, comm = given.parse_args(), world()
    for count in options.counts:
        spec = system(count)
        cells = max(4, int(spec.box[0]))
        blocks = spec.blocks((cells, cells), comm.size)
        part = first_ranks(comm, blocks.ranks)
        if part is None:
            continue
        exchange = spec.exchange(blocks, part)
        state = [spec.initial(exchange, 0)]
        spec.advance(state[0], 1, exchange)  # compiled, or loaded from the cache

        def step(state=state, spec=spec, exchange=exchange) -> None:
            state[0] = spec.advance(state[0], 1, exchange)

        own = max(part.allgather(fastest(step)))
        if options.hash:
            every = gather_particles(part, state[0].particles)
            if every is not None:
                digest = hashlib.sha256(pack(every).tobytes()).hexdigest()
                print(
                    f"N {count:9d}  {part.size} ranks  {count / own / 1e6:7.3f} M updates/s   "
                    f"after {state[0].step} steps sha256 {digest}",
                    flush=True,
                )
        elif part.rank == 0:
            _beside_a_tree(count, spec.box[0], own)


def _beside_a_tree(count: int, box: float, own: float) -> None:
    draw = np.random.default_rng(0)
    position = draw.uniform(size=(count, 2)) * box
    heading = draw.normal(size=(count, 2))
    heading /= np.linalg.norm(heading, axis=1)[:, None]
    other = fastest(lambda: plain_step(position, heading, box, draw))
    print(
        f"N {count:9d}  {count / own / 1e6:7.3f} M updates/s   "
        f"cKDTree {count / other / 1e6:7.3f} M updates/s   {other / own:5.1f} x",
        flush=True,
    )


if __name__ == "__main__":
    main()
