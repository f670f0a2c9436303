"""Make the tables of the result pages from the facts of finished runs.

    python docs/results/make.py                    write all tables anew
    python docs/results/make.py take outputs/ddm   store the facts of finished runs, then the same

A page is Markdown. A comment declares a table; the lines from there to `<!-- end -->` are made:

    <!-- table
    rows:
      surrogate: run=ddm method=surrogate
    columns:
      VRMSE after 1 jump: vrmse lead=1
    -->

A cell shows the fact that the words of its row and its column name together: a name, `run=NAME`
and the places of the measurement. `PLACE=*` shows the smallest and the largest value along a
place. A cell is empty where no such fact is stored. `facts/NAME.jsonl` holds the facts of one run;
its first line holds the command, the commit and the number of ranks.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scaled_mpi.config import InputError
from scaled_mpi.experiments import load
from scaled_mpi.fact_names import each_once, placed
from scaled_mpi.facts import read_facts
from scaled_mpi.files import write_text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FACTS = HERE / "facts"
TABLE = re.compile(r"(<!-- table\n(?P<spec>.*?)-->\n)(?P<made>.*?)(<!-- end -->)", re.DOTALL)

# Places that count the points of a curve. `take` stores a point only where a table shows it.
CURVES = {"lead", "jump", "k", "bin", "sweep", "level", "channel", "iteration", "time", "noise"}
ABOUT = ("stage", "ranks", "unit")  # keys of a fact that are no places


@dataclass(frozen=True)
class Fact:
    """One measured value; `places` holds every place, whichever way the run wrote it."""

    name: str
    places: Mapping[str, Any]
    value: Any


@dataclass(frozen=True)
class Run:
    """The stored facts of one run; `about` holds `run`, `command`, `commit` and `ranks`."""

    about: Mapping[str, Any]
    facts: tuple[Fact, ...]


def fact_of(raw: Mapping[str, Any]) -> Fact:
    """Return a line of facts.jsonl as name and places; a position inside a name is a place."""
    raw = placed(raw)
    places = {key: raw[key] for key in raw if key not in ("name", "value", *ABOUT)}
    return Fact(raw["name"], places, raw["value"])


def query(words: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the places of `name place=value ...`; the name is "" where none is."""
    name, places = "", {}
    for word in words.split():
        key, equals, value = word.partition("=")
        if equals:
            places[key] = _number(value)
        else:
            name = word
    return name, places


def agrees(fact: Fact, name: str, places: Mapping[str, Any]) -> bool:
    """Return whether a fact has a name and all of some places; `*` is any value of a place."""
    return fact.name == name and all(
        key in fact.places and value in ("*", fact.places[key]) for key, value in places.items()
    )


def cell(runs: Mapping[str, Run], words: str) -> str:
    """Return the text of one cell, "" where no fact is stored.

    Among the facts that agree, those with the fewest further places count, and the last of these.
    """
    name, places = query(words)
    run = runs.get(places.pop("run", ""))
    found = [fact for fact in run.facts if agrees(fact, name, places)] if run else []
    if not found:
        return ""
    fewest = min(len(fact.places) for fact in found)
    values = [fact.value for fact in found if len(fact.places) == fewest]
    if "*" in places.values():
        return f"{shown(min(values))} to {shown(max(values))}"
    return shown(values[-1])


def shown(value: Any) -> str:
    """Return a number with three significant digits, and a word as it is."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e+" in text else text


def table(spec: Mapping[str, Any], runs: Mapping[str, Run]) -> str:
    """Return the lines of one table and its origin; the origin alone where no run is stored."""
    cells = [
        [label, *(cell(runs, f"{row} {column}") for column in spec["columns"].values())]
        for label, row in spec["rows"].items()
    ]
    names = [query(words)[1]["run"] for words in _words(spec) if "run=" in words]
    names = list(dict.fromkeys(names))
    lines = [f"- {_origin(name, runs.get(name))}" for name in names]
    if any(name in runs for name in names):
        heads = ["", *spec["columns"]]
        rows = [heads, ["---"] * len(heads), *cells]
        lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows] + ["", *lines]
    return "\n".join(lines) + "\n"


def remade(text: str, runs: Mapping[str, Run]) -> str:
    """Return a page with all of its tables made anew."""
    return TABLE.sub(
        lambda found: f"{found[1]}\n{table(yaml.safe_load(found['spec']), runs)}\n{found[4]}", text
    )


def pages() -> list[Path]:
    """Return the pages of results."""
    return sorted(HERE.glob("*.md"))


def stored() -> dict[str, Run]:
    """Return every stored run by name."""
    runs = {}
    for path in sorted(FACTS.glob("*.jsonl")):
        about, *lines = read_facts(path)
        runs[path.stem] = Run(about, tuple(map(fact_of, each_once(lines))))
    return runs


def take(folder: Path, command: str | None = None) -> Path:
    """Store the facts of a results folder as `facts/NAME.jsonl`; return the path.

    Single numbers are kept, and the points of curves that a table shows. `command` is the line
    that made the run; None: `./run CONFIG`, where CONFIG holds the same experiment. Errors:
    `InputError` for a folder without facts, or an experiment that differs from its file.
    """
    experiment = load(folder / "config.yaml")
    facts = read_facts(folder / "facts" / "facts.jsonl")
    if not facts:
        raise InputError(f"{folder}: no facts. Needed: the results folder of a finished run.")
    wanted = [query(words) for words in _cells() if f"run={experiment.name} " in f"{words} "]
    for _, places in wanted:
        places.pop("run")
    kept = [raw for raw in each_once(facts) if _kept(fact_of(raw), wanted)]
    about = {
        "run": experiment.name,
        "command": command or _command_of(experiment, folder),
        "commit": _commit(folder),
        "ranks": facts[-1]["ranks"],
    }
    path = FACTS / f"{experiment.name}.jsonl"
    FACTS.mkdir(exist_ok=True)
    write_text(path, "".join(json.dumps(line) + "\n" for line in [about, *kept]))
    return path


def _kept(fact: Fact, wanted: list[tuple[str, dict[str, Any]]]) -> bool:
    return not CURVES & set(fact.places) or any(agrees(fact, *one) for one in wanted)


def _words(spec: Mapping[str, Any]) -> Iterator[str]:
    """The words of every cell of a table."""
    for row in spec["rows"].values():
        for column in spec["columns"].values():
            yield f"{row} {column}"


def _cells() -> Iterator[str]:
    """The words of every cell of every page."""
    for page in pages():
        for found in TABLE.finditer(page.read_text()):
            yield from _words(yaml.safe_load(found["spec"]))


def _config_of(name: str) -> Path:
    """The configuration file of the experiment `name`."""
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        if re.search(rf"^name: {re.escape(name)}$", path.read_text(), re.MULTILINE):
            return path
    raise InputError(f"{name}: no file in configs/ has this name. Needed: --command.")


def _command_of(experiment: Any, folder: Path) -> str:
    config = _config_of(experiment.name)
    if load(config) != experiment:
        raise InputError(f"{folder}: it differs from {config}. Needed: --command '...'.")
    return f"./run {config.relative_to(ROOT)}"


def _commit(folder: Path) -> str:
    """The commit of every stage, in the order of their ends; one entry where all agree."""
    found = [json.loads(path.read_bytes()) for path in folder.glob("*/provenance.json")]
    found.sort(key=lambda one: str(one.get("finished", "")))
    return ", ".join(dict.fromkeys(one.get("git_commit") or "unknown" for one in found))


def _origin(name: str, run: Run | None) -> str:
    """The sentence that names the command and the commit of a run."""
    if run is None:
        config = _config_of(name).relative_to(ROOT)
        return f"No facts of `./run {config}` are stored yet."
    about = run.about
    ranks = f"{about['ranks']} rank{'s' * (about['ranks'] != 1)}"
    return f"Measured by `{about['command']}` at commit {about['commit']} on {ranks}."


def _number(text: str) -> Any:
    """A number where the text is one, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def main() -> int:
    """Store facts, write the pages; 2 for a folder whose facts cannot be stored."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("action", nargs="?", choices=("take",), help="store facts first")
    words.add_argument("folders", nargs="*", type=Path, help="results folders")
    words.add_argument("--command", help="the line that made the run, where it had overrides")
    given = words.parse_args()
    try:
        for folder in given.folders:
            print(take(folder, given.command).relative_to(ROOT))
        runs = stored()
        for page in pages():
            old = page.read_text()
            if (new := remade(old, runs)) != old:
                write_text(page, new)
                print(page.relative_to(ROOT))
    except InputError as error:
        print(f"make.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
