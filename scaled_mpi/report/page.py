"""One self-contained HTML page, replaced as a whole so that it can be watched while it grows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from scaled_mpi.files import write_text
from scaled_mpi.report.pictures import Pictures
from scaled_mpi.report.series import Numbers
from scaled_mpi.report.style import CSS, SORT

Events = Sequence[Mapping[str, Any]]
NAME = "report.html"
RELOAD = 30  # seconds between reloads of a page whose job still runs


def write_report(
    folder: str | os.PathLike,
    title: str,
    facts: Iterable[Mapping[str, Any]],
    *,
    about: str = "",
    events: Events | Mapping[str, Events] = (),
    pictures: Sequence[Pictures] = (),
    config_text: str = "",
    provenance: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    panels: Sequence[Any] = (),
    partial: bool = False,
) -> Path:
    """Write `folder`/report.html and return its path.

    facts: dicts as read from facts.jsonl; the names that make figures stand in this package's
    docstring. about: one sentence below the title. events: those of the surrogate's training, or
    a mapping from the name of each training to its events.
    pictures: pairs of trajectories; the first is shown in motion too. provenance: key -> text.
    panels: further sections, each with `heading`, `sentence` and `content()`, HTML.
    labels: other names for methods, such as {"halo8": "halo 8, one exchange"}. partial: the job
    still runs; the page says so and reloads itself.
    """
    from scaled_mpi.report.sections import SECTIONS, Material

    trainings = events if isinstance(events, Mapping) else {"surrogate": events}
    material = Material(
        Numbers(facts),
        trainings,
        pictures,
        dict(labels or {}),
        config_text,
        provenance or {},
        panels,
    )
    body = "".join(section(material) for section in SECTIONS)
    page = _document(title, about, body, _progress(material.numbers) if partial else "")
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


def _document(title: str, about: str, body: str, running: str) -> str:
    reload = f'<meta http-equiv="refresh" content="{RELOAD}">' if running else ""
    lead = f'<p class="lead">{escape(about)}</p>' if about else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{reload}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{lead}{running}{body}</main>"
        f"<script>{SORT}</script></body></html>\n"
    )
