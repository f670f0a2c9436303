"""Truth, prediction and error side by side in time, as a movie the page carries inside."""

from __future__ import annotations

import importlib.util
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from scaled_mpi.report import images
from scaled_mpi.report.pictures import Pictures, error_limit, field_limits

PANEL = 384  # pixels a side of one panel
GAP = 6
BACKGROUND = (22, 24, 29)
FRAMES_A_SECOND = 8
MOST_FRAMES = 120


def movie(pictures: Pictures) -> str:
    """Return an HTML element that plays truth, prediction and error."""
    return play(lambda panel: frames(pictures, panel), "truth, prediction and error")


def play(stream: Callable[[int], Iterator[np.ndarray]], about: str) -> str:
    """Return an HTML element that plays: H.264 where imageio-ffmpeg is installed, else a GIF.

    `stream(side)` yields frames (Y, X, 3) in bytes, whose panels are `side` pixels wide. `about`
    is the movie's alternative text.
    """
    if importlib.util.find_spec("imageio_ffmpeg"):
        source = images.data_address(encode_mp4(stream(PANEL)), "video/mp4")
        return f'<video controls autoplay loop muted playsinline src="{source}"></video>'
    source = images.data_address(encode_gif(stream(PANEL // 2)), "image/gif")
    return f'<img class="movie" alt="movie of {about}" src="{source}">'


def frames(pictures: Pictures, panel: int) -> Iterator[np.ndarray]:
    """Yield frames (Y, X, 3) in bytes; both sides even, colours fixed for the whole movie."""
    leads = pictures.leads[:: -(-len(pictures.leads) // MOST_FRAMES)]
    marks = [pictures.pair(lead) for lead in {leads[0], leads[len(leads) // 2], leads[-1]}]
    low, high = field_limits([true for true, _ in marks])
    limit = error_limit([predicted - true for true, predicted in marks])
    for lead in leads:
        true, predicted = pictures.pair(lead)
        planes = (
            (true, low, high, images.FIELD),
            (predicted, low, high, images.FIELD),
            (predicted - true, -limit, limit, images.ERROR),
        )
        caption = f"jump {lead}   t = {pictures.time(lead):g}"
        yield frame(planes, caption, panel)


def frame(
    planes: Sequence[tuple[np.ndarray, float, float, str]], caption: str, panel: int
) -> np.ndarray:
    """Return one frame (Y, X, 3) in bytes: planes side by side.

    Each of `planes` is a plane (Y, X), its lower and upper colour limit and its colour map;
    `panel` is its longest side in pixels.
    """
    return _compose([_panel(*plane, panel) for plane in planes], caption)


def encode_mp4(stream: Iterator[np.ndarray]) -> bytes:
    """Return frames (Y, X, 3) as H.264, 4:2:0, index first: every browser plays it."""
    import imageio_ffmpeg

    first = next(stream)
    handle, path = tempfile.mkstemp(suffix=".mp4")
    os.close(handle)
    try:
        writer = imageio_ffmpeg.write_frames(
            path,
            (first.shape[1], first.shape[0]),
            fps=FRAMES_A_SECOND,
            codec="libx264",
            pix_fmt_out="yuv420p",
            quality=None,
            bitrate=None,
            macro_block_size=2,
            output_params=["-crf", "21", "-preset", "fast", "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )
        writer.send(None)
        writer.send(np.ascontiguousarray(first))
        for frame in stream:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        with open(path, "rb") as file:
            return file.read()
    finally:
        os.unlink(path)


def encode_gif(stream: Iterator[np.ndarray]) -> bytes:
    """Return frames (Y, X, 3) as an endless GIF on one palette of 256 colours."""
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in stream]
    palette = pictures[-1].quantize(256)
    reduced = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    memory = io.BytesIO()
    reduced[0].save(
        memory,
        "GIF",
        save_all=True,
        append_images=reduced[1:],
        loop=0,
        duration=1000 // FRAMES_A_SECOND,
    )
    return memory.getvalue()


def _panel(plane: np.ndarray, low: float, high: float, colour: str, side: int) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(images.colours(colour)[images.levels(plane, low, high)])
    scale = side / max(plane.shape)
    size = tuple(max(2, round(cells * scale / 2) * 2) for cells in plane.shape[::-1])
    sampling = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC
    return np.asarray(image.resize(size, sampling))


def _compose(panels: list[np.ndarray], caption: str) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    gap = np.full((panels[0].shape[0], GAP, 3), BACKGROUND, np.uint8)
    parted = [part for panel in panels for part in (gap, panel)][1:]
    image = Image.fromarray(np.concatenate(parted, axis=1))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(11, panels[0].shape[0] // 24))
    box = draw.textbbox((10, 8), caption, font=font)
    draw.rectangle((box[0] - 6, box[1] - 4, box[2] + 6, box[3] + 4), fill=BACKGROUND)
    draw.text((10, 8), caption, font=font, fill=(240, 240, 240))
    return np.asarray(image)
