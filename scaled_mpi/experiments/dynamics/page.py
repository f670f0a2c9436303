"""Sections for dynamics behind snapshots: directions of learned fields, pictures, small cases."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from scaled_mpi.engine.kind import Found
from scaled_mpi.experiments.dynamics.pattern_panels import CasePanel, PatternPanel
from scaled_mpi.experiments.dynamics.settings import DynamicsExperiment
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.report import figures, tables
from scaled_mpi.report.page import Page, Panel
from scaled_mpi.report.palette import INK
from scaled_mpi.report.sections import facts, listed, origin, panels, spent, training
from scaled_mpi.report.series import Numbers

if TYPE_CHECKING:
    from scaled_mpi.report.figures import Axes, Figure

FIELDS = {
    "trainingfree": "training-free, turn of the score (1 × 1)",
    "fitted1": "1 × 1 kernel, sign and size from 8 rates",
    "fitted5": "5 × 5 skew kernel fitted to 8 rates",
    "flow": "learned flow",
    "score": "the score itself",
    "unscored": "5 × 5 skew kernel fitted to 8 rates, without the score",
    "random": "random linear maps of the score, mean |cos|",
    "random5": "random 5 × 5 skew kernels, mean |cos|",
    "reweighted": "networks of random weights, mean |cos|",
}
# |cos| along the march, Zhang and Levin 2025: one snapshot that was trained on, a GPU's training.
PUBLISHED = {
    "trainingfree": {"life": 0.271, "waves": 0.589, "spirals": 0.250, "maze": 0.270},
    "random": {"life": 0.021, "waves": 0.182, "spirals": 0.083, "maze": 0.072},
    "reweighted": {"life": 0.052, "waves": 0.105, "spirals": 0.180, "maze": 0.031},
}
BARS = {
    "trainingfree": ("training-free", "#d55e00"),
    "flow": ("learned flow", "#0072b2"),
    "fitted5": ("5 × 5 kernel fitted to 8 rates", "#009e73"),
    "score": ("the score", "#cc79a7"),
    "random": ("random linear maps", "#8a8a8a"),
    "reweighted": ("random weights", "#c4c4c4"),
}
CASES = ("two_moons", "ring", "two_peaks", "lorenz")


def chart(numbers: Numbers) -> str:
    """Return bars of both protocols, a group a preset, with marks of the published values.

    "" without facts.
    """
    presets = _rows(numbers, "cos")[1]
    if not presets:
        return ""

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(left, numbers, presets, "cos")
        _bars(right, numbers, presets, "cos.fair")
        left.set_title("along the march, |cos|, better sign")
        right.set_title("at one instant, cos, sign fixed beforehand")
        handles = {
            label: bar
            for axes in (left, right)
            for bar, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)

    return figures.draw(paint, "directions", 4.0)


def _bars(axes: Axes, numbers: Numbers, presets: Sequence[str], name: str) -> None:
    """A bar a field and preset with the spread over snapshots or draws."""
    kinds = [
        key
        for key in BARS
        if any(_value(numbers, name, field=key, system=p) is not None for p in presets)
    ]
    wide, places = 0.8 / len(kinds), np.arange(len(presets))
    for row_, kind in enumerate(kinds):
        at = places + (row_ - (len(kinds) - 1) / 2) * wide
        where = [{"field": kind, "system": preset} for preset in presets]
        label, colour = BARS[kind]
        axes.bar(
            at,
            [_value(numbers, name, **one) or 0.0 for one in where],
            0.9 * wide,
            label=label,
            yerr=[numbers.remark(name, "spread", **one) or 0.0 for one in where],
            color=colour,
            error_kw={"linewidth": 0.8, "ecolor": "#8a8a8a"},
        )
        known = [PUBLISHED.get(kind, {}).get(preset, np.nan) for preset in presets]
        if name == "cos" and not np.isnan(known).all():
            axes.plot(at, known, "D", color=INK, markersize=5, label="published, on a GPU")
    axes.axhline(0.0, color=INK, linewidth=0.7)
    axes.set_xticks(places, presets)
    axes.grid(axis="x", visible=False)


def marched(numbers: Numbers) -> str:
    """Return a table of upstream's protocol: a row a field, a column a preset; "" if empty."""
    rows, presets = _rows(numbers, "cos")
    if not rows:
        return ""
    for key, known in PUBLISHED.items():
        label = f"published: {FIELDS[key]}"
        rows.append([escape(label), *(_three(known.get(preset)) for preset in presets)])
    return tables.table(("|cos|", *presets), rows, [False] + [True] * len(presets))


def instantaneous(numbers: Numbers) -> str:
    """Return a table of the fair protocol, and of the stationarity residual of each field."""
    rows, presets = _rows(numbers, "cos.fair")
    if not rows:
        return ""
    head, right = ("cos", *presets), [False] + [True] * len(presets)
    still = [
        [
            escape(label),
            *(_three(_value(numbers, "stationarity", field=key, system=p)) for p in presets),
        ]
        for key, label in (
            ("trainingfree", FIELDS["trainingfree"]),
            ("flow", FIELDS["flow"]),
            ("random", "a random linear map of the score"),
        )
    ]
    size = [
        "size of the dynamics, a step",
        *(f"{_value(numbers, 'dynamics.size', system=p) or 0.0:.2g}" for p in presets),
    ]
    return (
        tables.table(head, rows, right)
        + "<h4>Relative squared residual of div v + v · s (0: the density is stationary)</h4>"
        + tables.table(("residual", *presets), [*still, size], right)
    )


def exponents(numbers: Numbers) -> str:
    """Return Lyapunov exponents and residuals of the small cases; "" without facts."""
    rows = []
    for case in CASES:
        for kind in ("truth", "trainingfree", "flow"):
            values = [
                _value(numbers, name, field=kind, system=case)
                for name in ("lyapunov", "lyapunov.sum", "stationarity", "density.drift", "cos")
            ]
            if any(value is not None for value in values):
                rows.append(
                    [
                        case.replace("_", " "),
                        kind.replace("gf", "g-f"),
                        *(_three(value) for value in values),
                    ]
                )
    if not rows:
        return ""
    head = (
        "case",
        "field",
        "largest exponent",
        "sum of exponents",
        "relative residual",
        "drift of log p",
        "cos with Lorenz",
    )
    return tables.table(head, rows, [False, False] + [True] * 5)


def chaos(numbers: Numbers) -> str:
    """Return exponents of Lorenz and of the learned flow beside published values; "" without."""
    rows = []
    for kind, label in (("truth", "Lorenz's own equations"), ("flow", "learned flow")):
        values = [
            _value(numbers, name, field=kind, system="lorenz")
            for name in ("lyapunov", "lyapunov.path", "lyapunov.separation")
        ]
        if any(value is not None for value in values):
            rows.append([label, *(_three(value) for value in values)])
    if not rows:
        return ""
    rows.append(["published: Lorenz's own", "0.906", "", ""])
    rows.append(["published: 100 learned flows, mean", "", "0.017", "0.025"])
    return tables.table(
        (
            "field",
            "exponent, as fast as Lorenz",
            "exponent a unit of path",
            "separation, published protocol",
        ),
        rows,
        [False, True, True, True],
    )


ABOVE = (
    (
        "How well they point",
        "The bars show the cosine between fields learned from snapshots alone, without time, and "
        "the simulator's change: 1 is the same direction, 0 no relation. Bars are means over "
        "held-out snapshots, thin lines their spread. Random fields are the baseline "
        "that costs nothing.",
        chart,
    ),
)
BELOW = (
    (
        "Along the march",
        "The table compares the displacement under field and noise with the simulator's: absolute "
        "cosine, the better of v and −v. This is upstream's protocol, which uses the truth to "
        "choose a sign. Values are means over held-out snapshots. The published values are of one "
        "snapshot of the training set; their network was trained on 8192 snapshots of 128 × 128 "
        "cells on a GPU.",
        marched,
    ),
    (
        "At one instant",
        "The table compares the field at a snapshot, without noise, with the simulator's rate of "
        "change there. The sign is fixed beforehand; values are means over held-out snapshots.",
        instantaneous,
    ),
    (
        "Small cases",
        "All fields have unit speed (on Lorenz: Lorenz's speed, root mean square). In the plane a "
        "training-free field has a first integral, log p, and no chaos: its exponents go to zero "
        "as log t / t.",
        exponents,
    ),
    (
        "Chaos",
        "The table shows largest Lyapunov exponents on Lorenz's attractor. A field learned "
        "without time has no speed of its own. So one column scales it to Lorenz's speed, and one "
        "divides by the path in standardised states. The last column follows the published "
        "protocol. Its distances grow from 1e-5 to the size of the attractor within 250 units of "
        "time; so it cannot exceed about 0.05, however chaotic a field is.",
        chaos,
    ),
)


def _rows(numbers: Numbers, name: str) -> tuple[list[list[str]], list[str]]:
    """A row a field with facts of a name, and the presets with facts."""
    known = numbers.by("system", name, field="trainingfree")
    presets = [preset for preset in known if preset != "lorenz"]
    rows = []
    for key, label in FIELDS.items():
        values = [_value(numbers, name, field=key, system=preset) for preset in presets]
        if any(value is not None for value in values):
            rows.append([escape(label), *(_three(value) for value in values)])
    return rows, presets


def _value(numbers: Numbers, name: str, **where: str) -> float | None:
    return numbers.remark(name, "value", **where)


def _three(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}"


def page(experiment: DynamicsExperiment, done: Found) -> Page:
    """Return the page of the dynamics behind snapshots."""
    trainings = {}
    if "score" in done and experiment.score.weights is None:
        trainings = {
            f"score, {preset}": done["score"].path / preset
            for preset in experiment.patterns.presets
        }
    sections = (listed(ABOVE), panels, listed(BELOW), training, spent, facts, origin)
    return Page(sections, trainings=trainings, panels=_panels(experiment, done))


def _panels(experiment: DynamicsExperiment, done: Found) -> list[Panel]:
    """One panel a preset and one a case of few dimensions."""
    shown: list[Panel] = []
    if "evaluate" in done:
        for preset in experiment.patterns.presets:
            arrays, _ = load_arrays(done["evaluate"].path / f"{preset}.fields.h5")
            shown.append(PatternPanel(preset, arrays))
    if "cases" in done and experiment.cases is not None:
        for name in experiment.cases.names:
            arrays, _ = load_arrays(done["cases"].path / f"{name}.case.h5")
            shown.append(CasePanel(name, arrays))
    return shown
