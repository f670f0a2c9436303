"""Chunks of a data set, dealt to ranks and written once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scaled_mpi.datasets.snapshots import chunk_path, write_chunk
from scaled_mpi.engine.context import Context
from scaled_mpi.parallel.comm import quiet_barrier, shares
from scaled_mpi.progress import Progress


def write_missing(
    context: Context,
    label: str,
    chunks: Sequence[tuple[str, int, range]],
    states: Callable[[str, range], np.ndarray],
    meta: Callable[[str, range], dict[str, Any]],
) -> int:
    """Write the chunks, (set, number, samples) each, that are not there, each by one rank.

    `states(set, samples)` gives the fields (n, C, Y, X) of a chunk, `meta` its attributes. Returns
    the number of samples that all ranks together have written; collective.
    """
    missing = [c for c in chunks if not chunk_path(context.folder, c[0], c[1]).exists()]
    missing = context.comm.bcast(missing)
    mine = shares(len(missing), context.comm.size)[context.comm.rank]
    with Progress(label, len(mine), context.comm.rank) as progress:
        for place in mine:
            name, number, samples = missing[place]
            write_chunk(context.folder, name, number, states(name, samples), meta(name, samples))
            progress.step(1, f"{name}, up to sample {samples.stop}")
    quiet_barrier(context.comm)
    return sum(len(samples) for _, _, samples in missing)
