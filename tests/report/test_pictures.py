"""Pixels against the colour map, overlays in units of cells, frames matched by time."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from scaled_mpi.report import images
from scaled_mpi.report.pictures import Pictures, error_limit, field_limits, film, strip


def pixels(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")) for one in found
    ]


def test_levels_are_linear_clipped_and_defined_for_what_is_not_finite():
    values = np.array([[-1.0, 0.0, 0.5, 1.0, 2.0, np.nan, np.inf]])
    assert images.levels(values, 0, 1).tolist() == [[0, 0, 128, 255, 255, 128, 255]]
    assert (images.levels(values[:, :2], 1.0, 1.0) == 128).all()


def test_shrinking_takes_means_of_blocks():
    plane = np.arange(48.0).reshape(6, 8)
    small = images.shrink(plane, 4)
    np.testing.assert_allclose(small, plane.reshape(3, 2, 4, 2).mean((1, 3)))
    assert images.shrink(plane, 8) is plane
    assert images.shrink(np.ones((1, 5000)), 1024).shape == (1, 1000)


def test_frames_are_matched_by_time(pair):
    truth, predicted = pair()
    shown = Pictures(truth, predicted)
    assert shown.matches[0] == (1, 2, 0) and shown.leads == [1, 2, 3, 4, 5, 6]
    assert shown.time(3) == 40.0 and shown.channel_name == "v"
    true, forecast = shown.pair(2)
    np.testing.assert_allclose(forecast - true, 0.1)
    known_frame_too = Pictures(truth, predicted, first_lead=0)
    assert known_frame_too.leads == [1, 2, 3, 4, 5]
    predicted.times = predicted.times + 1.0
    with pytest.raises(ValueError, match="same time"):
        _ = Pictures(truth, predicted).matches


def test_a_volume_shows_its_middle_plane(pair):
    truth, predicted = pair((5, 6, 8))
    true, _ = Pictures(truth, predicted).pair(1)
    np.testing.assert_array_equal(true, truth.read(2)[-1, 2])


def test_the_strip_shows_the_values_in_the_colours_of_the_scale(pair):
    truth, predicted = pair()
    html = strip(Pictures(truth, predicted), lead=1)
    left, right, error = pixels(html)
    plane = truth.read(2)[-1]
    low, high = field_limits([plane])
    np.testing.assert_array_equal(left, images.colours("viridis")[images.levels(plane, low, high)])
    np.testing.assert_array_equal(
        right, images.colours("viridis")[images.levels(plane + 0.1, low, high)]
    )
    # An error of 0.1 everywhere is the end of its own symmetric scale.
    assert error_limit([np.full((3, 3), -0.1)]) == pytest.approx(0.1)
    assert (error == images.colours("RdBu_r")[255]).all(axis=-1).mean() > 0.99


def test_tiles_and_training_domain_are_drawn_to_scale(pair):
    html = strip(Pictures(*pair(), tile=(16, 16), trained_on=(16, 24)), lead=1)
    assert html.count('viewBox="0 0 48 32"') == 3
    assert html.count('d="M16 0V32M32 0V32M0 16H48"') == 3
    boxes = re.findall(r'class="trained" x="0" y="16" width="24" height="16"', html)
    assert len(boxes) == 1
    assert "trained" not in strip(Pictures(*pair(), trained_on=(64, 64)), lead=1)


def test_a_line_is_shown_in_space_and_time(pair):
    truth, predicted = pair((48,))
    left, *_ = pixels(strip(Pictures(truth, predicted, tile=(16,)), lead=1))
    assert left.shape == (6, 48, 3)


def test_film_has_a_still_for_each_lead_and_row(pair):
    html = film(Pictures(*pair()), [1, 3, 6])
    assert len(pixels(html)) == 9
    assert html.index("jump 1") < html.index("jump 3") < html.index("jump 6")


def test_limits_ignore_what_blew_up():
    plane = np.array([[0.0, 1.0, np.nan, np.inf]])
    low, high = field_limits([plane])
    assert 0 <= low < high <= 1
    assert error_limit([np.full((2, 2), np.nan)]) == 1.0


def test_a_field_beside_the_pair_comes_first_on_its_own_scale(pair):
    truth, predicted = pair()
    html = strip(Pictures(truth, predicted, beside=(("medium", predicted),)), lead=1)
    medium, left, *_ = pixels(html)
    assert html.index("medium") < html.index("simulator") and "--panels: 4" in html
    assert (medium == images.colours("viridis")[128]).all()  # channel u is 0.6 everywhere
    assert len(np.unique(left.reshape(-1, 3), axis=0)) > 20
