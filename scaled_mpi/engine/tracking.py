"""The facts of a results folder, sent to TensorBoard or to Weights & Biases.

    tensorboard    FOLDER/tensorboard, event files; look with `tensorboard --logdir FOLDER`
    wandb          FOLDER/wandb, an offline run, for `wandb sync`; WANDB_MODE=online sends at once

Both get the contents of `facts/` and nothing else. The curves of the training are by epoch, every
other number by the place of its measurement, if that place counts something. Its further places
stand behind its name: `solve/iterations/exact/4`. Rank 0 alone writes.
Keys and the environment are never read here nor written; a key for the network stays with wandb.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scaled_mpi.config import InputError
from scaled_mpi.fact_names import each_once, places, positions
from scaled_mpi.facts import read_facts, read_scalars

STEPS = ("epoch", "jump", "lead", "iteration")  # places of a fact that count something
WORDS = ("split", "epoch", "rank", "world_size")  # columns of the curves that are no curve

Point = tuple[str, int, float]  # name, step, value


def check_sink(name: str) -> None:
    """Check that the library of the sink is here. Errors: `InputError` with the pip command."""
    if importlib.util.find_spec(name) is None:
        raise InputError(f"--track {name}: not installed. Needed: pip install 'scaled_mpi[track]'")


def points(folder: Path) -> Iterator[Point]:
    """Every finite number of a results folder's `facts`, as (name, step, value)."""
    for row in read_scalars(folder / "facts"):
        for column, value in row.items():
            if column not in WORDS and value is not None and math.isfinite(value):
                yield f"training/{row['split']}/{column}", row["epoch"], value
    for fact in each_once(read_facts(folder / "facts" / "facts.jsonl")):
        value = fact["value"]
        if isinstance(value, (int, float)) and math.isfinite(value):
            counted = next((key for key in STEPS if isinstance(fact.get(key), int)), "")
            beside = [
                f"{place:g}" if isinstance(place, float) else str(place)
                for key, place in places(fact).items()
                if key != counted and (isinstance(place, str) or key in positions(fact["name"]))
            ]
            name = "/".join((fact["stage"], fact["name"], *beside))
            yield name, fact.get(counted, 0), float(value)


def track(folder: Path, sink: str) -> Path:
    """Tell one sink all facts of a results folder, anew; returns the folder that it wrote."""
    check_sink(sink)
    made, partial = folder / sink, folder / f"{sink}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    SINKS[sink](list(points(folder)), partial, folder.name)
    shutil.rmtree(made, ignore_errors=True)
    partial.rename(made)
    return made


def _tensorboard(told: list[Point], place: Path, name: str) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(place))
    for tag, step, value in told:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(Event(step=step, summary=summary))
    writer.close()


def _wandb(told: list[Point], place: Path, name: str) -> None:
    import wandb

    quiet = wandb.Settings(
        mode=os.environ.get("WANDB_MODE", "offline"),
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
    )
    steps: dict[int, dict[str, Any]] = {}
    for tag, step, value in told:
        steps.setdefault(step, {})[tag] = value
    with wandb.init(project="scaled_mpi", name=name, dir=str(place), settings=quiet) as run:
        for step in sorted(steps):
            run.log(steps[step], step=step)


SINKS: dict[str, Callable[[list[Point], Path, str], None]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
