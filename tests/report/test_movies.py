"""Movies are read back: number of frames, size, and the colours of known cells."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from scaled_mpi.report import images, movies
from scaled_mpi.report.pictures import Pictures, field_limits


def test_frames_hold_three_panels_of_the_right_colours(pair):
    truth, predicted = pair((32, 32))
    shown = Pictures(truth, predicted)
    frame = list(movies.frames(shown, 64))[3]
    assert frame.shape == (64, 3 * 64 + 2 * movies.GAP, 3) and frame.dtype == np.uint8
    # Nearest pixels: each cell is 2 x 2 pixels; the error is 0.1 everywhere, the scale's end.
    error = frame[:, -64:]
    assert (error == images.colours("RdBu_r")[255]).all()
    middle = frame[40:, 64 + movies.GAP : 128 + movies.GAP]
    limits = field_limits([truth.read(frame)[-1] for frame in (2, 5, 7)])
    cells = images.levels(truth.read(5)[-1][0] + 0.1, *limits)
    np.testing.assert_array_equal(middle[0, ::2], images.colours("viridis")[cells])


def test_long_forecasts_are_thinned(pair):
    shown = Pictures(*pair((8, 8), jumps=301))
    assert len(list(movies.frames(shown, 16))) == 101


def test_mp4_plays_back_what_was_written(pair, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    shown = Pictures(*pair((32, 32)))
    written = list(movies.frames(shown, 64))
    path = tmp_path / "movie.mp4"
    path.write_bytes(movies.encode_mp4(iter(written)))
    reader = imageio_ffmpeg.read_frames(path)
    meta = next(reader)
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    assert meta["fps"] == movies.FRAMES_A_SECOND
    height, width, _ = written[0].shape
    read = [np.frombuffer(one, np.uint8).reshape(height, width, 3) for one in reader]
    assert len(read) == len(written) == 6
    for one, other in zip(read, written, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 6


def test_without_the_encoder_the_movie_is_a_gif(pair, monkeypatch):
    monkeypatch.setattr(movies.importlib.util, "find_spec", lambda name: None)
    shown = Pictures(*pair((32, 32)))
    content = re.search(r'src="data:image/gif;base64,([^"]+)"', movies.movie(shown)).group(1)
    gif = Image.open(io.BytesIO(base64.b64decode(content)))
    assert gif.n_frames == 6 and gif.info["loop"] == 0
    gif.seek(4)
    first = list(movies.frames(shown, movies.PANEL // 2))[4]
    assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - first).mean() < 6
