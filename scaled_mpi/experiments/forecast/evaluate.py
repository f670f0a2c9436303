"""Score every method against the truth, tile by tile; reads fields, writes facts only."""

from __future__ import annotations

import numpy as np

from scaled_mpi import metrics
from scaled_mpi.engine.artefacts import stage_facts
from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.forecast.calibration import Calibrating, ensembles
from scaled_mpi.experiments.forecast.rates import CodingRates
from scaled_mpi.experiments.forecast.sampling import UNTILED, alone
from scaled_mpi.experiments.forecast.settings import ForecastExperiment
from scaled_mpi.fact_names import OLD_METHODS
from scaled_mpi.parallel.blocks import Blocks
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.store import Trajectory, trajectory_names
from scaled_mpi.parallel.verification import Box, Read, TileGather, extrapolations, lead_scores
from scaled_mpi.progress import Progress

SHOWN = (1, 10)  # leads whose spectra are kept, besides the last


def work(context: Context[ForecastExperiment]) -> None:
    """Record scores, spectra, seams and costs of all methods."""
    truth = Trajectory(context.inputs["simulate"], "test-0000")
    blocks, comm = context.blocks(truth.grid, context.experiment.domain.tile)
    if comm is None:
        return
    scoring = _Scoring(context, truth, blocks, comm)
    scoring.extrapolations()
    for name in filter(alone, trajectory_names(context.inputs["couple"])):
        method = OLD_METHODS.get(name, name)  # in a folder of version 0.1
        scoring.trajectory(method, Trajectory(context.inputs["couple"], name))
    scoring.seams()
    scoring.uncertainty()
    scoring.reconstruction()
    _costs(context)


class _Scoring:
    """All ranks' tiles of one experiment; what is recorded is the same for any rank count."""

    def __init__(
        self, context: Context[ForecastExperiment], truth: Trajectory, blocks: Blocks, comm: Comm
    ) -> None:
        self.context, self.truth, self.blocks, self.comm = context, truth, blocks, comm
        self.facts, self.start = context.facts, context.experiment.history - 1
        self.jumps = min(context.experiment.coupling.jumps, truth.shape[0] - self.start - 1)
        self.gather = TileGather(blocks, comm)

    def extrapolations(self) -> None:
        """The predictors that cost nothing, from the last known frames of the truth."""
        for method, read in extrapolations(self.gather, self.truth, self.start).items():
            self._score(method, self.jumps, read)

    def trajectory(self, method: str, forecast: Trajectory) -> None:
        """One stored forecast: its frame 0 is lead 1."""
        leads = min(forecast.shape[0], self.jumps)
        self._score(method, leads, lambda lead, box: forecast.read(lead - 1, box))
        self._spectra(method, leads, lambda lead, box: forecast.read(lead - 1, box))

    def _score(self, method: str, leads: int, read: Read) -> None:
        frames = []
        with Progress(f"evaluate {method}", leads, self.comm.rank) as progress:
            for lead, scores in enumerate(
                lead_scores(self.gather, read, self._true, leads), start=1
            ):
                frames.append(scores)
                self._record(method, lead, scores)
                progress.step()
        threshold = self.context.experiment.evaluation.stationary
        overall = metrics.summary(frames, threshold)
        self.facts.record("vrmse.mean", overall.mean, method=method)
        self.facts.record("vrmse.median", overall.median, method=method)
        self.facts.record("mae", float(np.mean([one.mae for one in frames])), method=method)
        if method == "surrogate":
            self.facts.record("frames.stationary", overall.masked, "frames x channels")

    def _true(self, lead: int, box: Box) -> np.ndarray:
        return self.truth.read(self.start + lead, box)

    def _record(self, method: str, lead: int, scores: metrics.Scores) -> None:
        value = float(scores.vrmse.mean())
        self.facts.record("vrmse.lead", value, method=method, lead=lead)
        self.facts.record("mae.lead", float(scores.mae.mean()), method=method, lead=lead)
        for name, one in zip(self.truth.channels, scores.vrmse, strict=True):
            self.facts.record("vrmse.lead", float(one), method=method, lead=lead, channel=name)
        if lead in SHOWN and method == "wide_halo":
            # With all of its reach known the network makes no use of mask or sweeps: one
            # network serves both, and `plain` is the same forecast under its own name.
            self.facts.record("vrmse.lead", value, method="plain", lead=lead)

    def _spectra(self, method: str, leads: int, read: Read) -> None:
        for lead in sorted({*(lead for lead in SHOWN if lead <= leads), leads}):
            mine = self._spectrum(lead, read)
            true = self._spectrum(lead, self._true)
            errors = metrics.spectrum_error(mine, true).mean(axis=0)
            for band, error in zip(("large", "middle", "small"), errors, strict=True):
                self.facts.record(
                    "spectrum.error", float(error), method=method, lead=lead, band=band
                )
            if method == "surrogate":
                self._record_spectrum(method, lead, mine)
                self._record_spectrum("simulator", lead, true)

    def _spectrum(self, lead: int, read: Read) -> np.ndarray:
        tiles = [metrics.tile_spectrum(read(lead, box)) for box in self.gather.boxes]
        return metrics.spectrum_from_tiles(self.gather(tiles))

    def _record_spectrum(self, method: str, lead: int, spectrum: np.ndarray) -> None:
        k = metrics.wavenumbers(self.blocks.tile)
        for wave, power in zip(k[1:], spectrum.mean(axis=0)[1:], strict=True):
            self.facts.record("spectrum", float(power), method=method, lead=lead, k=float(wave))

    def uncertainty(self) -> None:
        """Ensembles, where there are any, and the deterministic forecasts beside them."""
        found = ensembles(self.context)
        if not found:
            return
        calibrating = Calibrating(
            self.context, self.truth, self.blocks, self.comm, self.gather, self.start
        )
        for method, runs in found.items():
            calibrating(method, runs, self.jumps)
        folder = self.context.inputs["couple"]
        if UNTILED in trajectory_names(folder):
            self._untiled(*(Trajectory(folder, name) for name in (UNTILED, "surrogate")))

    def _untiled(self, whole: Trajectory, tiled: Trajectory) -> None:
        """How far the first member in one piece is from that over tiles, in spreads."""
        for lead in range(len(whole)):
            found = metrics.scores_from_sums(
                self.gather(
                    [
                        metrics.pair_sums(tiled.read(lead, box), whole.read(lead, box))
                        for box in self.gather.boxes
                    ]
                )
            )
            self.facts.record(
                "untiled.difference", float(found.vrmse.mean()), method="surrogate", lead=lead + 1
            )

    def reconstruction(self) -> None:
        """What the compressor keeps, on the first and the last frame of the test run."""
        experiment = self.context.experiment
        if experiment.compressor.kind == "identity":
            return
        coder = experiment.compressor.load(self.context.inputs["compress"])
        frames = sorted({self.start, len(self.truth) - 1})
        found = CodingRates(self.blocks, self.comm, self.gather)(
            coder, self.truth, frames, experiment.simulator
        )
        for name, value in found.items():
            self.facts.record(name, value)
        for name, value in getattr(coder, "scores", {}).items():
            self.facts.record(f"compressor.{name}", value)

    def seams(self) -> None:
        """Seam index of the surrogate and of the truth on the same lattice, and their ratio."""
        if all(count == 1 for count in self.blocks.counts):
            return
        folder = self.context.inputs["couple"]
        stored = {name: Trajectory(folder, name) for name in trajectory_names(folder)}
        swept = {name: stored[name] for name in ("surrogate", "nosweep") if name in stored}
        ratios = []
        for lead in range(1, min(10, self.jumps) + 1):
            true = self._seam(self.truth, self.start + lead)
            self.facts.record("seam.lead", true, method="simulator", lead=lead)
            for method, forecast in swept.items():
                if lead > forecast.shape[0]:
                    continue
                mine = self._seam(forecast, lead - 1)
                self.facts.record("seam.lead", mine, method=method, lead=lead)
                if method == "surrogate":
                    ratios.append(mine / true)
        self.facts.record("seam.index", float(np.mean(ratios)))

    def _seam(self, stored: Trajectory, frame: int) -> float:
        sums = [
            metrics.seam_sums(stored.read(frame, box, 1), self._edges(box))
            for box in self.gather.boxes
        ]
        return float(metrics.seam_from_sums(self.gather(sums)).mean())

    def _edges(self, box: tuple[slice, ...]) -> list[tuple[bool, bool]]:
        grid = self.blocks.grid
        return [
            (boundary.periodic or part.start > 0, boundary.periodic or part.stop < cells)
            for part, boundary, cells in zip(box, grid.boundary, grid.shape, strict=True)
        ]


def _costs(context: Context[ForecastExperiment]) -> None:
    """Seconds of data and training, and the jumps after which the surrogate has paid for both."""
    facts = [fact for folder in context.inputs.values() for fact in stage_facts(folder)]
    latest = {fact["name"]: fact["value"] for fact in facts if "method" not in fact}
    jump = {fact["method"]: fact["value"] for fact in facts if fact["name"] == "time.jump"}
    data = latest.get("time.simulate.training", 0.0)
    training = latest.get("time.compress", 0.0) + latest.get("time.fit", 0.0)
    if not context.experiment.learns:  # finished weights were paid for elsewhere
        return
    context.facts.record("time.data", data, "s")
    context.facts.record("time.train", training, "s")
    if "simulator" in jump:
        count = metrics.breakeven(data, training, jump["simulator"], jump["surrogate"])
        context.facts.record("breakeven", count if np.isfinite(count) else "never", "jumps")
