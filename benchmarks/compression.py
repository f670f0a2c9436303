"""Rate and distortion of compressors on one data set: a table, and a JSON line a row.

    python benchmarks/compression.py                       about 8 minutes on one core
    python benchmarks/compression.py --steps 2000 --rows "vq" "pod, 32 modes"

Gray-Scott waves: 8 runs of 128^2 to learn from, two frames of another of 256^2 in 16 tiles to be
judged by. All autoencoders code 4 x 4 cells and differ in nothing but what their row says.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from scaled_mpi import stages
from scaled_mpi.config import parse
from scaled_mpi.experiment import Experiment
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import Trajectory
from scaled_mpi.pipeline.rates import Rates

COLUMNS = {
    "compression.factor": "numbers", "compression.bits": "bits",
    "vrmse.reconstruction": "VRMSE", "mass.error.reconstruction": "mass",
    "spectrum.error.reconstruction": "spectrum", "residual.error": "residual",
    "seam.reconstruction": "seam",
}
TERMS = {"gradient": 1.0, "spectrum": 1.0}
ROWS: dict[str, dict[str, Any]] = {
    "pod, 128 modes": {"kind": "pod", "factor": 16, "rank": 128, "normalise": True},
    "pod, 32 modes": {"kind": "pod", "factor": 16, "rank": 32, "normalise": True},
    "identity": {},
    "identity, gradient and spectrum": {"terms": TERMS},
    "identity, conserving": {"conserve": True},
    "linear": {"bottleneck": {"kind": "linear"}},
    "kl": {"bottleneck": {"kind": "kl"}},
    "vq, 512 codes": {"bottleneck": {"kind": "vq"}},
    "vq, 4096 codes": {"bottleneck": {"kind": "vq", "codes": 4096}},
    "vq, conserving": {"bottleneck": {"kind": "vq"}, "conserve": True},
}


def experiment(row: dict[str, Any], steps: int) -> Experiment:
    """The data, and the compressor of one row."""
    compressor = row
    if "kind" not in row:
        training = {"steps": steps, "batch": 8, "micro_batches": 4, "learning_rate": 4e-3,
                    "warmup": 40, "ema": 0.99, "validate_every": max(1, steps // 4)}
        compressor = {"kind": "autoencoder", "factor": 4, "latent_channels": 8,
                      "training": training, **row}
    return parse(Experiment, {
        "name": "compression", "simulator": {"kind": "gray_scott", "pattern": "waves"},
        "domain": {"shape": [256, 256], "tile": [64, 64]},
        "data": {"runs": 8, "shape": [128, 128], "burn_in": 300, "frames": 40},
        "compressor": compressor, "surrogate": {"kind": "stepper", "jump": 50},
        "coupling": {"jumps": 10},
    })


def measure(row: dict[str, Any], steps: int, root: Path) -> dict[str, float]:
    """Every column of one row."""
    chosen = experiment(row, steps)
    found = stages.artefacts(chosen, root, 1)
    for _ in stages.run_stages(chosen, found, SerialComm(), upto="compress", say=str):
        pass
    truth = Trajectory(found["simulate"].path, "test-0000")
    coder = chosen.compressor.load(found["compress"].path)
    rates = Rates(make_blocks(truth.grid, chosen.domain.tile, 1), SerialComm(), list)
    scores = rates(coder, truth, [0, len(truth) - 1], chosen.simulator)
    return {**scores, **getattr(coder, "scores", {})}


def main() -> None:
    """Print the table and append a line a row to the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--root", type=Path, default=Path("outputs/compression"))
    told = parser.parse_args()
    print(f"{'compressor':32s}" + "".join(f"{name:>11s}" for name in COLUMNS.values()))
    told.root.mkdir(parents=True, exist_ok=True)
    for name in told.rows:
        found = measure(ROWS[name], told.steps, told.root)
        print(f"{name:32s}" + "".join(f"{found[key]:11.3g}" for key in COLUMNS), flush=True)
        with open(told.root / "rows.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"row": name, "steps": told.steps, **found}) + "\n")


if __name__ == "__main__":
    main()
