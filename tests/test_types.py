"""Types: mypy finds no error in the package, and annotations of `Any` become fewer."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_ANY = 168  # annotations that are `Any` and nothing else; lower it when you remove one
SECONDS = 600  # mypy from an empty cache computes for 50 seconds, from a full one for 2


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy")
@pytest.mark.timeout(SECONDS + 30)
def test_mypy_finds_no_error():
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir"]
    done = subprocess.run(
        [*command, str(ROOT / "build" / "mypy"), "scaled_mpi"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("ruff") is None, reason="needs ruff")
def test_annotations_of_any_do_not_become_more():
    done = subprocess.run(
        ["ruff", "check", "--no-cache", "--isolated", "--select=ANN401", "--output-format=json"]
        + ["scaled_mpi"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    places = [f"{one['filename']}:{one['location']['row']}" for one in json.loads(done.stdout)]
    assert len(places) <= MOST_ANY, "\n".join(places)


def test_every_ignored_error_has_its_code():
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "scaled_mpi").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.count("# type: ignore") > line.count("# type: ignore[")
    ]
    assert bare == []
