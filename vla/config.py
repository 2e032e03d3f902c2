"""Config dataclasses: what their numbers may be, told beside each field, and how a file's text becomes one.

A number in a file becomes memory and time, so each has an upper end: ``chunk: Annotated[int, Between(1, 512)] = 16``.

A field may hold one of several configs, ``trunk: TrunkConfig | PooledTrunkConfig``, told apart by a tag. The usual one
comes first and has ``type: ClassVar[str] = "compact"``, which no file stores: files and hashes stay as they were before
there were others. Each other one has the field ``type: Literal["pooled"] = "pooled"``.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any

from vla.contracts import VlaError


@dataclass(frozen=True)
class Between:
    """The range of a field, both ends included; of a tuple's field, the range of each entry."""

    low: float
    high: float


class Later:
    """Marks a field that came when agents had been published: ``settled`` leaves it out at its default."""


def settled(config: Any) -> dict[str, Any]:
    """A config as plain types, for a hash that stays the same when a field is added (``Annotated[int, Later]``)."""
    hints, found = typing.get_type_hints(type(config), include_extras=True), dict[str, Any]()
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if Later not in getattr(hints[one.name], "__metadata__", ()) or value != one.default:
            found[one.name] = settled(value) if dataclasses.is_dataclass(value) else value
    return found


def require_ranges(config: Any) -> None:
    """Raise VlaError, naming the field, unless every number of a config dataclass is within its ``Between``."""
    for name, hint in typing.get_type_hints(type(config), include_extras=True).items():
        for limits in getattr(hint, "__metadata__", ()):
            value = getattr(config, name)
            values = value if isinstance(value, tuple) else (value,)
            if isinstance(limits, Between) and not all(limits.low <= one <= limits.high for one in values):
                raise VlaError(f"{name} must be from {limits.low} to {limits.high}, and is {value}")


def tag_of(kind: type) -> str | None:
    """The tag of a config dataclass; None where it has none."""
    hint = typing.get_type_hints(kind).get("type")
    tagged = typing.get_origin(hint) in (typing.ClassVar, typing.Literal) and len(typing.get_args(hint)) == 1
    return getattr(kind, "type", None) if tagged else None


def members(hint: Any) -> dict[str, type]:
    """The config dataclasses that a field of this type may hold, by tag, the usual one first."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return {
        tag_of(kind) or kind.__name__: kind
        for kind in kinds
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }


def from_dict(kind: type, values: dict[str, Any], base: Any = None) -> Any:
    """A (nested) config dataclass from plain JSON types: lists become tuples, and each config is that of its tag.

    Fields that are not given are those of ``base``, wherever it has a config of the same kind, or else their default.

    Raises VlaError, naming the field, for one that ``kind`` lacks, of another type, or out of its range.
    """
    hints, names, fields = typing.get_type_hints(kind), [f.name for f in dataclasses.fields(kind)], dict[str, Any]()
    for name, value in values.items():
        if name not in names:
            if name == "type" and value == tag_of(kind):
                continue
            raise VlaError(f"{kind.__name__} has no field '{name}'; it has {', '.join(names)}")
        now, value = getattr(base, name, None), tuple(value) if isinstance(value, list) else value
        hint = type(now) if hints[name] is Any and dataclasses.is_dataclass(now) else hints[name]
        if isinstance(value, dict) and (kinds := members(hint)):
            tag = value.get("type", next(iter(kinds))) if len(kinds) > 1 else next(iter(kinds))
            if str(tag) not in kinds:
                raise VlaError(
                    f"'{name}' of {kind.__name__} has the type {str(tag)[:80]!r}; there are {', '.join(kinds)}"
                )
            part = kinds[str(tag)]
            value = from_dict(part, value, now if type(now) is part else None)
        elif not _fits(value, hint):
            raise VlaError(f"'{name}' of {kind.__name__} is {str(value)[:80]!r}, and should be {_shown(hint)}")
        fields[name] = value
    try:
        return kind(**fields) if base is None else dataclasses.replace(base, **fields)
    except TypeError as error:  # a field without a default is missing
        raise VlaError(f"{kind.__name__} lacks something: {error}") from error


def without_downloads(config: Any) -> Any:
    """The same config with ``pretrained`` off, wherever it is: what has its weights already asks nobody for others."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "pretrained":
            changes[field.name] = False
        elif dataclasses.is_dataclass(value):
            changes[field.name] = without_downloads(value)
    return dataclasses.replace(config, **changes) if changes else config


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in args)
    if origin is typing.Literal:
        return value in args
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def _shown(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)
