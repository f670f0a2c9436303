"""What the code keeps to, where a machine can tell: size, annotations, safety, light imports."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [name for name in ("scaled_mpi", "tests", "benchmarks") if (ROOT / name).is_dir()]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for name in FOLDERS
    for path in sorted((ROOT / name).rglob("*.py"))
}
PACKAGE = {name: text for name, text in TEXTS.items() if name.startswith("scaled_mpi/")}

HEAVY = ("torch", "numba", "petsc4py", "mpi4py", "dask", "matplotlib", "xarray", "h5py")
LIGHT = ("scaled_mpi", "scaled_mpi.experiments", "scaled_mpi.run")
BANNED_IMPORTS = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
BANNED_CALLS = {
    "eval",
    "exec",
    "torch.load",
    "torch.save",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
}
BANNED_WORDS = {
    ("allow_pickle", "True"),
    ("shell", "True"),
    ("Loader", "yaml.Loader"),
    ("Loader", "yaml.FullLoader"),
    ("Loader", "yaml.UnsafeLoader"),
}


def test_a_file_can_be_read_in_one_sitting():
    lengths = {name: text.count("\n") for name, text in TEXTS.items()}
    limits = {name: 400 if name in PACKAGE else 450 for name in TEXTS}
    assert {name: lines for name, lines in lengths.items() if lines > limits[name]} == {}


def crowded(text: str, most: int = 8) -> list[str]:
    """Functions with more parameters than `most`; kernels that numba compiles may have more."""
    found = []
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef):
            continue
        if any(ast.unparse(one).startswith("numba.") for one in function.decorator_list):
            continue
        args = function.args
        names = [arg.arg for arg in args.posonlyargs + args.args + args.kwonlyargs]
        if len([name for name in names if name not in ("self", "cls")]) > most:
            found.append(function.name)
    return found


def test_no_function_has_more_than_eight_parameters():
    found = {name: crowded(text) for name, text in PACKAGE.items()}
    assert {name: functions for name, functions in found.items() if functions} == {}


def test_the_count_of_parameters_counts():
    assert crowded("def f(self, a, b, /, c, *, d): ...", 3) == ["f"]
    assert crowded("def f(self, a, b, /, c, *, d): ...", 4) == []
    assert crowded("@numba.njit(**KEYS)\ndef f(a, b): ...", 1) == []


def asks_for_a_kind(text: str) -> list[str]:
    """Calls of isinstance or issubclass on a class of experiments."""
    return [
        ast.unparse(call)
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("isinstance", "issubclass")
        and len(call.args) == 2
        and re.search(r"\w*Experiment\b", ast.unparse(call.args[1]))
    ]


def test_no_code_asks_for_the_class_of_an_experiment():
    found = {name: asks_for_a_kind(text) for name, text in PACKAGE.items()}
    assert {name: calls for name, calls in found.items() if calls} == {}
    assert asks_for_a_kind("isinstance(x, (int, a.CityExperiment))") != []


def test_the_engine_probes_no_attributes():
    """What the engine needs of a kind or a member stands in a contract."""
    calls = {
        name: [ast.unparse(n) for n in ast.walk(ast.parse(text)) if _called(n) == "hasattr"]
        for name, text in PACKAGE.items()
        if name.startswith("scaled_mpi/engine/")
    }
    assert len(calls) > 5 and {name: found for name, found in calls.items() if found} == {}


def _called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def unannotated(text: str) -> list[str]:
    """Public functions and methods of a module that leave a type out."""
    tree = ast.parse(text)
    owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    found = []
    for function in (node for owner in owners for node in owner.body):
        if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
            continue
        given = function.args
        named = [
            arg
            for arg in given.posonlyargs + given.args + given.kwonlyargs
            if arg.arg not in ("self", "cls")
        ]
        if function.returns is None or any(arg.annotation is None for arg in named):
            found.append(function.name)
    return found


def test_public_functions_are_annotated():
    found = {name: unannotated(text) for name, text in PACKAGE.items()}
    assert {name: bare for name, bare in found.items() if bare} == {}


def dangers(text: str) -> list[str]:
    """Uses of pickle in any dress, of a shell, of a YAML loader that builds objects."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            found += BANNED_IMPORTS & {name.split(".")[0] for name in names}
        elif isinstance(node, ast.Call):
            found += BANNED_CALLS & {ast.unparse(node.func)}
            words = {(word.arg, ast.unparse(word.value)) for word in node.keywords}
            found += [f"{word}={value}" for word, value in BANNED_WORDS & words]
    return found


def test_no_data_is_ever_run_as_code():
    found = {name: dangers(text) for name, text in PACKAGE.items()}
    assert {name: uses for name, uses in found.items() if uses} == {}


def test_the_search_for_dangers_finds_them():
    assert dangers("import pickle") == ["pickle"]
    assert dangers("from joblib.numpy import load") == ["joblib"]
    assert dangers("torch.load(path)") == ["torch.load"]
    assert dangers("numpy.load(path, allow_pickle=True)") == ["allow_pickle=True"]


def test_nothing_is_left_undone():
    word = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert [name for name, text in PACKAGE.items() if word.search(text)] == []


@pytest.mark.parametrize("module", LIGHT)
def test_importing_is_light(module):
    code = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []


@pytest.mark.skipif(shutil.which("ruff") is None, reason="needs ruff")
def test_lint_is_clean():
    done = subprocess.run(
        ["ruff", "check", "--no-cache", "--output-format=concise", *FOLDERS, "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
