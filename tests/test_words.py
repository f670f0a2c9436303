"""Words of README, error lines and public docstrings: short sentences, arrays with shapes."""

import ast

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


@pytest.fixture(scope="module")
def found():
    """Every fault of the words."""
    return findings()


def test_sentences_are_short_and_arrays_have_shapes(found):
    faults = [str(finding) for finding in found if finding.sort in SORTS]
    assert not faults, "\n".join(faults)


def test_lines_of_bad_input_say_what_is_allowed_or_needed(found):
    odd = [str(finding) for finding in found if finding.sort == "forms"]
    assert not odd, "\n".join(odd)


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
    assert message == ("InputError", 1, "X: X is not allowed: odd. Allowed: X")
    assert regular(message[2])
    assert regular("X: no such file. Needed: a results folder")
    assert not regular("X given; Y are allowed")
