"""Words of README, error lines and public docstrings: short sentences, arrays with shapes."""

import ast
from collections import Counter

import pytest

from .words import (
    error_lines,
    findings,
    long_sentences,
    regular,
    states_shape,
    takes_arrays,
    words_of,
)

SORTS = ("docstrings", "errors", "readme", "shapes")

# Faults that a room may still have (`python tests/words.py ROOM` lists them). A number only falls;
# at 0 its entry is deleted, and with its last entry the room.
ALLOWED: dict[str, dict[str, int]] = {
    "compressors": {"docstrings": 8, "shapes": 1},
    "learning": {"docstrings": 50, "shapes": 9},
    "local_solvers": {"docstrings": 1},
    "surrogates": {"docstrings": 21, "shapes": 2},
    "top": {"docstrings": 5},
}


def test_long_sentences_and_arrays_without_shapes_only_become_fewer():
    found = [finding for finding in findings() if finding.sort in SORTS]
    counts = Counter((finding.room, finding.sort) for finding in found)
    grown = {
        place: f"{count} where {ALLOWED.get(place[0], {}).get(place[1], 0)} are allowed"
        for place, count in counts.items()
        if count > ALLOWED.get(place[0], {}).get(place[1], 0)
    }
    named = [str(finding) for finding in found if (finding.room, finding.sort) in grown]
    assert not grown, "\n".join([str(grown), *named])


def test_a_sentence_is_counted_in_words():
    assert words_of("Cells of `a + b` in (C, [Z,] Y, X) = 2.") == 6
    text = "Short one. W" + "word " * 25 + "end. Then e.g. This one.\n\n- " + "listed " * 30
    assert [line for line, _ in long_sentences(text, 7)] == [7]
    assert long_sentences(text, 7)[0][1].startswith("26 words: Wword")
    assert len(long_sentences(text, 7, lists=True)) == 2
    assert long_sentences("    " + "code " * 30 + "\n| " + "cell " * 30, 1) == []


@pytest.mark.parametrize(
    ("docstring", "stated"),
    [
        ("Values of shape (n,) in order.", True),
        ("A field (C, [Z,] Y, X).", True),
        ("Latents (T, c, Y/f, X/f) of it.", True),
        ("Fields (..., Y, X) to whatever.", True),
        ("The residual (*block.size), float64.", True),
        ("A scalar.", True),
        ("An array of any shape and one of the same shape.", True),
        ("The correction (see above, not below).", False),
        ("Advances (steps) the field.", False),
        (None, False),
    ],
)
def test_a_shape_is_recognised(docstring, stated):
    assert states_shape(docstring) is stated


def test_arrays_are_found_in_annotations_and_messages_in_errors():
    function = ast.parse("def f(x: list[np.ndarray] | None, *, n: int) -> str: ...").body[0]
    assert takes_arrays(function)
    assert not takes_arrays(ast.parse("def f(n: int) -> None: ...").body[0])
    text = 'raise InputError(f"{key}: {value!r} is not allowed: odd. Allowed: " + names)'
    (message,) = error_lines(ast.parse(text))
    assert message == (1, "X: X is not allowed: odd. Allowed: X")
    assert regular(message[1])
    assert regular("X: no such file. Needed: a results folder")
    assert not regular("X given; Y are allowed")
