"""One label, colour and stroke a method, the same in every figure.

Colours are Okabe and Ito's (2008): colour-blind readers distinguish them, on light and dark
paper. A hue is a family. Vermilion marks the surrogate as configured, blues the same network with
another halo. Greens mark the simulator at a lower cost, grey the baselines that cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Stands for the page's text colour; figures replace it by `currentColor`.
INK = "#0a0b0c"


class Method(NamedTuple):
    """Label and stroke of a method; `dash` is a matplotlib line style."""

    label: str
    colour: str
    dash: str | tuple
    width: float
    marker: str


METHODS: dict[str, Method] = {
    "surrogate": Method("surrogate, coupled", "#d55e00", "-", 2.6, "o"),
    "wide_halo": Method("halo = reach, one exchange", "#0072b2", "-", 1.6, "s"),
    "plain": Method("plain network, no mask", "#56b4e9", (0, (5, 2)), 1.6, "D"),
    "nosweep": Method("short halo, no sweep", "#56b4e9", (0, (1, 1.5)), 2.0, "v"),
    "persistence": Method("persistence", "#8a8a8a", "-", 1.3, "P"),
    "linear": Method("linear extrapolation", "#8a8a8a", (0, (5, 2)), 1.3, "X"),
    "quadratic": Method("quadratic extrapolation", "#8a8a8a", (0, (1, 1.5)), 1.3, "*"),
    "simulator_half_grid": Method("simulator, half the grid", "#009e73", "-", 1.6, "^"),
    "simulator_large_step": Method("simulator, largest step", "#009e73", (0, (5, 2)), 1.6, "<"),
    "deterministic": Method("one best guess", "#e69f00", "-", 1.6, "D"),
    "one_pass": Method("samples in one pass", "#56b4e9", "-", 1.6, "s"),
    "untiled": Method("the same in one piece", "#0072b2", (0, (1, 1.5)), 2.0, "v"),
    "reference": Method("simulator's own ensemble", "#009e73", (0, (3, 1, 1, 1)), 1.6, "^"),
    "energy": Method("all modes of the energy", "#cc79a7", "-", 1.6, "s"),
    "rival": Method("network", "#0072b2", (0, (5, 2)), 1.6, "D"),
    "mean": Method("mean field", "#8a8a8a", (0, (6, 2, 1, 2)), 1.3, "X"),
    "ceiling": Method("ceiling", "#009e73", (0, (6, 2, 1, 2)), 1.6, "<"),
    "limit": Method("simulator from the true state", "#009e73", (0, (1, 1.5)), 1.6, "^"),
    "simulator": Method("simulator (truth)", INK, "-", 1.6, "."),
}

# Denoisers of a domain from those of its tiles: label, colour, dash.
FUSED: dict[str, tuple[str, str, str | tuple]] = {
    "truth": ("truth", INK, "-"),
    "coarse": ("crop and coarse score correction", "#d55e00", "-"),
    "crop": ("crop to the owner", "#0072b2", (0, (5, 2))),
    "collage": ("DiffCollage", "#009e73", (0, (5, 2, 1, 2))),
    "window": ("windows, partition of unity", "#cc79a7", (0, (3, 2))),
    "average": ("average", "#7f7f7f", (0, (1, 1.5))),
}


def method(name: str, labels: Mapping[str, str]) -> Method:
    """Return the method's stroke, with its label from `labels`; an unknown method is purple."""
    known = METHODS.get(name, Method(name.replace("_", " "), "#cc79a7", "-", 1.6, "h"))
    return known._replace(label=labels.get(name, known.label))


def in_order(names: list[str]) -> list[str]:
    """Return names in the order of METHODS; unknown names stand last, sorted."""
    order = list(METHODS)
    return sorted(names, key=lambda name: (order.index(name) if name in order else 99, name))
