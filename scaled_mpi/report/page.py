"""One self-contained HTML page, replaced as a whole so that readers can watch a running job."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Protocol

from scaled_mpi.files import write_text
from scaled_mpi.report.pictures import Pictures
from scaled_mpi.report.series import Numbers
from scaled_mpi.report.style import CSS, SORT

Events = Sequence[Mapping[str, Any]]
NAME = "report.html"
RELOAD = 30  # seconds between reloads of a page whose job still runs


class Panel(Protocol):
    """A further section, drawn from arrays of its own."""

    @property
    def heading(self) -> str:
        """The heading of the section."""
        ...

    @property
    def sentence(self) -> str:
        """The HTML below the heading."""
        ...

    def content(self) -> str:
        """Return the section's HTML."""
        ...


@dataclass(frozen=True)
class Contents:
    """The material of all sections.

    `events` maps the name of a training to its events. `pictures` are pairs of trajectories; the
    page shows the first one in motion too. `labels` are further names of methods, such as
    {"nosweep": "halo 4, no sweep"}. `provenance` is a table at the foot.
    """

    numbers: Numbers
    events: Mapping[str, Events] = field(default_factory=dict)
    pictures: Sequence[Pictures] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    config_text: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    panels: Sequence[Panel] = ()


Section = Callable[[Contents], str]


@dataclass(frozen=True)
class Page:
    """The page of one experiment: its sections in reading order, and their material.

    `trainings` maps the name of a training to the folder of its events. `course` lists folders of
    trainings: the events of the last that has any are copied into the results' `facts`.
    """

    sections: Sequence[Section]
    labels: Mapping[str, str] = field(default_factory=dict)
    trainings: Mapping[str, Path] = field(default_factory=dict)
    course: Sequence[Path] = ()
    pictures: Sequence[Pictures] = ()
    panels: Sequence[Panel] = ()


def write_report(
    folder: str | os.PathLike,
    title: str,
    sections: Sequence[Section],
    contents: Contents,
    partial: bool = False,
) -> Path:
    """Write `folder`/report.html and return its path.

    A section without its facts or fields is empty and left out. `partial`: the job still runs;
    the page states it and reloads itself.
    """
    body = "".join(section(contents) for section in sections)
    page = _document(title, body, _progress(contents.numbers) if partial else "")
    target = Path(folder) / NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)
    return target


def _progress(numbers: Numbers) -> str:
    stages = [str(fact["stage"]) for fact in numbers.facts if fact.get("stage")]
    so_far = f" Last stage with a fact: {stages[-1]}." if stages else ""
    return (
        f'<p class="running">The job is still running: {len(numbers.facts)} facts so far.'
        f"{escape(so_far)} This page reloads itself.</p>"
    )


def _document(title: str, body: str, running: str) -> str:
    reload = f'<meta http-equiv="refresh" content="{RELOAD}">' if running else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{reload}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{running}{body}</main>"
        f"<script>{SORT}</script></body></html>\n"
    )
