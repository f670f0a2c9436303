"""Members that installed packages add to the families of scaled_mpi, by entry points.

A package of the user's own names its class in its pyproject.toml, and YAML names it from then on:

    [project.entry-points."scaled_mpi.surrogates"]
    mine = "my_package.my_module:Mine"            # surrogate: {kind: mine}

A plug-in that cannot be used is one warning line on stderr and is left out; nothing else stops.
Without plug-ins nothing is imported here beyond the standard library.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from importlib import metadata
from typing import Any

GROUPS = (
    "scaled_mpi.simulators",
    "scaled_mpi.surrogates",
    "scaled_mpi.compressors",
    "scaled_mpi.local_solvers",
    "scaled_mpi.experiments",
    "scaled_mpi.networks",
    "scaled_mpi.bottlenecks",
    "scaled_mpi.losses",
)
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID", "RANK")

Check = Callable[[Any], list[str]]


def members(
    group: str, built_in: Mapping[str, Any], violations: Check | None = None
) -> dict[str, Any]:
    """Return the members of a family by name: the built-in ones, then those of plug-ins.

    `violations(member)` lists the faults of a plug-in's member. A plug-in that fails to import,
    has a fault or bears a name that is in use is one warning line, and is left out.
    """
    found = dict(built_in)
    for point in _points(group):
        reason, member = _loaded(point, found, violations)
        if reason:
            _warn(f"{group}: {point.name} ({point.value}) is left out: {reason}")
        else:
            found[point.name] = member
    return found


def names(group: str, built_in: Iterable[str]) -> tuple[str, ...]:
    """Return the names of a family's members, built-in ones first; imports no member."""
    own = tuple(built_in)
    return own + tuple(point.name for point in _points(group) if point.name not in own)


def targets(group: str) -> dict[str, str]:
    """Return `module:attribute` of each plug-in of a group by name; imports none."""
    return {point.name: point.value for point in _points(group)}


def joined(
    module: MutableMapping[str, Any], name: str, group: str, violations: Check | None = None
) -> dict[str, Any]:
    """Serve the module attribute `MEMBERS` of a family: `BUILT_IN` and plug-ins, joined once.

    `module` is the `globals()` of the family. The join waits for the first use, so that a plug-in
    may import the contract from the family that it extends. Errors: `AttributeError` for any
    other name.
    """
    if name != "MEMBERS":
        raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
    module["MEMBERS"] = members(group, module["BUILT_IN"], violations)
    return module["MEMBERS"]


def missing(thing: object, required: Iterable[str]) -> list[str]:
    """Return one line for each name in `required` that `thing` does not have."""
    cls = thing if isinstance(thing, type) else type(thing)
    keys = getattr(cls, "model_fields", {})  # a key is no attribute of the class of a block
    return [
        f"{cls.__name__}: {name} is missing"
        for name in required
        if name not in keys and not hasattr(thing, name)
    ]


def block_violations(member: object, contract: type, methods: Iterable[str]) -> list[str]:
    """Return faults of a block of YAML against a contract, one line each.

    `member` must be a class that inherits from `contract`. Its key `kind` has a default, and its
    `methods` are its own, not those of the contract.
    """
    if not isinstance(member, type) or not issubclass(member, contract):
        name = getattr(member, "__name__", type(member).__name__)
        return [f"{name}: a class that inherits from {contract.__name__} is needed"]
    kind = getattr(member, "model_fields", {}).get("kind")
    found = []
    if kind is None or not isinstance(kind.default, str):
        found.append(f"{member.__name__}: kind is missing")
    return found + [
        f"{member.__name__}: {name} is missing"
        for name in methods
        if getattr(member, name) is getattr(contract, name)
    ]


def _loaded(
    point: metadata.EntryPoint, known: Mapping[str, Any], violations: Check | None
) -> tuple[str, Any]:
    """The reason to leave a plug-in out, or an empty text and its member."""
    if point.name in known:
        return f"the name is in use by {getattr(known[point.name], '__module__', 'scaled_mpi')}", 0
    try:
        member = point.load()
        found = violations(member) if violations is not None else []
    except Exception as error:  # whatever a stranger's module raises
        return f"{type(error).__name__}: {' '.join(str(error).split())}", None
    return "; ".join(found), member


@functools.cache
def _all_points() -> dict[str, list[metadata.EntryPoint]]:
    """The entry points of all groups, by group; one search of the installed packages."""
    found: dict[str, list[metadata.EntryPoint]] = {}
    seen = set()
    for package in metadata.distributions():
        points = [point for point in package.entry_points if point.group in GROUPS]
        if not points or package.metadata["Name"] in seen:
            continue
        seen.add(package.metadata["Name"])  # a second copy on the path is hidden by the first
        for point in points:
            found.setdefault(point.group, []).append(point)
    return found


def _points(group: str) -> list[metadata.EntryPoint]:
    return sorted(_all_points().get(group, []), key=lambda point: (point.name, point.value))


def _warn(line: str) -> None:
    """Print one line on stderr, on the first rank where a launcher tells the rank."""
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    if rank == "0":
        print(f"warning: {line}", file=sys.stderr)
