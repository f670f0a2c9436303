"""The Oscar system beside its published numbers: over seed sets, and in the thesis' five regimes.

    python benchmarks/oscar.py seeds [--seeds 0 1 2 3 4] [KEY=VALUE ...]     R2 a seed, the mean
    python benchmarks/oscar.py thesis [--regimes gas pure ...] [KEY=VALUE ...]

Under mpirun all ranks work together. What was computed before is used again (outputs/artefacts);
the network is left out of the seed sets unless --network is given. R2 of the first is about the
training mean, of the second about each frame's own mean after alignment, as the thesis has it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from scaled_mpi.fact_names import each_once
from scaled_mpi.facts import latest, read_facts
from scaled_mpi.parallel.comm import world
from scaled_mpi.run import main as run

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
METHODS = {  # heading -> method
    "forecast": "surrogate",
    "energy": "energy",
    "stepper": "rival",
    "persistence": "persistence",
    "mean": "mean",
    "ceiling": "ceiling",
    "limit": "limit",
}
PUBLISHED = {  # MVAR, LSTM (systems of constant speed)
    "gas": (0.996, 0.996),
    "blackhole": (0.994, 0.992),
    "supernova": (0.683, 0.508),
    "crystal": (0.996, 0.585),
    "pure": (0.654, 0.229),
}


def facts_of(config: str, name: str, outputs: Path, arguments: list[str]) -> list[dict]:
    """All facts of one finished experiment; [] on ranks other than 0. Collective."""
    code = run([str(CONFIGS / config), *arguments, "--outputs", str(outputs)])
    if code:
        raise SystemExit(code)
    return read_facts(outputs / name / "facts" / "facts.jsonl") if world().rank == 0 else []


def seeds(given: argparse.Namespace) -> None:
    """One line a seed set and the mean and deviation of each column."""
    rows = []
    for seed in given.seeds:
        name = f"oscar-seed-{seed}"
        arguments = [f"seed={seed}", f"name={name}", "transition=null", *given.overrides]
        if not given.network:
            arguments.insert(0, "rival=null")
        facts = each_once(facts_of("oscar.yaml", name, given.outputs, arguments))
        found, r2 = latest(facts), {f["method"]: f["value"] for f in facts if f["name"] == "r2"}
        if found:
            rows.append([r2.get(method, math.nan) for method in METHODS.values()])
            rows[-1] += [found["mvar.rank"], found["mvar.lag"], found["mass.error"]]
    if not rows:
        return
    print("seed  " + "".join(f"{m:>12}" for m in METHODS) + "   rank  lag  mass error")
    for seed, row in zip(given.seeds, rows, strict=True):
        print(f"{seed:4d}  " + _line(row))
    scores = np.array([row[: len(METHODS)] for row in rows])
    print("mean  " + "".join(f"{value:12.3f}" for value in scores.mean(axis=0)))
    print("dev.  " + "".join(f"{value:12.3f}" for value in scores.std(axis=0)))


def _line(row: list[float]) -> str:
    scores, (rank, lag, mass) = row[: len(METHODS)], row[len(METHODS) :]
    return "".join(f"{value:12.3f}" for value in scores) + f"{rank:7.0f}{lag:5.0f}{mass:12.1e}"


def thesis(given: argparse.Namespace) -> None:
    """One line a regime: R2 as the thesis has it, of the forecast and of what it is up against."""
    lines = []
    for regime in given.regimes:
        name = f"oscar_thesis_{regime}"
        facts = facts_of(
            "oscar_thesis.yaml", name, given.outputs, ["--preset", regime, *given.overrides]
        )
        score = {(fact["name"], fact.get("method")): fact["value"] for fact in facts}
        if not score:
            continue
        own, lstm = PUBLISHED[regime]
        values = [
            score["score.r2_aligned", m]
            for m in ("surrogate", "energy", "persistence", "mean", "ceiling", "limit")
        ]
        unmoved = score["score.r2_spatial", "surrogate"]
        lines.append(
            f"{regime:10}{own:8.3f}{lstm:8.3f}"
            + "".join(f"{v:12.3f}" for v in values)
            + f"{unmoved:12.3f}{latest(facts)['mvar.radius']:9.3f}"
        )
    if lines:
        print(
            "regime      MVAR*   LSTM*    forecast   all modes persistence  mean field"
            " POD ceiling   simulator   not moved   radius   (* thesis)"
        )
        print("\n".join(lines))


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("what", choices=("seeds", "thesis"))
    given.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    given.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    given.add_argument("--regimes", nargs="+", choices=PUBLISHED, default=list(PUBLISHED))
    given.add_argument("--network", action="store_true", help="train the network for each seed")
    given.add_argument("--outputs", type=Path, default=Path("outputs"))
    options = given.parse_args()
    {"seeds": seeds, "thesis": thesis}[options.what](options)


if __name__ == "__main__":
    main()
