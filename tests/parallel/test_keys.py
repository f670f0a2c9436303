"""Each purpose has numbers of its own, and no module draws under another number."""

import ast
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.parallel import streams
from scaled_mpi.parallel.keys import RUNS_A_GROUP, FirstRun, FreeStep, Stream

PACKAGE = Path(__file__).resolve().parents[2] / "scaled_mpi"
DRAWS = ("uniform", "normal", "integers")


@pytest.mark.parametrize("table", [Stream, FirstRun, FreeStep])
def test_no_two_purposes_share_a_number(table):
    numbers = [int(entry) for entry in table.__members__.values()]
    assert len(numbers) == len(set(numbers)) == len(table)


def test_streams_and_steps_are_numbers_that_streams_take():
    cells = np.arange(3)
    drawn = [streams.uniform(7, FreeStep.SURVEY, cells, stream=stream) for stream in Stream]
    assert len({values.tobytes() for values in drawn}) == len(Stream)
    plain = streams.uniform(7, 2**32 - 2, cells, stream=5)
    assert streams.uniform(7, FreeStep.SURVEY, cells, stream=Stream.KICKS).tobytes() == (
        plain.tobytes()
    )
    assert all(0 < stream < 1 << 16 for stream in Stream)


def test_groups_of_runs_do_not_overlap():
    assert all(b - a >= RUNS_A_GROUP for a, b in pairwise(sorted(FirstRun)))


def draws(tree: ast.Module) -> list[ast.expr | None]:
    """The stream argument of every call that draws from a stream."""
    found = []
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or len(call.args) < 3:
            continue
        name = ast.unparse(call.func).removeprefix("streams.")
        if name in DRAWS:
            named = {keyword.arg: keyword.value for keyword in call.keywords}
            found.append(named.get("stream", call.args[4] if len(call.args) > 4 else None))
    return found


def test_every_draw_names_an_entry_of_the_table():
    texts = [path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "streams.py"]
    found = [
        ast.unparse(one) if one else "none" for text in texts for one in draws(ast.parse(text))
    ]
    assert len(found) > 15
    members = {f"Stream.{name}" for name in Stream.__members__}
    assert [one for one in found if one not in members | {"stream"}] == []


def test_every_entry_of_the_tables_is_used():
    text = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "keys.py")
    entries = [
        f"{table.__name__}.{one.name}" for table in (Stream, FirstRun, FreeStep) for one in table
    ]
    assert [name for name in entries if name not in text] == []
