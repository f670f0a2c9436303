"""Sections that pages of several kinds share; one without its facts or fields is empty text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from scaled_mpi.report import figures, movies, tables
from scaled_mpi.report.page import Contents
from scaled_mpi.report.pictures import Pictures, film, strip
from scaled_mpi.report.series import Numbers, Series, number, quantity


def section(heading: str, sentence: str, content: str, note: str = "") -> str:
    """One section of the page; `sentence`, `content` and `note` are HTML."""
    below = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<section><h2>{escape(heading)}</h2><p class="lead">{sentence}</p>{content}{below}'
        "</section>"
    )


def listed(
    rows: Sequence[tuple[str, str, Callable[..., str]]], *arguments: Any
) -> Callable[[Contents], str]:
    """A section for every (heading, sentence, content) of `rows` whose content is not empty.

    `content` is called with the page's numbers, and with its labels where `arguments` says so.
    """

    def shown(contents: Contents) -> str:
        given = [getattr(contents, name) for name in ("numbers", *arguments)]
        return "".join(
            section(heading, sentence, content)
            for heading, sentence, make in rows
            if (content := make(*given))
        )

    return shown


def panels(contents: Contents) -> str:
    """The panels that a kind hands in, a section each."""
    return "".join(
        section(panel.heading, panel.sentence, panel.content()) for panel in contents.panels
    )


def domain(contents: Contents) -> str:
    """Truth, prediction, error: one strip a pair of trajectories."""
    parts = []
    for shown in contents.pictures:
        lead = max([lead for lead in shown.leads if lead <= 10], default=shown.leads[0])
        content = f"<figure>{strip(shown, lead)}</figure>"
        parts.append(section(shown.heading, _scene(shown, lead), content))
    return "".join(parts)


def motion(contents: Contents) -> str:
    """The first pair as a movie and as stills for paper."""
    moving = [one for one in contents.pictures if one.axes > 1 and len(one.leads) > 1]
    if not moving:
        return ""
    shown = moving[0]
    leads = shown.leads
    names = "".join(
        f"<span>{escape(name)}</span>"
        for name in (shown.truth_label, shown.predicted_label, "error")
    )
    stills = sorted({leads[round(part * (len(leads) - 1))] for part in (0, 0.25, 0.5, 1)})
    return section(
        "In time",
        f"{len(leads)} jumps from the same last known frame; the colours mean the "
        "same in all frames, so a pale error is a small one.",
        f'<figure><div class="over">{names}</div>{movies.movie(shown)}</figure>'
        f"<figure>{film(shown, stills)}</figure>",
    )


def training(contents: Contents) -> str:
    """Losses of every training of the experiment."""
    curves = {
        name: lines for name, events in contents.events.items() if (lines := _losses(events))
    }
    if not curves:
        return ""
    return section(
        "How it was trained",
        "Loss by step; the gap between the lines is what does not carry over to unseen data.",
        figures.training(curves),
    )


def spent(contents: Contents) -> str:
    """Where the job's time went, of a kind with no other costs."""
    seconds = seconds_of_stages(contents.numbers)
    if not seconds:
        return ""
    return section("What it costs", "Seconds on this machine.", stage_bars(seconds))


def stage_bars(seconds: Mapping[str, float]) -> str:
    """Bars of the stages' seconds under a heading."""
    return f"<h4>Where the time of the job went</h4>{figures.stages(seconds)}"


def facts(contents: Contents) -> str:
    """All facts."""
    if not contents.numbers.facts:
        return ""
    return section(
        "All facts",
        "Every number that was measured; a click on a heading sorts.",
        tables.facts(contents.numbers),
    )


def origin(contents: Contents) -> str:
    """The resolved configuration and where the run comes from."""
    parts = []
    if contents.provenance:
        parts.append(tables.mapping(contents.provenance))
    if contents.config_text:
        parts.append(f"<pre>{escape(contents.config_text)}</pre>")
    if not parts:
        return ""
    return section(
        "Where it comes from",
        "With the configuration below, all defaults filled in, the same fields come out again.",
        "".join(parts),
    )


def seconds_of_stages(numbers: Numbers) -> dict[str, float]:
    """Seconds of the stages: facts named time.STAGE or time.STAGE.PART that STAGE recorded."""
    found = {}
    for fact in numbers.facts:
        own = f"time.{fact.get('stage')}"
        if fact["name"] == own or fact["name"].startswith(own + "."):
            found[fact["name"].removeprefix("time.").replace(".", ", ")] = number(fact["value"])
    return found


def _losses(events: Sequence[Mapping[str, Any]]) -> Series:
    """Training and validation loss by step (or epoch, where no step was recorded)."""
    lines: dict[str, dict[float, float]] = {"training": {}, "validation": {}}
    for event in events:
        if event.get("moment") != "on_epoch_end":
            continue
        at = event.get("step")
        x = float(at if at is not None else event["epoch"])
        for key, name in (("training", "train_loss"), ("validation", "val_loss")):
            if event.get(name) is not None and number(event[name]) > 0:
                lines[key][x] = number(event[name])
    return {
        key: (sorted(line), [line[x] for x in sorted(line)]) for key, line in lines.items() if line
    }


def _scene(shown: Pictures, lead: int) -> str:
    shape = shown.truth.shape[2:]
    said = [f"{_by(shape)} cells"]
    if shown.axes == 1:
        said.append("position to the right, time downwards")
    elif not shown.steady:
        said.append(f"after {lead} jump{'s' if lead > 1 else ''}")
    if shown.tile and shown.axes > 1:
        count = math.prod(n // t for n, t in zip(shape, shown.tile, strict=True))
        said.append(f"{count} tiles of {_by(shown.tile)} (faint lattice)")
    if shown.trained_on:
        times = math.prod(shape) / math.prod(shown.trained_on)
        said.append(
            f"{quantity(times)} times the {_by(shown.trained_on)} domain it was trained "
            "on (orange square, to scale)"
        )
    if shown.axes == 3:
        said.append("the middle plane is shown")
    return ", ".join(said) + "."


def _by(shape: Sequence[int]) -> str:
    return " × ".join(str(cells) for cells in shape)
