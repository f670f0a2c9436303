"""The smallest honest simulator: the heat equation, with three methods and three properties."""

from typing import Literal

import numpy as np

from scaled_mpi.config import Spec


class Heat(Spec):
    """dT/dt = kappa lap T, explicit Euler, periodic, spacing 1; stable for kappa dt <= 1/4."""

    kind: Literal["heat"] = "heat"
    kappa: float = 0.2
    dt: float = 1.0

    @property
    def channels(self):
        return ("T",)

    @property
    def time_step(self):
        return self.dt

    @property
    def reach_per_step(self):
        return 1

    def initial(self, block, grid, seed):
        """Two waves whose phases the run decides, float32 (1, *size)."""
        y, x = (np.arange(block.start[i], block.stop[i]) / grid.shape[i] for i in (0, 1))
        phase = 0.7 * (seed[1] % 1000)
        waves = np.sin(2 * np.pi * (y[:, None] + phase)) + np.sin(2 * np.pi * (2 * x - phase))
        return waves[None].astype(np.float32)

    def advance(self, state, steps, exchange):
        for _ in range(steps):
            t = exchange(state)
            around = t[:, :-2, 1:-1] + t[:, 2:, 1:-1] + t[:, 1:-1, :-2] + t[:, 1:-1, 2:]
            state = state + np.float32(self.dt * self.kappa) * (around - 4 * state)
        return state

    def fields(self, state):
        return state


if __name__ == "__main__":  # the command line of the package, with one more simulator
    from scaled_mpi import simulators

    simulators.MEMBERS["heat"] = Heat
    from scaled_mpi.run import main

    raise SystemExit(main())
