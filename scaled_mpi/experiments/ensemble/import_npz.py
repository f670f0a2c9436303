"""An existing tree of the Oscar document's NPZ files in the place of simulation and of the fits.

    ./run configs/oscar.yaml ensemble.source=oscar_outputs                     members of the tree
    ./run configs/oscar.yaml ensemble.source=oscar_outputs ensemble.models=true     its models too

`exchange.py` tells the tree and its keys. A tree that it wrote comes back bit for bit. One of
upstream's lacks velocities: they are then the displacements between frames over their time, which
is what moved the particles where every step was stored; the first frame's are those of the second.
Files with pickled members are refused; `datasets/plain.py` copies them without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from scaled_mpi.compressors.pod import PodModel, save_pod
from scaled_mpi.config import InputError
from scaled_mpi.datasets.npz import NpzSource
from scaled_mpi.datasets.plain import COMMAND, pickled_members
from scaled_mpi.experiments.ensemble.settings import EnsembleExperiment, Member
from scaled_mpi.files import sha256
from scaled_mpi.surrogates.autoregression import Linear
from scaled_mpi.surrogates.mvar import save_mvar

FOLDERS = {"train": "training", "test": "test"}
LARGEST_JSON = 1 << 20  # bytes


def tree_name(member: Member) -> Path:
    """A member's folder in the tree."""
    return Path(FOLDERS[member.kind]) / f"{member.kind}_{member.number:03d}"


def fingerprint(experiment: EnsembleExperiment) -> list[list[str]]:
    """[path in the tree, sha256] of every file that is read. Errors: `InputError` names a gap."""
    root = Path(experiment.ensemble.source)
    if not root.is_dir():
        raise InputError(
            f"ensemble.source: {root} given; a folder with training and test is needed"
        )
    places = [
        tree_name(member) / name
        for member in experiment.members()
        for name in ("density.npz", "traj.npz", "metadata.json")
    ]
    if experiment.ensemble.models:
        places += [Path("models") / f"{name}_model.npz" for name in ("pod", "mvar")]
    found = []
    for place in places:
        if not (root / place).is_file():
            raise InputError(
                f"ensemble.source: {root / place} is not there; ensemble.training = "
                f"{experiment.ensemble.training} and ensemble.test = {experiment.ensemble.test} "
                "runs are asked for"
            )
        found.append([str(place), sha256(root / place)])
    return found


def read_arrays(path: Path, wanted: tuple[str, ...], others: tuple[str, ...] = ()) -> dict:
    """The arrays `wanted`, and of `others` those that are there.

    Errors: `InputError` for a missing file or array, a damaged one, or any pickled member.
    """
    if pickled := pickled_members(path):
        raise InputError(
            f"{path}:{pickled[0]}: pickled, which may run any code; {COMMAND} leaves it out"
        )
    with closing(NpzSource(str(path))) as source:
        names = [*wanted, *(name for name in others if name in source)]
        return {name: np.array(source.read(name, ())) for name in names}


def read_member(experiment: EnsembleExperiment, member: Member) -> dict[str, Any]:
    """times, positions, velocities (T, N, 2; y, x), fields (T, 1, ny, nx), start, seed, run.

    Errors: `InputError` where the tree disagrees with the experiment.
    """
    folder = Path(experiment.ensemble.source) / tree_name(member)
    density = read_arrays(folder / "density.npz", ("rho", "times"))
    path = read_arrays(folder / "traj.npz", ("positions", "times"), ("velocities",))
    frames, shape = experiment.frames_of(member.kind), experiment.density.shape
    rho = np.asarray(density["rho"], np.float64)
    if rho.shape != (frames, *shape):
        raise InputError(
            f"{folder / 'density.npz'}: rho {list(rho.shape)}; {[frames, *shape]} by "
            "ensemble.duration, save_every and density.shape is needed"
        )
    count = experiment.simulator.particles
    positions = np.asarray(path["positions"], np.float64)
    if positions.shape != (frames, count, 2):
        raise InputError(
            f"{folder / 'traj.npz'}: positions {list(positions.shape)}; "
            f"{[frames, count, 2]} is needed"
        )
    for name, values in (("density.npz: rho", rho), ("traj.npz: positions", positions)):
        if not np.isfinite(values).all():
            raise InputError(f"{folder}/{name}: holds numbers that are not finite")
    positions = np.ascontiguousarray(positions[..., ::-1])
    if "velocities" in path:
        velocities = np.ascontiguousarray(np.asarray(path["velocities"], np.float64)[..., ::-1])
    else:
        velocities = _displacements(experiment, positions, density["times"])
    told = _words(folder / "metadata.json")
    return {
        "times": [float(t) for t in density["times"]],
        "positions": positions,
        "velocities": velocities,
        "fields": list(rho[:, None]),
        "start": str(told.get("ic_type", experiment.system(member).start)),
        "seed": told.get("seed", experiment.seed),
        "run": told.get("run", member.run),
    }


def _displacements(
    experiment: EnsembleExperiment, positions: np.ndarray, times: np.ndarray
) -> np.ndarray:
    moved = np.diff(positions, axis=0)
    if experiment.simulator.boundaries == "periodic":
        box = np.array(experiment.simulator.box)
        moved -= box * np.rint(moved / box)
    velocities = moved / np.diff(times)[:, None, None]
    return np.concatenate([velocities[:1], velocities])


def _words(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > LARGEST_JSON:
        raise InputError(f"{path}: larger than {LARGEST_JSON} bytes")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({type(error).__name__})") from error
    if not isinstance(told, dict):
        raise InputError(f"{path}: a mapping is needed")
    return told


def import_pod(experiment: EnsembleExperiment, folder: Path) -> None:
    """The tree's modes as the POD of `folder`, about the training mean where it is kept."""
    path = Path(experiment.ensemble.source) / "models" / "pod_model.npz"
    told = read_arrays(path, ("U", "S", "mean", "energy"), ("training_mean", "all_S"))
    cells = int(np.prod(experiment.density.shape))
    if told["U"].ndim != 2 or len(told["U"]) != cells or told["mean"].shape != (cells,):
        raise InputError(
            f"{path}: U {list(told['U'].shape)}, mean {list(told['mean'].shape)}; "
            f"{cells} rows, as density.shape has cells, are needed"
        )
    kept = float(np.sum(told["S"] ** 2))
    total = float(np.sum(told["all_S"] ** 2)) if "all_S" in told else kept / float(told["energy"])
    mean, values = told.get("training_mean", told["mean"]), told.get("all_S", told["S"])
    save_pod(folder, PodModel(told["U"], mean, values, total, experiment.density.shape))


def import_mvar(experiment: EnsembleExperiment, folder: Path) -> None:
    """The tree's autoregression as that of `folder`; without an intercept it is about `mean`."""
    path = Path(experiment.ensemble.source) / "models" / "mvar_model.npz"
    told = read_arrays(
        path, ("A_matrices", "p", "alpha", "train_r2"), ("intercept", "covariance", "train_rmse")
    )
    lag, rank = told["A_matrices"].shape[:2]
    memory = experiment.surrogate.memory
    if told["A_matrices"].shape != (lag, rank, rank) or int(told["p"]) != lag or lag > memory:
        raise InputError(
            f"{path}: A_matrices {list(told['A_matrices'].shape)}, p {told['p']}; p square "
            f"matrices, p at most surrogate.memory = {memory}, are needed"
        )
    intercept = told.get("intercept", np.zeros(rank))
    blocks = told["A_matrices"].transpose(0, 2, 1).reshape(lag * rank, rank)
    model = Linear(np.vstack([intercept, blocks]), lag, (0, 0))
    save_mvar(
        folder,
        model,
        told.get("covariance", np.zeros((rank, rank))),
        np.zeros(rank),
        {
            "memory": memory,
            "alpha": float(told["alpha"]),
            "train_r2": float(told["train_r2"]),
            "train_rmse": float(told.get("train_rmse", 0.0)),
            "scores": [],
        },
    )
