"""Sections that pages of several kinds share; one without its facts or fields is empty text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from scaled_mpi.fact_names import positions
from scaled_mpi.report import figures, movies, tables
from scaled_mpi.report.page import Contents
from scaled_mpi.report.pictures import Pictures, film, strip
from scaled_mpi.report.series import Numbers, Series, number, quantity


def section(heading: str, sentence: str, content: str, note: str = "") -> str:
    """Return one section of the page; `sentence`, `content` and `note` are HTML."""
    below = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<section><h2>{escape(heading)}</h2><p class="lead">{sentence}</p>{content}{below}'
        "</section>"
    )


def listed(
    rows: Sequence[tuple[str, str, Callable[..., str]]], *arguments: str
) -> Callable[[Contents], str]:
    """Return a function that draws a section for every row whose content is not empty.

    A row is (heading, sentence, content). `content` receives the page's numbers and the
    attributes of Contents that `arguments` names, such as "labels".
    """

    def shown(contents: Contents) -> str:
        material = [getattr(contents, name) for name in ("numbers", *arguments)]
        return "".join(
            section(heading, sentence, content)
            for heading, sentence, make in rows
            if (content := make(*material))
        )

    return shown


def panels(contents: Contents) -> str:
    """Return a section for each panel of the kind."""
    return "".join(
        section(panel.heading, panel.sentence, panel.content()) for panel in contents.panels
    )


def domain(contents: Contents) -> str:
    """Return truth, prediction and error: one strip a pair of trajectories."""
    parts = []
    for shown in contents.pictures:
        lead = max([lead for lead in shown.leads if lead <= 10], default=shown.leads[0])
        content = f"<figure>{strip(shown, lead)}</figure>"
        parts.append(section(shown.heading, _scene(shown, lead), content))
    return "".join(parts)


def motion(contents: Contents) -> str:
    """Return the first pair as a movie and as stills for paper."""
    moving = [pair for pair in contents.pictures if pair.axes > 1 and len(pair.leads) > 1]
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
        f"Truth and prediction make {len(leads)} jumps from the same last known frame. All frames "
        "share one colour scale, so pale colours mark small errors.",
        f'<figure><div class="over">{names}</div>{movies.movie(shown)}</figure>'
        f"<figure>{film(shown, stills)}</figure>",
    )


def training(contents: Contents) -> str:
    """Return the losses of every training of the experiment."""
    curves = {
        name: lines for name, events in contents.events.items() if (lines := _losses(events))
    }
    if not curves:
        return ""
    return section(
        "How it was trained",
        "The figure shows the loss by step. The gap between validation and training loss is the "
        "generalization gap.",
        figures.training(curves),
    )


def spent(contents: Contents) -> str:
    """Return the seconds of the stages, for a kind without other costs."""
    seconds = seconds_of_stages(contents.numbers)
    if not seconds:
        return ""
    return section("What it costs", "The bars show seconds on this machine.", stage_bars(seconds))


def stage_bars(seconds: Mapping[str, float]) -> str:
    """Return bars of the stages' seconds under a heading."""
    return f"<h4>Where the time of the job went</h4>{figures.stages(seconds)}"


def facts(contents: Contents) -> str:
    """Return all facts."""
    if not contents.numbers.facts:
        return ""
    return section(
        "All facts",
        "The table lists every measured number; a click on a heading sorts it.",
        tables.facts(contents.numbers),
    )


def origin(contents: Contents) -> str:
    """Return the resolved configuration and the run's provenance."""
    parts = []
    if contents.provenance:
        parts.append(tables.mapping(contents.provenance))
    if contents.config_text:
        parts.append(f"<pre>{escape(contents.config_text)}</pre>")
    if not parts:
        return ""
    return section(
        "Where it comes from",
        "The configuration below, with all defaults filled in, reproduces the same fields.",
        "".join(parts),
    )


def seconds_of_stages(numbers: Numbers) -> dict[str, float]:
    """Return seconds of the stages: facts time.STAGE or time.STAGE.PART that STAGE recorded."""
    found = {}
    for fact in numbers.facts:
        own = f"time.{fact.get('stage')}"
        if fact["name"] == own or fact["name"].startswith(own + "."):
            words = fact["name"].removeprefix("time.").split(".")
            words += [str(fact[place]) for place in positions(fact["name"]) if place in fact]
            found[", ".join(words)] = number(fact["value"])
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
    parts = [f"{_by(shape)} cells"]
    if shown.axes == 1:
        parts.append("position to the right, time downwards")
    elif not shown.steady:
        parts.append(f"after {lead} jump{'s' if lead > 1 else ''}")
    if shown.tile and shown.axes > 1:
        count = math.prod(n // t for n, t in zip(shape, shown.tile, strict=True))
        parts.append(f"{count} tiles of {_by(shown.tile)} (faint lattice)")
    if shown.trained_on:
        times = math.prod(shape) / math.prod(shown.trained_on)
        parts.append(
            f"{quantity(times)} times the {_by(shown.trained_on)} domain of the training "
            "(orange square, to scale)"
        )
    if shown.axes == 3:
        parts.append("the middle plane is shown")
    return "The domain has " + ", ".join(parts) + "."


def _by(shape: Sequence[int]) -> str:
    return " × ".join(str(cells) for cells in shape)
