"""Sections for patterns: how fields found from snapshots point, their pictures, small cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from scaled_mpi.engine.kind import Found
from scaled_mpi.experiments.dynamics.settings import DynamicsExperiment
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.report import figures, images, movies, tables
from scaled_mpi.report.page import Page, Panel
from scaled_mpi.report.palette import INK
from scaled_mpi.report.pictures import error_limit, field_limits, row
from scaled_mpi.report.sections import facts, listed, origin, panels, spent, training
from scaled_mpi.report.series import Numbers, number

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
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def chart(numbers: Numbers) -> str:
    """Both protocols as bars, a group a preset, the published values as marks; "" without."""
    presets = _rows(numbers, "cos")[1]
    if not presets:
        return ""

    def paint(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(left, numbers, presets, "cos")
        _bars(right, numbers, presets, "cos.fair")
        left.set_title("along the march, |cos|, the better sign")
        right.set_title("at one instant, cos, sign fixed beforehand")
        handles = {
            label: bar
            for axes in (left, right)
            for bar, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)

    return figures.draw(paint, "directions", 4.0)


def _bars(axes: Any, numbers: Numbers, presets: Sequence[str], prefix: str) -> None:
    """A bar a field and preset with the spread over snapshots or draws."""
    kinds = [
        key
        for key in BARS
        if any(_value(numbers, f"{prefix}.{key}.{p}") is not None for p in presets)
    ]
    wide, places = 0.8 / len(kinds), np.arange(len(presets))
    for row_, kind in enumerate(kinds):
        at = places + (row_ - (len(kinds) - 1) / 2) * wide
        names = [f"{prefix}.{kind}.{preset}" for preset in presets]
        label, colour = BARS[kind]
        axes.bar(
            at,
            [_value(numbers, name) or 0.0 for name in names],
            0.9 * wide,
            label=label,
            yerr=[_value(numbers, name, "spread") or 0.0 for name in names],
            color=colour,
            error_kw={"linewidth": 0.8, "ecolor": "#8a8a8a"},
        )
        known = [PUBLISHED.get(kind, {}).get(preset, np.nan) for preset in presets]
        if prefix == "cos" and not np.isnan(known).all():
            axes.plot(at, known, "D", color=INK, markersize=5, label="published, on a GPU")
    axes.axhline(0.0, color=INK, linewidth=0.7)
    axes.set_xticks(places, presets)
    axes.grid(axis="x", visible=False)


def marched(numbers: Numbers) -> str:
    """Upstream's protocol: a row a field, a column a preset; "" without facts."""
    rows, presets = _rows(numbers, "cos")
    if not rows:
        return ""
    for key, known in PUBLISHED.items():
        label = f"published: {FIELDS[key]}"
        rows.append([escape(label), *(_said(known.get(preset)) for preset in presets)])
    return tables.table(("|cos|", *presets), rows, [False] + [True] * len(presets))


def instantaneous(numbers: Numbers) -> str:
    """The fair protocol, the same table; below it how still each field leaves the density."""
    rows, presets = _rows(numbers, "cos.fair")
    if not rows:
        return ""
    head, right = ("cos", *presets), [False] + [True] * len(presets)
    still = [
        [escape(label), *(_said(_value(numbers, f"stationarity.{key}.{p}")) for p in presets)]
        for key, label in (
            ("trainingfree", FIELDS["trainingfree"]),
            ("flow", FIELDS["flow"]),
            ("random", "a random linear map of the score"),
        )
    ]
    size = [
        "size of the dynamics, a step",
        *(f"{_value(numbers, f'dynamics.size.{p}') or 0.0:.2g}" for p in presets),
    ]
    return (
        tables.table(head, rows, right)
        + "<h4>Relative squared residual of div v + v · s (0: the density stands still)</h4>"
        + tables.table(("residual", *presets), [*still, size], right)
    )


def exponents(numbers: Numbers) -> str:
    """Lyapunov exponents and residuals of the small cases; "" without facts."""
    rows = []
    for case in CASES:
        for kind in ("truth", "trainingfree", "flow"):
            found = [
                _value(numbers, f"{name}.{kind}.{case}")
                for name in ("lyapunov", "lyapunov.sum", "stationarity", "density.drift", "cos")
            ]
            if any(value is not None for value in found):
                rows.append(
                    [
                        case.replace("_", " "),
                        kind.replace("gf", "g-f"),
                        *(_said(value) for value in found),
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
    """Lorenz and the flow learned from its states, beside what is published; "" without."""
    rows = []
    for kind, label in (("truth", "Lorenz's own equations"), ("flow", "learned flow")):
        found = [
            _value(numbers, f"{name}.{kind}.lorenz")
            for name in ("lyapunov", "lyapunov.path", "lyapunov.separation")
        ]
        if any(value is not None for value in found):
            rows.append([label, *(_said(value) for value in found)])
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
        "Cosine between fields that were found from snapshots alone, without "
        "any time, and what the simulator does; 1 is the same direction, 0 no relation. Mean over "
        "held-out snapshots, thin lines their spread; random fields show what costs nothing.",
        chart,
    ),
)
BELOW = (
    (
        "Along the march",
        "Displacement under the field and noise against that of the simulator, "
        "absolute value, the better of v and −v: upstream's protocol, which looks at the truth to "
        "choose a sign. Mean over held-out snapshots; published is one snapshot of the training "
        "set, its network trained on 8192 snapshots of 128 × 128 cells on a GPU.",
        marched,
    ),
    (
        "At one instant",
        "The field at a snapshot without noise against the simulator's rate of "
        "change there, with its sign, which is fixed beforehand; mean over held-out snapshots.",
        instantaneous,
    ),
    (
        "Small cases",
        "Fields of unit speed (on Lorenz: as fast as Lorenz). In the plane a "
        "training-free field has a first integral, log p, and no chaos: its exponents go to zero "
        "as log t / t.",
        exponents,
    ),
    (
        "Chaos",
        "Largest Lyapunov exponents on Lorenz's attractor. A field found without time has "
        "no speed of its own, so the exponent is told for one as fast as Lorenz's, and for a unit "
        "of path in standardised states. Separation: the published way, whose distances grow from "
        "1e-5 to the size of the attractor within its 250 units of time, so that it cannot tell "
        "more than about 0.05 however chaotic a field is.",
        chaos,
    ),
)


@dataclass(frozen=True)
class PatternPanel:
    """One held-out snapshot of a preset, the fields found at it, and where they lead."""

    preset: str
    arrays: Mapping[str, np.ndarray]

    @property
    def heading(self) -> str:
        """The preset's name."""
        return self.preset.capitalize()

    @property
    def sentence(self) -> str:
        """What is shown."""
        shape = self.arrays["snapshots"].shape[2:]
        return (
            f"A held-out snapshot of {shape[0]} × {shape[1]} cells, the simulator's rate of "
            "change there and the fields found without any time; then what 20 steps of the "
            "simulator change beside what a march of 200 steps along the fields changes, "
            "denoised. Species v, red up and blue down, each in its own scale; cosines with "
            "the simulator's change over both species, of marches with their noise. Below, "
            "the same 200 steps in motion, and other held-out snapshots."
        )

    def content(self) -> str:
        """The fields, the marches as a movie, other snapshots."""
        snapshots = self.arrays["snapshots"][:, 1]
        low, high = field_limits(list(snapshots))
        fields = [
            ("snapshot", snapshots[0], low, high, images.FIELD),
            self._change("simulator, rate of change", "rate"),
            self._change("training-free field", "trainingfree", "rate"),
            self._change("learned flow", "flow", "rate"),
            self._change("simulator, 20 steps", "truth"),
            self._change("training-free, marched", "marched.trainingfree", "truth"),
            self._change("learned flow, marched", "marched.flow", "truth"),
        ]
        others = [
            (f"snapshot {k + 2}", plane, low, high, images.FIELD)
            for k, plane in enumerate(snapshots[1:])
        ]
        return row(fields) + self._motion() + (row(others) if others else "")

    def _change(
        self, label: str, key: str, truth: str | None = None
    ) -> tuple[str, np.ndarray, float, float, str]:
        """A field as a picture, labelled with its cosine with the simulator's.

        Of a march the denoised change is shown; its cosine is that of the noisy one.
        """
        field = self.arrays[key]
        if truth is not None:
            true = self.arrays[truth]
            along = float(np.vdot(field, true) / (_norm(field) * _norm(true)))
            label += f", cos\N{NO-BREAK SPACE}{along:.2f}".replace("-", "\N{MINUS SIGN}")
        film = self.arrays.get("film." + key.removeprefix("marched."))
        plane = film[-1] - film[0] if key.startswith("marched.") else field[1]
        limit = error_limit([plane])
        return label, plane, -limit, limit, images.ERROR

    def _motion(self) -> str:
        """A movie: the simulator and the denoised states of the marches, the same steps."""
        films = {
            "truth": "simulator",
            "trainingfree": "along the training-free field",
            "flow": "along the learned flow",
        }
        names = "".join(f"<span>{label}</span>" for label in films.values())
        moving = [self.arrays[f"film.{key}"] for key in films]
        low, high = field_limits([moving[0]])

        def frames(panel: int) -> Iterator[np.ndarray]:
            for step, *planes in zip(self.arrays["film.steps"], *moving, strict=True):
                shown = [(plane, low, high, images.FIELD) for plane in planes]
                yield movies.frame(shown, f"step {step}", panel)

        played = movies.play(frames, "the simulator and marches along the fields")
        return f'<figure><div class="over">{names}</div>{played}</figure>'


@dataclass(frozen=True)
class CasePanel:
    """One density in few dimensions with its fields."""

    case: str
    arrays: Mapping[str, np.ndarray]

    @property
    def heading(self) -> str:
        """The case's name."""
        return self.case.replace("_", " ").capitalize()

    @property
    def sentence(self) -> str:
        """What is shown."""
        if "path.flow" in self.arrays:
            return (
                "States of Lorenz's attractor without any time, which is all that was "
                "learned from; a path of the learned flow; a path of Lorenz's own equations "
                "over the same time."
            )
        return (
            "Paths along fields under which the density (shaded) stands still; each begins "
            "at its dot, the same ones on both sides."
        )

    def content(self) -> str:
        """A figure: paths over the density, or over the attractor."""
        paint = self._attractor if "path.flow" in self.arrays else self._paths
        return figures.draw(paint, self.case, 3.6)

    def _paths(self, figure: Any) -> None:
        x, y = np.moveaxis(self.arrays["points"], -1, 0)
        density = self.arrays["density"]
        for axes, (key, label) in zip(
            figure.subplots(1, 2),
            (("trainingfree", "training-free, exact score"), ("flow", "learned flow")),
            strict=True,
        ):
            axes.contourf(x, y, density, levels=12, cmap="Greys", alpha=0.6)
            for path, colour in zip(self.arrays[f"paths.{key}"], COLOURS, strict=False):
                axes.plot(*path.T, color=colour, linewidth=1.2)
                axes.plot(*path[0], "o", color=colour, markersize=4.5)
            axes.set_title(label)
            axes.set_xlim(x.min(), x.max())
            axes.set_ylim(y.min(), y.max())
            axes.set_aspect("equal")
            axes.grid(False)

    def _attractor(self, figure: Any) -> None:
        panels = figure.subplots(1, 3, sharex=True, sharey=True)
        samples = self.arrays["samples"]
        panels[0].plot(samples[:, 0], samples[:, 2], ".", markersize=1.5, color=INK)
        for axes, key, colour in zip(panels[1:], ("flow", "truth"), COLOURS, strict=False):
            path = self.arrays[f"path.{key}"]
            axes.plot(path[:, 0], path[:, 2], linewidth=0.7, color=colour)
        titles = ("states, standardised (x, z)", "a path of the learned flow", "Lorenz's own")
        for axes, title in zip(panels, titles, strict=True):
            axes.set_title(title)
        # A flow that was hardly trained may leave for infinity.
        panels[0].set_xlim(1.3 * samples[:, 0].min(), 1.3 * samples[:, 0].max())
        panels[0].set_ylim(1.3 * samples[:, 2].min(), 1.3 * samples[:, 2].max())


def _norm(field: np.ndarray) -> float:
    return max(float(np.linalg.norm(field)), 1e-300)


def _rows(numbers: Numbers, prefix: str) -> tuple[list[list[str]], list[str]]:
    """A row a field with the facts prefix.FIELD.PRESET, and the presets found."""
    first = f"{prefix}.trainingfree."
    presets = [
        fact["name"].removeprefix(first)
        for fact in numbers.facts
        if fact["name"].startswith(first) and not fact["name"].endswith("lorenz")
    ]
    rows = []
    for key, label in FIELDS.items():
        values = [_value(numbers, f"{prefix}.{key}.{preset}") for preset in presets]
        if any(value is not None for value in values):
            rows.append([escape(label), *(_said(value) for value in values)])
    return rows, presets


def _value(numbers: Numbers, name: str, place: str = "value") -> float | None:
    found = [fact for fact in numbers.facts if fact["name"] == name and place in fact]
    return number(found[-1][place]) if found else None


def _said(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}"


def page(experiment: DynamicsExperiment, done: Found) -> Page:
    """The page of the dynamics behind snapshots."""
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
    found: list[Panel] = []
    if "evaluate" in done:
        for preset in experiment.patterns.presets:
            arrays, _ = load_arrays(done["evaluate"].path / f"{preset}.fields.h5")
            found.append(PatternPanel(preset, arrays))
    if "cases" in done and experiment.cases is not None:
        for name in experiment.cases.names:
            arrays, _ = load_arrays(done["cases"].path / f"{name}.case.h5")
            found.append(CasePanel(name, arrays))
    return found
