"""YAML to typed, strict, frozen objects and back: one key is one field.

This module knows no member of any family; `experiment.py` joins them. A loader that
builds plain data only reads text from outside. Every mistake becomes one `InputError` line with
the key, the value and the allowed values.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, Union, get_args

import pydantic
import yaml

IN_PLACE_OF = {"epochs": "steps"}  # a key that is set leaves out the other
LARGEST_FILE = 1_000_000  # bytes; an experiment is a page of text, not a data file


class InputError(ValueError):
    """What a user gave cannot be used. The message is the one line shown; the exit code is 2."""


class Spec(pydantic.BaseModel):
    """A frozen block of the configuration whose fields are its YAML keys.

    Errors of the constructor: `InputError`, the same line as for the key in a file.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    if not TYPE_CHECKING:  # type checkers read the signature off the fields

        def __init__(self, **keys: Any) -> None:
            try:
                super().__init__(**_with_defaults(type(self), keys))
            except pydantic.ValidationError as error:
                raise InputError(_one_line(type(self), keys, error)) from error

        # Else pydantic would call it for every inner block, which loses the strictness of a file.
        __init__.__pydantic_base_init__ = True


class SparseSpec(Spec):
    """A block that leaves out the keys in `optional` of its plain tree while they are None.

    Hashes and files of results are taken of plain trees: a key that was added later, and is not
    set, changes neither.
    """

    optional: ClassVar[tuple[str, ...]] = ()

    @pydantic.model_serializer(mode="wrap")
    def _without_optional(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree = handler(self)
        absent = {key for key in self.optional if tree.get(key) is None}
        absent |= {IN_PLACE_OF[key] for key in set(IN_PLACE_OF) & set(self.optional) - absent}
        return {key: value for key, value in tree.items() if key not in absent}


SpecType = TypeVar("SpecType", bound=Spec)


def undecisive(default: Any, **keys: Any) -> Any:
    """A field whose value decides no bit of any result; `decisive` leaves it out.

    `keys` are those of pydantic's `Field`, for example `ge` and `description`.
    """
    return pydantic.Field(default, json_schema_extra={"decides": False}, **keys)


def check_name(key: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is one of `known`. Errors: `InputError`, naming `key`."""
    names = tuple(known)
    if name not in names:
        raise InputError(f"{key}: {name} is not allowed: unknown. Allowed: {', '.join(names)}")
    return name


def choice(members: Mapping[str, type[Spec]]) -> Any:
    """Return the type of a block that is one of a family's members, told apart by `kind`."""
    classes = tuple(members.values())
    if len(classes) == 1:
        return classes[0]
    return Annotated[Union[classes], pydantic.Field(discriminator="kind")]  # noqa: UP007


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases and duplicate keys, and reads 1e-3 as a number."""

    def compose_node(self, parent: object, index: object) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise InputError(
                f"*{event.anchor}: an alias is not allowed: a configuration repeats nothing. "
                "Allowed: the block itself"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise InputError(f"{key!r}: the key is not text. Needed: a name")
            if keys.count(key) > 1:
                raise InputError(f"{key}: appears twice in one block. Needed: once")
        return super().construct_mapping(node, deep)


# YAML 1.1 asks for a dot in 1.0e-3; people, and YAML 1.2, write 1e-3.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, source: str = "text") -> object:
    """Plain data of a YAML text. Errors: `InputError` naming the line at fault."""
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise InputError(f"{source}, line {line}: {error.problem}. Needed: YAML") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{source}: {type(error).__name__}. Needed: YAML") from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The tree of one configuration file; at most 1 MB, no aliases, no duplicate keys."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path}: has {path.stat().st_size} bytes. Needed: at most 1 MB")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or "not readable text"
        raise InputError(f"{path}: {reason}. Needed: a YAML file") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds no keys. Needed: an experiment, a block of keys")
    return tree


def apply_overrides(
    tree: Mapping[str, Any], overrides: Iterable[str], families: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The tree with every `a.b.c=value` put in; `tree` itself stays as it is.

    A value is YAML. `families` maps each key that chooses a member to the member taken when none
    is named. Naming a member (`surrogate=mvar`) replaces the whole block by its defaults.
    """
    result = json.loads(json.dumps(tree, default=str))
    families = families or {}
    _name_members(result, families)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[\w-]+)*", key):
            raise InputError(f"{override!r}: not an override. Needed: key.sub=value")
        _put(result, key, parse_yaml(text, key))
        _name_members(result, families)
    return result


def _name_members(tree: dict[str, Any], families: Mapping[str, str]) -> None:
    """Write `surrogate: mvar` as the block it stands for, and name the default where none is."""
    for key, default in families.items():
        if isinstance(tree.get(key), str):
            tree[key] = {"kind": tree[key]}
        elif isinstance(tree.get(key), dict):
            tree[key] = {"kind": default, **tree[key]}


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    block = tree
    for depth, name in enumerate(path, 1):
        inside = block.get(name)
        if inside is not None and not isinstance(inside, dict):
            raise InputError(
                f"{key}: {'.'.join(path[:depth])} is a value. Needed: a block that holds {last}"
            )
        block[name] = inside or {}
        block = block[name]
    block[last] = value


def parse(cls: type[SpecType], tree: Mapping[str, Any]) -> SpecType:
    """A typed object from plain data. Errors: `InputError` for the first thing that is wrong."""
    try:
        return cls.model_validate_json(json.dumps(_with_defaults(cls, tree)), strict=True)
    except pydantic.ValidationError as error:
        raise InputError(_one_line(cls, tree, error)) from error
    except TypeError as error:  # a YAML date or the like, which JSON does not know
        raise InputError(f"a value: {error}. Needed: text, a number, a list or a block") from error


def _with_defaults(cls: type[Spec], tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with the defaults that a block's owner gives it, where the block names a few keys.

    One key of an inner block must change that key alone; left to itself, pydantic would take the
    other keys from the inner block's class, not from the default that its owner declares.
    """
    whole = dict(tree)
    for name, field in cls.model_fields.items():
        inner = whole.get(name)
        if not isinstance(inner, Mapping):
            continue
        default = field.default
        if isinstance(default, Spec):
            kind = getattr(default, "kind", None)
            if inner.get("kind", kind) == kind:
                inner = _merged(plain(default), inner)
        member = _member(field.annotation, inner.get("kind"))
        whole[name] = _with_defaults(member, inner) if member else inner
    return whole


def _merged(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `default`, block by block."""
    result = {**default, **given}
    for key, other in IN_PLACE_OF.items():
        if given.get(key) is not None and other not in given:
            result.pop(other, None)
    for key, value in given.items():
        known = default.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            if value.get("kind", known.get("kind")) == known.get("kind"):
                result[key] = _merged(known, value)
    return result


def _member(annotation: object, kind: object) -> type[Spec] | None:
    """The class that a block of this annotation becomes, None if it is no block."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        known = annotation.model_fields.get("kind")
        return annotation if known is None or kind in (None, known.default) else None
    found = (_member(option, kind) for option in get_args(annotation))
    return next((member for member in found if member is not None), None)


def _one_line(cls: type[Spec], tree: object, error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return str(cause)
    path, block = _real_path(first["loc"], tree, unknown=first["type"] == "extra_forbidden")
    key, given = ".".join(map(str, path)) or "experiment", json.dumps(first["input"], default=str)
    given = given if len(given) <= 80 else given[:77] + "..."
    if first["type"] == "extra_forbidden":
        allowed = _known_keys(cls, path[:-1], block)
        near = difflib.get_close_matches(str(path[-1]), allowed, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{key}: {given} is not allowed: unknown key{hint}. Allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{key}: missing. Needed: a value"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        expected = first.get("ctx", {}).get("expected_tags", "a block with a key 'kind'")
        kind = block.get("kind") if isinstance(block, dict) else None
        return f"{key}.kind: {kind!r} is not allowed: unknown kind. Allowed: {expected}"
    message = first["msg"].removeprefix("Value error, ")
    needed = message.removeprefix("Input should be ")
    if needed != message:
        return f"{key}: {given} is not allowed: {_reason(first['type'])}. Allowed: {needed}"
    if first["type"] == "string_pattern_mismatch":
        pattern = first["ctx"]["pattern"]
        return f"{key}: {given} is not allowed: wrong form. Allowed: text that matches {pattern}"
    return f"{key}: {given} is not allowed: {message[:1].lower()}{message[1:]}"


def _reason(kind: str) -> str:
    """The fault that a pydantic error type stands for."""
    if kind.startswith(("greater", "less")):
        return "out of range"
    if kind in ("literal_error", "enum"):
        return "unknown value"
    return "wrong type"


def _real_path(location: tuple, tree: object, unknown: bool) -> tuple[list, object]:
    """The keys of a location, and the block that holds the last of them.

    Pydantic also names union members (`surrogate.stepper.width`) and types (`tuple[int, ...]`)
    on the way; these are not keys of the file and are dropped.
    """
    path, here = [], tree
    steps = list(location[:-1]) if unknown else list(location)
    for part in steps:
        if isinstance(here, dict) and part in here:
            path.append(part)
            here = here[part]
        elif isinstance(here, list) and isinstance(part, int):
            path.append(part)
            here = here[part] if part < len(here) else None
        elif part == location[-1] and isinstance(here, dict) and here.get("kind") != part:
            path.append(part)  # a missing key
    if unknown:
        path.append(location[-1])
    return path, here


def _known_keys(cls: type[Spec], path: list, block: object) -> list[str]:
    """Keys that the block at `path` may have, read from the JSON schema of the class."""
    schema = cls.model_json_schema()
    here = schema
    for part in path:
        here = _resolve(schema, here.get("properties", {}).get(str(part), {}), block)
    return sorted(_resolve(schema, here, block).get("properties", {}))


def _resolve(schema: dict, node: dict, block: object) -> dict:
    """Follow references, and of several members take the one that the block names."""
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        elif "discriminator" in node:
            mapping = node["discriminator"]["mapping"]
            kind = block.get("kind") if isinstance(block, dict) else None
            node = {"$ref": mapping.get(kind, next(iter(mapping.values())))}
        elif "anyOf" in node or "oneOf" in node:
            options = node.get("anyOf") or node.get("oneOf") or []
            node = next((o for o in options if o.get("type") != "null"), {})
        else:
            return node


def plain(spec: Spec) -> dict[str, Any]:
    """The plain tree of a spec, every default written out; `parse(type(spec), ...)` inverts it."""
    return json.loads(spec.model_dump_json())


def decisive(spec: Spec) -> dict[str, Any]:
    """The plain tree of a spec without the keys, at any depth, that decide no bits.

    Stage hashes, the metadata of weight files and the marks of checkpoints are made of it.
    """
    tree = plain(spec)
    _drop_undecisive(spec, tree)
    return tree


def _drop_undecisive(value: object, tree: object) -> None:
    if isinstance(value, Spec) and isinstance(tree, dict):
        for name, field in type(value).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("decides") is False:
                tree.pop(name, None)
            elif name in tree:
                _drop_undecisive(getattr(value, name), tree[name])
    elif isinstance(value, Mapping) and isinstance(tree, dict):
        for key, inner in value.items():
            _drop_undecisive(inner, tree.get(str(key)))
    elif isinstance(value, (list, tuple)) and isinstance(tree, list):
        for inner, node in zip(value, tree, strict=True):
            _drop_undecisive(inner, node)


def canonical(value: object) -> str:
    """Text that is equal exactly when two configurations are equal; hashes are taken of it."""
    tree = plain(value) if isinstance(value, Spec) else value
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_yaml(spec: Spec | Mapping[str, Any]) -> str:
    """The resolved configuration as a person reads it."""
    tree = plain(spec) if isinstance(spec, Spec) else dict(spec)
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=99)
