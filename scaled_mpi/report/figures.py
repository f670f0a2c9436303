"""Curves as inline SVG: crisp at any size, text and axes in the colour of the page.

Figures use matplotlib's objects alone (no pyplot, no global state) and keep text as text. The
colour `palette.INK` becomes `currentColor`, so one figure suits light and dark pages.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from scaled_mpi.report.palette import INK, Method, in_order, method
from scaled_mpi.report.series import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

WIDTH = 9.6  # inches of 72 points: the page's column
WORTHLESS = 5.0  # VRMSE; the axis ends here, since all larger errors are equally useless

STYLE: dict[Any, Any] = {  # keys of matplotlib.rcParams
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "font.sans-serif": ["Inter", "Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#8a8a8a",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.solid_capstyle": "round",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "ytick.minor.width": 0.5,
}


def draw(paint: Callable[[Figure], None], name: str, height: float = 3.5) -> str:
    """Return the <svg> element of a figure of the page's width, filled by `paint`.

    `name` is its label for readers of the screen, `height` is in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        memory = io.StringIO()
        figure.savefig(memory, format="svg", transparent=True, metadata={"Date": None})
    text = memory.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Numbered names would repeat in every figure of the page; nothing refers to them.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    # Sizes in points would be fixed; without them the figure fills its column.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg class="curve" role="img" aria-label="{name}"', 1)


def shade(share: float) -> tuple[float, float, float, float]:
    """Return the colour (red, green, blue, opacity) of a share from 0 to 1, for ordered lines."""
    from matplotlib import colormaps

    return colormaps["viridis"](share)


def by_lead(
    series: Series,
    name: str,
    ylabel: str,
    labels: Mapping[str, str],
    log: bool = True,
    level: float | None = None,
) -> str:
    """Return a figure of values by lead, one line a method; `level` is a thin reference line."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        if level is not None:
            axes.axhline(level, color=INK, linewidth=0.8)
        for key in in_order(list(series)):
            line(axes, *series[key], method(key, labels))
        axes.set_xlabel("jumps ahead")
        axes.set_ylabel(ylabel)
        _whole(axes.xaxis)
        if log:
            _log(axes.yaxis)
            axes.set_ylim(top=min(axes.get_ylim()[1], WORTHLESS))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

    return draw(paint, name, 4.2 if len(series) > 5 else 3.3)


def convergence(mismatch: Series, sweeps: Sequence[float], tolerance: float | None) -> str:
    """Return a figure: interface mismatch by sweep, a line a jump; histogram of sweeps a jump."""
    paints: list[Callable[[Axes], None]] = []
    if mismatch:
        paints.append(partial(_mismatch_lines, mismatch=mismatch, tolerance=tolerance))
    if sweeps:
        paints.append(partial(_sweep_counts, sweeps=sweeps))
    return _panels(paints, "convergence")


def _mismatch_lines(axes: Axes, mismatch: Series, tolerance: float | None) -> None:
    jumps = sorted(mismatch, key=float)
    for place, jump in enumerate(jumps):
        colour = shade(0.3 + 0.6 * place / max(1, len(jumps) - 1))
        axes.plot(
            *mismatch[jump],
            "-o",
            color=colour,
            linewidth=1.0,
            markersize=3,
            alpha=0.8,
            label=f"jump {jump}" if place in (0, len(jumps) - 1) else None,
        )
    if tolerance is not None:
        axes.axhline(tolerance, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            "tolerance",
            (1, tolerance),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=9,
        )
    axes.set_xlabel("sweep")
    axes.set_ylabel("interface mismatch")
    _whole(axes.xaxis)
    _log(axes.yaxis)
    axes.legend(loc="upper right")


def _sweep_counts(axes: Axes, sweeps: Sequence[float]) -> None:
    counts = np.bincount(np.asarray(sweeps, int))
    axes.bar(np.arange(len(counts)), counts, width=0.7, color=method("surrogate", {}).colour)
    for place in np.flatnonzero(counts):
        axes.annotate(
            str(counts[place]),
            (place, counts[place]),
            ha="center",
            va="bottom",
            fontsize=9,
            xytext=(0, 1),
            textcoords="offset points",
        )
    axes.set_xlabel("sweeps")
    axes.set_ylabel("jumps")
    _whole(axes.xaxis)
    axes.set_xlim(np.flatnonzero(counts)[0] - 1.2, len(counts) + 0.2)
    axes.grid(axis="x", visible=False)


def spectra(by_lead_: Mapping[int, Series], labels: Mapping[str, str]) -> str:
    """Return a figure of radial spectra, a panel a lead."""

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(by_lead_), sharey=True, squeeze=False)[0]
        floor, top = _decades([line for lines in by_lead_.values() for line in lines.values()])
        for axes, (lead, lines) in zip(panels, by_lead_.items(), strict=True):
            for key in in_order(list(lines))[::-1]:
                style = method(key, labels)
                axes.plot(
                    *_resolved(*lines[key]),
                    color=style.colour,
                    linewidth=style.width,
                    linestyle=style.dash,
                    label=style.label,
                )
            _log(axes.xaxis)
            axes.set_yscale("log")
            axes.set_ylim(floor, top)
            axes.set_title(f"jump {lead}")
            axes.set_xlabel("wavenumber (cycles a cell)")
        panels[0].set_ylabel("power")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(
            handles[::-1], names[::-1], loc="outside lower center", ncols=min(4, len(names))
        )

    return draw(paint, "spectra", 3.7)


def training(curves: Mapping[str, Series]) -> str:
    """Return a figure of losses by step, a panel a training: training pale, validation strong."""
    colours = {"training": "#8a8a8a", "validation": INK}

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        for axes, (name, lines) in zip(panels, curves.items(), strict=True):
            for key, (x, y) in lines.items():
                sparse = "o" if len(x) < 30 else None
                axes.plot(
                    x, y, color=colours[key], label=key, linewidth=1.6, marker=sparse, markersize=3
                )
            axes.set_title(name)
            axes.set_xlabel("step")
            _log(axes.yaxis)
            axes.legend(loc="upper right")
        panels[0].set_ylabel("loss")

    return draw(paint, "training", 3.0)


def cost(
    times: Mapping[str, float], errors: Mapping[str, float], labels: Mapping[str, str]
) -> str:
    """Return a figure of seconds a jump against VRMSE, a point a method; lower left is better.

    Methods that take no time have no place on a logarithmic axis; they stand at its left end.
    """
    free = min((seconds for seconds in times.values() if seconds > 0), default=1.0) / 3

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for key in in_order(list(times)):
            style = method(key, labels)
            if errors.get(key, 0) > 0:
                axes.plot(
                    max(times[key], free),
                    errors[key],
                    style.marker,
                    color=style.colour,
                    markersize=11 if key == "surrogate" else 8,
                    label=style.label,
                    linestyle="none",
                    clip_on=False,
                )
            else:
                axes.axvline(times[key], color=style.colour, linewidth=1.2, label=style.label)
        axes.margins(x=0.08, y=0.12)
        _log(axes.xaxis)
        _log(axes.yaxis)
        axes.set_xlabel("seconds a jump, whole domain")
        axes.set_ylabel("VRMSE after one jump")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

    return draw(paint, "cost", 3.7)


def stages(seconds: Mapping[str, float]) -> str:
    """Return a figure of the seconds of the whole job, a bar a stage."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        names = list(seconds)[::-1]
        values = [seconds[name] for name in names]
        axes.barh(names, values, height=0.62, color="#8a8a8a")
        for place, value in enumerate(values):
            axes.annotate(
                f"{value:.3g} s",
                (value, place),
                xytext=(4, 0),
                va="center",
                textcoords="offset points",
                fontsize=9,
            )
        axes.margins(x=0.1)
        axes.set_xlabel("seconds")
        axes.grid(axis="y", visible=False)

    return draw(paint, "stages", 0.9 + 0.32 * len(seconds))


def _panels(paints: Sequence[Callable[[Axes], None]], name: str) -> str:
    def paint(figure: Figure) -> None:
        ratios = [1.6, 1.0] if len(paints) == 2 else None
        for axes, fill in zip(
            figure.subplots(1, len(paints), squeeze=False, width_ratios=ratios)[0],
            paints,
            strict=True,
        ):
            fill(axes)

    return draw(paint, name, 3.2)


def line(axes: Axes, x: Sequence[float], y: Sequence[float], style: Method) -> None:
    """Draw one method's line in its own stroke, with about eight markers."""
    every = max(1, len(x) // 8)
    axes.plot(
        x,
        y,
        color=style.colour,
        linestyle=style.dash,
        linewidth=style.width,
        marker=style.marker,
        markersize=4.5,
        markevery=every,
        label=style.label,
        zorder=3 if style.width > 2 else 2,
    )


def _whole(axis: XAxis | YAxis) -> None:
    """Ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def _log(axis: XAxis | YAxis) -> None:
    """A logarithmic axis labelled in plain numbers, also between decades when it spans few."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    if math.isinf(getattr(axis.axes.dataLim, f"minpos{axis.axis_name}")):
        return  # nothing positive to show
    (axis.axes.set_yscale if axis.axis_name == "y" else axis.axes.set_xscale)("log")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if 0 < low < high else 1.0
    marks = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(subs=marks, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _resolved(k: Sequence[float], power: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Without the mean and without the corners beyond the grid's limit."""
    x, y = np.asarray(k, float), np.asarray(power, float)
    kept = (x > 0) & (x <= 0.5) & (y > 0)
    return x[kept], y[kept]


def _decades(lines: Sequence[tuple]) -> tuple[float, float]:
    """Axis limits that hold all power down to 1e-10 of the peak."""
    values = np.concatenate([_resolved(*line)[1] for line in lines])
    top = float(values.max()) if values.size else 1.0
    bottom = float(values.min()) if values.size else 0.1
    return max(bottom, top * 1e-10) / 2, top * 3
