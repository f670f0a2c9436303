"""A file name, and the name of a public class, means one thing in the whole package."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "scaled_mpi"
ROLES = {"__init__", "settings", "page", "kind"}  # files that every kind's folder may have
FORMER = {"experiment.py", "launch.py"}  # names of version 0.1, kept for one release
PATHS = [
    path for path in sorted(PACKAGE.rglob("*.py")) if str(path.relative_to(PACKAGE)) not in FORMER
]


def doubles(places: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: found for name, found in places.items() if len(found) > 1}


def test_a_file_name_means_one_thing():
    places = defaultdict(list)
    for path in PATHS:
        if path.stem not in ROLES:
            places[path.stem].append(str(path.relative_to(PACKAGE)))
    assert doubles(places) == {}


def test_a_public_class_name_means_one_thing():
    places = defaultdict(list)
    for path in PATHS:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert doubles(places) == {}
