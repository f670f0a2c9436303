"""Read a tree of the Oscar document's NPZ files in place of simulation and fits.

    ./run configs/oscar.yaml ensemble.source=oscar_outputs                     members of the tree
    ./run configs/oscar.yaml ensemble.source=oscar_outputs ensemble.models=true     its models too

`export_npz.py` describes the tree and its keys. A tree that it wrote is read bit for bit.
Upstream's trees lack velocities: then they are the displacements between frames over their time,
exact if every step was stored. The first frame has the velocities of the second. Files with
pickled members are refused; `datasets/plain.py` copies them without such members.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
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
    """Return a member's folder in the tree."""
    return Path(FOLDERS[member.kind]) / f"{member.kind}_{member.number:03d}"


def fingerprint(experiment: EnsembleExperiment) -> list[list[str]]:
    """Return [path in the tree, sha256] of every file that an import reads.

    Errors: `InputError` for the first missing file.
    """
    root = _root(experiment)
    if not root.is_dir():
        raise InputError(
            f"ensemble.source: {root} is not allowed: there is no such folder. Allowed: a folder "
            "with training and test"
        )
    places = [
        tree_name(member) / name
        for member in experiment.members()
        for name in ("density.npz", "traj.npz", "metadata.json")
    ]
    if experiment.ensemble.models:
        places += [Path("models") / f"{name}_model.npz" for name in ("pod", "mvar")]
    files = []
    for place in places:
        if not (root / place).is_file():
            raise InputError(
                f"ensemble.source: {root / place} is missing. Needed: ensemble.training = "
                f"{experiment.ensemble.training} and ensemble.test = {experiment.ensemble.test} "
                "runs"
            )
        files.append([str(place), sha256(root / place)])
    return files


def _root(experiment: EnsembleExperiment) -> Path:
    """The tree of the experiment."""
    return Path(experiment.ensemble.source or ".")


def read_arrays(
    path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Return the arrays `needed`, and the arrays `optional` that the file has, of any shape.

    Errors: `InputError` for a missing or damaged file or array, or any pickled member.
    """
    if pickled := pickled_members(path):
        raise InputError(
            f"{path}:{pickled[0]}: it is pickled, which may run any code. Needed: a copy without "
            f"it, by {COMMAND}"
        )
    with closing(NpzSource(str(path))) as source:
        names = [*needed, *(name for name in optional if name in source)]
        return {name: np.array(source.read(name, ())) for name in names}


@dataclass(frozen=True)
class MemberFrames:
    """All frames of one member, and its place among the runs of a seed.

    `times` (T,) in the simulator's unit, `positions` and `velocities` (T, N, 2) with axes (y, x),
    `fields` T densities (1, ny, nx).
    """

    times: list[float]
    positions: np.ndarray
    velocities: np.ndarray
    fields: list[np.ndarray]
    start: str
    seed: int
    run: int


def read_member(experiment: EnsembleExperiment, member: Member) -> MemberFrames:
    """Read the frames of a member from the tree.

    Errors: `InputError` for a tree that disagrees with the experiment.
    """
    folder = _root(experiment) / tree_name(member)
    density = read_arrays(folder / "density.npz", ("rho", "times"))
    path = read_arrays(folder / "traj.npz", ("positions", "times"), ("velocities",))
    frames, shape = experiment.frames_of(member.kind), experiment.density.shape
    rho = np.asarray(density["rho"], np.float64)
    if rho.shape != (frames, *shape):
        raise InputError(
            f"{folder / 'density.npz'}: the shape of rho is {list(rho.shape)}. Needed: "
            f"{[frames, *shape]}, by ensemble.duration, save_every and density.shape"
        )
    count = experiment.simulator.particles
    positions = np.asarray(path["positions"], np.float64)
    if positions.shape != (frames, count, 2):
        raise InputError(
            f"{folder / 'traj.npz'}: the shape of positions is {list(positions.shape)}. Needed: "
            f"{[frames, count, 2]}"
        )
    for name, values in (("density.npz: rho", rho), ("traj.npz: positions", positions)):
        if not np.isfinite(values).all():
            raise InputError(f"{folder}/{name}: its values are not finite. Needed: finite numbers")
    positions = np.ascontiguousarray(positions[..., ::-1])
    if "velocities" in path:
        velocities = np.ascontiguousarray(np.asarray(path["velocities"], np.float64)[..., ::-1])
    else:
        velocities = _displacements(experiment, positions, density["times"])
    meta = _metadata(folder / "metadata.json")
    return MemberFrames(
        times=[float(t) for t in density["times"]],
        positions=positions,
        velocities=velocities,
        fields=list(rho[:, None]),
        start=str(meta.get("ic_type", experiment.system(member).start)),
        seed=meta.get("seed", experiment.seed),
        run=meta.get("run", member.run),
    )


def _displacements(
    experiment: EnsembleExperiment, positions: np.ndarray, times: np.ndarray
) -> np.ndarray:
    moved = np.diff(positions, axis=0)
    if experiment.simulator.boundaries == "periodic":
        box = np.array(experiment.simulator.box)
        moved -= box * np.rint(moved / box)
    velocities = moved / np.diff(times)[:, None, None]
    return np.concatenate([velocities[:1], velocities])


def _metadata(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > LARGEST_JSON:
        raise InputError(f"{path}: the file is too large. Needed: at most {LARGEST_JSON} bytes")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({type(error).__name__}). Needed: JSON") from error
    if not isinstance(meta, dict):
        raise InputError(f"{path}: it is no mapping. Needed: a mapping")
    return meta


def import_pod(experiment: EnsembleExperiment, folder: Path) -> None:
    """Write the tree's modes as the POD of `folder`, about the training mean if it is stored.

    Errors: `InputError` for modes of another grid.
    """
    path = _root(experiment) / "models" / "pod_model.npz"
    pod = read_arrays(path, ("U", "S", "mean", "energy"), ("training_mean", "all_S"))
    cells = int(np.prod(experiment.density.shape))
    if pod["U"].ndim != 2 or len(pod["U"]) != cells or pod["mean"].shape != (cells,):
        raise InputError(
            f"{path}: the shapes are U {list(pod['U'].shape)}, mean {list(pod['mean'].shape)}. "
            f"Needed: {cells} rows, the cells of density.shape"
        )
    kept = float(np.sum(pod["S"] ** 2))
    total = float(np.sum(pod["all_S"] ** 2)) if "all_S" in pod else kept / float(pod["energy"])
    mean, values = pod.get("training_mean", pod["mean"]), pod.get("all_S", pod["S"])
    save_pod(folder, PodModel(pod["U"], mean, values, total, experiment.density.shape))


def import_mvar(experiment: EnsembleExperiment, folder: Path) -> None:
    """Write the tree's autoregression into `folder`; without an intercept it is about `mean`.

    Errors: `InputError` for matrices of another form, or more of them than `surrogate.memory`.
    """
    path = _root(experiment) / "models" / "mvar_model.npz"
    mvar = read_arrays(
        path, ("A_matrices", "p", "alpha", "train_r2"), ("intercept", "covariance", "train_rmse")
    )
    lag, rank = mvar["A_matrices"].shape[:2]
    memory = experiment.surrogate.memory
    if mvar["A_matrices"].shape != (lag, rank, rank) or int(mvar["p"]) != lag or lag > memory:
        raise InputError(
            f"{path}: A_matrices has the shape {list(mvar['A_matrices'].shape)}, p is "
            f"{mvar['p']}. Needed: p square matrices, p at most surrogate.memory = {memory}"
        )
    intercept = mvar.get("intercept", np.zeros(rank))
    blocks = mvar["A_matrices"].transpose(0, 2, 1).reshape(lag * rank, rank)
    model = Linear(np.vstack([intercept, blocks]), lag, (0, 0))
    save_mvar(
        folder,
        model,
        mvar.get("covariance", np.zeros((rank, rank))),
        np.zeros(rank),
        {
            "memory": memory,
            "alpha": float(mvar["alpha"]),
            "train_r2": float(mvar["train_r2"]),
            "train_rmse": float(mvar.get("train_rmse", 0.0)),
            "scores": [],
        },
    )
