"""The pipeline on one screen.

    simulate -> compress -> fit -> couple -> evaluate -> report
    (or import)

    residuals -> fit -> solve -> report          of an experiment without time

    simulate -> compress -> fit -> rival -> forecast -> transition -> evaluate -> report
    of an ensemble

    dataset -> score -> flow -> evaluate -> report          of patterns (and cases beside)

    dataset -> truth -> fit -> generate -> evaluate -> report
    of patterns larger than the tile

A stage reads finished artefacts and writes one: a folder named stage-hash. The hash covers the
stage's part of the configuration, its inputs and its version, never the ranks; what is finished is
used again. Raise a stage's version when its results change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaled_mpi.artefacts import Artefact, artefact_hash, building
from scaled_mpi.config import InputError, plain
from scaled_mpi.elliptic import EllipticExperiment, Implicit
from scaled_mpi.ensemble import EnsembleExperiment
from scaled_mpi.experiment import AnyExperiment, Experiment
from scaled_mpi.facts import FactLog
from scaled_mpi.files import sha256
from scaled_mpi.generation import EnlargementExperiment, GenerationExperiment
from scaled_mpi.parallel.comm import quiet_barrier
from scaled_mpi.parallel.root import on_root
from scaled_mpi.pipeline import (
    assess,
    cases,
    couple,
    dynamics,
    enlarge,
    ensemble,
    evaluate,
    generate,
    learn,
    likeness,
    patterns,
    residuals,
    simulate,
    solve,
    transition,
)
from scaled_mpi.pipeline.context import Context
from scaled_mpi.pipeline.imported import fingerprint
from scaled_mpi.shipped import weight_file
from scaled_mpi.surrogates.score import fingerprints
from scaled_mpi.turing import TuringExperiment


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline: `part` is what of the configuration it depends on."""

    name: str
    version: int
    inputs: tuple[str, ...]
    part: Callable[[Any, int], dict[str, Any]]
    work: Callable[[Context], None]


def _simulate_part(experiment: Experiment, ranks: int) -> dict[str, Any]:
    if experiment.dataset is not None:
        dataset = experiment.dataset
        return {"dataset": plain(dataset), "files": dataset.fingerprint()}
    return {
        "simulator": plain(experiment.simulator),
        "data": plain(experiment.data) if experiment.learns else None,
        "test": plain(experiment.test),
        "shape": experiment.domain.shape,
        "jump": experiment.surrogate.jump,
        "seed": experiment.seed,
        "frames": experiment.history + experiment.coupling.jumps,
    }


def _compress_part(experiment: Experiment, ranks: int) -> dict[str, Any]:
    return _learned(experiment, experiment.compressor, ranks)


def _fit_part(experiment: Experiment, ranks: int) -> dict[str, Any]:
    part = _jump_part(experiment, "surrogate", experiment.surrogate, ranks)
    rivals = {
        name: _jump_part(experiment, f"rivals.{name}", rival, ranks)
        for name, rival in experiment.rivals.items()
    }
    return {**part, "rivals": rivals} if rivals else part


def _jump_part(experiment: Experiment, key: str, member: Any, ranks: int) -> dict[str, Any]:
    """What decides the weights: a training, or the file that they are taken from."""
    part = _learned(experiment, member, ranks)
    given = part["member"].pop("weights", None)
    if given is None:
        return part
    return {**part, "weights": sha256(weight_file(f"{key}.weights", given))}


def _learned(experiment: Experiment, member: Any, ranks: int) -> dict[str, Any]:
    """What decides the weights; also the training ranks, in the mode where they do."""
    part = {"member": plain(member), "seed": experiment.seed}
    training = getattr(member, "training", None)
    if training is not None:
        decisive = plain(training)
        del decisive["checkpoint_every"]
        # Bits are promised for a kind of device; asking torch would cost every start its import.
        if training.device == "auto":
            decisive["device"] = "cuda" if Path("/dev/nvidia0").exists() else "cpu"
        part["member"]["training"] = decisive
        if training.rank_dependent:
            part["ranks"] = ranks
    return part


def _couple_part(experiment: Experiment, ranks: int) -> dict[str, Any]:
    coupling = plain(experiment.coupling)
    del coupling["checkpoint"]
    return {"coupling": coupling, "tile": experiment.domain.tile}


def _evaluate_part(experiment: Experiment, ranks: int) -> dict[str, Any]:
    return {"evaluation": plain(experiment.evaluation)}


def _residuals_part(experiment: EllipticExperiment, ranks: int) -> dict[str, Any]:
    if experiment.local_solver.kind != "learned":
        return {}
    solving = plain(experiment.solving)
    for key in ("coarse", "gain"):  # set by the harvest itself
        del solving[key]
    return {
        "problems": [plain(problem) for problem in experiment.lessons],
        "seed": experiment.seed,
        "tile": experiment.domain.tile,
        "harvest": plain(experiment.harvest),
        "solving": solving,
    }


def _local_fit_part(experiment: EllipticExperiment, ranks: int) -> dict[str, Any]:
    part = _learned(experiment, experiment.local_solver, ranks)
    part["member"].pop("device", None)  # where it is applied, not what was learned
    return part


def _solve_part(experiment: EllipticExperiment, ranks: int) -> dict[str, Any]:
    return {
        "problem": plain(experiment.problem),
        "domain": plain(experiment.domain),
        "solving": plain(experiment.solving),
        "comparison": plain(experiment.comparison),
        "implicit": experiment.implicit and _implicit_part(experiment.implicit),
        "seed": experiment.seed,
    }


def _implicit_part(implicit: Implicit) -> dict[str, Any]:
    """What decides the steps: of a surrogate that guesses its weights, wherever they lie."""
    part = plain(implicit)
    part["guess"]["path"] = implicit.guess.fingerprint()
    return part


def _members_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    members = plain(experiment.ensemble)
    source, models = members.pop("source"), members.pop("models")
    part = {
        "simulator": plain(experiment.simulator),
        "ensemble": members,
        "density": plain(experiment.density),
        "seed": experiment.seed,
    }
    if source is not None:  # what its files hold, wherever they lie
        part |= {"source": fingerprint(experiment), "models": models}
    return part


def _models_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    return _learned(experiment, experiment.surrogate, ranks)


def _rival_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    rival = experiment.rival
    return {} if rival is None else _learned(experiment, rival, ranks)


def _forecast_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    return {"limit": experiment.forecast.limit, "band": experiment.forecast.band}


def _transition_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    sweep = experiment.transition
    return {} if sweep is None else {"sweep": plain(sweep), "seed": experiment.seed}


def _assess_part(experiment: EnsembleExperiment, ranks: int) -> dict[str, Any]:
    return {"forecast": plain(experiment.forecast)}


def _dataset_part(experiment: TuringExperiment, ranks: int) -> dict[str, Any]:
    return {"patterns": plain(experiment.patterns), "seed": experiment.seed}


def _score_part(experiment: TuringExperiment, ranks: int) -> dict[str, Any]:
    return {**_taken(experiment, "score", ranks), "held_out": experiment.held_out}


def _flow_part(experiment: TuringExperiment, ranks: int) -> dict[str, Any]:
    return _taken(experiment, "flow", ranks)


def _taken(experiment: TuringExperiment, kind: str, ranks: int) -> dict[str, Any]:
    """What decides a model of patterns: its training, or the files that it is taken from."""
    member = getattr(experiment, kind)
    part = _learned(experiment, member, ranks)
    part["member"]["weights"] = fingerprints(member, kind, experiment.patterns.presets)
    return part


def _cases_part(experiment: TuringExperiment, ranks: int) -> dict[str, Any]:
    cases = experiment.cases
    return {"cases": cases and plain(cases), "seed": experiment.seed}


def _directions_part(experiment: TuringExperiment, ranks: int) -> dict[str, Any]:
    return {
        "evaluation": plain(experiment.evaluation),
        "kernels": plain(experiment.kernels),
        "seed": experiment.seed,
    }


def _generate_part(
    experiment: GenerationExperiment | EnlargementExperiment, ranks: int
) -> dict[str, Any]:
    return {
        "generation": plain(experiment.generation),
        "schedule": plain(experiment.schedule),
        "seed": experiment.seed,
    }


def _boxes_part(experiment: EnlargementExperiment, ranks: int) -> dict[str, Any]:
    boxes = experiment.boxes
    return {
        "simulator": plain(experiment.simulator),
        "seed": experiment.seed,
        "shape": boxes.shape,
        "samples": boxes.samples,
        "steps": boxes.steps,
    }


def _large_part(experiment: EnlargementExperiment, ranks: int) -> dict[str, Any]:
    made = experiment.generation
    return {
        "simulator": plain(experiment.simulator),
        "seed": experiment.seed,
        "shape": made.shape,
        "samples": experiment.boxes.truth + made.samples,
        "steps": experiment.boxes.steps,
    }


def _denoisers_part(experiment: EnlargementExperiment, ranks: int) -> dict[str, Any]:
    made = experiment.generation
    return {
        **{
            key: _learned(experiment, getattr(experiment, key), ranks)
            for key in ("windows", "coarse")
        },
        "extents": made.extents,
        "tile": made.tile,
        "halo": made.halo,
        "block": made.block,
        "gains": made.gains,
        "held_out": experiment.boxes.held_out,
        "schedule": plain(experiment.schedule),
    }


STAGES = (
    Stage("simulate", 2, (), _simulate_part, simulate.work),
    Stage("compress", 1, ("simulate",), _compress_part, learn.compress),
    Stage("fit", 1, ("compress",), _fit_part, learn.fit),
    Stage("couple", 1, ("simulate", "compress", "fit"), _couple_part, couple.work),
    Stage("evaluate", 1, ("simulate", "compress", "fit", "couple"), _evaluate_part, evaluate.work),
)
WITHOUT_TIME = (
    Stage("residuals", 1, (), _residuals_part, residuals.work),
    Stage("fit", 1, ("residuals",), _local_fit_part, residuals.fit),
    Stage("solve", 2, ("residuals", "fit"), _solve_part, solve.work),
)
OF_MEMBERS = (
    Stage("simulate", 1, (), _members_part, ensemble.simulate),
    Stage("compress", 2, ("simulate",), _compress_part, ensemble.compress),
    Stage("fit", 2, ("simulate", "compress"), _models_part, ensemble.fit),
    Stage("rival", 1, ("simulate",), _rival_part, ensemble.train_rival),
    Stage(
        "forecast", 2, ("simulate", "compress", "fit", "rival"), _forecast_part, ensemble.forecast
    ),
    Stage("transition", 1, (), _transition_part, transition.work),
    Stage("evaluate", 2, ("simulate", "compress", "forecast"), _assess_part, assess.work),
)
OF_PATTERNS = (
    Stage("dataset", 1, (), _dataset_part, patterns.work),
    Stage("score", 1, ("dataset",), _score_part, dynamics.learn_score),
    Stage("flow", 1, ("dataset", "score"), _flow_part, dynamics.learn_flow),
    Stage("cases", 2, (), _cases_part, cases.work),
    Stage("evaluate", 2, ("dataset", "score", "flow"), _directions_part, dynamics.evaluate),
)
OF_FIELDS = (Stage("generate", 1, (), _generate_part, generate.work),)
OF_LARGER = (
    Stage("dataset", 1, (), _boxes_part, enlarge.dataset),
    Stage("truth", 1, (), _large_part, enlarge.truth),
    Stage("fit", 1, ("dataset",), _denoisers_part, enlarge.fit),
    Stage("generate", 1, ("fit",), _generate_part, enlarge.generate),
    Stage(
        "evaluate",
        1,
        ("truth", "fit", "generate"),
        lambda experiment, ranks: {},
        likeness.evaluate,
    ),
)
PIPELINES = {
    Experiment: STAGES,
    EllipticExperiment: WITHOUT_TIME,
    EnsembleExperiment: OF_MEMBERS,
    TuringExperiment: OF_PATTERNS,
    GenerationExperiment: OF_FIELDS,
    EnlargementExperiment: OF_LARGER,
}
NAMES = tuple(dict.fromkeys(s.name for p in PIPELINES.values() for s in p)) + ("report",)


def stages_of(experiment: AnyExperiment) -> tuple[Stage, ...]:
    """The stages of an experiment, in order."""
    return PIPELINES[type(experiment)]


def artefacts(experiment: AnyExperiment, root: Path, ranks: int) -> dict[str, Artefact]:
    """The artefact of every stage, finished or not, by stage name."""
    found: dict[str, Artefact] = {}
    for stage in stages_of(experiment):
        inputs = [found[name].path.name for name in stage.inputs]
        code = artefact_hash(stage.name, stage.version, stage.part(experiment, ranks), inputs)
        found[stage.name] = Artefact(root, stage.name, code)
    return found


@dataclass(frozen=True)
class Published(Artefact):
    """An artefact where a person looks, `outputs/NAME/STAGE`, perhaps copied from elsewhere."""

    @property
    def name(self) -> str:
        return self.stage


def published(folder: Path, experiment: AnyExperiment) -> dict[str, Artefact]:
    """The artefacts of a results folder. Errors: `InputError` if one that is read is missing."""
    found: dict[str, Artefact] = {}
    for stage in stages_of(experiment):
        found[stage.name] = Published(folder, stage.name, "published")
        if stage.name != "evaluate" and not found[stage.name].done:
            raise InputError(f"{folder}: has no finished {stage.name}; a results folder is needed")
    return found


def run_stages(
    experiment: AnyExperiment,
    found: dict[str, Artefact],
    comm: Any,
    *,
    upto: str | None = None,
    redo: str | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[str]:
    """Run what is not done, in order; yields after each stage, so that a report may be made.

    `redo` names a stage that is computed again, with all that reads it; `upto` the last to run.
    """
    for name in (upto, redo):
        known = [*(stage.name for stage in stages_of(experiment)), "report"]
        if name is not None and name not in known:
            raise InputError(f"stage {name!r}: unknown; allowed: {', '.join(known)}")
    redone: set[str] = set()
    for stage in stages_of(experiment):
        artefact = found[stage.name]
        again = redo == stage.name or not redone.isdisjoint(stage.inputs)
        if again:
            redone.add(stage.name)
        if on_root(comm, lambda at=artefact: at.done) and not again:
            say(f"{stage.name}: done before ({artefact.path.name})")
        else:
            say(f"{stage.name}: {artefact.path.name}")
            _run(stage, artefact, found, experiment, comm, again, say)
        yield stage.name
        if upto == stage.name:
            return


def _run(
    stage: Stage,
    artefact: Artefact,
    found: dict[str, Artefact],
    experiment: Experiment,
    comm: Any,
    again: bool,
    say: Callable[[str], None],
) -> None:
    inputs = {name: found[name].path for name in stage.inputs}
    provenance = {
        "experiment": plain(experiment),
        "seed": experiment.seed,
        "stage": stage.name,
        "version": stage.version,
        "inputs": [path.name for path in inputs.values()],
    }
    with building(artefact, comm, redo=again, provenance=provenance) as folder:
        path = folder / "facts.jsonl" if comm.rank == 0 else None
        if path is not None:
            path.unlink(missing_ok=True)
        facts = FactLog(path, stage.name, comm.size)
        begun = time.perf_counter()
        stage.work(Context(experiment, comm, folder, inputs, facts, say))
        quiet_barrier(comm)
        facts.record("time.stage", time.perf_counter() - begun, "s")
