"""Fields side by side: truth, prediction and their difference, drawn straight from the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Protocol

import numpy as np

from scaled_mpi.report import images


class Frames(Protocol):
    """A stored trajectory: shape (T, C, *grid), times, and frames one by one."""

    @property
    def shape(self) -> Sequence[int]:
        """Shape (T, C, *grid)."""
        ...

    @property
    def times(self) -> Sequence[float] | np.ndarray:
        """Times (T,) of the frames, in the trajectory's unit."""
        ...

    @property
    def channels(self) -> Sequence[str]:
        """Names of the C fields."""
        ...

    def read(self, frame: int, /) -> np.ndarray:
        """Return frame `frame` as an array (C, *grid)."""
        ...


@dataclass(frozen=True)
class Pictures:
    """Two trajectories shown beside each other; frames are matched by their times.

    `tile` is the lattice drawn over the fields, `trained_on` the shape of a training domain drawn
    to scale. `first_lead` is the lead of the prediction's first frame (0 if it stores the known
    frame too). `channel` is the channel shown (default: the last). `beside`: (label, frames) of
    fields shown before the pair, such as a coefficient; first frame and channel, each on its own
    scale. `steady`: a problem without time, whose one lead is not mentioned.
    """

    truth: Frames
    predicted: Frames
    tile: tuple[int, ...] | None = None
    trained_on: tuple[int, ...] | None = None
    first_lead: int = 1
    channel: int = -1
    truth_label: str = "simulator"
    predicted_label: str = "surrogate, coupled"
    heading: str = "The whole domain"
    beside: tuple[tuple[str, Frames], ...] = ()
    steady: bool = False

    @cached_property
    def matches(self) -> list[tuple[int, int, int]]:
        """(lead, truth frame, predicted frame) of every prediction that has a truth.

        Errors: `ValueError` if no prediction has one.
        """
        times = np.asarray(self.truth.times, np.float64)
        found = []
        for frame, time in enumerate(np.asarray(self.predicted.times, np.float64)):
            nearest = int(np.abs(times - time).argmin())
            lead = self.first_lead + frame
            if lead > 0 and abs(times[nearest] - time) <= 1e-6 * max(1.0, abs(time)):
                found.append((lead, nearest, frame))
        if not found:
            raise ValueError(
                "pictures: no frame of the prediction has a truth at the same time. "
                "Needed: trajectories with a common time"
            )
        return found

    @property
    def leads(self) -> list[int]:
        """Leads of the matched frames."""
        return [lead for lead, _, _ in self.matches]

    @property
    def axes(self) -> int:
        """Number of axes of the grid."""
        return len(self.truth.shape) - 2

    @property
    def channel_name(self) -> str:
        """Name of the shown channel."""
        return str(self.truth.channels[self.channel])

    def pair(self, lead: int) -> tuple[np.ndarray, np.ndarray]:
        """Return truth and prediction at a lead as planes (Y, X); of a volume the middle plane."""
        _, true, predicted = next(match for match in self.matches if match[0] == lead)
        return (
            _plane(self.truth.read(true)[self.channel]),
            _plane(self.predicted.read(predicted)[self.channel]),
        )

    def space_time(self) -> tuple[np.ndarray, np.ndarray]:
        """Return truth and prediction of a one-axis field at all leads: planes (lead, X)."""
        pairs = [self.pair(lead) for lead in self.leads]
        return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])

    def time(self, lead: int) -> float:
        """Return the time of a lead in the trajectory's own unit."""
        _, true, _ = next(match for match in self.matches if match[0] == lead)
        return float(self.truth.times[true])


def field_limits(planes: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentiles of planes (Y, X), the colour limits of a field."""
    values = _finite(planes)
    low, high = np.percentile(values, [0.5, 99.5]) if values.size else (0.0, 1.0)
    return float(low), float(high)


def error_limit(planes: Sequence[np.ndarray]) -> float:
    """Return the 99.5 percentile of absolute errors, planes (Y, X): a colour limit, never zero."""
    values = np.abs(_finite(planes))
    return max(float(np.percentile(values, 99.5)) if values.size else 1.0, 1e-12)


def strip(pictures: Pictures, lead: int) -> str:
    """Return HTML of truth, prediction and error at one lead.

    Tiles and a training domain are drawn to scale.
    """
    if pictures.axes == 1:
        true, predicted = pictures.space_time()
    else:
        true, predicted = pictures.pair(lead)
    low, high = field_limits([true])
    limit = error_limit([predicted - true])
    tile = pictures.tile[-2:] if pictures.tile and pictures.axes > 1 else None
    trained = pictures.trained_on[-2:] if pictures.trained_on and pictures.axes > 1 else None
    lattice = _lattice(true.shape, tile, None)
    scaled = _lattice(true.shape, tile, trained)
    name = escape(pictures.channel_name)
    panels = [
        *(_alone(label, frames) for label, frames in pictures.beside),
        (pictures.truth_label, true, low, high, images.FIELD, scaled, name),
        (pictures.predicted_label, predicted, low, high, images.FIELD, lattice, name),
        ("error", predicted - true, -limit, limit, images.ERROR, lattice, f"Δ{name}"),
    ]
    cells = "".join(
        f'<div class="panel"><h4>{escape(label)}</h4>'
        f'<div class="image">{image(plane, lower, upper, colour, label)}{overlay}</div>'
        f"{scale(lower, upper, colour, unit)}</div>"
        for label, plane, lower, upper, colour, overlay, unit in panels
    )
    return f'<div class="strip" style="--panels: {len(panels)}">{cells}</div>'


def _alone(label: str, frames: Frames) -> tuple[str, np.ndarray, float, float, str, str, str]:
    """A panel of one field on its own scale."""
    plane = _plane(frames.read(0)[0])
    return label, plane, *field_limits([plane]), images.FIELD, "", escape(str(frames.channels[0]))


def film(pictures: Pictures, leads: Sequence[int]) -> str:
    """Return HTML of small stills: one column a lead; rows truth, prediction and error."""
    pairs = {lead: pictures.pair(lead) for lead in leads}
    low, high = field_limits([true for true, _ in pairs.values()])
    limit = error_limit([predicted - true for true, predicted in pairs.values()])
    head = "".join(f"<span>jump {lead}</span>" for lead in leads)
    rows = [f"<span></span>{head}"]
    kinds = [
        (pictures.truth_label, lambda true, _: true, low, high, images.FIELD),
        (pictures.predicted_label, lambda _, predicted: predicted, low, high, images.FIELD),
        ("error", lambda true, predicted: predicted - true, -limit, limit, images.ERROR),
    ]
    for label, choose, lower, upper, colour in kinds:
        stills = "".join(
            image(
                images.shrink(choose(*pairs[lead]), 360),
                lower,
                upper,
                colour,
                f"{label}, jump {lead}",
            )
            for lead in leads
        )
        rows.append(f'<span class="row">{escape(label)}</span>{stills}')
    scales = scale(low, high, images.FIELD, escape(pictures.channel_name)) + scale(
        -limit, limit, images.ERROR, f"Δ{escape(pictures.channel_name)}"
    )
    columns = f"grid-template-columns: 6.5rem repeat({len(leads)}, 1fr)"
    return (
        f'<div class="film" style="{columns}">{"".join(rows)}</div>'
        f'<div class="scales">{scales}</div>'
    )


def _finite(planes: Sequence[np.ndarray]) -> np.ndarray:
    """All values but those of a prediction that blew up."""
    values = np.concatenate([np.asarray(plane, np.float64).ravel() for plane in planes])
    return values[np.isfinite(values)]


def _plane(field: np.ndarray) -> np.ndarray:
    values = np.asarray(field)
    if values.ndim == 1:
        return values[None, :]
    return values if values.ndim == 2 else values[values.shape[0] // 2]


def image(plane: np.ndarray, low: float, high: float, colour: str, label: str) -> str:
    """Return a plane (Y, X) as an <img>, its colours between low and high."""
    small = images.shrink(plane)
    sharp = ' class="sharp"' if max(plane.shape) <= 128 else ""
    return (
        f'<img{sharp} alt="{escape(label)}" width="{small.shape[1]}" '
        f'height="{small.shape[0]}" src="{images.png(small, low, high, colour)}">'
    )


def _lattice(
    shape: Sequence[int], tile: Sequence[int] | None, trained: Sequence[int] | None
) -> str:
    """The tiles' edges and the training domain as an overlay in units of cells."""
    rows, columns = shape
    parts = []
    if tile:
        lines = [f"M{x} 0V{rows}" for x in range(tile[1], columns, tile[1])]
        lines += [f"M0 {y}H{columns}" for y in range(tile[0], rows, tile[0])]
        parts.append(f'<path class="tiles" d="{"".join(lines)}"/>')
    if trained and trained[0] <= rows and trained[1] <= columns:
        height, width = trained
        # Twice: a white edge keeps the square visible on any colour.
        parts += [
            f'<rect class="{kind}" x="0" y="{rows - height}" width="{width}" height="{height}"/>'
            for kind in ("edge", "trained")
        ]
    if not parts:
        return ""
    return (
        f'<svg class="overlay" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" '
        f'aria-hidden="true">{"".join(parts)}</svg>'
    )


def scale(low: float, high: float, colour: str, unit: str) -> str:
    """Return HTML of the colour bar below an image."""
    # A limit that is zero but for rounding is said to be zero.
    first, last = (0.0 if abs(value) < 2e-3 * (high - low) else value for value in (low, high))
    return (
        f'<div class="scale"><span>{first:.2g}</span>'
        f'<i style="background:{images.gradient(colour)}"></i>'
        f"<span>{last:.2g}</span><b>{unit}</b></div>"
    )


def row(pictures: Sequence[tuple[str, np.ndarray, float, float, str]], across: int = 6) -> str:
    """Return HTML of planes side by side, with room for at least `across`.

    Each of `pictures` is a label, a plane (Y, X), its colour limits and its colour map.
    """
    empty = "<span></span>" * max(0, across - len(pictures))
    head = "".join(f"<span>{escape(label)}</span>" for label, *_ in pictures) + empty
    stills = "".join(
        f'<img class="sharp" alt="{escape(label)}" width="{plane.shape[1]}" '
        f'height="{plane.shape[0]}" src="{images.png(plane, low, high, colour)}">'
        for label, plane, low, high, colour in pictures
    )
    columns = f"grid-template-columns: repeat({max(len(pictures), across)}, 1fr)"
    return f'<figure><div class="film" style="{columns}">{head}{stills}</div></figure>'
