"""What the code keeps to, where a machine can tell: size, annotations, safety, light imports."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("scaled_mpi", "tests", "benchmarks")
PATHS = sorted(path.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("*.py"))
PACKAGE = [path for path in PATHS if path.parts[0] == "scaled_mpi"]

HEAVY = ("torch", "numba", "petsc4py", "mpi4py", "dask", "matplotlib", "xarray", "h5py")
LIGHT = ("scaled_mpi", "scaled_mpi.experiment", "scaled_mpi.run")


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_a_file_can_be_read_in_one_sitting(path):
    assert len((ROOT / path).read_text().splitlines()) <= 450


def public_functions(tree: ast.Module) -> list[ast.FunctionDef]:
    owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    return [node for owner in owners for node in owner.body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_public_functions_are_annotated(path):
    for function in public_functions(ast.parse((ROOT / path).read_text())):
        given = function.args
        bare = [a.arg for a in given.posonlyargs + given.args + given.kwonlyargs
                if a.annotation is None and a.arg not in ("self", "cls")]
        assert not bare and function.returns is not None, f"{function.name}: {bare}"


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_nothing_that_runs_code_found_in_data(path):
    """No pickle in any dress, no shell, no YAML beyond the safe loader."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            banned = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
            assert not banned & {name.split(".")[0] for name in names}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load", "torch.save", "yaml.load",
                                  "yaml.unsafe_load", "os.system", "os.popen"}, called
            loose = {(word.arg, ast.unparse(word.value)) for word in node.keywords}
            assert not loose & {("allow_pickle", "True"), ("shell", "True")}, called


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_nothing_is_left_undone(path):
    text = (ROOT / path).read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)


@pytest.mark.parametrize("module", LIGHT)
def test_importing_is_light(module):
    code = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                           check=True)
    assert found.stdout.split() == []


@pytest.mark.skipif(shutil.which("ruff") is None, reason="needs ruff")
def test_lint_is_clean():
    done = subprocess.run(["ruff", "check", "--no-cache", "--output-format=concise", *FOLDERS],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
