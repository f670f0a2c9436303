"""Arrays to coloured pixels and to the text of a page."""

from __future__ import annotations

import base64
import io
from functools import cache

import numpy as np

FIELD = "viridis"
ERROR = "RdBu_r"
LARGEST = 1024  # pixels along the longest side of a still


@cache
def colours(name: str) -> np.ndarray:
    """Return a perceptual colour map as bytes (n, 3) with n = 256."""
    import matplotlib

    return matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]


def levels(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map values of a plane (Y, X) from [low, high] to bytes 0..255 (Y, X), clipped.

    Equal limits and values that are no numbers give the middle.
    """
    if not high > low:
        return np.full(plane.shape, 128, np.uint8)
    values = np.nan_to_num(np.asarray(plane, np.float64), nan=(low + high) / 2)
    scaled = np.clip((values - low) / (high - low), 0.0, 1.0)
    return np.rint(255.0 * scaled).astype(np.uint8)


def shrink(plane: np.ndarray, largest: int = LARGEST) -> np.ndarray:
    """Average a plane (Y, X) over whole blocks of cells until no side exceeds `largest`.

    Cells beyond the last whole block are cut off. Returns a plane (y, x).
    """
    factor = -(-max(plane.shape) // largest)
    if factor <= 1:
        return plane
    rows, columns = (max(1, cells // factor) for cells in plane.shape)
    step_y, step_x = min(factor, plane.shape[0]), min(factor, plane.shape[1])
    cut = plane[: rows * step_y, : columns * step_x]
    return cut.reshape(rows, step_y, columns, step_x).mean(axis=(1, 3))


def png(plane: np.ndarray, low: float, high: float, name: str) -> str:
    """Return a plane (Y, X) as a data address: an 8-bit palette PNG, lossless and small.

    Colours of the map `name` run from low to high.
    """
    from PIL import Image

    image = Image.fromarray(levels(plane, low, high))
    image.putpalette(colours(name).tobytes())
    memory = io.BytesIO()
    image.save(memory, "PNG", optimize=True)
    return data_address(memory.getvalue(), "image/png")


def data_address(content: bytes, kind: str) -> str:
    """Return bytes as an address that a page can carry inside."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def gradient(name: str, stops: int = 16) -> str:
    """Return the colour map as a CSS gradient from left to right."""
    chosen = colours(name)[np.linspace(0, 255, stops).astype(int)]
    parts = ", ".join("#" + "".join(f"{part:02x}" for part in colour) for colour in chosen)
    return f"linear-gradient(to right, {parts})"
