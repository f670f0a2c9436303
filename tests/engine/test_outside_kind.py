"""A kind of experiment in a package of its own: one module, one entry point, no file changed here.

The toy is a random walk: `walk` draws steps, `spread` compares the variance of the ends with the
number of steps, which is exact in the mean.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MODULE = Path(__file__).with_name("walks.py")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the package and what pip would leave beside it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(MODULE, folder / "walks.py")
    info = folder / "walks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: walks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[scaled_mpi.experiments]\nwalk = walks:KIND\nbroken = walks:NOTHING\n"
    )
    (folder / "walk.yaml").write_text("kind: walk\nname: stroll\nseed: 3\nwalkers: 400\n")
    return folder


def command(site, *arguments, ranks=0):
    launcher = ["mpirun", "-n", str(ranks)] if ranks else []
    return subprocess.run(
        [*launcher, sys.executable, "-m", "scaled_mpi.run", *map(str, arguments)],
        cwd=site,
        env={**os.environ, "PYTHONPATH": f"{site}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def facts_of(folder):
    lines = (folder / "stroll" / "facts" / "facts.jsonl").read_text().splitlines()
    return {fact["name"]: fact["value"] for fact in map(json.loads, lines)}


def test_it_plans_runs_resumes_and_makes_a_page(site):
    planned = command(site, "walk.yaml", "--dry-run", "--outputs", "out")
    assert planned.returncode == 0 and "walkers     400" in planned.stdout
    assert not (site / "out").exists()
    first = command(site, "walk.yaml", "--stage", "walk", "--outputs", "out")
    assert first.returncode == 0 and "spread" not in first.stdout
    whole = command(site, "walk.yaml", "--outputs", "out")
    assert "walk: done before" in whole.stdout
    assert whole.stdout.strip().endswith("out/stroll/report.html")
    page = (site / "out" / "stroll" / "report.html").read_text()
    assert "How far they walk" in page and "kind: walk" in page
    facts = facts_of(site / "out")
    assert facts["variance"] == pytest.approx(facts["variance.exact"], rel=0.25)
    again = command(site, "out/stroll", "--redo", "spread")
    assert again.returncode == 0 and facts_of(site / "out")["variance"] == facts["variance"]
    assert command(site, "walk.yaml", "--status", "--outputs", "out").stdout == "walk done: True\n"


def test_it_runs_from_python_and_on_two_ranks(site, mpirun):
    code = "import scaled_mpi as sm; print(sm.run('walk.yaml', outputs='py').latest['variance'])"
    alone = subprocess.run(
        [sys.executable, "-c", code],
        cwd=site,
        env={**os.environ, "PYTHONPATH": f"{site}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    done = command(site, "walk.yaml", "--outputs", "two", ranks=2)
    assert done.returncode == 0, done.stderr
    assert float(alone.stdout.splitlines()[-1]) == facts_of(site / "two")["variance"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["walkers=1"], "walkers: 1 is not allowed"),
        (["walker=3"], "walker: 3 is not allowed: unknown key"),
        (["--stage", "run"], "stage"),
        (["--member", "train:1"], "--member"),
        (["--export", "npz"], "npz"),
        (["--redo", "fit"], "fit"),
    ],
)
def test_bad_input_is_one_line(site, changes, words):
    done = command(site, "walk.yaml", *changes, "--outputs", "none")
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (site / "none").exists()


def test_a_broken_kind_is_one_line_where_it_is_named_and_stops_no_other(site):
    (site / "broken.yaml").write_text("kind: broken\nname: x\n")
    done = command(site, "broken.yaml")
    assert done.returncode == 2 and "walks:NOTHING cannot be loaded" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    unknown = command(site, "broken.yaml", "kind=nothing")
    assert unknown.returncode == 2
