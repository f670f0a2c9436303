"""A module imports from its own room and from lower floors; one room owns each library.

Two literals are the plan of the house: FLOORS and OWNERS. Imports inside functions count too.
"""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "scaled_mpi"

FLOORS = {
    "config": 0,
    "files": 0,
    "plugins": 0,
    "facts": 0,
    "fact_names": 0,
    "metrics": 0,
    "likeness": 0,
    "progress": 0,
    "parallel": 1,
    "shipped": 1,
    "report": 1,
    "labelled": 2,
    "scratch": 2,
    "opening": 3,
    "simulators": 2,
    "problems": 2,
    "datasets": 2,
    "learning": 2,
    "engine": 3,
    "compressors": 3,
    "surrogates": 3,
    "local_solvers": 3,
    "coupling": 4,
    "inference": 4,
    "experiments": 5,
    "experiment": 6,
    "launch": 6,
    "run": 6,
    "check": 6,
    "model": 5,
    "api": 6,
    "doctor": 6,
    "ship": 6,
    "__init__": 6,
}

# A folder ends in a slash. Everybody may import what is in FREE.
OWNERS = {
    "mpi4py": ["parallel/comm.py"],
    "petsc4py": ["parallel/petsc.py"],
    "h5py": ["parallel/", "datasets/"],
    "xarray": ["opening.py", "labelled.py", "model.py", "api.py", "datasets/"],
    "yaml": ["config.py"],
    "tqdm": ["progress.py"],
    "numba": ["simulators/"],
    "torch": [
        "learning/",
        "compressors/",
        "surrogates/",
        "local_solvers/",
        "inference/",
        "simulators/torch_stencil.py",
    ],
    "safetensors": ["learning/weights.py"],
    "dask": ["engine/launch.py"],
    "distributed": ["engine/launch.py"],
    "dask_jobqueue": ["engine/launch.py"],
    "matplotlib": ["report/"],
    "PIL": ["report/"],
    "imageio": ["report/"],
    "imageio_ffmpeg": ["report/"],
    "tensorboard": ["engine/tracking.py"],
    "wandb": ["engine/tracking.py"],
}
FREE = {"numpy", "scipy", "pydantic"} | set(sys.stdlib_module_names)

PATHS = sorted(path.relative_to(ROOT / PACKAGE) for path in (ROOT / PACKAGE).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names that a module imports anywhere; `from a import b` gives a.b."""
    tree = ast.parse((ROOT / PACKAGE / path).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: name the package, `from .` hides the floor"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    """The member of FLOORS that a module belongs to: its folder, or itself at the root."""
    return path.parts[0].removesuffix(".py")


def trespasses(path: Path) -> list[str]:
    mine, wrong = room(path), []
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != PACKAGE or parts[1] not in FLOORS or parts[1] == mine:
            continue
        siblings = len(path.parts) == 1 and (ROOT / PACKAGE / f"{parts[1]}.py").exists()
        if FLOORS[parts[1]] >= FLOORS[mine] + siblings:  # modules of the root are one room a floor
            wrong.append(f"{path} on floor {FLOORS[mine]} imports {name}: {FLOORS[parts[1]]}")
    return wrong


def meetings(path: Path) -> list[str]:
    """Imports of one kind of experiment by another, or of their table by any kind."""
    if path.parts[0] != "experiments" or len(path.parts) == 2:
        return []
    own, table = f"{PACKAGE}.experiments.{path.parts[1]}", f"{PACKAGE}.experiments"
    return [
        f"{path} imports {name}"
        for name in imports(path)
        if (name + ".").startswith(table + ".") and not (name + ".").startswith(own + ".")
    ]


def strangers(path: Path) -> list[str]:
    wrong = []
    for name in imports(path):
        library = name.split(".")[0]
        if library in FREE or library == PACKAGE:
            continue
        owners = OWNERS.get(library, [])
        if not any(
            str(path) == own or (own.endswith("/") and str(path).startswith(own)) for own in owners
        ):
            wrong.append(f"{path} imports {library}, which belongs to {owners or 'nobody yet'}")
    return wrong


def test_every_room_has_a_floor():
    assert {room(path) for path in PATHS} <= set(FLOORS)


def test_imports_keep_to_the_floors():
    assert [line for path in PATHS for line in trespasses(path)] == []


def test_no_kind_of_experiment_imports_another():
    assert [line for path in PATHS for line in meetings(path)] == []


def test_libraries_have_owners():
    assert [line for path in PATHS for line in strangers(path)] == []


def test_no_import_goes_round_in_a_circle():
    names = {
        ".".join([PACKAGE, *path.with_suffix("").parts]).removesuffix(".__init__"): path
        for path in PATHS
    }
    # The package's own __init__ opens names lazily, and every module imports it first.
    graph = {
        name: {
            found if found in names else found.rpartition(".")[0]
            for found in imports(path)
            if found in names or found.rpartition(".")[0] in names
        }
        for name, path in names.items()
        if path != Path("__init__.py")
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
