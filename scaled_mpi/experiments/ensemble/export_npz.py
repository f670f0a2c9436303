"""The Oscar document's tree of NPZ files, written from a finished ensemble; nothing is pickled.

    training/train_000/  traj.npz, density.npz, metadata.json
    test/test_000/       the same and order_params.npz
    models/              pod_model.npz, mvar_model.npz, training_metadata.json, index_mapping.csv

Keys are the document's. A key that upstream's reader names differently has both names
(order_params: polarization and phi). Upstream's predictor has no intercept: it is
y_t = sum A_j y_(t-j) about `mean`. With c the fitted intercept this is exact about

    mean' = mean + U (I - sum_j A_j)^-1 c,

stored as `mean`; `training_mean` is the training mean. Axes: positions are (x, y) there and (y, x)
here; densities are (time, y, x) in both.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.config import InputError, plain
from scaled_mpi.engine.artefacts import Artefact
from scaled_mpi.engine.kind import Found
from scaled_mpi.experiments.ensemble.import_npz import tree_name
from scaled_mpi.experiments.ensemble.members import ORDERS
from scaled_mpi.experiments.ensemble.settings import EnsembleExperiment, Member
from scaled_mpi.files import write_text
from scaled_mpi.parallel.arrays import load_arrays
from scaled_mpi.parallel.store import Trajectory


def export_npz(experiment: EnsembleExperiment, found: Found, folder: Path) -> Path:
    """Write the tree into `folder` and return it.

    Errors: `InputError` before the fit is finished, and for a POD of aligned fields.
    """
    for stage in ("simulate", "compress", "fit"):
        if not found[stage].done:
            raise InputError(
                f"--export npz: the stage {stage} is not finished. Needed: a finished run"
            )
    if experiment.compressor.align != "none":
        raise InputError(
            f"--export npz: compressor.align {experiment.compressor.align} is not allowed: the "
            "tree's models have no shifts. Allowed: none"
        )
    for member in experiment.members():
        _member(experiment, found["simulate"].path, member, folder)
    _models(experiment, found, folder / "models")
    return folder


def _member(experiment: EnsembleExperiment, source: Path, member: Member, folder: Path) -> None:
    run = Trajectory(source, member.name)
    particles, _ = load_arrays(source / f"{member.name}.particles.h5")
    place = folder / tree_name(member)
    place.mkdir(parents=True, exist_ok=True)
    times, (height, width) = particles["times"], run.grid.extent
    np.savez(
        place / "traj.npz",
        positions=particles["positions"][..., ::-1],
        velocities=particles["velocities"][..., ::-1],
        times=times,
    )
    ny, nx = run.grid.shape
    np.savez(
        place / "density.npz",
        rho=run.read(slice(None))[:, 0],
        times=times,
        x_edges=np.linspace(0, width, nx + 1),
        y_edges=np.linspace(0, height, ny + 1),
        extent=np.array([0, width, 0, height]),
    )
    if member.kind == "test":
        orders = dict(zip(ORDERS, particles["orders"].T, strict=True))
        np.savez(place / "order_params.npz", **orders, phi=orders["polarization"], times=times)
    _json(
        place / "metadata.json",
        {
            "run_name": place.name,
            "sim_id": member.number,
            "ic_type": run.attributes["start"],
            "seed": run.attributes["seed"],
            "run": run.attributes["run"],
            "mode": member.kind,
            "config": plain(experiment.system(member)),
        },
    )


def _models(experiment: EnsembleExperiment, found: Mapping[str, Artefact], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    coder = experiment.compressor.load(found["compress"].path)
    operator = experiment.surrogate.load(found["fit"].path)
    rank, model = operator.rank, operator.model
    modes = coder.modes[:, :rank]
    matrices = model.matrices[:, 0]
    shift = np.linalg.solve(np.eye(rank) - matrices.sum(axis=0), model.intercept)
    spectrum = coder.singular_values
    held = float(np.sum(spectrum[:rank] ** 2) / np.sum(spectrum**2))
    np.savez(
        place / "pod_model.npz",
        U=modes,
        S=spectrum[:rank],
        mean=coder.mean + modes @ shift,
        training_mean=coder.mean,
        energy=held,
        R_POD=rank,
        target_energy=experiment.compressor.energy,
        all_S=spectrum,
    )
    fitted = operator.meta
    np.savez(
        place / "mvar_model.npz",
        A_matrices=matrices,
        p=model.lag,
        r=rank,
        alpha=fitted["alpha"],
        train_r2=fitted["train_r2"],
        train_rmse=fitted["train_rmse"],
        intercept=model.intercept,
        covariance=operator.covariance,
        spectral_radius=operator.radius,
    )
    _training(experiment, fitted, held, place)


def _training(
    experiment: EnsembleExperiment, fitted: Mapping[str, Any], held: float, place: Path
) -> None:
    members = [m for m in experiment.members() if m.kind == "train"]
    starts = [experiment.system(member).start for member in members]
    ny, nx = experiment.density.shape
    _json(
        place / "training_metadata.json",
        {
            "N_train": len(members),
            "IC_types": list(experiment.ensemble.starts),
            "IC_distribution": dict(Counter(starts)),
            "config": plain(experiment.simulator),
            "density": {"nx": nx, "ny": ny, "bandwidth": experiment.density.bandwidth},
            "pod": {"R_POD": fitted["rank"], "energy": held},
            "mvar": {"p": fitted["lag"], "alpha": fitted["alpha"], "train_r2": fitted["train_r2"]},
        },
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["global_idx", "run_name", "ic_type", "time_idx"])
    frames = experiment.frames
    writer.writerows(
        [place * frames + frame, f"train_{member.number:03d}", start, frame]
        for place, (member, start) in enumerate(zip(members, starts, strict=True))
        for frame in range(frames)
    )
    write_text(place / "index_mapping.csv", text.getvalue())


def _json(path: Path, tree: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(tree, indent=1) + "\n")
