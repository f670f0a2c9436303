"""The files that every project has: one version, pinned dependencies, licence, citation."""

import re
import tomllib
from pathlib import Path

import yaml

import scaled_mpi

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUILT = {"petsc4py"}  # in the version of the system's PETSc


def test_the_version_stands_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"] and "version" not in PROJECT["project"]
    attribute = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == "scaled_mpi.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", scaled_mpi.__version__)


def test_the_citation_and_the_changelog_know_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == scaled_mpi.__version__ and citation["license"] == "MIT"
    heads = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "Unreleased" and scaled_mpi.__version__ in heads


def test_every_dependency_is_pinned():
    project = PROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pinned if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    wanted = {re.match(r"[\w-]+", entry)[0] for entries in lists for entry in entries}
    assert wanted - {line.partition("==")[0] for line in pinned} == BUILT


def test_licence_and_types_are_shipped():
    assert PROJECT["project"]["license"] == "MIT"
    files = [ROOT / name for name in PROJECT["project"]["license-files"]]
    assert "MIT License" in files[0].read_text()
    data = PROJECT["tool"]["setuptools"]["package-data"]
    assert "py.typed" in data["scaled_mpi"] and (ROOT / "scaled_mpi" / "py.typed").exists()


def test_hooks_call_the_linter_of_the_environment():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    commands = [hook["entry"].split()[:2] for hook in hooks[0]["hooks"]]
    assert commands[:2] == [["ruff", "check"], ["ruff", "format"]]
    last = re.compile(hooks[0]["hooks"][2]["entry"])
    assert last.search("no newline") and last.search("two\n\n") and not last.search("one\n")
