"""Names of facts: a number is a name plus places, never a position inside a name.

`ROWS` is the one table of names that changed. Version 0.1 wrote a position into the name:
`iterations.exact.N4` is now `iterations` with the places method = exact and tiles = 4. For one
release `FactLog` also writes each old name, on a line of its own that bears the key `renamed`.
Readers go through `each_once`, so folders of either form give the same facts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

Fact = Mapping[str, Any]

# Keys that distinguish the facts of one name; all others are remarks.
PLACES = (
    "method",
    "lead",
    "jump",
    "sweep",
    "k",
    "channel",
    "band",
    "window",
    "member",
    "N",
    "iteration",
    "start",
    "noise",
    "time",
    "bin",
    "level",
)
RENAMED = "renamed"  # key of a line that repeats a fact under its old name
OLD_METHODS = {"halo8": "wide_halo"}  # a value of the place `method`, whatever the name

_NUMBER = r"\d[\d.]*(?:e[+-]?\d+)?"
_TEXTS = {
    "lead": r"\d+",
    "tiles": r"\d+",
    "axes": r"\d",
    "dt": _NUMBER,
    "length": _NUMBER,
    "method": r"(?!lead$)\w+",  # mae.lead is a curve
}
_READ = {"lead": int, "tiles": int, "axes": int, "dt": float, "length": float}


@dataclass(frozen=True)
class Row:
    """A name, and its old name with a place in braces at each position: "iterations.N{tiles}".

    `known` are places that the old name leaves out. `words` lists the values of a place that the
    old name may hold, each with its word there. A fact with a place of `without` had another name.
    """

    name: str
    old: str
    known: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    @cached_property
    def inside(self) -> tuple[str, ...]:
        """The places that the old name holds, in its order."""
        return tuple(re.findall(r"{(\w+)}", self.old))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The old name as a regular expression with a group a place."""
        parts = re.split(r"{(\w+)}", self.old)
        return re.compile(
            "".join(
                self._group(part) if place % 2 else re.escape(part)
                for place, part in enumerate(parts)
            )
        )

    def _group(self, place: str) -> str:
        words = self.words.get(place)
        text = "|".join(words.values()) if words else _TEXTS.get(place, r"\w+")
        return f"(?P<{place}>{text})"

    def read(self, old: str) -> dict[str, Any] | None:
        """Return the places that an old name holds; None for another name."""
        found = self.pattern.fullmatch(old)
        if found is None:
            return None
        return {key: self._value(key, text) for key, text in found.groupdict().items()} | dict(
            self.known
        )

    def _value(self, place: str, text: str) -> Any:
        for value, word in self.words.get(place, {}).items():
            if word == text:
                return value
        if place == "method":
            return OLD_METHODS.get(text, text)
        return _READ.get(place, str)(text)

    def written(self, fact: Fact) -> str | None:
        """Return the old name of a fact of this row's name; None where it had none."""
        if {*self.inside, *self.known} != set(positions(self.name)) & set(fact):
            return None
        if any(fact[key] != value for key, value in self.known.items()):
            return None
        if set(self.without) & set(fact):
            return None
        texts = {key: self._text(key, fact[key]) for key in self.inside}
        old = self.old.format(**texts)
        return old if self.pattern.fullmatch(old) else None

    def _text(self, place: str, value: Any) -> str:
        if place in self.words:
            return self.words[place].get(value, "-")  # "-" is in no pattern
        if place == "method":
            return _OLD_WORDS.get(value, str(value))
        return f"{value:g}" if isinstance(value, float) else str(value)


_OLD_WORDS = {new: old for old, new in OLD_METHODS.items()}


def _same(*words: str) -> dict[Any, str]:
    return {word: word for word in words}


_SOLVES = {"method": _same("certified", "exact", "onelevel", "asm", "gamg")}
_OTHERS = {"method": _same("exact", "onelevel", "asm", "gamg")}
_HEADLINES: dict[str, dict[Any, str]] = {"lead": {1: "1", 10: "10"}}
_STEPS = ("iterations", "linear", "pseudo", "root", "residual", "fallback", "error", "time")
_DIRECTIONS = ("cos.fair", "cos", "stationarity", "density.drift", "lyapunov.sum")
_CHAOS = ("lyapunov.path", "lyapunov.separation", "lyapunov.kept", "lyapunov")

ROWS = (
    # Forecasts
    Row("vrmse.lead", "vrmse.jump{lead}.{method}", words=_HEADLINES, without=("channel",)),
    Row("vrmse.mean", "vrmse.mean.{method}"),
    Row("vrmse.median", "vrmse.median.{method}"),
    Row("mae", "mae.{method}"),
    Row(
        "spread.skill.lead",
        "spread.skill.lead{lead}",
        {"method": "surrogate"},
        without=("channel",),
    ),
    Row("energy.score", "energy.score.{patches}"),
    Row("time.jump", "time.{method}.jump", words={"method": _same("surrogate", "simulator")}),
    # Certified answers
    Row("iterations", "iterations.N{tiles}", {"method": "certified"}),
    Row("iterations", "iterations.{method}.N{tiles}", words=_OTHERS),
    Row("residual", "residual.{method}.N{tiles}", words=_OTHERS),
    Row("time", "time.{method}.N{tiles}", words=_SOLVES),
    Row("time", "time.{method}", words=_SOLVES),
    Row("time.setup", "time.setup.N{tiles}"),
    Row("fallback.tiles", "fallback.tiles.N{tiles}"),
    Row("coarse.vectors", "coarse.vectors.N{tiles}"),
    Row("halo.bytes", "halo.bytes.N{tiles}"),
    *(
        Row(
            f"floor.{name}",
            f"floor.{name}.{{space}}",
            words={"space": _same("onelevel", "hats", "twolevel")},
        )
        for name in ("ratio", "coupled", "residual", "sweeps", "vectors")
    ),
    # Implicit steps
    *(
        Row(
            f"implicit.{name}",
            f"implicit.{name}.{{method}}.{{solver}}.dt{{dt}}",
            words={"solver": _same("exact", "learned")},
        )
        for name in (*_STEPS, "convergence")
    ),
    *(
        Row(f"implicit.{name}", f"implicit.{name}.{{method}}.dt{{dt}}")
        for name in ("error", "time", "guess")
    ),
    # Dynamics behind snapshots, and patterns
    *(Row(name, name + ".{field}.{system}") for name in (*_DIRECTIONS, *_CHAOS)),
    *(
        Row(name, name + ".{system}")
        for name in (
            "dataset.alive",
            "dynamics.size",
            "score.loss",
            "score.throughput",
            "time.score",
            "flow.loss",
            "flow.throughput",
            "time.flow",
        )
    ),
    Row("dataset.sha256", "dataset.sha256.{set}"),
    *(
        Row(name, name + ".{network}")
        for name in ("denoiser.loss", "denoiser.throughput", "time.train")
    ),
    Row(
        "spectrum.error",
        "spectrum.error.{band}",
        words={"band": _same("large", "middle", "small")},
        without=("lead",),
    ),
    # Gaussian fields
    Row("coarse.block", "coarse.block.{axes}d.l{length}"),
    Row("cov.error.tiled", "cov.error.tiled.{axes}d.{kernel}.l{length}"),
    Row("variance.ratio", "variance.ratio.{axes}d.{kernel}.l{length}"),
    # Ensembles
    Row("r2.spread", "r2.forecast.spread", {"method": "surrogate"}),
    Row("r2", "r2.{method}", words={"method": {"surrogate": "forecast", "rival": "stepper"}}),
    Row(
        "r2",
        "r2.{method}",
        words={"method": _same("energy", "persistence", "mean", "ceiling", "limit")},
    ),
    Row("order", "order.{parameter}"),
)


@cache
def positions(name: str) -> tuple[str, ...]:
    """Return the places that the table gives to a name, each once."""
    found = [place for row in ROWS if row.name == name for place in (*row.inside, *row.known)]
    return tuple(dict.fromkeys(found))


def places(fact: Fact) -> dict[str, Any]:
    """Return the places of a fact: the keys of PLACES, then further positions of its name."""
    keys = dict.fromkeys((*PLACES, *positions(fact["name"])))
    return {key: fact[key] for key in keys if key in fact}


def placed(fact: Fact) -> Fact:
    """Return a fact as name and places; one without an old name is returned as it is."""
    name, inside = _split(fact["name"])
    if not set(inside) & set(fact):  # a fact that has the place has no old name
        if inside:
            about = ("value", "unit", "stage", "ranks")
            first = {key: fact[key] for key in about if key in fact}
            fact = {"name": name, **first, **inside, **fact, **{"name": name}}
    method = fact.get("method")
    return {**fact, "method": OLD_METHODS[method]} if method in OLD_METHODS else fact


@cache
def _split(old: str) -> tuple[str, Mapping[str, Any]]:
    """The name and the places of an old name; a present name has no places."""
    for row in ROWS:
        inside = row.read(old)
        if inside is not None:
            return row.name, inside
    return old, {}


def old_forms(fact: Fact) -> list[dict[str, Any]]:
    """Return a placed fact under each of its old names."""
    found = []
    for row in _rows(fact["name"]):
        old = row.written(fact)
        if old is not None:
            gone = {*row.inside, *row.known}
            left = {key: value for key, value in fact.items() if key not in gone}
            found.append({**left, "name": old})
    return found


@cache
def _rows(name: str) -> tuple[Row, ...]:
    return tuple(row for row in ROWS if row.name == name)


def each_once(facts: Iterable[Fact]) -> list[Fact]:
    """Return facts as name and places, in order.

    A line under an old name is left out where the same fact stands under its name, or under
    another old name.
    """
    kept: list[Fact] = []
    seen: set[str] = set()
    for raw in facts:
        if RENAMED in raw:
            continue
        fact = placed(raw)
        if _rows(fact["name"]):
            key = json.dumps(fact, sort_keys=True, default=str)
            if fact is not raw and key in seen:
                continue
            seen.add(key)
        kept.append(fact)
    return kept


def named(facts: Sequence[Fact], name: str, **where: Any) -> list[Fact]:
    """Return the placed facts of a name whose places are exactly `where`."""
    return [fact for fact in facts if fact["name"] == name and places(fact) == where]
