"""A local operator with a known answer: k explicit steps of the heat equation on a window."""

import numpy as np


class Heat:
    """`steps` explicit 5-point steps with number `r`; reach = steps, so a wide halo is exact.

    With a narrower halo the rim of what is known is held, or, given its future, moved in a
    straight line to it: the simplest waveform relaxation, whose limit is near the true solution.
    """

    memory = 1
    stochastic = False

    def __init__(self, steps: int = 4, r: float = 0.2, axes: int = 2) -> None:
        self.steps, self.r, self.reach = steps, np.float32(r), (steps,) * axes

    def step(self, field: np.ndarray) -> np.ndarray:
        """One step on all but the outermost cells, which keep their values."""
        new = field.copy()
        core = (..., *[slice(1, -1)] * len(self.reach))
        total = -np.float32(2 * len(self.reach)) * field[core]
        for axis in range(len(self.reach)):
            for shift in (slice(None, -2), slice(2, None)):
                place = [slice(1, -1)] * len(self.reach)
                place[axis] = shift
                total = total + field[(..., *place)]
        new[core] = field[core] + self.r * total
        return new

    def advance(self, window, mask, condition, future=None, noise=None):
        """The tile's core after all steps."""
        known = mask > 0
        box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(known))
        field, begin = window[0][(..., *box)].copy(), window[0][(..., *box)].copy()
        for step in range(1, self.steps + 1):
            field = self.step(field)
            if future is not None:
                values, ring = future[0][(..., *box)], future[1][box] > 0
                part = np.float32(step / self.steps)
                field[..., ring] = ((1 - part) * begin + part * values)[..., ring]
        inner = tuple(
            slice(r - b.start, r - b.start + n - 2 * r)
            for r, b, n in zip(self.reach, box, mask.shape, strict=True)
        )
        return np.ascontiguousarray(field[(..., *inner)])


def periodic_truth(heat: Heat, field: np.ndarray, jumps: int) -> np.ndarray:
    """The same arithmetic on the whole periodic domain at once."""
    for _ in range(jumps):
        width = [(0, 0), *[(heat.steps, heat.steps)] * len(heat.reach)]
        padded = np.pad(field, width, mode="wrap")
        for _ in range(heat.steps):
            padded = heat.step(padded)
        field = padded[(..., *[slice(heat.steps, -heat.steps)] * len(heat.reach))].copy()
    return field
