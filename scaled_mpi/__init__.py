"""Learn a simulator on small tiles; run it on a domain of any size, on any number of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scaled_mpi.opening import Outputs

__version__ = "0.1.0"
__all__ = ["open"]


def open(path: str | Path) -> Outputs:
    """Results in a folder, as lazy xarray datasets, facts and events; see `opening.Outputs`.

    Needs no MPI, no PETSc and no parallel HDF5. Errors: `InputError` for a folder without results.
    """
    from scaled_mpi.opening import open_outputs

    return open_outputs(path)
