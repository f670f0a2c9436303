"""Bad text, bad keys and bad values: one line that names the key, the value, what is allowed."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from scaled_mpi.config import (
    InputError,
    Spec,
    apply_overrides,
    canonical,
    decisive,
    parse,
    parse_yaml,
    plain,
    read_yaml,
    to_yaml,
    undecisive,
)


class Wave(Spec):
    kind: Literal["wave"] = "wave"
    speed: float = Field(1.0, gt=0)
    shape: tuple[int, ...] = (4, 4)


class Heat(Spec):
    kind: Literal["heat"] = "heat"
    steps: int = 3


class Nest(Spec):
    depth: int = 1
    model: Annotated[Wave | Heat, Field(discriminator="kind")] = Wave(speed=3.0)


class Whole(Spec):
    name: str
    model: Annotated[Wave | Heat, Field(discriminator="kind")] = Wave()
    rate: float | None = None
    loud: bool = False
    nest: Nest = Nest()


FAMILIES = {"model": "wave"}


def build(tree, *overrides):
    return parse(Whole, apply_overrides(tree, overrides, FAMILIES))


@pytest.mark.parametrize(
    ("tree", "override", "message"),
    [
        (
            {"name": "a", "nam": 1},
            [],
            "nam: 1 is not allowed: unknown key (did you mean name?). "
            "Allowed: loud, model, name, nest, rate",
        ),
        (
            {"name": "a"},
            ["model.sped=2"],
            "model.sped: 2 is not allowed: unknown key (did you mean speed?). "
            "Allowed: kind, shape, speed",
        ),
        (
            {"name": "a"},
            ["model=sound"],
            "model.kind: 'sound' is not allowed: unknown kind. Allowed: 'wave', 'heat'",
        ),
        (
            {"name": "a"},
            ["model.speed=0"],
            "model.speed: 0 is not allowed: out of range. Allowed: greater than 0",
        ),
        (
            {"name": "a"},
            ["model.speed=fast"],
            'model.speed: "fast" is not allowed: wrong type. Allowed: a valid number',
        ),
        (
            {"name": "a"},
            ["loud=1"],
            "loud: 1 is not allowed: wrong type. Allowed: a valid boolean",
        ),
        (
            {"name": "a"},
            ["model.shape=[2, x]"],
            'model.shape.1: "x" is not allowed: wrong type. Allowed: a valid integer',
        ),
        ({}, [], "name: missing. Needed: a value"),
        ({"name": "a"}, ["name.x=1"], "name.x: name is a value. Needed: a block"),
        ({"name": "a"}, ["oops"], "'oops': not an override. Needed: key.sub=value"),
        (
            {"name": "a"},
            ["model=heat", "model.steps=1.5"],
            "model.steps: 1.5 is not allowed: wrong type. Allowed: a valid integer",
        ),
    ],
)
def test_one_line_names_key_value_and_what_is_allowed(tree, override, message):
    with pytest.raises(InputError) as caught:
        build(tree, *override)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_naming_a_member_takes_all_of_its_defaults():
    tree = {"name": "a", "model": {"speed": 2.0}}
    assert build(tree).model == Wave(speed=2.0)
    assert build(tree, "model=heat").model == Heat()
    assert build(tree, "model=heat", "model.steps=7").model == Heat(steps=7)
    assert build({"name": "a", "model": "heat"}).model == Heat()


def test_so_does_a_member_within_a_block():
    nest = build({"name": "a", "nest": {"model": {"kind": "heat", "steps": 7}}}).nest
    assert nest == Nest(model=Heat(steps=7))
    nest = build({"name": "a", "nest": {"model": {"shape": [2]}}}).nest
    assert nest == Nest(model=Wave(speed=3.0, shape=(2,)))


def test_numbers_are_read_as_people_write_them():
    assert build({"name": "a"}, "rate=1e-3").rate == 1e-3
    assert build({"name": "a"}, "rate=2").rate == 2.0
    assert build({"name": "a"}, "rate=null").rate is None


def test_a_configuration_survives_the_round_trip():
    made = build({"name": "a"}, "model.shape=[3, 5, 7]", "rate=0.1")
    assert parse(Whole, plain(made)) == made
    assert parse(Whole, parse_yaml(to_yaml(made))) == made
    assert canonical(made) == canonical(parse(Whole, plain(made)))
    assert canonical(made) != canonical(build({"name": "a"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "alias is not allowed"),
        ("a: 1\na: 2", "a: appears twice"),
        ("a: [1", "line 1"),
        ("a: !!python/object/apply:os.system [ls]", "not allowed|could not determine|is allowed"),
        ("[1, 2]", "holds no keys"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_a_configuration(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")
    large = tmp_path / "large.yaml"
    large.write_text("#" * 1_000_001)
    with pytest.raises(InputError, match="at most 1 MB"):
        read_yaml(large)


class Inner(Spec):
    steps: int = 1
    rate: float = 0.5


class Outer(Spec):
    inner: Inner = Inner(steps=7, rate=0.1)


class Deepest(Spec):
    outer: Outer = Outer(inner=Inner(steps=9))


def test_one_key_of_an_inner_block_leaves_the_others_as_they_were():
    assert parse(Outer, {"inner": {"rate": 0.3}}).inner == Inner(steps=7, rate=0.3)
    assert parse(Outer, {"inner": {}}).inner == Inner(steps=7, rate=0.1)
    deep = parse(Deepest, {"outer": {"inner": {"rate": 0.3}}})
    assert deep.outer.inner == Inner(steps=9, rate=0.3)


class Pace(Spec):
    rate: float = 0.1
    report_every: int = undecisive(10, ge=1, description="steps between two lines")


class Job(Spec):
    pace: Pace = Pace()
    rivals: dict[str, Pace] = {}
    parts: tuple[Pace, ...] = ()
    launch: str = undecisive("local")


def test_what_decides_no_bit_is_left_out_at_any_depth():
    fast = Pace(report_every=1)
    job = Job(pace=fast, rivals={"a": fast}, parts=(fast, Pace()), launch="slurm")
    rate = {"rate": 0.1}
    assert decisive(job) == {"pace": rate, "rivals": {"a": rate}, "parts": [rate, rate]}
    assert plain(job)["pace"] == {"rate": 0.1, "report_every": 1}
    assert parse(Job, plain(job)) == job
    with pytest.raises(InputError, match="report_every"):
        parse(Job, {"pace": {"report_every": 0}})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Wave(sped=2), r"sped: 2 is not allowed: unknown key \(did you mean speed\?\)"),
        (
            lambda: Wave(speed=0),
            r"^speed: 0 is not allowed: out of range. Allowed: greater than 0$",
        ),
        (lambda: Whole(nme="a"), "not allowed: unknown key|name: missing"),
        (lambda: Whole(name="a", nest={"depth": "deep"}), r"^nest.depth: \"deep\" is not allowed"),
        (lambda: Whole(name="a", model={"kind": "sound"}), "model.kind: 'sound' is not allowed"),
    ],
)
def test_an_object_built_in_python_is_refused_in_the_same_words(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value) and "http" not in str(caught.value)


def test_a_constructor_that_reports_leaves_files_strict():
    with pytest.raises(InputError, match='depth: "1" is not allowed: wrong type'):
        parse(Whole, {"name": "a", "nest": {"depth": "1"}})
    assert Whole(name="a", nest=Nest(depth=2)).nest.depth == 2
    assert Wave.__pydantic_custom_init__ is False
