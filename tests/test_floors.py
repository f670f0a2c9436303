"""A module imports from its own room and from lower floors; one room owns each library.

Two literals are the plan of the house: FLOORS and OWNERS. Imports inside functions count too.
"""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "scaled_mpi"

FLOORS = {
    "config": 0,
    "files": 0,
    "plugins": 0,
    "facts": 0,
    "metrics": 0,
    "likeness": 0,
    "progress": 0,
    "parallel": 1,
    "shipped": 1,
    "simulators": 2,
    "problems": 2,
    "datasets": 2,
    "learning": 2,
    "artefacts": 2,
    "compressors": 3,
    "surrogates": 3,
    "local_solvers": 3,
    "coupling": 4,
    "inference": 4,
    "launch": 5,
    "report": 5,
    "experiment": 5,
    "elliptic": 5,
    "ensemble": 5,
    "turing": 5,
    "generation": 5,
    "opening": 5,
    "tracking": 5,
    "pipeline": 6,
    "stages": 7,
    "run": 7,
    "doctor": 7,
    "ship": 7,
    "__init__": 7,
}

# A folder ends in a slash. Everybody may import what is in FREE.
OWNERS = {
    "mpi4py": ["parallel/comm.py"],
    "petsc4py": ["parallel/petsc.py"],
    "h5py": ["parallel/", "datasets/"],
    "xarray": ["opening.py", "datasets/"],
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
    "dask": ["launch.py"],
    "distributed": ["launch.py"],
    "dask_jobqueue": ["launch.py"],
    "matplotlib": ["report/"],
    "PIL": ["report/"],
    "imageio": ["report/"],
    "imageio_ffmpeg": ["report/"],
    "tensorboard": ["tracking.py"],
    "wandb": ["tracking.py"],
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
