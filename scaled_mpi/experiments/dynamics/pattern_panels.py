"""Pictures on the page of dynamics: fields and marches of a pattern, paths of a small case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scaled_mpi.report import figures, images, movies
from scaled_mpi.report.palette import INK
from scaled_mpi.report.pictures import error_limit, field_limits, row

if TYPE_CHECKING:
    from scaled_mpi.report.figures import Figure

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class PatternPanel:
    """One held-out snapshot of a preset, the learned fields there, and marches along them.

    `arrays` are those of `PRESET.fields.h5`: snapshots (n, 2, Y, X), fields (2, Y, X) and films
    (T, Y, X) of species v.
    """

    preset: str
    arrays: Mapping[str, np.ndarray]

    @property
    def heading(self) -> str:
        """The name of the preset."""
        return self.preset.capitalize()

    @property
    def sentence(self) -> str:
        """The description of the pictures."""
        shape = self.arrays["snapshots"].shape[2:]
        return (
            f"The row shows a held-out snapshot of {shape[0]} × {shape[1]} cells, the simulator's "
            "rate of change there and the fields learned without time. Then it shows the change "
            "after 20 steps of the simulator and the denoised change after a march of 200 steps "
            "along the fields. All show species v, red up and blue down, each in its own scale. "
            "Cosines compare with the simulator's change over both species; those of marches "
            "include the noise. The movie shows the same 200 steps; further held-out snapshots "
            "stand below."
        )

    def content(self) -> str:
        """Return the fields, the marches as a movie, and further snapshots."""
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
        further = [
            (f"snapshot {k + 2}", plane, low, high, images.FIELD)
            for k, plane in enumerate(snapshots[1:])
        ]
        return row(fields) + self._motion() + (row(further) if further else "")

    def _change(
        self, label: str, key: str, truth: str | None = None
    ) -> tuple[str, np.ndarray, float, float, str]:
        """A field as a picture, labelled with its cosine with the simulator's field.

        A march shows its denoised change; its cosine is of the noisy change.
        """
        field = self.arrays[key]
        if truth is not None:
            true = self.arrays[truth]
            along = float(np.vdot(field, true) / (_norm(field) * _norm(true)))
            label += f", cos\N{NO-BREAK SPACE}{along:.2f}".replace("-", "\N{MINUS SIGN}")
        plane = field[1]
        if key.startswith("marched."):
            film = self.arrays["film." + key.removeprefix("marched.")]
            plane = film[-1] - film[0]
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
    """One density in few dimensions with its fields.

    `arrays` are those of `CASE.case.h5`: points (n, m, 2), density (n, m) and paths (k, T, 2), or
    on Lorenz's attractor samples (n, 3) and paths (T, 3).
    """

    case: str
    arrays: Mapping[str, np.ndarray]

    @property
    def heading(self) -> str:
        """The name of the case."""
        return self.case.replace("_", " ").capitalize()

    @property
    def sentence(self) -> str:
        """The description of the pictures."""
        if "path.flow" in self.arrays:
            return (
                "The left panel shows states of Lorenz's attractor without time, the whole data "
                "of the training. The other panels show a path of the learned flow, and a path of "
                "Lorenz's own equations over the same time."
            )
        return (
            "The lines are paths along fields that leave the density (shaded) unchanged. Each "
            "path begins at its dot; both sides have the same dots."
        )

    def content(self) -> str:
        """Return a figure: paths over the density, or over the attractor."""
        paint = self._attractor if "path.flow" in self.arrays else self._paths
        return figures.draw(paint, self.case, 3.6)

    def _paths(self, figure: Figure) -> None:
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

    def _attractor(self, figure: Figure) -> None:
        panels = figure.subplots(1, 3, sharex=True, sharey=True)
        samples = self.arrays["samples"]
        panels[0].plot(samples[:, 0], samples[:, 2], ".", markersize=1.5, color=INK)
        for axes, key, colour in zip(panels[1:], ("flow", "truth"), COLOURS, strict=False):
            path = self.arrays[f"path.{key}"]
            axes.plot(path[:, 0], path[:, 2], linewidth=0.7, color=colour)
        titles = ("states, standardised (x, z)", "a path of the learned flow", "Lorenz's own")
        for axes, title in zip(panels, titles, strict=True):
            axes.set_title(title)
        # A flow after a short training may leave for infinity.
        panels[0].set_xlim(1.3 * samples[:, 0].min(), 1.3 * samples[:, 0].max())
        panels[0].set_ylim(1.3 * samples[:, 2].min(), 1.3 * samples[:, 2].max())


def _norm(field: np.ndarray) -> float:
    return max(float(np.linalg.norm(field)), 1e-300)
