"""A single setting: read from text as its type, and explained by its docstring."""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from typing import Any, Literal

from vla.contracts import VlaError


def require_multiple(prefix: str, config: Any, name: str, divisor: str) -> None:
    """Raise VlaError unless the field ``name`` of ``config`` is a multiple of its field ``divisor``."""
    value, step = getattr(config, name), getattr(config, divisor)
    if value % step:
        raise VlaError(f"--{prefix}{name} {value} must be a multiple of --{prefix}{divisor}, which is {step}")


def attributes_of(config: type) -> dict[str, str]:
    """The section ``Attributes`` of a class's docstring and its bases', as name to its first sentence on one line."""
    inherited: dict[str, str] = {}
    for base in config.__bases__:
        inherited |= attributes_of(base) if base is not object else {}
    _, _, section = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")
    found = inherited
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): ((?:.+\n?)(?: {5,}.+\n?)*)", section, re.MULTILINE):
        line = re.split(r"(?<=\.) (?=[A-Z])", " ".join(text.split()))[0]
        found |= dict.fromkeys(names.split(", "), line.replace("``", "").rstrip("."))
    return found


def parse_value(text: str, annotation: Any, key: str) -> Any:
    """Read ``text`` as the type ``annotation``: int, float, bool, str, Literal, tuple (``1,2,3``) or Optional.

    Raises VlaError naming ``key``, the text and the type that was expected.
    """
    try:
        return _parse(text, annotation)
    except ValueError as error:
        options = map(str, typing.get_args(annotation)) if typing.get_origin(annotation) is Literal else ()
        near = difflib.get_close_matches(text, list(options), n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise VlaError(f"{key} takes {type_name(annotation)}, and was given '{text}'{guess}") from error


def _parse(text: str, annotation: Any) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and text.lower() == "none":
            return None
        for option in (a for a in args if a is not type(None)):
            try:
                return _parse(text, option)
            except ValueError:
                continue
        raise ValueError(text)
    if origin is Literal:
        matches = [option for option in args if str(option) == text]
        if not matches:
            raise ValueError(text)
        return matches[0]
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
        kinds = [args[0]] * len(parts) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(kinds) != len(parts):
            raise ValueError(text)
        return tuple(_parse(part, kind) for part, kind in zip(parts, kinds, strict=True))
    if annotation is bool:
        values = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
        if text.lower() not in values:
            raise ValueError(text)
        return values[text.lower()]
    if annotation is int:
        return int(text.replace("_", ""))
    if annotation is float:
        return float(text)
    if annotation in (str, Any):
        return text
    raise ValueError(text)


def type_name(annotation: Any) -> str:
    """A type in words that fit an error message, e.g. ``a whole number`` or ``numbers such as 0.9,0.95``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if a is type(None) else type_name(a) for a in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple:
        count = "a list" if args[-1] is Ellipsis else f"{len(args)} values"
        return f"{count} such as {'0.9,0.95' if args[0] is float else '1,2,3' if args[0] is int else 'a,b'}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))
