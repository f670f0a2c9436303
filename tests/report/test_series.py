"""Facts as series: which points belong, which value counts, how a number is said."""

import math

import pytest

from scaled_mpi.report.series import Numbers, milestones, number, quantity


def test_the_last_value_of_a_name_and_place_counts():
    facts = [
        {"name": "a", "value": 1, "ranks": 1},
        {"name": "a", "value": 2, "ranks": 2},
        {"name": "a", "value": 3, "ranks": 1},
    ]
    numbers = Numbers(facts)
    assert numbers.value("a") == 3
    assert [fact["value"] for fact in numbers.facts] == [2, 3]
    assert numbers.value("b") is None


def test_a_series_holds_its_points_only_and_in_order():
    facts = [
        {"name": "e", "value": 0.2, "method": "m", "lead": 10, "tiles": 4},
        {"name": "e", "value": 0.1, "method": "m", "lead": 2},
        {"name": "e", "value": 9.0, "method": "m", "lead": 2, "channel": "u"},
        {"name": "e", "value": 0.3, "method": "n", "lead": 2},
        {"name": "e", "value": 7.0},
    ]
    numbers = Numbers(facts)
    assert numbers.series("e", "lead") == {"m": ([2.0, 10.0], [0.1, 0.2]), "n": ([2.0], [0.3])}
    assert numbers.series("e", "lead", channel="u") == {"m": ([2.0], [9.0])}
    assert numbers.value("e") == 7.0
    assert numbers.leads("e") == [2, 10]


def test_values_that_are_words():
    assert number("never") == math.inf and number("Infinity") == math.inf
    assert math.isnan(number("9f2c")) and math.isnan(number(None))


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.0118, "s", "11.8 ms"),
        (2.5e-5, "s", "25 µs"),
        (12.34, "s", "12.3 s"),
        (0.0, "s", "0 s"),
        (12288, "bytes", "12 KiB"),
        (3 * 2**20, "bytes", "3 MiB"),
        (100, "bytes", "100 bytes"),
        (math.inf, "jumps", "never"),
        (math.inf, "", "∞"),
        (81920, "", "81\N{THIN SPACE}920"),
        (0.06247, "", "0.0625"),
    ],
)
def test_numbers_are_said_as_people_say_them(value, unit, said):
    assert quantity(value, unit) == said


def test_milestones_are_leads_that_exist():
    assert milestones([1, 2, 10, 40]) == [1, 10, 40]
    assert milestones([2, 3]) == [3]
    assert milestones([]) == []
