"""Pages of results: their tables are those of the stored facts, whichever way facts are named."""

import json

import pytest

from scaled_mpi.config import InputError

from .pages import ROOT, module

make = module("docs_results_make", ROOT / "docs" / "results" / "make.py")
SPEC = {
    "rows": {"network": "run=toy method=certified", "exact": "run=toy method=exact"},
    "columns": {"4 tiles": "iterations tiles=4", "s": "time tiles=4"},
}


def run_of(*raw):
    about = {"run": "toy", "command": "./run toy.yaml", "commit": "abc", "ranks": 2}
    return {"toy": make.Run(about, tuple(map(make.fact_of, raw)))}


@pytest.mark.parametrize("page", make.pages(), ids=lambda path: path.stem)
def test_a_page_shows_its_facts(page):
    text = page.read_text()
    assert make.remade(text, make.stored()) == text, "stale: python docs/results/make.py"


def test_every_cell_names_a_fact_of_a_known_run():
    cells = [make.query(words) for words in make._cells()]
    assert cells and all(name for name, _ in cells)
    for run in {places["run"] for _, places in cells}:
        assert make._config_of(run).is_file()


@pytest.mark.parametrize(
    ("old", "name", "places"),
    [
        ("iterations.exact.N4", "iterations", {"tiles": 4, "method": "exact"}),
        ("iterations.N16", "iterations", {"tiles": 16, "method": "certified"}),
        ("time.exact.N4", "time", {"tiles": 4, "method": "exact"}),
        ("vrmse.jump10.halo8", "vrmse.lead", {"lead": 10, "method": "wide_halo"}),
        ("vrmse.lead", "vrmse.lead", {}),
        ("vrmse.median.linear", "vrmse.median", {"method": "linear"}),
        ("mae.linear", "mae", {"method": "linear"}),
        ("mae.mean.lead", "mae.mean.lead", {}),
        ("spread.skill.lead3", "spread.skill.lead", {"lead": 3, "method": "surrogate"}),
        ("r2.forecast", "r2", {"method": "surrogate"}),
        ("r2.forecast.spread", "r2.spread", {"method": "surrogate"}),
        ("floor.ratio.hats", "floor.ratio", {"space": "hats"}),
        (
            "implicit.time.newton.learned.dt1000",
            "implicit.time",
            {"method": "newton", "solver": "learned", "dt": 1000},
        ),
        ("implicit.time.explicit.dt0.5", "implicit.time", {"method": "explicit", "dt": 0.5}),
        (
            "variance.ratio.2d.exponential.l32",
            "variance.ratio",
            {"axes": 2, "kernel": "exponential", "length": 32},
        ),
        ("cos.fair.flow.waves", "cos.fair", {"field": "flow", "system": "waves"}),
        ("seam.index", "seam.index", {}),
        ("time.stage", "time.stage", {}),
    ],
)
def test_old_names_become_places(old, name, places):
    fact = make.fact_of({"name": old, "value": 1, "unit": "", "stage": "s", "ranks": 2})
    assert (fact.name, fact.places) == (name, places)


def test_places_may_be_in_the_name_or_beside_it():
    old = run_of({"name": "iterations.exact.N4", "value": 9})
    new = run_of({"name": "iterations", "value": 9, "tiles": 4, "method": "exact"})
    assert make.table(SPEC, old) == make.table(SPEC, new)
    assert "| exact | 9 |  |\n" in make.table(SPEC, old)
    assert "`./run toy.yaml` at commit abc on 2 ranks" in make.table(SPEC, old)


def test_a_cell_takes_the_fewest_places_and_the_last_value():
    runs = run_of(
        {"name": "mae", "value": 1.0, "method": "a"},
        {"name": "mae", "value": 0.123456, "method": "a"},
        {"name": "mae.lead", "value": 3.0, "method": "a", "lead": 1},
        {"name": "mae.lead", "value": 20000.0, "method": "a", "lead": 2},
    )
    assert make.cell(runs, "run=toy method=a mae") == "0.123"
    assert make.cell(runs, "run=toy method=a mae.lead lead=*") == "3 to 20000"
    assert make.cell(runs, "run=toy method=b mae") == ""
    assert make.cell(runs, "run=other method=a mae") == ""


def test_facts_are_taken_and_a_stale_page_is_found(tmp_path, monkeypatch):
    page = tmp_path / "toy.md"
    page.write_text(
        "# Toy\n\n<!-- table\nrows:\n  one: run=toy vrmse.lead method=a lead=1\n"
        "columns:\n  value: ''\n-->\nstale\n<!-- end -->\n"
    )
    monkeypatch.setattr(make, "HERE", tmp_path)
    monkeypatch.setattr(make, "FACTS", tmp_path / "facts")
    folder = tmp_path / "outputs"
    (folder / "facts").mkdir(parents=True)
    (folder / "couple").mkdir()
    (folder / "couple" / "provenance.json").write_text('{"git_commit": "abc"}')
    (folder / "config.yaml").write_text("kind: gaussian\nname: toy\ngeneration: {}\n")
    raw = [
        {"name": "seam.index", "value": 1.0, "ranks": 2},
        {"name": "vrmse.lead", "value": 0.5, "ranks": 2, "method": "a", "lead": 1},
        {"name": "vrmse.lead", "value": 0.6, "ranks": 2, "method": "a", "lead": 2},
    ]
    (folder / "facts" / "facts.jsonl").write_text("".join(json.dumps(f) + "\n" for f in raw))
    with pytest.raises(InputError, match="no file in configs/ has this name"):
        make.take(folder)
    path = make.take(folder, "./run toy.yaml")
    about, *kept = map(json.loads, path.read_text().splitlines())
    assert about == {"run": "toy", "command": "./run toy.yaml", "commit": "abc", "ranks": 2}
    assert kept == raw[:2]
    made = make.remade(page.read_text(), make.stored())
    assert "| one | 0.5 |" in made and "stale" not in made
    assert make.remade(made, make.stored()) == made


def test_an_experiment_that_differs_from_its_file_needs_its_command(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text((ROOT / "configs" / "ddm.yaml").read_text())
    assert make._command_of(make.load(config), tmp_path) == "./run configs/ddm.yaml"
    other = make.load(config, ["coupling.halo=6"])
    with pytest.raises(InputError, match="--command"):
        make._command_of(other, tmp_path)
