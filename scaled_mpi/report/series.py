"""Facts in the forms that a page needs: single values and series."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from scaled_mpi.fact_names import each_once, named, places

Series = dict[str, tuple[list[float], list[float]]]


def number(value: str | float | None) -> float:
    """Return a fact's value as a float; "never" and "Infinity" are infinite, other texts nan."""
    if isinstance(value, str):
        return math.inf if value.lower() in ("never", "inf", "infinity") else math.nan
    return math.nan if value is None else float(value)


class Numbers:
    """All facts of one experiment; the last fact of a name and place counts.

    Facts of folders of version 0.1 are read as names and places.
    """

    def __init__(self, facts: Iterable[Mapping[str, Any]]) -> None:
        latest: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        for fact in each_once(facts):
            key = (fact["name"], fact.get("stage"), fact.get("ranks"), *places(fact).items())
            latest.pop(key, None)  # so that the newest also stands last
            latest[key] = fact
        self.facts = list(latest.values())

    def value(self, name: str, **where: object) -> float | None:
        """Return the last number of a name whose places are exactly `where`; None without one."""
        found = self.remark(name, "value", **where)
        return None if found is None or math.isnan(found) else found

    def remark(self, name: str, key: str, **where: object) -> float | None:
        """Return the number of one key, such as `spread`, of the last fact that has this key."""
        found = [number(fact[key]) for fact in named(self.facts, name, **where) if key in fact]
        return found[-1] if found else None

    def by(self, over: str, name: str, **where: object) -> dict[Any, Any]:
        """Return the values of a name by the place `over`; a text stays text.

        The places of each fact are `over` and exactly `where`.
        """
        return {
            fact[over]: fact["value"]
            for fact in self.facts
            if fact["name"] == name
            and over in fact
            and places(fact) == {over: fact[over], **where}
        }

    def among(self, name: str, *keys: str) -> list[tuple[Any, ...]]:
        """Return the values of some places of a name, one tuple a fact that has all, each once."""
        found = [fact for fact in self.facts if fact["name"] == name and set(keys) <= set(fact)]
        return list(dict.fromkeys(tuple(fact[key] for key in keys) for fact in found))

    def series(self, name: str, over: str, by: str | None = "method", **where: object) -> Series:
        """Return points (x, y) of every value of the place `by`, sorted by the place `over`.

        A fact belongs to the series if its places are `over`, `by` and the keys of `where`, and
        equal the values of `where`.
        """
        wanted = {over, *where} | ({by} if by else set())
        points: dict[str, dict[float, float]] = {}
        for fact in self.facts:
            place = places(fact)
            if fact["name"] != name or set(place) != wanted:
                continue
            if any(place[key] != value for key, value in where.items()):
                continue
            key = str(place[by]) if by else ""
            points.setdefault(key, {})[number(place[over])] = number(fact["value"])
        return {
            key: (sorted(line), [line[x] for x in sorted(line)]) for key, line in points.items()
        }

    def by_method(self, name: str) -> dict[str, float]:
        """Return the values of a name whose only place is the method."""
        return {
            fact["method"]: number(fact["value"])
            for fact in self.facts
            if fact["name"] == name and set(places(fact)) == {"method"}
        }

    def leads(self, name: str) -> list[int]:
        """Return all leads at which a name was recorded."""
        return sorted(
            {int(fact["lead"]) for fact in self.facts if fact["name"] == name and "lead" in fact}
        )


def milestones(leads: list[int], wanted: tuple[int, ...] = (1, 10)) -> list[int]:
    """Return the wanted leads that exist, and the last lead."""
    chosen = [lead for lead in wanted if lead in leads]
    return sorted({*chosen, leads[-1]}) if leads else []


def quantity(value: float, unit: str = "") -> str:
    """Return a number as text: 3 digits; seconds and bytes in a fitting multiple."""
    if math.isinf(value):
        return "never" if unit in ("jumps", "uses") else "∞"
    if unit == "s" and 0 < abs(value) < 1:
        for factor, name in ((1e3, "ms"), (1e6, "µs"), (1e9, "ns")):
            if abs(value) * factor >= 1:
                return f"{value * factor:.3g} {name}"
    if unit == "bytes":
        for factor, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if abs(value) >= factor:
                return f"{value / factor:.3g} {name}"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,} {unit}".replace(",", "\N{THIN SPACE}").strip()
    return f"{value:.3g} {unit}".strip()
