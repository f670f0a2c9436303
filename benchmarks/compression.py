"""Rate and distortion of compressors on one data set: a table, and a JSON line a row.

    python benchmarks/compression.py                       about 15 minutes on one core
    python benchmarks/compression.py --steps 2000 --rows "vq, 512 codes" "pod, 32 modes"

Gray-Scott waves: 8 runs of 128^2 to learn from, two frames of another of 256^2 in 16 tiles to be
judged by. All autoencoders code 4 x 4 cells, in 8 numbers where their row does not say 2, and
differ in nothing but what it says. A coder that draws has a second line: decoded without noise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaled_mpi.config import parse
from scaled_mpi.engine import stages
from scaled_mpi.experiments import kind_of
from scaled_mpi.experiments.forecast.rates import CodingRates
from scaled_mpi.experiments.forecast.settings import ForecastExperiment
from scaled_mpi.parallel.blocks import make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import Trajectory

COLUMNS = {
    "compression.factor": "numbers",
    "compression.bits": "bits",
    "vrmse.reconstruction": "VRMSE",
    "mass.error.reconstruction": "mass",
    "spectrum.error.reconstruction": "spectrum",
    "residual.error": "residual",
    "seam.reconstruction": "seam",
}
TERMS = {"gradient": 1.0, "spectrum": 1.0}
ROWS: dict[str, dict[str, Any]] = {
    "pod, 128 modes": {"kind": "pod", "factor": 16, "rank": 128, "normalise": True},
    "pod, 32 modes": {"kind": "pod", "factor": 16, "rank": 32, "normalise": True},
    "identity": {},
    "identity, gradient and spectrum": {"terms": TERMS},
    "identity, residual": {"terms": {"residual": 1e-3}},
    "identity, conserving": {"conserve": True},
    "linear": {"bottleneck": {"kind": "linear"}},
    "kl": {"bottleneck": {"kind": "kl"}},
    "vq, 512 codes": {"bottleneck": {"kind": "vq"}},
    "vq, 4096 codes": {"bottleneck": {"kind": "vq", "codes": 4096}},
    "vq, conserving": {"bottleneck": {"kind": "vq"}, "conserve": True},
    "adversarial": {"kind": "adversarial"},
    "adversarial, conserving": {"kind": "adversarial", "conserve": True},
    "diffusion": {"kind": "diffusion"},
    "diffusion, conserving": {"kind": "diffusion", "conserve": True},
    "identity, 2 numbers": {"latent_channels": 2},
    "adversarial, 2 numbers": {"kind": "adversarial", "latent_channels": 2},
    "diffusion, 2 numbers": {"kind": "diffusion", "latent_channels": 2},
}
QUIET = "  without noise"


def experiment(row: dict[str, Any], steps: int) -> ForecastExperiment:
    """The data, and the compressor of one row."""
    compressor = {"kind": "autoencoder", **row}
    if compressor["kind"] != "pod":
        training = {
            "steps": steps,
            "batch": 8,
            "micro_batches": 4,
            "learning_rate": 4e-3,
            "warmup": 40,
            "ema": 0.99,
            "validate_every": max(1, steps // 4),
        }
        compressor = {"factor": 4, "latent_channels": 8, "training": training, **compressor}
    return parse(
        ForecastExperiment,
        {
            "name": "compression",
            "simulator": {"kind": "gray_scott", "pattern": "waves"},
            "domain": {"shape": [256, 256], "tile": [64, 64]},
            "data": {"runs": 8, "shape": [128, 128], "burn_in": 300, "frames": 40},
            "compressor": compressor,
            "surrogate": {"kind": "stepper", "jump": 50},
            "coupling": {"jumps": 10},
        },
    )


def measure(name: str, steps: int, root: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Every column of one row, and of what its coder decodes without noise if it draws."""
    chosen = experiment(ROWS[name], steps)
    found = stages.artefacts(kind_of(chosen), chosen, root, 1)
    for _ in stages.run_stages(
        kind_of(chosen), chosen, found, SerialComm(), upto="compress", say=str
    ):
        pass
    truth = Trajectory(found["simulate"].path, "test-0000")
    coder = chosen.compressor.load(found["compress"].path)
    rates = CodingRates(make_blocks(truth.grid, chosen.domain.tile, 1), SerialComm(), list)
    frames = [0, len(truth) - 1]
    yield name, {**rates(coder, truth, frames, chosen.simulator), **getattr(coder, "scores", {})}
    if getattr(coder, "noises", 0):
        coder.noises = 0
        yield QUIET, rates(coder, truth, frames, chosen.simulator)


def main() -> None:
    """Print the table and append a line a row to the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--root", type=Path, default=Path("outputs/compression"))
    told = parser.parse_args()
    print(f"{'compressor':32s}" + "".join(f"{name:>11s}" for name in COLUMNS.values()))
    told.root.mkdir(parents=True, exist_ok=True)
    for row in told.rows:
        for name, found in measure(row, told.steps, told.root):
            print(f"{name:32s}" + "".join(f"{found[key]:11.3g}" for key in COLUMNS), flush=True)
            with open(told.root / "rows.jsonl", "a", encoding="utf-8") as file:
                line = {"row": row, "noise": name != QUIET, "steps": told.steps, **found}
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
