"""The whole page: what it says of known facts, what it leaves out, that it stands alone."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from scaled_mpi.experiments.forecast.page import SECTIONS
from scaled_mpi.fact_names import placed
from scaled_mpi.report.page import Contents, write_report
from scaled_mpi.report.pictures import Pictures
from scaled_mpi.report.series import Numbers

VOID = {"meta", "img", "br", "link", "input"}


class Balance(HTMLParser):
    """Fails where a tag closes that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def headings(page: str) -> list[str]:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser.headings


def write_page(folder, title, facts, partial=False, **contents):
    """The page of a forecast with these facts."""
    return write_report(folder, title, SECTIONS, Contents(Numbers(facts), **contents), partial)


@pytest.fixture(scope="module")
def written() -> list[str]:
    """The page of a finished job, once it is written."""
    return []


@pytest.fixture
def page(tmp_path, facts, events, pair, written) -> str:
    if written:
        return written[0]
    path = write_page(
        tmp_path / "ddm",
        "waves <large>",
        facts,
        events={"surrogate": events},
        pictures=[Pictures(*pair(), tile=(16, 16), trained_on=(16, 16))],
        config_text="title: a < b & c\n",
        provenance={"command": "run --x"},
    )
    assert path == tmp_path / "ddm" / "report.html"
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
    written.append(path.read_text(encoding="utf-8"))
    return written[0]


def test_a_finished_job_has_all_sections_in_reading_order(page):
    assert headings(page) == [
        "The whole domain",
        "In time",
        "How far it can be trusted",
        "Do the tiles agree?",
        "Is the texture right?",
        "Can the tiles be seen?",
        "How it was trained",
        "What it costs",
        "What crossed between ranks",
        "All facts",
        "Where it comes from",
    ]


def test_numbers_of_the_facts_are_said(page):
    for words in (
        "1.004",
        "never",
        "40 ms",
        "12 KiB",
        "3 MiB",
        "persistence 0.5",
        "6 tiles of 16 × 16",
        "6 times the 16 × 16 domain",
        "close 75 % of the gap",
        "the simulator is the cheaper one",
    ):
        assert words in page, words


def test_every_fact_stands_in_a_table(page, facts):
    for fact in map(placed, facts):
        value = fact["value"]
        said = "∞" if value == float("inf") else f"{value:.6g}"
        said = str(value) if isinstance(value, int) else said
        assert fact["name"] in page and f">{said}</td>" in page, fact


def test_the_page_needs_nothing_from_outside(page):
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(one.startswith(("data:", "#")) for one in addresses)
    assert "@import" not in page and "url(http" not in page
    assert len(page) < 15e6


def test_text_of_the_user_cannot_become_markup(page):
    assert "a &lt; b &amp; c" in page and "waves &lt;large&gt;" in page


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ("", []),
        ("time.couple", ["What it costs", "All facts"]),
        ("vrmse.lead", ["How far it can be trusted", "All facts"]),
        ("halo", ["What crossed between ranks", "All facts"]),
        ("sweeps", ["Do the tiles agree?", "All facts"]),
    ],
)
def test_sections_without_facts_are_left_out(tmp_path, facts, kept, expected):
    some = [fact for fact in facts if kept and fact["name"].startswith(kept)]
    page = write_page(tmp_path, "part", some).read_text(encoding="utf-8")
    assert headings(page) == expected
    assert 'class="cards"></div>' not in page


def test_a_halo_that_covers_the_reach_has_no_sweeps_to_show(tmp_path):
    facts = [{"name": "sweeps.jump", "value": 1, "jump": jump} for jump in (1, 2)]
    page = write_page(tmp_path, "exact", facts).read_text(encoding="utf-8")
    assert headings(page) == ["All facts"]


def test_a_prediction_that_blew_up_is_still_reported(tmp_path, facts, pair):
    for fact in facts:
        if fact["name"] == "vrmse.lead" and fact["method"] == "surrogate" and fact["lead"] > 2:
            fact["value"] = float("nan") if fact["lead"] % 2 else float("inf")
    truth, predicted = pair()
    whole = predicted.read
    predicted.read = lambda frame: whole(frame) * (float("nan") if frame > 3 else 1.0)
    path = write_page(tmp_path, "blown", facts, pictures=[Pictures(truth, predicted)])
    assert "How far it can be trusted" in headings(path.read_text(encoding="utf-8"))


def test_a_running_job_says_so_reloads_and_is_replaced_as_a_whole(tmp_path, facts):
    early = write_page(tmp_path, "ddm", facts[:5], partial=True)
    text = early.read_text(encoding="utf-8")
    assert "5 facts so far" in text and 'http-equiv="refresh"' in text
    before = early.stat().st_ino
    late = write_page(tmp_path, "ddm", facts)
    assert late == early and late.stat().st_ino != before
    assert "refresh" not in late.read_text(encoding="utf-8")


def test_trainings_can_be_several(tmp_path, events):
    page = write_page(tmp_path, "two", [], events={"autoencoder": events, "stepper": events})
    text = page.read_text(encoding="utf-8")
    assert "autoencoder" in text and "stepper" in text


def test_importing_the_report_loads_no_drawing_library():
    code = (
        "import sys, scaled_mpi.report, scaled_mpi.metrics\n"
        "names = {'matplotlib', 'PIL', 'imageio_ffmpeg', 'torch', 'scipy'}\n"
        "heavy = names & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
