"""Score the forecasts of an ensemble's test runs, beside free baselines and upper bounds.

Scores are those of `density_scores.py`, on forecast frames only. Two files hold them by run
(metrics_all_runs.csv) and by initial condition (metrics_by_ic_type.csv). Facts hold their means
over runs: `r2` and every score, with the place `method`. Errors by frame are means and 10th and
90th percentiles over runs. Order parameters of the particles are means by start: `order` with the
places `parameter`, `start` and `time`.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.engine.context import Context
from scaled_mpi.experiments.ensemble.density_scores import COLUMNS, scores
from scaled_mpi.experiments.ensemble.members import ORDERS
from scaled_mpi.experiments.ensemble.settings import EnsembleExperiment, Member
from scaled_mpi.files import write_text
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.parallel.comm import member_groups
from scaled_mpi.parallel.store import Trajectory

SHOWN_MODES = 400  # singular values that the page draws


def work(context: Context[EnsembleExperiment]) -> None:
    """Score all methods; collective."""
    experiment = context.experiment
    members = [Member("test", number) for number in range(experiment.ensemble.test)]
    _, mine = member_groups(len(members), context.comm)
    coder = experiment.compressor.load(context.inputs["compress"])
    mean = coder.mean.reshape(experiment.density.shape)
    rows = [row for number in mine for row in _score(context, members[number], mean)]
    rows = sorted(sum(context.comm.allgather(rows), []), key=lambda row: row["run_name"])
    if context.comm.rank == 0:
        _write(context, rows)
        _orders(context, members)
    for place, value in enumerate(coder.singular_values[:SHOWN_MODES], 1):
        held = float(np.sum(coder.singular_values[:place] ** 2) / np.sum(coder.singular_values**2))
        context.facts.record("pod.spectrum", float(value), k=place)
        context.facts.record("pod.energy.held", held, k=place)


def _score(
    context: Context[EnsembleExperiment], member: Member, mean: np.ndarray
) -> list[dict[str, Any]]:
    """One row a method of one run."""
    setting, memory = context.experiment.forecast, context.experiment.surrogate.memory
    truth = Trajectory(context.inputs["simulate"], member.name)
    fields = truth.read(slice(None))[:, 0]
    late = fields[memory:]
    forecasts, _ = load_arrays(context.inputs["forecast"] / f"{member.name}.forecast.h5")
    forecasts["persistence"] = np.broadcast_to(fields[memory - 1], late.shape)
    forecasts["mean"] = np.broadcast_to(mean, late.shape)
    rows = []
    for method, forecast in forecasts.items():
        if method == "spread":
            continue
        values = scores(late, forecast, mean, setting.tolerance, setting.window)
        size = np.linalg.norm(late, axis=(1, 2))
        errors = np.linalg.norm(late - forecast, axis=(1, 2)) / size
        rows.append(
            {
                "run_name": member.name,
                "ic_type": truth.attributes["start"],
                "method": method,
                **values,
                "errors": errors,
            }
        )
        if method == "surrogate" and "spread" in forecasts:
            inside = np.linalg.norm(forecasts["ceiling"] - forecast, axis=(1, 2)) / size
            spread = np.linalg.norm(forecasts["spread"], axis=(1, 2)) / size
            rows[-1] |= {"spread": spread, "inside": inside}
    return rows


def _write(context: Context[EnsembleExperiment], rows: list[dict[str, Any]]) -> None:
    facts = context.facts
    series = ("errors", "spread", "inside")
    table = [{key: value for key, value in row.items() if key not in series} for row in rows]
    _csv(context.folder / "metrics_all_runs.csv", ("run_name", "ic_type", "method"), table)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    starts = list(dict.fromkeys(row["ic_type"] for row in rows))
    groups = []
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        for start in starts:
            part = [row for row in own if row["ic_type"] == start]
            groups.append({"ic_type": start, "method": method, "runs": len(part), **_means(part)})
        means = _means(own)
        for name in COLUMNS:
            facts.record(f"score.{name}", means[name], method=method)
        facts.record("r2", means["r2"], method=method)
        _by_lead(context, method, own)
    _csv(context.folder / "metrics_by_ic_type.csv", ("ic_type", "method", "runs"), groups)
    linear = [row for row in rows if row["method"] in ("surrogate", "energy")]
    facts.record("mass.error", max(row["max_mass_error"] for row in linear))
    chosen = [row["r2"] for row in rows if row["method"] == "surrogate"]
    facts.record("r2.spread", float(np.std(chosen)), method="surrogate", runs=len(chosen))


def _by_lead(
    context: Context[EnsembleExperiment], method: str, rows: list[dict[str, Any]]
) -> None:
    """Errors of one method over its runs, frame by frame, and the spread of its ensemble.

    `e2.inside` is the error within the modes of the forecast, the part that its ensemble covers.
    """
    errors = np.array([row["errors"] for row in rows])
    low, high = np.percentile(errors, [10, 90], axis=0)
    lines = {"e2.lead": errors.mean(axis=0), "e2.p10": low, "e2.p90": high}
    for key in ("spread", "inside"):
        if key in rows[0]:
            lines[f"e2.{key}"] = np.mean([row[key] for row in rows], axis=0)
    for name, line in lines.items():
        for lead, value in enumerate(line, 1):
            context.facts.record(name, float(value), method=method, lead=lead)


def _orders(context: Context[EnsembleExperiment], members: list[Member]) -> None:
    """Order parameters of the test runs' particles by time, means over runs of a start."""
    orders: dict[str, list[np.ndarray]] = {}
    for member in members:
        path = context.inputs["simulate"] / f"{member.name}.particles.h5"
        arrays, meta = load_arrays(path)
        orders.setdefault(meta["start"], []).append(arrays["orders"])
        times = arrays["times"]
    for start, runs in orders.items():
        for name, line in zip(ORDERS, np.mean(runs, axis=0).T, strict=True):
            for moment, value in zip(times, line, strict=True):
                context.facts.record(
                    "order", float(value), parameter=name, start=start, time=float(moment)
                )


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in COLUMNS}


def _csv(path: Path, first: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, (*first, *COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
