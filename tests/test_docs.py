"""Links, commands and blocks of code of README and docs/."""

import ast
from pathlib import Path

import numpy as np
import pytest
import yaml

from scaled_mpi.engine import stages
from scaled_mpi.engine.exports import EXPORTS
from scaled_mpi.engine.present import present
from scaled_mpi.experiments import from_tree, kind_of, load
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.run import parser

from .pages import PAGES, ROOT, anchors, blocks, codes, commands, links, module_of, prose
from .words import long_sentences

FOLDERS = ("configs/", "jobs/", "benchmarks/", "docs/", "scaled_mpi/", "tests/")
OWN = ("mine.yaml", "mine:Heat")  # files of the reader's


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for link in links(PAGES[name]):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("name", PAGES)
def test_sentences_are_short(name):
    assert long_sentences(prose(PAGES[name]), 1, lists=True) == []


@pytest.mark.parametrize("name", PAGES)
def test_named_files_exist(name):
    for code in codes(PAGES[name]):
        if code.startswith(FOLDERS) and not any(sign in code for sign in (" ", "*", "NAME", "…")):
            assert (ROOT / code).exists(), code


@pytest.mark.parametrize("name", PAGES)
def test_commands_can_be_typed(name):
    for words in commands(PAGES[name]):
        paths = [w for w in words if w.startswith(FOLDERS) and "=" not in w]
        assert all((ROOT / path).exists() for path in paths), words
        if "-m" in words and words[words.index("-m") + 1].startswith("scaled_mpi."):
            module = words[words.index("-m") + 1].replace(".", "/")
            assert (ROOT / f"{module}.py").exists(), words
        given = arguments(words)
        if given and given[0] not in OWN:
            check_run(given)


def arguments(words: list[str]) -> list[str]:
    """The arguments of `scaled_mpi.run` in a command that runs a configuration, else none."""
    if "scaled_mpi.run" in words:
        words = words[words.index("scaled_mpi.run") + 1 :]
    elif words[0] in ("./run", "sbatch"):
        words = words[1:]
    else:
        return []
    if "-n" in words:
        place = words.index("-n")
        words = words[:place] + words[place + 2 :]
    return words if words and words[0].endswith(".yaml") else []


def check_run(words: list[str]) -> None:
    """Flags exist; the configuration loads with its overrides; stages and exports exist."""
    given = parser().parse_intermixed_args(words)
    experiment = load(ROOT / given.config, given.overrides, given.preset)
    kind = kind_of(experiment)
    names = [stage.name for stage in kind.stages] + ["report"]
    assert {given.stage, given.redo} <= {None, *names}, words
    assert given.export is None or given.export in {**EXPORTS, **kind.exports}, words
    for flag in ("member", "status"):
        assert not getattr(given, flag) or flag in kind.commands, words


def test_commands_are_found():
    text = "`./run configs/ddm.yaml` is\n\n```\n./run test   # all\n```\n`./run NAME`"
    assert commands(text) == [["./run", "test"], ["./run", "configs/ddm.yaml"]]
    line = "mpirun -n 2 python -m scaled_mpi.run a.yaml"
    assert arguments(line.split()) == ["a.yaml"]


def test_blocks_of_yaml_load():
    for text in PAGES.values():
        for block in blocks(text, "yaml"):
            assert from_tree(yaml.safe_load(block))


def test_blocks_of_python_are_python():
    for text in PAGES.values():
        for block in blocks(text, "python"):
            ast.parse(block)


@pytest.fixture
def examples(tmp_path):
    """The classes of docs/own_simulator.md."""
    text = "\n".join(blocks(PAGES["docs/own_simulator.md"], "python"))
    return module_of("docs_examples", text, tmp_path)


def test_the_smallest_members_keep_their_contracts(examples):
    from scaled_mpi.compressors.coders import checked_coder
    from scaled_mpi.local_solvers.solvers import checked_solver
    from scaled_mpi.surrogates.operators import checked_operator

    field = np.arange(32.0).reshape(2, 4, 4)
    coder = checked_coder(examples.Average())
    assert coder.decode(coder.encode(field)).shape == field.shape
    moved = checked_operator(examples.Shift()).advance(field[None], None, None)
    assert np.array_equal(moved, field[:, 1:-1, :-2])
    checked_solver(examples.Jacobi())


def test_the_smallest_kind_runs_and_shows_a_page(examples, tmp_path):
    kind, comm = examples.KIND, SerialComm()
    experiment = kind.settings(name="count", below=5)
    found = stages.artefacts(kind, experiment, tmp_path / "artefacts", 1)
    for _ in stages.run_stages(kind, experiment, found, comm, say=lambda line: None):
        page = present(kind, experiment, found, tmp_path / "count", comm, False)
    assert page == tmp_path / "count" / "report.html" and Path(page).is_file()
    assert '"value": 10' in (found["add"].path / "facts.jsonl").read_text()
