"""The page of a forecast: accuracy, coupling, seams, calibration, costs.

The page reads the facts below (the contract with `evaluate`). `method` is a key of
`report.palette.METHODS`; `lead` counts jumps from 1.

Series, one fact a point:

| name           | places                   | value                                               |
|----------------|--------------------------|-----------------------------------------------------|
| vrmse.lead     | method, lead [, channel] | VRMSE; without `channel` the mean over channels     |
| mae.lead       | method, lead [, channel] | mean absolute error                                 |
| vrmse.window   | method, window           | VRMSE over a window of leads such as "6:12"         |
| spectrum       | method, lead, k          | radial power, k in cycles a cell; the truth's is    |
|                |                          | method = "simulator"                                |
| spectrum.error | method, lead, band       | relative error; band "large", "middle", "small"     |
| seam.lead      | method, lead             | seam index; the truth's is method = "simulator"     |
| sweeps.jump    | jump                     | sweeps that this jump took                          |
| mismatch       | jump, sweep              | interface mismatch after this sweep                 |
| time.jump      | method                   | seconds a jump, whole domain                        |
| time.STAGE...  |                          | seconds of the fact's own stage, such as            |
|                |                          | time.fit or time.simulate.training: one bar each    |

| spread.skill.  | method, lead [, channel] | spread of an ensemble over the error of its mean    |
| lead           |                          |                                                     |
| crps.lead      | method, lead             | fair CRPS; mae.lead is that of a single forecast    |
| rank.histogram | method, lead, bin        | how often `bin` members are below the truth, 1 =    |
|                |                          | as often as any other number                        |
| coverage       | method, lead, level      | share inside a central interval, beside `expected`  |
| energy.score   | method, lead, patches    | of patches across tile edges ("borders") and inside |
|                |                          | tiles ("inside")                                    |

Single numbers:

    vrmse.mean, vrmse.median, mae               by method, over all leads
    frames.stationary, seam.index, sweeps.mean, sweeps.max, mismatch.tolerance
    halo.messages, halo.bytes.counted, halo.exchanges
    halo.messages.formula, halo.bytes.formula
    halo.messages.tiles, halo.bytes.tiles       as if each tile were a rank
    time.data, time.train
    breakeven                                   a count of jumps; infinite = never
    field.sha256, crps, and the numbers of a compressor (`rates.py`)

Any other fact appears in the table of all facts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from scaled_mpi.engine.kind import Found
from scaled_mpi.experiments.forecast import uncertainty
from scaled_mpi.experiments.forecast.sampling import ensemble_names
from scaled_mpi.experiments.forecast.settings import ForecastExperiment
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.report import figures, tables
from scaled_mpi.report.page import Contents, Page, Panel
from scaled_mpi.report.palette import method
from scaled_mpi.report.pictures import Pictures
from scaled_mpi.report.sections import (
    domain,
    facts,
    motion,
    origin,
    panels,
    seconds_of_stages,
    section,
    stage_bars,
    training,
)
from scaled_mpi.report.series import Numbers, Series, milestones, quantity


def cards(contents: Contents) -> str:
    """Return the headline numbers, each beside its reference."""
    numbers = contents.numbers
    shown = []
    for jump in (1, 10):
        own = numbers.value("vrmse.lead", method="surrogate", lead=jump)
        if own is not None:
            baselines = ", ".join(
                f"{name} {quantity(value)}"
                for name in ("persistence", "linear", "quadratic")
                if (value := numbers.value("vrmse.lead", method=name, lead=jump)) is not None
            )
            plural = "" if jump == 1 else "s"
            shown.append((f"VRMSE, {jump} jump{plural}", quantity(own), baselines))
    for name, label, note in (
        ("seam.index", "seam index", "jumps at tile edges over jumps inside; 1 = no seam"),
        ("sweeps.mean", "sweeps a jump", _most(numbers)),
        ("breakeven", "break-even", "jumps until training is paid back"),
        ("time.jump", "time a jump", _beside(numbers)),
    ):
        value = numbers.value(name, **({"method": "surrogate"} if name == "time.jump" else {}))
        if value is not None:
            unit = {"breakeven": "jumps", "time.jump": "s"}.get(name, "")
            shown.append((label, quantity(value, unit) if unit else f"{value:.3f}", note))
    inner = "".join(
        f'<div class="card{" first" if place == 0 else ""}"><span>{escape(label)}</span>'
        f"<b>{escape(value)}</b><small>{escape(note)}</small></div>"
        for place, (label, value, note) in enumerate(shown)
    )
    return f'<div class="cards">{inner}</div>' if shown else ""


def accuracy(contents: Contents) -> str:
    """Return the VRMSE by lead of every method."""
    series = _errors(contents.numbers)
    series = {key: line for key, line in series.items() if any(y > 0 for y in line[1])}
    if not series:
        return ""
    note = (
        "VRMSE is the root mean square error over the standard deviation of the truth "
        "(epsilon 1e-7 in the variance), as mean over channels. The mean field has VRMSE 1."
    )
    still = contents.numbers.value("frames.stationary")
    if still:
        note += f" Means and medians leave out {quantity(still)} stationary frames."
    drawn = figures.by_lead(series, "accuracy", "VRMSE", contents.labels, level=1.0)
    return section(
        "How far it can be trusted",
        "The lines show the error of the whole domain by lead. Grey lines are baselines that cost "
        "nothing; green lines are the simulator at a lower cost.",
        drawn,
        note,
    )


def uncertain(contents: Contents) -> str:
    """Return calibration and scores of ensembles."""
    drawn = uncertainty.calibration(contents.numbers, contents.labels)
    if not drawn:
        return ""
    scored = uncertainty.scores(contents.numbers, contents.labels)
    return section(
        "Does it know how wrong it is?",
        "The left figure shows the spread of the members over the error of their mean: 1 is "
        "calibrated, the band is 10 % to either side. The right figure shows the rank of the "
        "truth among the members. A flat histogram is calibrated, a hump has too much spread, a "
        "bowl too little.",
        drawn + scored,
        uncertainty.summary(contents.numbers),
    )


def coupling(contents: Contents) -> str:
    """Return the convergence of the sweeps and their gain in accuracy."""
    numbers = contents.numbers
    mismatch = numbers.series("mismatch", "sweep", by="jump")
    sweeps = numbers.series("sweeps.jump", "jump", by=None).get("", ([], []))[1]
    if not mismatch and max(sweeps, default=0) <= 1:
        return ""
    drawn = figures.convergence(mismatch, sweeps, numbers.value("mismatch.tolerance"))
    return section(
        "Do the tiles agree?",
        "The mismatch is the difference between the future that a tile assumes of its neighbour "
        "and the neighbour's result. The figure shows it after each sweep.",
        drawn,
        _gap(numbers),
    )


def spectra(contents: Contents) -> str:
    """Return radial spectra at a few leads."""
    numbers = contents.numbers
    chosen = {
        lead: series
        for lead in milestones(numbers.leads("spectrum"))
        if (series := numbers.series("spectrum", "k", lead=lead))
    }
    if not chosen:
        return ""
    return section(
        "Is the texture right?",
        "The lines show power by scale. A prediction below the truth is too smooth; a prediction "
        "above the truth invents detail.",
        figures.spectra(chosen, contents.labels),
        "Power is Welch's estimate over the tiles with a Hann window, summed over rings of equal "
        "wavenumber.",
    )


def seams(contents: Contents) -> str:
    """Return the seam index by lead."""
    series = contents.numbers.series("seam.lead", "lead")
    if not series:
        return ""
    return section(
        "Can the tiles be seen?",
        "The seam index is the mean jump across tile edges over the mean jump one cell inside. 1 "
        "means that seams do not differ from the field itself.",
        figures.by_lead(series, "seams", "seam index", contents.labels, log=False, level=1.0),
    )


def cost(contents: Contents) -> str:
    """Return accuracy against time, break-even, and the seconds of the stages."""
    numbers = contents.numbers
    times, series = numbers.by_method("time.jump"), _errors(numbers)
    errors = {key: dict(zip(*line, strict=True)).get(1.0, 0.0) for key, line in series.items()}
    parts = []
    if any(errors.get(key, 0) > 0 for key in times):
        parts.append(figures.cost(times, errors, contents.labels))
    if times:
        parts.append(_price_list(times, series, contents.labels))
    if sentence := _breakeven(numbers):
        parts.append(f"<p><strong>{sentence}</strong></p>")
    if spent := seconds_of_stages(numbers):
        parts.append(stage_bars(spent))
    if not parts:
        return ""
    lead = "The bars show seconds on this machine."
    if any(errors.get(key, 0) > 0 for key in times):
        lead = "The points show accuracy against time on this machine; lower left is better."
        if "simulator" in times:
            lead += " Points left of the line are cheaper than the simulator."
    return section("What it costs", lead, "".join(parts))


def traffic(contents: Contents) -> str:
    """Return halo messages and bytes."""
    content = tables.halo(contents.numbers)
    if not content:
        return ""
    exchanges = contents.numbers.value("halo.exchanges")
    how_often = f" in {quantity(exchanges)} exchanges" if exchanges is not None else ""
    return section(
        "What crossed between ranks",
        f"The table shows the traffic counted by the halo during the coupling{how_often}, beside "
        "the traffic that the geometry predicts.",
        content,
    )


def _errors(numbers: Numbers) -> Series:
    """VRMSE by lead of every method but `plain`, which repeats points of `wide_halo`."""
    series = numbers.series("vrmse.lead", "lead")
    return {key: line for key, line in series.items() if key != "plain"}


def _price_list(times: Mapping[str, float], series: Series, labels: Mapping[str, str]) -> str:
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


def _most(numbers: Numbers) -> str:
    most = numbers.value("sweeps.max")
    return "mean over jumps" + (f"; at most {quantity(most)}" if most is not None else "")


def _beside(numbers: Numbers) -> str:
    reference = numbers.value("time.jump", method="simulator")
    return f"the simulator takes {quantity(reference, 's')}" if reference is not None else ""


def _gap(numbers: Numbers) -> str:
    """The share of the gap between no sweep and a halo that covers the reach, closed by sweeps."""
    without, full, own = (
        numbers.value("vrmse.lead", method=name, lead=1)
        for name in ("nosweep", "wide_halo", "surrogate")
    )
    if without is None or full is None or own is None or without <= full:
        return ""
    closed = (without - own) / (without - full)
    return (
        f"After one jump: VRMSE {without:.4f} without a sweep, {own:.4f} with sweeps, "
        f"{full:.4f} with a halo that covers the reach; the sweeps close "
        f"{100 * closed:.0f} % of the gap."
    )


def _breakeven(numbers: Numbers) -> str:
    count = numbers.value("breakeven")
    if count is None:
        return ""
    own, reference = (
        numbers.value("time.jump", method=name) for name in ("surrogate", "simulator")
    )
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


SECTIONS = (
    cards,
    panels,
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


def page(experiment: ForecastExperiment, done: Found) -> Page:
    """Return the page of a forecast."""
    names = {"compress": "compressor", "fit": "surrogate"}
    trainings = {
        name: done[stage].path
        for stage, name in names.items()
        if stage in done and (done[stage].path / "events.jsonl").exists()
    }
    return Page(
        SECTIONS,
        labels=_labels(experiment),
        trainings=trainings,
        course=[done[stage].path for stage in names if stage in done],
        pictures=_pictures(experiment, done),
        panels=_maps(experiment, done),
    )


def _labels(experiment: ForecastExperiment) -> dict[str, str]:
    """Names of the methods with this experiment's halo and reach."""

    def cells(numbers: tuple[int, ...]) -> str:
        alike = len(set(numbers)) == 1
        return str(numbers[0]) if alike else "x".join(map(str, numbers))

    halo, reach = cells(experiment.halo), cells(experiment.reach)
    return {
        "surrogate": f"surrogate, halo {halo} with sweeps",
        "nosweep": f"halo {halo}, no sweep",
        "wide_halo": f"halo {reach}, one exchange",
    }


def _pictures(experiment: ForecastExperiment, done: Found) -> list[Pictures]:
    """The large domain, with the largest domain of the training to scale."""
    if "couple" not in done or "surrogate" not in trajectory_names(done["couple"].path):
        return []
    trained = None
    if "train-0000" in trajectory_names(done["simulate"].path):
        trained = tuple(Trajectory(done["simulate"].path, "train-0000").grid.shape)
    return [
        Pictures(
            Trajectory(done["simulate"].path, "test-0000"),
            Trajectory(done["couple"].path, "surrogate"),
            tile=experiment.domain.tile,
            trained_on=trained,
        )
    ]


def _maps(experiment: ForecastExperiment, done: Found) -> list[Panel]:
    """The last lead of the surrogate's members, if there are several."""
    if "couple" not in done:
        return []
    folder = done["couple"].path
    names = ensemble_names(trajectory_names(folder), "surrogate")
    if len(names) < 2:
        return []
    runs = [Trajectory(folder, name) for name in names]
    lead = min(len(run) for run in runs)
    truth = Trajectory(done["simulate"].path, "test-0000")
    return [uncertainty.MapsPanel(truth, experiment.history - 1 + lead, runs, lead)]
