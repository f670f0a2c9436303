"""Kept for one release: the contents of `scaled_mpi.engine.launch`."""

from scaled_mpi.engine.launch import (
    Machine,
    Workers,
    farm,
    make_cluster,
    output_root,
    read_machine,
    workers,
)

__all__ = [
    "Machine",
    "Workers",
    "farm",
    "make_cluster",
    "output_root",
    "read_machine",
    "workers",
]
