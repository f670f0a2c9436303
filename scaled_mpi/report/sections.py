"""The sections of the page in reading order; one without its facts or fields is empty text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from scaled_mpi.report import (
    elliptic,
    ensembles,
    figures,
    movies,
    patterns,
    tables,
    uncertainty,
)
from scaled_mpi.report.palette import method
from scaled_mpi.report.pictures import Pictures, film, strip
from scaled_mpi.report.series import Numbers, Series, milestones, number, quantity


@dataclass(frozen=True)
class Material:
    """Everything a section may draw on."""

    numbers: Numbers
    events: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    pictures: Sequence[Pictures] = ()
    labels: dict[str, str] = field(default_factory=dict)
    config_text: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    panels: Sequence[Any] = ()


def cards(material: Material) -> str:
    """The few numbers to remember, each beside what it must be compared with."""
    numbers = material.numbers
    found = []
    for jump in (1, 10):
        own = numbers.value(f"vrmse.jump{jump}.surrogate")
        if own is not None:
            others = ", ".join(
                f"{name} {quantity(value)}"
                for name in ("persistence", "linear", "quadratic")
                if (value := numbers.value(f"vrmse.jump{jump}.{name}")) is not None
            )
            plural = "" if jump == 1 else "s"
            found.append((f"VRMSE, {jump} jump{plural}", quantity(own), others))
    for name, label, note in (
        ("seam.index", "seam index", "edge of tiles over their inside; 1 = no seam"),
        ("sweeps.mean", "sweeps a jump", _most(numbers)),
        ("breakeven", "break-even", "jumps until training has paid"),
        ("time.surrogate.jump", "time a jump", _beside(numbers)),
    ):
        value = numbers.value(name)
        if value is not None:
            unit = {"breakeven": "jumps", "time.surrogate.jump": "s"}.get(name, "")
            found.append((label, quantity(value, unit) if unit else f"{value:.3f}", note))
    inner = "".join(
        f'<div class="card{" first" if place == 0 else ""}"><span>{escape(label)}</span>'
        f"<b>{escape(value)}</b><small>{escape(note)}</small></div>"
        for place, (label, value, note) in enumerate(found)
    )
    return f'<div class="cards">{inner}</div>' if found else ""


def domain(material: Material) -> str:
    """Truth, prediction, error: one strip a pair of trajectories."""
    parts = []
    for shown in material.pictures:
        lead = max([lead for lead in shown.leads if lead <= 10], default=shown.leads[0])
        content = f"<figure>{strip(shown, lead)}</figure>"
        parts.append(_section(shown.heading, _scene(shown, lead), content))
    return "".join(parts)


def motion(material: Material) -> str:
    """The first pair as a movie and as stills for paper."""
    moving = [one for one in material.pictures if one.axes > 1 and len(one.leads) > 1]
    if not moving:
        return ""
    shown = moving[0]
    leads = shown.leads
    names = "".join(
        f"<span>{escape(name)}</span>"
        for name in (shown.truth_label, shown.predicted_label, "error")
    )
    stills = sorted({leads[round(part * (len(leads) - 1))] for part in (0, 0.25, 0.5, 1)})
    return _section(
        "In time",
        f"{len(leads)} jumps from the same last known frame; the colours mean the "
        "same in all frames, so a pale error is a small one.",
        f'<figure><div class="over">{names}</div>{movies.movie(shown)}</figure>'
        f"<figure>{film(shown, stills)}</figure>",
    )


def accuracy(material: Material) -> str:
    """VRMSE by lead of every method."""
    series = material.numbers.series("vrmse.lead", "lead")
    series = {key: line for key, line in series.items() if any(y > 0 for y in line[1])}
    if not series:
        return ""
    note = (
        "VRMSE = root mean square error over the standard deviation of the truth "
        "(epsilon 1e-7 in the variance), mean over channels; 1 is as good as the mean field."
    )
    still = material.numbers.value("frames.stationary")
    if still:
        note += f" {quantity(still)} stationary frames are left out of means and medians."
    drawn = figures.by_lead(series, "accuracy", "VRMSE", material.labels, level=1.0)
    return _section(
        "How far it can be trusted",
        "Error of the whole domain by how far ahead one looks; the grey lines cost "
        "nothing, the green ones are the simulator made cheaper.",
        drawn,
        note,
    )


def uncertain(material: Material) -> str:
    """Ensembles: calibration and scores."""
    drawn = uncertainty.calibration(material.numbers, material.labels)
    if not drawn:
        return ""
    scored = uncertainty.scores(material.numbers, material.labels)
    return _section(
        "Does it know how wrong it is?",
        "Left, what the members differ by over what their mean is wrong by: 1 is calibrated, the "
        "band is 10 % to either side. Right, where the truth stands among the members: flat is "
        "calibrated, a hump is too much spread, a bowl too little.",
        drawn + scored,
        uncertainty.summary(material.numbers),
    )


def coupling(material: Material) -> str:
    """Convergence of the sweeps and what they bought."""
    numbers = material.numbers
    mismatch = numbers.series("mismatch", "sweep", by="jump")
    sweeps = numbers.series("sweeps.jump", "jump", by=None).get("", ([], []))[1]
    if not mismatch and max(sweeps, default=0) <= 1:
        return ""
    drawn = figures.convergence(mismatch, sweeps, numbers.value("mismatch.tolerance"))
    return _section(
        "Do the tiles agree?",
        "What neighbouring tiles assume of each other's future, less what it then "
        "became, after each sweep.",
        drawn,
        _gap(numbers),
    )


def spectra(material: Material) -> str:
    """Radial spectra at a few leads."""
    numbers = material.numbers
    chosen = {
        lead: series
        for lead in milestones(numbers.leads("spectrum"))
        if (series := numbers.series("spectrum", "k", lead=lead))
    }
    if not chosen:
        return ""
    return _section(
        "Is the texture right?",
        "Power by scale: where a line falls below the truth the prediction is too "
        "smooth, where it rises above it makes up detail.",
        figures.spectra(chosen, material.labels),
        "Welch's estimate over the tiles with a Hann window, summed over rings of "
        "equal wavenumber.",
    )


def seams(material: Material) -> str:
    """Seam index by lead."""
    series = material.numbers.series("seam.lead", "lead")
    if not series:
        return ""
    return _section(
        "Can the tiles be seen?",
        "Mean jump across tile edges over the mean jump one cell inside: 1 means "
        "that no seam can be told from the field itself.",
        figures.by_lead(series, "seams", "seam index", material.labels, log=False, level=1.0),
    )


def training(material: Material) -> str:
    """Losses of every training of the experiment."""
    curves = {
        name: lines for name, events in material.events.items() if (lines := _losses(events))
    }
    if not curves:
        return ""
    return _section(
        "How it was trained",
        "Loss by step; the gap between the lines is what does not carry over to unseen data.",
        figures.training(curves),
    )


def cost(material: Material) -> str:
    """Accuracy against time, break-even, and where the job's time went."""
    numbers = material.numbers
    times, series = numbers.by_method("time.jump"), numbers.series("vrmse.lead", "lead")
    errors = {key: dict(zip(*line, strict=True)).get(1.0, 0.0) for key, line in series.items()}
    parts = []
    if any(errors.get(key, 0) > 0 for key in times):
        parts.append(figures.cost(times, errors, material.labels))
    if times:
        parts.append(_price_list(times, series, material.labels))
    if said := _breakeven(numbers):
        parts.append(f"<p><strong>{said}</strong></p>")
    if spent := _spent(numbers):
        parts.append(f"<h4>Where the time of the job went</h4>{figures.stages(spent)}")
    if not parts:
        return ""
    sentence = "Seconds on this machine"
    if any(errors.get(key, 0) > 0 for key in times):
        sentence = "Accuracy against time on this machine; nearer to the lower left is better"
        if "simulator" in times:
            sentence += ", and left of the line is cheaper than the simulator"
    return _section("What it costs", sentence + ".", "".join(parts))


def traffic(material: Material) -> str:
    """Halo messages and bytes."""
    content = tables.halo(material.numbers)
    if not content:
        return ""
    exchanges = material.numbers.value("halo.exchanges")
    how_often = f" in {quantity(exchanges)} exchanges" if exchanges is not None else ""
    return _section(
        "What crossed between ranks",
        "Counted by the halo while the domain was "
        f"coupled{how_often}, beside what the geometry says it must be.",
        content,
    )


def facts(material: Material) -> str:
    """All facts."""
    if not material.numbers.facts:
        return ""
    return _section(
        "All facts",
        "Every number that was measured; a click on a heading sorts.",
        tables.facts(material.numbers),
    )


def origin(material: Material) -> str:
    """The resolved configuration and where the run comes from."""
    parts = []
    if material.provenance:
        parts.append(tables.mapping(material.provenance))
    if material.config_text:
        parts.append(f"<pre>{escape(material.config_text)}</pre>")
    if not parts:
        return ""
    return _section(
        "Where it comes from",
        "With the configuration below, all defaults filled in, the same fields come out again.",
        "".join(parts),
    )


def without_time(material: Material) -> str:
    """Problems without time: iterations, convergence, floors."""
    parts, numbers = [], material.numbers
    for heading, sentence, content in elliptic.SECTIONS:
        if shown := content(numbers):
            note = elliptic.certificate(numbers) if content is elliptic.iterations else ""
            parts.append(_section(heading, sentence, shown, note))
    return "".join(parts)


def members(material: Material) -> str:
    """Ensembles: scores of all methods, errors in time, the POD's spectrum."""
    return "".join(
        _section(heading, sentence, shown)
        for heading, sentence, content in ensembles.SECTIONS
        if (shown := content(material.numbers, material.labels))
    )


def snapshots(material: Material) -> str:
    """Patterns: directions of fields, and between them the panels that were handed in."""

    def told(sections: Sequence[tuple[str, str, Callable[[Numbers], str]]]) -> list[str]:
        return [
            _section(heading, sentence, shown)
            for heading, sentence, content in sections
            if (shown := content(material.numbers))
        ]

    panels = [
        _section(panel.heading, panel.sentence, panel.content()) for panel in material.panels
    ]
    return "".join([*told(patterns.ABOVE), *panels, *told(patterns.BELOW)])


SECTIONS: tuple[Callable[[Material], str], ...] = (
    cards,
    members,
    without_time,
    snapshots,
    domain,
    motion,
    accuracy,
    uncertain,
    coupling,
    spectra,
    seams,
    training,
    cost,
    traffic,
    facts,
    origin,
)


def _section(heading: str, sentence: str, content: str, note: str = "") -> str:
    below = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<section><h2>{escape(heading)}</h2><p class="lead">{sentence}</p>{content}{below}'
        "</section>"
    )


def _spent(numbers: Numbers) -> dict[str, float]:
    """Seconds of the stages: facts named time.STAGE or time.STAGE.PART that STAGE recorded."""
    found = {}
    for fact in numbers.facts:
        own = f"time.{fact.get('stage')}"
        if fact["name"] == own or fact["name"].startswith(own + "."):
            found[fact["name"].removeprefix("time.").replace(".", ", ")] = number(fact["value"])
    return found


def _price_list(times: Mapping[str, float], series: Series, labels: dict[str, str]) -> str:
    """A row a method, the cheapest first: time a jump and VRMSE at a few leads."""
    leads = milestones(sorted({int(x) for line in series.values() for x in line[0]}), (1, 5, 10))
    rows = []
    for key, seconds in sorted(times.items(), key=lambda item: item[1]):
        points = dict(zip(*series.get(key, ([], [])), strict=True))
        rows.append(
            [
                escape(method(key, labels).label),
                quantity(seconds, "s"),
                *(f"{points[x]:.3g}" if points.get(x, 0) > 0 else "" for x in leads),
            ]
        )
    head = ("method", "time a jump", *(f"VRMSE, jump {lead}" for lead in leads))
    return tables.table(head, rows, [False] + [True] * (len(leads) + 1))


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


def _most(numbers: Numbers) -> str:
    most = numbers.value("sweeps.max")
    return "mean over jumps" + (f"; at most {quantity(most)}" if most is not None else "")


def _beside(numbers: Numbers) -> str:
    reference = numbers.value("time.simulator.jump")
    return f"the simulator takes {quantity(reference, 's')}" if reference is not None else ""


def _gap(numbers: Numbers) -> str:
    """How much of the gap between no sweep and a halo that covers the reach was closed."""
    without, full, own = (
        numbers.value(f"vrmse.jump1.{name}") for name in ("nosweep", "halo8", "surrogate")
    )
    if without is None or full is None or own is None or without <= full:
        return ""
    closed = (without - own) / (without - full)
    return (
        f"After one jump: VRMSE {without:.4f} without a sweep, {own:.4f} with sweeps, "
        f"{full:.4f} with a halo that covers the reach; the sweeps close "
        f"{100 * closed:.0f} % of the gap."
    )


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


def _breakeven(numbers: Numbers) -> str:
    count = numbers.value("breakeven")
    if count is None:
        return ""
    own, reference = numbers.value("time.surrogate.jump"), numbers.value("time.simulator.jump")
    rates = ""
    if own is not None and reference is not None:
        rates = (
            f" (a jump takes the surrogate {quantity(own, 's')}, the simulator "
            f"{quantity(reference, 's')})"
        )
    if math.isinf(count):
        return f"Break-even: never. On this machine the simulator is the cheaper one{rates}."
    spent = sum(numbers.value(name) or 0.0 for name in ("time.data", "time.train"))
    paid = f" {quantity(spent, 's')} of data and training are" if spent else " Training is"
    return f"Break-even:{paid} paid back after {quantity(count)} jumps{rates}."
