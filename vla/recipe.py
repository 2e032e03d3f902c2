"""Typed training recipes and their overrides from the command line.

A recipe is a frozen dataclass returned by a function in ``configs/``. Every field can be overridden by its
dotted name, ``--policy.dim 256`` or ``--policy.dim=256``, and the value is checked against the field's type.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vla.contracts import VlaError


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Attributes:
        path: folder of the LeRobot v3 dataset.
        record_command: the command that records it, printed where the folder is missing.
        sub_instruction_probability: how often a sample carries the current sub-instruction, 0 to 1.
        paraphrase: ``package.module:function`` that words a sentence anew, as ``function(text, rng)``; empty for none.
        decision_steps, decision_repeat: frames within so many steps of a new sub-instruction are drawn so many times
            as often; see ``vla.frames.Windows``.
        only_success: leave out episodes that failed.
        colour_jitter: strength of the colour augmentation; 0 turns it off, 0.2 is moderate.
        stills: how many scenes are rendered for learning to point at what a sentence asks for, see ``vla.stills``;
            0 for none.
        stills_batch, stills_sentences: scenes in a step over all processes, and sentences about each.
        stills_randomize: axes of ``vla.perturb`` that vary from scene to scene, as ``vla record --randomize`` does.
        corrections: folders of further datasets, mostly recorded with ``vla record --agent``; empty for none.
        corrections_share: the share of each batch that comes from them, each of them in proportion to its size.
        holdout: the share of episodes, the last ones of each task, kept for the validation loss.
        columns: which columns of another's dataset are what, ``NAME=COLUMN`` each, where NAME is state, action, success
            or a camera's; empty for the usual names, see ``vla.dataset_layout``.
    """

    path: str
    record_command: str = ""
    sub_instruction_probability: float = 0.3
    paraphrase: str = ""
    decision_steps: int = 0
    decision_repeat: int = 1
    only_success: bool = True
    colour_jitter: float = 0.0
    stills: int = 0
    stills_batch: int = 32
    stills_sentences: int = 3
    stills_randomize: tuple[str, ...] = ()
    corrections: tuple[str, ...] = ()
    corrections_share: float = 0.3
    holdout: float = 0.02
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class OptimConfig:
    """How to train. Steps are optimiser steps; each sees ``batch_size * accumulate`` samples over all processes."""

    steps: int = 10_000
    batch_size: int = 64
    accumulate: int = 1
    lr: float = 3e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_steps: int = 200
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    log_every: int = 10
    checkpoint_every: int = 500


@dataclass(frozen=True)
class ValidateConfig:
    """Closed-loop validation during training, on seeds that neither recording nor evaluation uses.

    Attributes:
        every: steps between two validations; 0 for one at the end, -1 for none.
        episodes: episodes of one validation.
        workers: processes that step the envs.
    """

    every: int = 0
    episodes: int = 20
    workers: int = 1


@dataclass(frozen=True)
class Recipe:
    """All that a training run depends on, but for the data itself.

    Attributes:
        name: the recipe's name; the run's default folder is ``runs/NAME``.
        env: the env of the closed-loop validation; "" for none, and then ``validate.every`` is -1.
        policy: the policy's name in the registry.
        policy_config: the policy's own frozen config dataclass; ``--policy.FIELD`` overrides it.
        init: the agent, by name or folder, whose weights and statistics the run starts from; empty for fresh ones.
        init_share: how much of ``init`` there is in the agent that is written, 0 to 1: 0.5 is half way between the
            weights that the run started from and those that it came to. It keeps what ``init`` could do beside what
            the run taught (WiSE-FT; Wortsman et al., 2022).
        seed: seeds the weights, the order of the samples and every random draw.
    """

    name: str
    env: str
    policy: str
    policy_config: Any
    data: DataConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    validate: ValidateConfig = field(default_factory=ValidateConfig)
    init: str = ""
    init_share: float = 0.0
    seed: int = 0


_ALIAS = {"policy": "policy_config"}
_FIXED = ("name", "policy", "policy_config")


def with_overrides(recipe: Recipe, arguments: Sequence[str]) -> Recipe:
    """The recipe with ``--section.field value`` (or ``=value``) applied in order.

    Raises VlaError for an unknown key (with the nearest one and the section's fields), a missing value, or a
    value that does not fit the field's type.
    """
    for key, text in _pairs(recipe, arguments):
        path = key.split(".")
        recipe = _replace(recipe, recipe, path, path, text)
    return recipe


def _pairs(recipe: Recipe, arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise VlaError(f"'{word}' is not an override; write one as --section.field value, e.g. --optim.steps 2000")
        key, equals, text = word[2:].partition("=")
        if not equals:
            _check_key(recipe, key.split("."))  # an unknown key is the better message, even without a value
            if not rest:
                raise VlaError(f"--{key} needs a value, e.g. --{key} {_example(_value_at(recipe, key))}")
            text = rest.pop(0)
        yield key, text


def _replace(recipe: Recipe, node: Any, path: list[str], whole: list[str], text: str) -> Any:
    _check_key(recipe, whole)
    name = _ALIAS.get(path[0], path[0]) if node is recipe else path[0]
    if len(path) > 1:
        return dataclasses.replace(node, **{name: _replace(recipe, getattr(node, name), path[1:], whole, text)})
    annotation = typing.get_type_hints(type(node))[name]
    return dataclasses.replace(node, **{name: parse_value(text, annotation, "--" + ".".join(whole))})


def _check_key(recipe: Recipe, path: list[str]) -> None:
    """Raise VlaError unless ``path`` names a field that may be overridden."""
    node: Any = recipe
    for depth, part in enumerate(path):
        key, fields = "--" + ".".join(path), _open_fields(recipe, node)
        where = "--" + ".".join(path[:depth]) if depth else "the recipe"
        if part not in fields:
            raise VlaError(f"unknown setting {key}{_suggestion(recipe, path)}; {where} has {', '.join(fields)}")
        node = getattr(node, _ALIAS.get(part, part) if node is recipe else part)
        last = depth == len(path) - 1
        if last and dataclasses.is_dataclass(node):
            raise VlaError(f"{key} is a section; set one of its fields: {', '.join(_open_fields(recipe, node))}")
        if not last and not dataclasses.is_dataclass(node):
            raise VlaError(f"unknown setting {key}: --{'.'.join(path[: depth + 1])} is a single value")


def _open_fields(recipe: Recipe, node: Any) -> list[str]:
    names = [f.name for f in dataclasses.fields(node)]
    return ["policy", *(n for n in names if n not in _FIXED)] if node is recipe else names


def _suggestion(recipe: Recipe, path: list[str]) -> str:
    keys = list(dict(settings(recipe)))
    same_field = [k for k in keys if k.split(".")[-1] == path[-1]]
    near = same_field or difflib.get_close_matches(".".join(path), keys, n=1, cutoff=0.6)
    near = near or [k for k in keys if difflib.get_close_matches(path[-1], [k.split(".")[-1]], cutoff=0.75)]
    return f" (did you mean --{near[0]}?)" if near else ""


def _value_at(recipe: Recipe, key: str) -> Any:
    return dict(settings(recipe))[key]


def _example(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def settings(recipe: Recipe) -> list[tuple[str, Any]]:
    """Every setting that may be overridden, as (dotted name, value), in the order of the fields."""

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name in _open_fields(recipe, node):
            value = getattr(node, _ALIAS.get(name, name) if node is recipe else name)
            if dataclasses.is_dataclass(value):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return list(walk(recipe, ""))


def parse_value(text: str, annotation: Any, key: str) -> Any:
    """Read ``text`` as the type ``annotation``: int, float, bool, str, Literal, tuple (``1,2,3``) or Optional.

    Raises VlaError naming ``key``, the text and the type that was expected.
    """
    try:
        return _parse(text, annotation)
    except ValueError as error:
        raise VlaError(f"{key} takes {type_name(annotation)}, and was given '{text}'") from error


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


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON types, for provenance."""
    return _plain(dataclasses.asdict(recipe))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def describe(recipe: Recipe) -> str:
    """The recipe for reading: name, env, policy, then every setting on a line of its own."""
    rows = settings(recipe)
    width = max(len(key) for key, _ in rows)
    head = f"recipe {recipe.name}: policy {recipe.policy} on env {recipe.env}"
    return "\n".join([head, *(f"  {key:<{width}}  {_example(value)}" for key, value in rows)])
