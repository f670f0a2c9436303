"""Calibration and scores of ensembles against the truth, lead by lead.

The truth is one run of the simulator. `reference` is an ensemble of the simulator from the same
start, which other forecasts beat by chance alone. The energy score compares patches of 4 cells an
axis, in units of each channel's standard deviation. Patches lie across a tile's edge, or inside a
tile: a forecast of independent tiles has right cells and wrong patches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scaled_mpi import metrics
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.forecast.sampling import UNTILED, ensemble_names
from scaled_mpi.experiments.forecast.settings import ForecastExperiment
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.progress import Progress

LEVELS = (0.5, 0.9)  # nominal coverage
RIM = 2  # cells of a patch on each side of an edge
SHOWN = (1, 10)  # leads whose rank histograms and energy scores are kept, as are the last's

Gather = Callable[[list[np.ndarray]], list[np.ndarray]]


def ensembles(context: Context[ForecastExperiment]) -> dict[str, list[Trajectory]]:
    """Return all ensembles of two members or more, by method."""
    coupled, simulated = context.inputs["couple"], context.inputs["simulate"]
    names = trajectory_names(coupled)
    members = {
        method: [Trajectory(coupled, name) for name in ensemble_names(names, method)]
        for method in ("surrogate", UNTILED, *context.experiment.rivals)
    }
    members["reference"] = [
        Trajectory(simulated, name)
        for name in trajectory_names(simulated)
        if name.startswith("reference-")
    ]
    return {method: runs for method, runs in members.items() if len(runs) > 1}


class Calibrating:
    """The tiles of one rank; the recorded facts are the same for any rank count.

    `start` is the last known frame; gather(values) returns one array a tile, of all tiles.
    """

    def __init__(
        self,
        context: Context[ForecastExperiment],
        truth: Trajectory,
        blocks: Blocks,
        comm: Comm,
        gather: Gather,
        start: int,
    ) -> None:
        self.facts, self.truth, self.blocks, self.comm = context.facts, truth, blocks, comm
        self.gather, self.start = gather, start
        self.block = blocks.block(comm.rank)
        self.tiles = [
            blocks.local_slices(comm.rank, index, RIM) for index in blocks.tiles(comm.rank)
        ]
        self.core = tuple(slice(RIM, RIM + t) for t in blocks.tile)

    def __call__(self, method: str, runs: Sequence[Trajectory], jumps: int) -> None:
        """Record everything of one ensemble over `jumps` leads."""
        leads = min(jumps, *(len(run) for run in runs))
        lead_scores = []
        with Progress(f"calibrate {method}", leads, self.comm.rank) as progress:
            for lead in range(1, leads + 1):
                members = np.stack([run.read_block(lead - 1, self.block, RIM) for run in runs])
                true = self.truth.read_block(self.start + lead, self.block, RIM)
                lead_scores.append(self._lead(method, lead, members, true))
                if lead in (*SHOWN, leads):
                    self._ranks(method, lead, lead_scores[-1])
                    self._energy(method, lead, members, true)
                progress.step()
        crps = float(np.mean([scores.crps.mean() for scores in lead_scores]))
        self.facts.record("crps.mean", crps, method=method)
        self.facts.record("ensemble.members", len(runs), "members", method=method)
        if method == "surrogate":
            self.facts.record("crps", crps)

    def _lead(
        self, method: str, lead: int, members: np.ndarray, true: np.ndarray
    ) -> metrics.Calibration:
        tiles = [(_cut(members, tile), _cut(true, tile)) for tile in self.tiles]
        cores = [(_cut(runs, self.core), _cut(seen, self.core)) for runs, seen in tiles]
        sums = [metrics.ensemble_sums(runs, seen) for runs, seen in cores]
        found = metrics.calibration_from_sums(self.gather(sums))
        means = [metrics.pair_sums(runs.mean(0), seen) for runs, seen in cores]
        variance = metrics.scores_from_sums(self.gather(means)).variance
        place: dict[str, Any] = {"method": method, "lead": lead}
        spread, error = (
            float(np.sqrt(np.mean(values**2 / (variance + metrics.EPSILON))))
            for values in (found.spread, found.rmse)
        )
        self.facts.record("crps.lead", float(found.crps.mean()), **place)
        self.facts.record("mae.mean.lead", float(found.mae.mean()), **place)
        self.facts.record("spread.lead", spread, **place)
        self.facts.record("skill.lead", error, **place)
        self.facts.record("spread.skill.lead", spread / error, **place)
        for name, ratio in zip(self.truth.channels, found.spread / found.rmse, strict=True):
            self.facts.record("spread.skill.lead", float(ratio), **place, channel=name)
        for level in LEVELS:
            inside, expected = found.coverage(level)
            self.facts.record("coverage", inside, **place, level=level, expected=expected)
        return found

    def _ranks(self, method: str, lead: int, found: metrics.Calibration) -> None:
        """The rank histogram: 1 where flat."""
        for below, share in enumerate(found.ranks.mean(axis=1) * len(found.ranks)):
            self.facts.record(
                "rank.histogram",
                float(share),
                method=method,
                lead=lead,
                bin=below,
                members=len(found.ranks) - 1,
            )

    def _energy(self, method: str, lead: int, members: np.ndarray, true: np.ndarray) -> None:
        cores = [_cut(_cut(true, tile), self.core) for tile in self.tiles]
        moments = self.gather([metrics.pair_sums(core, core) for core in cores])
        variance = metrics.scores_from_sums(moments).variance
        deviation = np.sqrt(variance + metrics.EPSILON)
        for place, edge in (("borders", True), ("inside", False)):
            sums = []
            for tile in self.tiles:
                runs, seen = (
                    patches(_cut(field, tile).astype(np.float64), deviation, len(tile), edge)
                    for field in (members, true)
                )
                sums.append(metrics.energy_sums(runs, seen))
            score, count = np.sum(np.stack(self.gather(sums)), axis=0)
            where: dict[str, Any] = {"method": method, "lead": lead, "patches": place}
            self.facts.record("energy.score", float(score / count), **where)


def patches(tile: np.ndarray, deviation: np.ndarray, axes: int, edge: bool) -> np.ndarray:
    """Cut a tile (..., C, *(cells + 2 RIM)) into patches (..., P, D) of 2 RIM cells an axis.

    `edge`: patches across the tile's upper edge of each axis, else as many through its middle.
    `deviation` (C,) is the unit of each channel. Cells that do not fill a patch are left out.
    """
    size, rows = 2 * RIM, []
    channel = tile.ndim - 1 - axes
    cells, lead = tile.shape[channel + 1 :], tile.shape[:channel]
    scaled = tile / deviation.reshape(-1, *[1] * axes)
    for across in range(axes):
        inner = cells[across] - size
        begins = [range(RIM, n - RIM - size + 1, size) for n in cells]
        begins[across] = range(inner, inner + 1) if edge else range(inner // 2, inner // 2 + 1)
        for corner in itertools.product(*begins):
            box = tuple(slice(a, a + size) for a in corner)
            rows.append(_cut(scaled, box).reshape(*lead, -1))
    return np.stack(rows, axis=-2)


def _cut(field: np.ndarray, box: Sequence[slice]) -> np.ndarray:
    """The cells of a box on the last axes."""
    index: tuple[Any, ...] = (..., *box)
    return field[index]
