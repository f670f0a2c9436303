"""Check a class of yours against the contract of its family.

    python -m scaled_mpi.check mine.heat:Heat                a class, with its default keys
    python -m scaled_mpi.check mine.heat:Heat kappa=0.1      and with other keys
    python -m scaled_mpi.check gray_scott                    a member, or an entry point, by name

One line a check. Exit code 0: all pass; 1: one fails; 2: the class cannot be loaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from scaled_mpi import simulators
from scaled_mpi.config import InputError, Spec, apply_overrides, parse
from scaled_mpi.simulators import checks


@dataclass(frozen=True)
class Family:
    """One family: its members, the names that mark a class of it, and its checks."""

    name: str  # also the end of the entry-point group, scaled_mpi.NAME
    members: Mapping[str, type[Any]]
    marks: tuple[str, ...]
    results: Callable[[Any, int], Iterator[tuple[str, str]]]  # (object, axes) -> (check, fault)


FAMILIES = (Family("simulators", simulators.MEMBERS, ("initial",), checks.results),)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a check; returns the exit code."""
    words = argparse.ArgumentParser(
        prog="python -m scaled_mpi.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words.add_argument("target", help="module:Class, or the name of a member or an entry point")
    words.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of the class")
    words.add_argument("--axes", type=int, choices=(1, 2, 3), default=2, help="of the grid")
    given = words.parse_intermixed_args(arguments)
    try:
        family, made = load(given.target, given.overrides)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    failed = 0
    for name, fault in family.results(made, given.axes):
        failed += bool(fault)
        print(f"FAILED  {name}: {fault}" if fault else f"ok      {name}", flush=True)
    print(f"{given.target}: {f'{failed} checks fail' if failed else 'all checks pass'}")
    return 1 if failed else 0


def load(target: str, overrides: Sequence[str] = ()) -> tuple[Family, Any]:
    """The family and the object that a target names. Errors: `InputError`, one line."""
    found = _from_module(target) if ":" in target else _by_name(target)
    family = next((f for f in FAMILIES if any(hasattr(found, mark) for mark in f.marks)), None)
    if family is None:
        marks = ", ".join(f"{mark} ({f.name})" for f in FAMILIES for mark in f.marks)
        raise InputError(
            f"{target}: {getattr(found, '__name__', found)!r} is not allowed: it belongs to no "
            f"family. Allowed: classes with {marks}"
        )
    if not isinstance(found, type):
        return family, found
    if issubclass(found, Spec):
        return family, parse(found, apply_overrides({}, overrides))
    try:
        return family, found()
    except TypeError as error:
        raise InputError(f"{target}: {error}. Needed: a class whose keys have defaults") from error


def _from_module(target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, ValueError) as error:
        raise InputError(f"{target}: {error}. Needed: module:Class on PYTHONPATH") from error
    except AttributeError as error:
        raise InputError(f"{target}: {module} has no {attribute}. Needed: module:Class") from error


def _by_name(target: str) -> Any:
    for family in FAMILIES:
        if target in family.members:
            return family.members[target]
        for point in entry_points(group=f"scaled_mpi.{family.name}", name=target):
            return _from_module(point.value)
    known = sorted(name for family in FAMILIES for name in family.members)
    raise InputError(
        f"{target} is not allowed: no member and no entry point has this name. "
        f"Allowed: module:Class, {', '.join(known)}"
    )


if __name__ == "__main__":
    sys.path.insert(0, "")
    sys.exit(main())
