"""Names of facts: the table both ways, the lines for one release, no position inside a name."""

import ast
import json
from pathlib import Path

import pytest

from scaled_mpi.fact_names import RENAMED, ROWS, each_once, old_forms, placed, places
from scaled_mpi.facts import FactLog, read_facts
from scaled_mpi.opening import open_outputs

PACKAGE = Path(__file__).resolve().parents[1] / "scaled_mpi"

NAMES = [
    ("vrmse.jump1.surrogate", "vrmse.lead", {"method": "surrogate", "lead": 1}),
    ("vrmse.jump10.halo8", "vrmse.lead", {"method": "wide_halo", "lead": 10}),
    ("vrmse.mean.linear", "vrmse.mean", {"method": "linear"}),
    ("mae.persistence", "mae", {"method": "persistence"}),
    ("spread.skill.lead7", "spread.skill.lead", {"method": "surrogate", "lead": 7}),
    ("time.simulator.jump", "time.jump", {"method": "simulator"}),
    ("iterations.N4", "iterations", {"method": "certified", "tiles": 4}),
    ("iterations.exact.N4", "iterations", {"method": "exact", "tiles": 4}),
    ("time.asm.N16", "time", {"method": "asm", "tiles": 16}),
    ("time.certified", "time", {"method": "certified"}),
    ("time.setup.N16", "time.setup", {"tiles": 16}),
    ("halo.bytes.N4", "halo.bytes", {"tiles": 4}),
    ("floor.ratio.hats", "floor.ratio", {"space": "hats"}),
    (
        "implicit.error.newton.learned.dt0.5",
        "implicit.error",
        {"method": "newton", "solver": "learned", "dt": 0.5},
    ),
    ("implicit.guess.none.dt1e+06", "implicit.guess", {"method": "none", "dt": 1e6}),
    ("cos.fair.flow.maze", "cos.fair", {"field": "flow", "system": "maze"}),
    ("lyapunov.truth.lorenz", "lyapunov", {"field": "truth", "system": "lorenz"}),
    ("time.score.maze", "time.score", {"system": "maze"}),
    ("time.train.windows", "time.train", {"network": "windows"}),
    ("dataset.sha256.truth", "dataset.sha256", {"set": "truth"}),
    (
        "cov.error.tiled.2d.squared_exponential.l16",
        "cov.error.tiled",
        {"axes": 2, "kernel": "squared_exponential", "length": 16.0},
    ),
    ("r2.forecast", "r2", {"method": "surrogate"}),
    ("r2.ceiling", "r2", {"method": "ceiling"}),
    ("order.nematic", "order", {"parameter": "nematic"}),
]
PLAIN = ("time.fit", "time.stage", "seam.index", "halo.bytes.counted", "residual.true", "mae.lead")


def fact(name, value=1.5, **where):
    return {"name": name, "value": value, "unit": "", "stage": "s", "ranks": 2, **where}


@pytest.mark.parametrize(("old", "name", "where"), NAMES)
def test_the_table_reads_and_writes_an_old_name(old, name, where):
    found = placed(fact(old))
    assert found == fact(name, **where)
    assert places(found) == where
    assert placed(found) is found
    assert old_forms(found) == [fact(old)]


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name_stays(name):
    assert placed(fact(name)) == fact(name) and old_forms(fact(name)) == []


def test_no_name_of_the_table_is_an_old_name():
    for row in ROWS:
        new = fact(row.name, **dict.fromkeys((*row.inside, *row.known), "x"))
        assert placed(new) is new


def test_points_of_curves_have_no_name_of_their_own():
    where = {"method": "surrogate", "lead": 1}
    assert old_forms(fact("vrmse.lead", **where, channel="u")) == []
    assert old_forms(fact("vrmse.lead", method="surrogate", lead=3)) == []
    assert old_forms(fact("spectrum.error", **where, band="large")) == []
    assert [one["name"] for one in old_forms(fact("time", method="asm", tiles=4))] == [
        "time.asm.N4"
    ]


def test_a_run_writes_both_names_and_readers_keep_one(tmp_path):
    (tmp_path / "facts").mkdir()
    path = tmp_path / "facts" / "facts.jsonl"
    FactLog(path, "s", 2).record("iterations", 9, method="exact", tiles=4)
    new, old = read_facts(path)
    assert new == fact("iterations", 9, method="exact", tiles=4)
    assert old == {**fact("iterations.exact.N4", 9), RENAMED: "iterations"}
    assert each_once([new, old]) == each_once([fact("iterations.exact.N4", 9)]) == [new]


def test_old_curves_and_their_named_points_are_one_fact():
    where = {"method": "halo8", "lead": 1}
    found = each_once([fact("vrmse.lead", **where), fact("vrmse.jump1.halo8")])
    assert found == [fact("vrmse.lead", method="wide_halo", lead=1)]


def test_an_old_folder_answers_old_and_new_names(tmp_path):
    (tmp_path / "facts").mkdir()
    lines = [
        fact("vrmse.lead", 0.5, method="halo8", lead=1),
        fact("vrmse.jump1.halo8", 0.5),
        fact("fallback.tiles.N4", 1),
        fact("fallback.tiles", 3),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "facts" / "facts.jsonl").write_text(text)
    outputs = open_outputs(tmp_path)
    assert outputs.fact("vrmse.lead", method="wide_halo", lead=1) == 0.5
    assert outputs.fact("vrmse.jump1.halo8") == 0.5
    assert outputs.fact("fallback.tiles", tiles=4) == 1 and outputs.fact("fallback.tiles") == 3
    assert outputs.latest["vrmse.jump1.halo8"] == 0.5 and outputs.latest["fallback.tiles"] == 3
    with pytest.raises(KeyError, match="tiles=9: not measured. Needed: tiles=4; no place"):
        outputs.fact("fallback.tiles", tiles=9)
    with pytest.raises(KeyError, match="seam.index: not measured. Needed: .*fallback.tiles"):
        outputs.fact("seam.index")


# Names whose variable part is a word of the table in the file's header, and no position.
WORDS = {
    "f'score.{name}'",
    "f'{stage}.loss'",
    "f'{stage}.throughput'",
    "f'time.{stage}'",
    "f'halo.{name}'",
    "f'compressor.{name}'",
    "f'implicit.{name}'",
    "name",  # of a list whose names are plain
}


def names_recorded(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "record"
        ):
            yield node.args[0]


def test_no_record_builds_its_name_from_a_position():
    found = [
        (path.relative_to(PACKAGE), ast.unparse(name))
        for path in PACKAGE.rglob("*.py")
        for name in names_recorded(path)
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str))
    ]
    assert found and [one for one in found if one[1] not in WORDS] == []


def test_no_record_uses_an_old_name():
    texts = [
        name.value
        for path in PACKAGE.rglob("*.py")
        for name in names_recorded(path)
        if isinstance(name, ast.Constant)
    ]
    assert len(texts) > 80
    assert [text for text in texts if placed(fact(text))["name"] != text] == []
