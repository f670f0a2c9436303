"""Named parameters of the Gray-Scott system.

`pattern`: cells of unit length and steps of unit time, the dimensionless form with Du = 0.16,
Dv = 0.08 (Pearson 1993, https://doi.org/10.1126/science.261.5118.189). The patterns of chaos have
Du = 0.10, Dv = 0.05.

`the_well`: the six classes of the Gray-Scott data of The Well (Ohana and others 2024,
https://arxiv.org/abs/2412.00568). Units are physical: Du = 2e-5, Dv = 1e-5 on [-1, 1]^2, 128^2
cells and a step of 1 s. A frame is stored every 10 s. Their solver is spectral, this one is not.
"""

from __future__ import annotations

from dataclasses import dataclass

CUSTOM = "custom"


@dataclass(frozen=True)
class Family:
    """Parameters shared by the patterns of one family, and (F, k) of each, per unit of time."""

    Du: float
    Dv: float
    dt: float
    dx: float
    clamp: bool
    start: str
    first: str
    rates: dict[str, tuple[float, float]]


_PATTERN_RATES = {
    "waves": (0.018, 0.049),
    "spirals": (0.007, 0.028),
    "maze": (0.029, 0.057),
    "life": (0.006, 0.045),
    "spots": (0.035, 0.065),
    "stripes": (0.035, 0.060),
    "dots": (0.040, 0.070),
    "holes": (0.039, 0.058),
    "bubbles": (0.090, 0.059),
    "worms": (0.046, 0.063),
    "u_skate": (0.062, 0.061),
    "fingerprints": (0.040, 0.064),
    "chaos": (0.026, 0.051),
    "solitons": (0.030, 0.060),
    "pulsating_solitons": (0.025, 0.060),
}

SLOW_DIFFUSION = ("chaos", "solitons", "pulsating_solitons")  # Du = 0.10, Dv = 0.05

_WELL_RATES = {
    "gliders": (0.014, 0.054),
    "bubbles": (0.098, 0.057),
    "maze": (0.029, 0.057),
    "worms": (0.058, 0.065),
    "spirals": (0.018, 0.051),
    "spots": (0.030, 0.062),
}

FAMILIES = {
    "pattern": Family(0.16, 0.08, 1.0, 1.0, True, "discs", "waves", _PATTERN_RATES),
    "the_well": Family(2e-5, 1e-5, 1.0, 2 / 128, False, "gaussians", "gliders", _WELL_RATES),
}


def diffusivities(family: str, pattern: str) -> tuple[float, float]:
    """(Du, Dv) of a pattern."""
    if family == "pattern" and pattern in SLOW_DIFFUSION:
        return 0.10, 0.05
    return FAMILIES[family].Du, FAMILIES[family].Dv
