"""Weights that come with the package, so that coupling can begin without a training.

    NAME/weights.safetensors   one network, float32, at most 5 MB (`learning/weights.py`)
    NAME/config.yaml           the resolved experiment that trained it, its seed included
    NAME/facts.jsonl           what it scored there, and what the training took

A key `weights` takes NAME, or a folder of the user's own: a results folder such as outputs/ddm,
or what a stage `fit` left. `scaled_mpi/ship.py` makes NAME of a finished results folder.
"""

from __future__ import annotations

from pathlib import Path

from scaled_mpi.config import InputError

SHIPPED = Path(__file__).parent
WEIGHTS = "weights.safetensors"
PLACES = (WEIGHTS, "fit/best.safetensors", "best.safetensors")  # within a folder, first match wins


def names() -> tuple[str, ...]:
    """What is shipped."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob("*/config.yaml")))


def weight_folder(given: str) -> Path:
    """The folder that the value of a key `weights` stands for; a shipped name goes first."""
    return SHIPPED / given if given in names() else Path(given)


def weight_file(key: str, given: str) -> Path:
    """The one file that `given`, the value of the configuration's `key`, stands for.

    Errors: `InputError` for what is neither a shipped name nor a folder with weights.
    """
    folder = weight_folder(given)
    for place in PLACES:
        if (folder / place).is_file():
            return folder / place
    raise InputError(
        f"{key}: {given} given; a shipped name ({', '.join(names())}) or a folder of results with "
        "a trained network, such as outputs/ddm, is allowed"
    )
