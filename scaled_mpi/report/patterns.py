"""Sections for patterns: how fields found from snapshots point, their pictures, small cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from scaled_mpi.report import figures, images, tables
from scaled_mpi.report.palette import INK
from scaled_mpi.report.pictures import error_limit, field_limits
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
# |cos| of the training-free field and of random linear maps, Zhang and Levin 2025.
PUBLISHED = {
    "training-free, published": {"life": 0.271, "waves": 0.589, "spirals": 0.250, "maze": 0.270},
    "random linear maps, published": {
        "life": 0.021, "waves": 0.182, "spirals": 0.083, "maze": 0.072},
}
CASES = ("two_moons", "ring", "two_peaks", "lorenz")


def marched(numbers: Numbers) -> str:
    """Upstream's protocol: a row a field, a column a preset; "" without facts."""
    rows, presets = _rows(numbers, "cos")
    if not rows:
        return ""
    for label, known in PUBLISHED.items():
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
        for key, label in (("trainingfree", FIELDS["trainingfree"]), ("flow", FIELDS["flow"]),
                           ("random", "a random linear map of the score"))
    ]
    size = ["size of the dynamics, a step",
            *(f"{_value(numbers, f'dynamics.size.{p}') or 0.0:.2g}" for p in presets)]
    return (tables.table(head, rows, right)
            + "<h4>Relative squared residual of div v + v · s (0: the density stands still)</h4>"
            + tables.table(("residual", *presets), [*still, size], right))


def exponents(numbers: Numbers) -> str:
    """Lyapunov exponents and residuals of the small cases; "" without facts."""
    rows = []
    for case in CASES:
        for kind in ("truth", "trainingfree", "flow"):
            found = [_value(numbers, f"{name}.{kind}.{case}") for name in
                     ("lyapunov", "lyapunov.sum", "stationarity", "density.drift", "cos")]
            if any(value is not None for value in found):
                rows.append([case.replace("_", " "), kind.replace("gf", "g-f"),
                             *(_said(value) for value in found)])
    if not rows:
        return ""
    head = ("case", "field", "largest exponent", "sum of exponents", "relative residual",
            "drift of log p", "cos with Lorenz")
    return tables.table(head, rows, [False, False] + [True] * 5)


SECTIONS = (
    ("Along the march", "Displacement under the field and noise against that of the simulator, "
     "absolute value, the better of v and −v: upstream's protocol, which looks at the truth to "
     "choose a sign. Mean over held-out snapshots.", marched),
    ("At one instant", "The field at a snapshot without noise against the simulator's rate of "
     "change there, with its sign, which is fixed beforehand; mean over held-out snapshots.",
     instantaneous),
    ("Small cases", "Fields of unit speed (on Lorenz: as fast as Lorenz). In the plane a "
     "training-free field has a first integral, log p, and no chaos: its exponents go to zero "
     "as log t / t.", exponents),
)


@dataclass(frozen=True)
class PatternPanel:
    """Snapshots of one preset, and below them the fields found at the first, all of species v."""

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
        return (f"Held-out snapshots of {shape[0]} × {shape[1]} cells; below, for the first of "
                "them, the simulator's rate of change and the fields found without any time, "
                "species v, each in its own scale.")

    def content(self) -> str:
        """Two rows of pictures."""
        snapshots = self.arrays["snapshots"][:, 1]
        low, high = field_limits(list(snapshots))
        above = [(f"snapshot {k + 1}", plane, low, high, images.FIELD)
                 for k, plane in enumerate(snapshots)]
        names = {"rate": "simulator", "trainingfree": "training-free", "flow": "learned flow",
                 "fitted5": "fitted 5 × 5", "truth": "simulator, 20 steps",
                 "marched": "training-free, marched"}
        below = []
        for key, label in names.items():
            if key in self.arrays:
                plane = self.arrays[key][1]
                limit = error_limit([plane])
                below.append((label, plane, -limit, limit, images.ERROR))
        return row(above) + row(below)


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
        if "path" in self.arrays:
            return "Left what was learned from, states without time; right where its flow leads."
        return "Arrows: fields under which the density (shaded) stands still."

    def content(self) -> str:
        """A figure: arrows over the density, or a path over the attractor."""
        paint = self._attractor if "path" in self.arrays else self._arrows
        return figures.draw(paint, self.case, 3.6)

    def _arrows(self, figure: Any) -> None:
        x, y = np.moveaxis(self.arrays["points"], -1, 0)
        for axes, (key, label) in zip(
            figure.subplots(1, 2),
            (("trainingfree", "training-free, exact score"), ("flow", "learned flow")),
            strict=True,
        ):
            field, density = self.arrays[key], self.arrays["density"]
            # Where nothing ever is, a field says nothing.
            shown = np.where(density > 1e-2 * density.max(), 1.0, np.nan)
            axes.contourf(x, y, density, levels=12, cmap="Greys", alpha=0.6)
            axes.quiver(x, y, shown * field[..., 0], shown * field[..., 1], color="#d55e00",
                        pivot="mid", width=0.004)
            axes.set_title(label)
            axes.set_aspect("equal")
            axes.grid(False)

    def _attractor(self, figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        samples, path = self.arrays["samples"], self.arrays["path"]
        left.plot(samples[:, 0], samples[:, 2], ".", markersize=1.5, color=INK)
        left.set_title("states, standardised (x, z)")
        right.plot(path[:, 0], path[:, 2], linewidth=0.7, color="#d55e00")
        right.set_title("a path of the learned flow")
        # A flow that was hardly trained may leave for infinity.
        for axis, limit in ((0, right.set_xlim), (2, right.set_ylim)):
            limit(1.3 * samples[:, axis].min(), 1.3 * samples[:, axis].max())


def row(
    pictures: Sequence[tuple[str, np.ndarray, float, float, str]], across: int = 6
) -> str:
    """Planes side by side, at least `across`: label, values, least, largest shown, colours."""
    empty = "<span></span>" * max(0, across - len(pictures))
    head = "".join(f"<span>{escape(label)}</span>" for label, *_ in pictures) + empty
    stills = "".join(
        f'<img class="sharp" alt="{escape(label)}" width="{plane.shape[1]}" '
        f'height="{plane.shape[0]}" src="{images.png(plane, low, high, colour)}">'
        for label, plane, low, high, colour in pictures)
    columns = f"grid-template-columns: repeat({max(len(pictures), across)}, 1fr)"
    return f'<figure><div class="film" style="{columns}">{head}{stills}</div></figure>'


def _rows(numbers: Numbers, prefix: str) -> tuple[list[list[str]], list[str]]:
    """A row a field with the facts prefix.FIELD.PRESET, and the presets found."""
    first = f"{prefix}.trainingfree."
    presets = [fact["name"].removeprefix(first) for fact in numbers.facts
               if fact["name"].startswith(first) and not fact["name"].endswith("lorenz")]
    rows = []
    for key, label in FIELDS.items():
        values = [_value(numbers, f"{prefix}.{key}.{preset}") for preset in presets]
        if any(value is not None for value in values):
            rows.append([escape(label), *(_said(value) for value in values)])
    return rows, presets


def _value(numbers: Numbers, name: str) -> float | None:
    found = [fact for fact in numbers.facts if fact["name"] == name]
    return number(found[-1]["value"]) if found else None


def _said(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}"
