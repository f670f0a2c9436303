"""Check a class of yours against the contract of its family.

    python -m scaled_mpi.check mine.heat:Heat                a class, with its default keys
    python -m scaled_mpi.check mine.heat:Heat kappa=0.1      and with other keys
    python -m scaled_mpi.check gray_scott                    a member, or an entry point, by name

A simulator runs on a small grid. A loaded part (an operator, a coder, a local solver) acts on
random fields. For a block of YAML that loads such a part, only its members are checked. One line a
check. Exit code 0: all pass; 1: one fails; 2: the class cannot be loaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from scaled_mpi import compressors, local_solvers, simulators, surrogates
from scaled_mpi.compressors import coders
from scaled_mpi.config import InputError, Spec, apply_overrides, parse
from scaled_mpi.local_solvers import solvers
from scaled_mpi.simulators import checks
from scaled_mpi.surrogates import operators

Results = Iterator[tuple[str, str]]  # (check, fault), the fault "" where it passes
Violations = Callable[[Any], list[str]]

OVERLAP = 2  # cells, of the tiles that a local solver is checked on


@dataclass(frozen=True)
class CheckTable:
    """One family: its members, the names that mark a class of it, and its checks."""

    name: str  # also the end of the entry-point group, scaled_mpi.NAME
    members: Mapping[str, type[Any]]
    marks: tuple[tuple[str, ...], ...]  # a class with all names of one of these belongs to it
    results: Callable[[Any, int], Results]  # (object, axes of the grid)

    def has(self, thing: Any) -> bool:
        """Whether a class, or an object, belongs to this family."""
        return any(all(hasattr(thing, mark) for mark in marks) for marks in self.marks)


def _part(loaded: str, member: Violations, part: Violations) -> Callable[[Any, int], Results]:
    """The checks of a block of YAML (`member`), or of the part that it loads (`part`)."""

    def results(thing: Any, axes: int) -> Results:
        block = isinstance(thing, Spec)
        name = "members exist" if block else f"the {loaded} keeps its contract"
        try:
            faults = member(type(thing)) if block else part(thing)
        except Exception as error:  # a user's class may raise anything; the fault is the answer
            faults = [f"{type(error).__name__}: {' '.join(str(error).split())}"]
        yield from ((name, fault) for fault in faults or [""])

    return results


def _solver_violations(solver: Any) -> list[str]:
    """Those of a local solver on the four tiles of a small Poisson problem."""
    import numpy as np

    from scaled_mpi.parallel.blocks import Grid, make_blocks
    from scaled_mpi.parallel.comm import SerialComm
    from scaled_mpi.problems.stencil_rows import diffusion_stencil
    from scaled_mpi.problems.tile_matrices import TileOperators

    blocks = make_blocks(Grid((16, 16)), (8, 8), 1)
    stencil = diffusion_stencil(np.ones((18, 18)), blocks, 0, 0.1)
    return solvers.violations(solver, TileOperators(stencil, blocks, SerialComm(), OVERLAP))


FAMILIES = (
    CheckTable("simulators", simulators.MEMBERS, (("initial",),), checks.results),
    CheckTable(
        "compressors",
        compressors.MEMBERS,
        (("encode",), ("decode",), ("fit", "load", "decode_reach")),
        _part("coder", coders.member_violations, coders.violations),
    ),
    CheckTable(
        "local_solvers",
        local_solvers.MEMBERS,
        (("correct",), ("load", "learns")),
        _part("local solver", solvers.member_violations, _solver_violations),
    ),
    CheckTable(
        "surrogates",
        surrogates.MEMBERS,
        (("advance",), ("fit", "load", "needs_whole_reach")),
        _part("operator", operators.member_violations, operators.violations),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a check; returns the exit code."""
    words = argparse.ArgumentParser(
        prog="python -m scaled_mpi.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words.add_argument("target", help="module:Class, or the name of a member or an entry point")
    words.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of the class")
    words.add_argument(
        "--axes", type=int, choices=(1, 2, 3), default=2, help="of the grid of a simulator"
    )
    given = words.parse_intermixed_args(arguments)
    try:
        family, thing = load(given.target, given.overrides)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    failed = 0
    for name, fault in family.results(thing, given.axes):
        failed += bool(fault)
        print(f"FAILED  {name}: {fault}" if fault else f"ok      {name}", flush=True)
    verdict = f"{failed} checks fail" if failed else "all checks pass"
    print(f"{given.target}: {verdict} ({family.name})")
    return 1 if failed else 0


def load(target: str, overrides: Sequence[str] = ()) -> tuple[CheckTable, Any]:
    """The family and the object that a target names. Errors: `InputError`, one line."""
    found = _from_module(target) if ":" in target else _by_name(target)
    family = next((f for f in FAMILIES if f.has(found)), None)
    if family is None:
        raise InputError(
            f"target: {target} is not allowed: it belongs to no "
            f"family. Allowed: {', '.join(family.name for family in FAMILIES)}"
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
            return _from_module(point.value)  # left out of the members, with a warning
    known = sorted(name for family in FAMILIES for name in family.members)
    raise InputError(
        f"target: {target} is not allowed: no member and no entry point has this name. "
        f"Allowed: module:Class, {', '.join(known)}"
    )


if __name__ == "__main__":
    sys.path.insert(0, "")
    sys.exit(main())
