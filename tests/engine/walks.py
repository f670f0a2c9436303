"""Random walks, a kind of experiment outside scaled_mpi."""

from typing import Literal

import numpy as np

from scaled_mpi.config import InputError
from scaled_mpi.engine.kind import Kind, Stage
from scaled_mpi.engine.settings import ExperimentSpec
from scaled_mpi.parallel.arrays import load_arrays, save_arrays
from scaled_mpi.parallel.comm import shares
from scaled_mpi.report.page import Page
from scaled_mpi.report.sections import facts, origin, section


class WalkExperiment(ExperimentSpec):
    kind: Literal["walk"] = "walk"
    walkers: int = 100
    steps: int = 50

    def model_post_init(self, context):
        if self.walkers < 2:
            raise InputError(f"walkers: {self.walkers} is not allowed. Allowed: 2 or more.")


def walk(context):
    experiment, comm = context.experiment, context.comm
    mine = shares(experiment.walkers, comm.size)[comm.rank]
    ends = [(walker, _end(experiment, walker)) for walker in mine]
    ends = sorted(pair for part in comm.allgather(ends) for pair in part)
    if comm.rank == 0:
        arrays = {"ends": np.array([end for _, end in ends], float)}
        save_arrays(context.folder / "ends.h5", arrays, {})
    comm.Barrier()


def _end(experiment, walker):
    """The place of one walker after all steps."""
    draws = np.random.default_rng((experiment.seed, walker))
    return draws.choice((-1, 1), experiment.steps).sum()


def spread(context):
    arrays, _ = load_arrays(context.inputs["walk"] / "ends.h5")
    context.facts.record("variance", float(np.mean(arrays["ends"] ** 2)))
    context.facts.record("variance.exact", float(context.experiment.steps))


def shown(contents):
    value = contents.numbers.value("variance")
    if value is None:
        return ""
    return section("How far they walk", "Mean square of the ends.", f"<p>{value}</p>")


def walk_part(experiment, ranks):
    return {"walkers": experiment.walkers, "steps": experiment.steps, "seed": experiment.seed}


def show_status(experiment, found, value, say):
    say(f"walk done: {found['walk'].done}")


KIND = Kind(
    name="walk",
    settings=WalkExperiment,
    families={},
    stages=(
        Stage("walk", 1, (), walk_part, walk),
        Stage("spread", 1, ("walk",), lambda experiment, ranks: {}, spread, again=True),
    ),
    describe=lambda experiment, ranks: [f"  walkers     {experiment.walkers}"],
    page=lambda experiment, done: Page((shown, facts, origin)),
    commands={"status": show_status},
)
