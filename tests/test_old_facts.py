"""Pages of runs of version 0.1: the same from old names, and from names with places.

`old_facts/KIND.jsonl` holds facts of smoke runs of version 0.1, `old_facts/cells.json` the cells
of all tables that this version showed of them.
"""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from scaled_mpi.experiments.dynamics import page as dynamics
from scaled_mpi.experiments.elliptic import page as elliptic
from scaled_mpi.experiments.elliptic import steps_page
from scaled_mpi.experiments.enlargement import page as enlargement
from scaled_mpi.experiments.ensemble import page as ensemble
from scaled_mpi.experiments.forecast import page as forecast
from scaled_mpi.experiments.gaussian import page as gaussian
from scaled_mpi.fact_names import each_once
from scaled_mpi.facts import FactLog, read_facts
from scaled_mpi.report.page import Contents
from scaled_mpi.report.sections import listed, spent
from scaled_mpi.report.series import Numbers

KEYS = ("name", "value", "unit", "stage", "ranks")
FOLDER = Path(__file__).with_name("old_facts")


def panel(draw):
    return lambda contents: draw(contents.numbers.facts).content()


SECTIONS = {
    "forecast": forecast.SECTIONS[:-2],
    "elliptic": (elliptic.solves, spent),
    "implicit": (listed(steps_page.SECTIONS), spent),
    "dynamics": (listed(dynamics.ABOVE), listed(dynamics.BELOW), spent),
    "ensemble": (listed(ensemble.SECTIONS, "labels"), spent),
    "gaussian": (panel(gaussian.TablePanel), spent),
    "enlargement": (panel(lambda facts: enlargement.ScorePanel(facts, {})), spent),
}


def shown(kind, facts):
    contents = Contents(Numbers(facts))
    return "".join(section(contents) for section in SECTIONS[kind])


def cells(html):
    return re.findall(r"<(?:td|b)\b[^>]*>(.*?)</(?:td|b)>", re.sub("(?s)<svg.*?</svg>", "", html))


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_page_of_old_facts_shows_what_it_showed(kind, tmp_path):
    old = read_facts(FOLDER / f"{kind}.jsonl")
    assert cells(shown(kind, old)) == json.loads((FOLDER / "cells.json").read_text())[kind]
    written = tmp_path / "facts.jsonl"  # as a run of today writes them
    for fact in each_once(old):
        place = {key: value for key, value in fact.items() if key not in KEYS}
        log = FactLog(written, fact["stage"], fact["ranks"])
        log.record(fact["name"], fact["value"], fact["unit"], **place)
    new = read_facts(written)
    assert Numbers(new).facts == Numbers(each_once(new)).facts == Numbers(old).facts
    assert {fact["name"] for fact in old} <= {fact["name"] for fact in new}


if __name__ == "__main__":
    found = {kind: cells(shown(kind, read_facts(FOLDER / f"{kind}.jsonl"))) for kind in SECTIONS}
    (FOLDER / "cells.json").write_text(json.dumps(found, indent=0, ensure_ascii=False) + "\n")
