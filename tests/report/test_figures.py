"""Curves are read back from the SVG: where points lie, what is written, which colours."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from scaled_mpi.report import figures
from scaled_mpi.report.palette import INK, METHODS, in_order, method


def strokes(svg: str, colour: str) -> list[np.ndarray]:
    """Points (n, 2) of the paths that are stroked in a colour."""
    found = []
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        if f"stroke: {colour}" in element.get("style", "") and element.get("clip-path"):
            numbers = re.findall(r"[-\d.]+", element.get("d"))
            found.append(np.array(numbers, float).reshape(-1, 2))
    return found


def words(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_lines_lie_where_their_logarithms_say():
    leads = [1.0, 2.0, 3.0, 4.0]
    series = {"surrogate": (leads, [0.01, 0.1, 0.1, 1.0]), "persistence": (leads, [0.5] * 4)}
    svg = figures.by_lead(series, "accuracy", "VRMSE", {})
    line = max(strokes(svg, METHODS["surrogate"].colour), key=len)
    x, y = line[:4].T
    np.testing.assert_allclose(np.diff(x) / (x[1] - x[0]), 1, rtol=1e-4)
    np.testing.assert_allclose(np.diff(y) / (y[1] - y[0]), [1, 0, 1], atol=1e-4)
    assert y[3] < y[0]
    for word in ("surrogate, coupled", "persistence", "VRMSE", "jumps ahead"):
        assert word in words(svg)


def test_the_ink_is_the_colour_of_the_page_and_no_name_is_used_twice():
    svg = figures.by_lead({"simulator": ([1, 2], [1.0, 1.1])}, "seams", "index", {}, log=False)
    assert INK not in svg and "currentColor" in svg
    names = re.findall(r' id="([^"]+)"', svg)
    assert len(names) == len(set(names))
    assert not re.search(r"<svg[^>]* (width|height)=", svg)


def test_worthless_predictions_do_not_squeeze_the_rest():
    leads = list(range(1, 11))
    series = {"surrogate": (leads, [0.1] * 10), "quadratic": (leads, [10.0**n for n in leads])}
    svg = figures.by_lead(series, "accuracy", "VRMSE", {})
    assert "0.1" in words(svg) and "1000" not in words(svg)


def test_histogram_counts_the_sweeps_and_lines_meet_the_tolerance():
    mismatch = {"1": ([2, 3], [0.1, 0.01]), "2": ([2, 3, 4], [0.2, 0.02, 0.002])}
    svg = figures.convergence(mismatch, [3, 4, 4, 4], 0.01)
    text = words(svg).split()
    assert {"1", "3", "tolerance"} <= set(text) and "sweeps" in text


@pytest.mark.parametrize("mismatch", [{}, {"1": ([1, 2], [0.0, 0.0])}])
def test_sweeps_without_a_mismatch_are_drawn_alone(mismatch):
    ElementTree.fromstring(figures.convergence(mismatch, [1, 1], None))


def test_spectra_leave_out_the_mean_and_the_corners():
    k = [0.0, 0.1, 0.2, 0.5, 0.7]
    power = [100.0, 1.0, 0.1, 0.01, 1e-30]
    svg = figures.spectra({1: {"surrogate": (k, power)}, 10: {"simulator": (k, power)}}, {})
    line = max(strokes(svg, METHODS["surrogate"].colour), key=len)
    assert len(line) == 3
    assert "jump 10" in words(svg)


def test_cost_puts_the_simulator_as_a_line_and_every_other_as_a_point():
    times = {"surrogate": 0.4, "persistence": 0.0, "simulator": 0.01}
    svg = figures.cost(times, {"surrogate": 0.05, "persistence": 0.6, "simulator": 0.0}, {})
    assert len(strokes(svg, "currentColor")) > 0
    assert "simulator (truth)" in words(svg)


def test_methods_keep_their_order_and_unknown_ones_a_colour():
    assert in_order(["own", "linear", "surrogate"]) == ["surrogate", "linear", "own"]
    assert method("own_idea", {}).label == "own idea"
    assert method("wide_halo", {"wide_halo": "halo 8"}).label == "halo 8"
    strokes_ = {(one.colour, str(one.dash)) for one in METHODS.values()}
    assert len(strokes_) == len(METHODS)
