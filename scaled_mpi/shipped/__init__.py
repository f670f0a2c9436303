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
NETWORK = "best.safetensors"  # the file that most trainings leave
STAGES = {  # where results keep the weights of a block that the stage fit does not train
    "compressor": "compress",
    "rival": "rival",
    "windows": "fit/windows",
    "coarse": "fit/coarse",
}


def names() -> tuple[str, ...]:
    """What is shipped."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob("*/config.yaml")))


def weight_folder(given: str) -> Path:
    """The folder that the value of a key `weights` stands for; a shipped name goes first."""
    return SHIPPED / given if given in names() else Path(given)


def weight_file(key: str, given: str, file: str = NETWORK) -> Path:
    """Return the file that `given`, the value of the configuration's `key`, stands for.

    `file` is its name as a training leaves it. In a folder the shipped file comes first, then the
    one of the stage that trains the block, then the file itself. Errors: `InputError` for a value
    that is neither a shipped name nor a folder with such a file.
    """
    folder, block = weight_folder(given), key.split(".")[0]
    places = [f"{STAGES.get(block, 'fit')}/{file}", f"fit/{file}", file]
    for place in [WEIGHTS, *places] if file == NETWORK else places:
        if (folder / place).is_file():
            return folder / place
    raise InputError(
        f"{key}: {given} is not allowed: it holds no {file}. Allowed: a shipped name "
        f"({', '.join(names())}) or a folder of results, such as outputs/ddm"
    )
