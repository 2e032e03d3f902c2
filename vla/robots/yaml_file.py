"""A YAML file read into a dataclass, with the line in every complaint."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vla.contracts import VlaError
from vla.host.files import read_text

_LONGEST = 200_000  # characters of a file


@dataclass(frozen=True)
class Lines:
    """Where in a file each value stands.

    Attributes:
        file: its path.
        of: the line of each value, by its path, e.g. ``limits.velocity``.
    """

    file: Path
    of: dict[str, int]

    def error(self, where: str, text: str) -> VlaError:
        """The error about a value; one that is not in the file is at its parent's line."""
        place = where
        while place and place not in self.of:
            place = place.rpartition(".")[0]
        return VlaError(f"{self.file}:{self.of.get(place, 1)}: {f'{where}: ' if where else ''}{text}")


def read_yaml(file: Path, kind: type) -> tuple[Any, Lines]:
    """A file as the dataclass ``kind``, and where its values stand.

    Only plain YAML is read: no tags, no anchors, and no key twice.

    Raises VlaError, with the line, for what is no YAML, unknown, missing or of another type.
    """
    import yaml

    text = read_text(file)
    if len(text) > _LONGEST:
        raise VlaError(f"{file} has {len(text)} characters; a robot's file has at most {_LONGEST}")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise VlaError(f"{file} is empty")
        lines = Lines(file, {})
        plain = _plain(root, "", lines, yaml, set())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise VlaError(f"{file}:{line}: this is no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise VlaError(f"{file}: this is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise VlaError(f"{file} is nested too deep") from error
    return _value(kind, plain, "", lines), lines


def _plain(node: Any, where: str, lines: Lines, yaml: Any, above: set[int]) -> Any:
    line = node.start_mark.line + 1
    lines.of.setdefault(where, line)
    if id(node) in above:
        raise lines.error(where, "refers to itself")
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise lines.error(where, "a key must be a word")
            place = f"{where}.{key.value}".lstrip(".")
            if key.value in found:
                raise VlaError(f"{lines.file}:{key.start_mark.line + 1}: {place}: is there twice")
            lines.of[place] = key.start_mark.line + 1
            found[key.value] = _plain(value, place, lines, yaml, above | {id(node)})
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value, f"{where}.{i}", lines, yaml, above | {id(node)}) for i, value in enumerate(node.value)]
    if node.tag not in ("tag:yaml.org,2002:" + kind for kind in ("str", "int", "float", "bool", "null")):
        raise lines.error(where, f"'{node.value}' should be a text, a number, true or false (put a text in quotes)")
    return yaml.SafeLoader("").construct_object(node)


def _value(hint: Any, value: Any, where: str, lines: Lines) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _value(next(a for a in args if a is not type(None)), value, where, lines)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, where, lines)
    if origin is dict:
        if not isinstance(value, dict):
            raise lines.error(where, f"should have names below it, and is {value!r}")
        return {name: _value(args[1], one, f"{where}.{name}", lines) for name, one in value.items()}
    if origin is tuple:
        if not isinstance(value, list):
            raise lines.error(where, f"should be a list, and is {value!r}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise lines.error(where, f"should have {len(kinds)} entries, and has {len(value)}")
        return tuple(_value(k, v, f"{where}.{i}", lines) for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is Literal:
        if value not in args:
            near = difflib.get_close_matches(str(value), map(str, args), 1)
            guess = f"; did you mean {near[0]}?" if near else ""
            raise lines.error(where, f"must be one of {', '.join(map(str, args))}, and is {value!r}{guess}")
        return value
    if hint is float:
        return _number(value, where, lines)
    fits = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    if not fits:
        words = {int: "a whole number", str: "a text", bool: "true or false", Path: "a path"}
        raise lines.error(where, f"should be {words.get(hint, hint)}, and is {value!r}")
    return value


def _number(value: Any, where: str, lines: Lines) -> float:
    """A finite number; ``1e-3``, which YAML takes for a text, is one too."""
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise lines.error(where, f"should be a finite number, and is {value!r}")
    return number


def _dataclass(kind: Any, value: Any, where: str, lines: Lines) -> Any:
    if not isinstance(value, dict):
        raise lines.error(where, f"should have names below it, and is {value!r}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind) if f.name != "path"]
    for name in value:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            guess = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(names)}"
            place = f"{where}.{name}".lstrip(".")
            raise lines.error(place, f"there is no such setting{guess}")
    for one in dataclasses.fields(kind):
        optional = one.default is not dataclasses.MISSING or one.default_factory is not dataclasses.MISSING
        if one.name not in value and not optional:
            raise lines.error(where, f"'{one.name}' is missing")
    return kind(**{n: _value(hints[n], v, f"{where}.{n}".lstrip("."), lines) for n, v in value.items()})
