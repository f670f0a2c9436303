"""Tables of the page: halo traffic, all facts, folded series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from scaled_mpi.fact_names import places
from scaled_mpi.report.series import Numbers, number, quantity

COLUMNS = ("name", "value", "unit", "stage", "ranks", "tiles")
ROWS = ("lead", "jump", "k", "sweep")


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    numeric: Sequence[bool],
    sortable: bool = False,
) -> str:
    """Return an HTML table; `head` and `rows` are HTML, numeric columns are right-aligned."""
    kinds = [' class="number"' if right else "" for right in numeric]
    top = "".join(f"<th{kind}>{text}</th>" for text, kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    mark = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll"><table{mark}><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def halo(numbers: Numbers) -> str:
    """Return a table of messages and bytes: counted, by formula, and with a rank for each tile."""
    columns = (
        ("counted", "messages", "bytes.counted"),
        ("by formula", "messages.formula", "bytes.formula"),
        ("if each tile were a rank", "messages.tiles", "bytes.tiles"),
    )
    rows = []
    for label, messages, size in columns:
        counts = numbers.value(f"halo.{messages}"), numbers.value(f"halo.{size}")
        if counts != (None, None):
            rows.append([label, _quantity(counts[0], ""), _quantity(counts[1], "bytes")])
    if not rows:
        return ""
    return table(("", "messages", "bytes"), rows, (False, True, True))


def facts(numbers: Numbers) -> str:
    """Return every fact: single facts in one sortable table, each series folded."""
    single = [fact for fact in numbers.facts if not _is_point(fact)]
    rows = [
        [
            escape(fact["name"]),
            _exact(fact["value"]),
            escape(str(fact.get("unit", ""))),
            *(escape(str(fact.get(key, ""))) for key in ("stage", "ranks", "tiles")),
            escape(", ".join(f"{k} {v}" for k, v in fact.items() if k not in COLUMNS)),
        ]
        for fact in sorted(single, key=lambda fact: str(fact["name"]))
    ]
    numeric = (False, True, False, False, True, True, False)
    parts = [table((*COLUMNS, "place"), rows, numeric, sortable=True)]
    series: dict[str, list[Mapping[str, Any]]] = {}
    for fact in numbers.facts:
        if _is_point(fact):
            series.setdefault(fact["name"], []).append(fact)
    parts += [_folded(name, series[name]) for name in sorted(series)]
    return "".join(parts)


def mapping(entries: Mapping[str, Any]) -> str:
    """Return a table of two columns: keys and values."""
    return table(
        ("", ""),
        [[escape(str(k)), f"<code>{escape(str(v))}</code>"] for k, v in entries.items()],
        (False, False),
    )


def _is_point(fact: Mapping[str, Any]) -> bool:
    return any(key in fact for key in ROWS)


def _folded(name: str, points: Sequence[Mapping[str, Any]]) -> str:
    """One series as a closed table; rows run over the last of ROWS that the points have."""
    over = [key for key in ROWS if key in points[0]][-1]
    cells: dict[float, dict[str, str]] = {}
    columns: list[str] = []
    for fact in points:
        place = {k: v for k, v in places(fact).items() if k != over}
        column = ", ".join(str(v) if k == "method" else f"{k} {v}" for k, v in place.items())
        if column not in columns:
            columns.append(column)
        cells.setdefault(number(fact.get(over)), {})[column] = _exact(fact["value"])
    rows = [
        [f"{x:g}", *(line.get(column, "") for column in columns)]
        for x, line in sorted(cells.items())
    ]
    head = (over, *(escape(column) for column in columns))
    unit = str(points[0].get("unit", ""))
    label = f"{escape(name)} <span>{len(points)} facts{', ' + escape(unit) if unit else ''}</span>"
    content = table(head, rows, [True] * len(head))
    return f"<details><summary>{label}</summary>{content}</details>"


def _quantity(value: float | None, unit: str) -> str:
    return "" if value is None else quantity(value, unit)


def _exact(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<code>{escape(str(value))}</code>"
    if isinstance(value, float):
        return "∞" if math.isinf(value) else f"{value:.6g}"
    return str(value)
