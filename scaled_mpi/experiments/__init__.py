"""Kinds of experiments: one folder each, and the table that names them.

A kind's module is imported for an experiment of that kind alone. A package of its own adds a kind
by an entry point of the group `scaled_mpi.experiments`, NAME = "module:attribute".
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scaled_mpi.config import InputError, apply_overrides, parse, read_yaml
from scaled_mpi.engine.kind import Kind
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.plugins import targets

GROUP = "scaled_mpi.experiments"
KINDS = {
    name: f"scaled_mpi.experiments.{name}.kind:KIND"
    for name in ("forecast", "elliptic", "ensemble", "dynamics", "gaussian", "enlargement")
}


def kinds() -> dict[str, str]:
    """Return `module:attribute` of every kind by name, those of other packages last."""
    return {**targets(GROUP), **KINDS}


def kind_named(name: str) -> Kind:
    """Import and return one kind. Errors: `InputError` for an unknown or a broken one."""
    known = kinds()
    if name not in known:
        raise InputError(
            f"kind: {name} is not allowed: no such kind of experiment. Allowed: "
            f"{', '.join(sorted(known))}."
        )
    module, _, attribute = known[name].partition(":")
    if name in KINDS:
        return getattr(importlib.import_module(module), attribute)
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a package that others wrote
        raise InputError(
            f"kind: {name} is not allowed: {known[name]} cannot be loaded "
            f"({type(error).__name__}: {error}). Allowed: {', '.join(sorted(KINDS))}."
        ) from error
    if not isinstance(kind, Kind):
        raise InputError(
            f"kind: {name} is not allowed: {known[name]} is no scaled_mpi.engine.kind.Kind. "
            f"Allowed: {', '.join(sorted(KINDS))}."
        )
    return kind


def kind_of(experiment: ExperimentSpec) -> Kind:
    """Return the kind of an experiment."""
    return kind_named(experiment.kind)


def load(
    path: str | Path, overrides: Iterable[str] = (), preset: str | None = None
) -> ExperimentSpec:
    """Read, override and check an experiment. Errors: `InputError`, one line."""
    tree = read_yaml(path)
    chosen = _preset(path, tree.pop("presets", {}), preset)
    return from_tree(tree, [*chosen, *overrides])


def from_tree(tree: Mapping[str, Any], overrides: Iterable[str] = ()) -> ExperimentSpec:
    """Return the experiment of a plain tree of keys. Errors: `InputError`, one line."""
    kind = kind_named(_kind_name(tree))
    return parse(kind.settings, apply_overrides(tree, overrides, kind.families)).with_steps()


def _kind_name(tree: Mapping[str, Any]) -> str:
    """The key `kind`; of a file of version 0.1, which had none, the kind that its keys tell."""
    if "kind" in tree:
        return str(tree["kind"])
    for key, name in (("problem", "elliptic"), ("ensemble", "ensemble"), ("patterns", "dynamics")):
        if key in tree:
            return name
    if "generation" in tree:
        return "enlargement" if "simulator" in tree else "gaussian"
    return "forecast"


def _preset(path: str | Path, presets: object, preset: str | None) -> list[str]:
    """The overrides of the presets A,B of a file."""
    chosen: list[str] = []
    for name in preset.split(",") if preset is not None else ():
        if not isinstance(presets, dict) or name not in presets:
            known = ", ".join(presets) if isinstance(presets, dict) and presets else "none"
            raise InputError(
                f"--preset: {name} is not allowed: {path} has no such preset. Allowed: {known}"
            )
        chosen += [f"{key}={json.dumps(value)}" for key, value in presets[name].items()]
    return chosen
