"""Learn a simulator on small tiles; run it on a domain of any size, on any number of ranks.

    import scaled_mpi as sm

The functions are those of `scaled_mpi.api`; members of all families, such as `sm.GrayScott` and
`sm.Stepper`, are found by the names of their classes. Nothing heavy is imported before its use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from scaled_mpi.api import TEST, Coupled, Model, couple, fit, load, run, score, simulate
    from scaled_mpi.opening import Outputs

__version__ = "0.1.0"
__all__ = [
    "TEST",
    "Coupled",
    "Model",
    "couple",
    "fit",
    "load",
    "open",
    "run",
    "score",
    "simulate",
]


def open(path: str | Path) -> Outputs:
    """Results in a folder, as lazy xarray datasets, facts and events; see `opening.Outputs`.

    Needs no MPI, no PETSc and no parallel HDF5. Errors: `InputError` for a folder without results.
    """
    from scaled_mpi.opening import open_outputs

    return open_outputs(path)


def __getattr__(name: str) -> Any:
    """Serve the functions of the interface, and members of all families by class name."""
    if name not in __all__ and not name[0].isupper():  # a submodule, asked for before its import
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    api = import_module("scaled_mpi.api")
    return getattr(api, name) if name in __all__ else api.member_named(name)
