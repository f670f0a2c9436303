"""The page of patterns: values and cosines that are read back, published figures beside them."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from scaled_mpi.experiments.dynamics import page as patterns
from scaled_mpi.report import movies
from scaled_mpi.report.series import Numbers


def fact(name, value, **place):
    return {"name": name, "value": value, "unit": "", "stage": "evaluate", **place}


@pytest.fixture
def numbers():
    return Numbers(
        [
            fact("cos.trainingfree.waves", 0.4375, spread=0.1),
            fact("cos.flow.waves", 0.25),
            fact("cos.random.waves", 0.125, spread=0.05),
            fact("cos.fair.trainingfree.waves", -0.3125),
            fact("cos.trainingfree.spots", 0.0625),
            fact("stationarity.flow.waves", 0.03),
            fact("lyapunov.truth.lorenz", 0.91),
            fact("lyapunov.path.flow.lorenz", 0.07),
            fact("lyapunov.separation.flow.lorenz", 0.041),
            fact("cos.trainingfree.lorenz", 0.1),
        ]
    )


def test_bars_are_as_high_as_the_facts_and_marks_as_the_published_values(numbers):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    patterns._bars(axes, numbers, ["waves", "spots"], "cos")
    heights = [
        [bar.get_height() for bar in bars.patches]
        for bars in axes.containers
        if hasattr(bars, "patches")
    ]
    assert heights == [[0.4375, 0.0625], [0.25, 0.0], [0.125, 0.0]]
    marks = [line.get_ydata() for line in axes.lines if line.get_marker() == "D"]
    np.testing.assert_array_equal(marks, [[0.589, np.nan], [0.182, np.nan]])


def test_the_chart_leaves_out_what_is_no_pattern(numbers):
    page = patterns.chart(numbers)
    assert "waves" in page and "spots" in page and "lorenz" not in page
    assert patterns.chart(Numbers([])) == patterns.chaos(Numbers([])) == ""


def test_tables_say_the_facts_beside_the_published_values(numbers):
    told = patterns.marched(numbers)
    assert "0.438" in told and "0.589" in told and "0.105" in told
    chaos = patterns.chaos(numbers)
    for value in ("0.910", "0.070", "0.041", "0.906", "0.025"):
        assert value in chaos


def panel(shape=(8, 10)):
    rng = np.random.default_rng(0)
    rate = rng.normal(size=(2, *shape))
    film = np.stack([np.zeros(shape), np.ones(shape)])
    return patterns.PatternPanel(
        "waves",
        {
            "snapshots": rng.normal(size=(3, 2, *shape)),
            "rate": rate,
            "trainingfree": -2.0 * rate,
            "flow": rate,
            "truth": rate,
            "marched.trainingfree": rate,
            "marched.flow": 0.0 * rate,
            "film.steps": np.array([0, 4]),
            "film.truth": film,
            "film.trainingfree": film,
            "film.flow": film,
        },
    )


def test_fields_are_labelled_with_their_cosine_and_marches_shown_without_noise():
    found = panel()
    label, plane, low, high, _ = found._change("field", "trainingfree", "rate")
    assert label.endswith("cos\N{NO-BREAK SPACE}\N{MINUS SIGN}1.00") and -low == high
    np.testing.assert_array_equal(plane, found.arrays["trainingfree"][1])
    label, plane, *_ = found._change("march", "marched.flow", "truth")
    assert label.endswith("0.00")
    np.testing.assert_array_equal(plane, 1.0)


def test_the_panel_has_seven_pictures_a_movie_and_the_other_snapshots():
    page = panel().content()
    assert page.count('<img class="sharp"') == 7 + 2
    assert "<video" in page or '<img class="movie"' in page
    assert "snapshot 3" in page and "along the learned flow" in page


def test_a_frame_has_its_planes_side_by_side():
    plane = np.linspace(0, 1, 64).reshape(8, 8)
    made = movies.frame([(plane, 0.0, 1.0, "viridis")] * 4, "step 3", 32)
    assert made.shape == (32, 4 * 32 + 3 * movies.GAP, 3)
    last, before = made[:, -32:], made[:, -64 - movies.GAP : -32 - movies.GAP]  # captions are left
    np.testing.assert_array_equal(last, before)
    assert (made[:, -32 - movies.GAP : -32] == movies.BACKGROUND).all()
