"""Typed training recipes and their overrides from the command line.

A recipe is a frozen dataclass returned by a function in ``configs/``. Every field can be overridden by its
dotted name, ``--policy.dim 256`` or ``--policy.dim=256``, and the value is checked against the field's type.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vla.config import Between, from_dict, members, require_ranges, tag_of
from vla.contracts import VlaError
from vla.settings import attributes_of, parse_value


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Attributes:
        path: folder of the LeRobot v3 dataset.
        record_command: the command that records it, printed where the folder is missing.
        sub_instruction_probability: how often a sample carries the current sub-instruction, 0 to 1.
        paraphrase: ``package.module:function`` that words a sentence anew, as ``function(text, rng)``; empty for none.
        decision_s, decision_repeat: frames within so many seconds of a new sub-instruction are drawn so many times as
            often; see ``vla.data.windows.Windows``.
        decision_steps: the same in steps, as recipes had it before; 0 where decision_s says it.
        only_success: leave out episodes that failed.
        colour_jitter: strength of the colour augmentation; 0 turns it off, 0.2 is moderate.
        stills: how many scenes are rendered for learning to point at what a sentence asks for, see ``vla.data.stills``;
            0 for none.
        stills_batch, stills_sentences: scenes in a step over all processes, and sentences about each.
        stills_questions: questions about each beside, whose answers a trunk with a language model learns; 0 for none.
        stills_randomize: axes of ``vla.perturb`` that vary from scene to scene, as ``vla record --randomize`` does.
        stills_plain: the share of the scenes in which none of them does.
        corrections: folders of further datasets, mostly recorded with ``vla record --agent``; empty for none.
        corrections_share: the share of each batch that comes from them, each of them in proportion to its size.
        context_sentences: with ``trunk_from``, how many sentences about each frame the head learns from.
        holdout: the share of episodes, the last ones of each task, kept for the validation loss.
        columns: which columns of another's dataset are what, ``NAME=COLUMN`` each, where NAME is state, action, success
            or a camera's; empty for the usual names, see ``vla.data.columns``.
    """

    path: str
    record_command: str = ""
    sub_instruction_probability: Annotated[float, Between(0.0, 1.0)] = 0.3
    paraphrase: str = ""
    decision_s: Annotated[float, Between(0.0, 1e5)] = 0.0
    decision_steps: Annotated[int, Between(0, 10**6)] = 0
    decision_repeat: Annotated[int, Between(1, 10**4)] = 1
    only_success: bool = True
    colour_jitter: Annotated[float, Between(0.0, 10.0)] = 0.0
    stills: Annotated[int, Between(0, 10**8)] = 0
    stills_batch: Annotated[int, Between(1, 10**6)] = 32
    stills_sentences: Annotated[int, Between(1, 10**4)] = 3
    stills_questions: Annotated[int, Between(0, 10**4)] = 0
    stills_randomize: tuple[str, ...] = ()
    stills_plain: Annotated[float, Between(0.0, 1.0)] = 0.0
    corrections: tuple[str, ...] = ()
    corrections_share: Annotated[float, Between(1e-6, 1.0)] = 0.3
    context_sentences: Annotated[int, Between(1, 1000)] = 4
    holdout: Annotated[float, Between(0.0, 0.99)] = 0.02
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class OptimConfig:
    """How to train. Steps are optimiser steps; each sees ``batch_size * accumulate`` samples over all processes.

    Attributes:
        steps: optimiser steps, in all.
        batch_size: windows of demonstrations in a micro-batch, over all processes.
        accumulate: micro-batches in a step.
        lr: the highest learning rate, reached after the warm-up; a cosine brings it down to 1 % at the last step.
        decay: the share of the steps, the last ones, over which it does so; the rate stays high until then.
        weight_decay: AdamW's.
        betas: AdamW's.
        warmup_steps: steps in which the learning rate rises to ``lr``.
        clip_norm: the largest norm of a step's gradient; longer ones are shortened to it.
        ema_decay: of the average of the weights, which is what is validated and shipped.
        precision: of the network's arithmetic; auto takes bf16 where the machine is fast at it.
        compile: whether torch.compile is used.
        log_every: steps between two lines of the log.
        checkpoint_every: steps between two checkpoints; the last two are kept.
    """

    steps: Annotated[int, Between(1, 10**9)] = 10_000
    batch_size: Annotated[int, Between(1, 10**6)] = 64
    accumulate: Annotated[int, Between(1, 10**6)] = 1
    lr: Annotated[float, Between(1e-12, 100.0)] = 3e-4
    decay: Annotated[float, Between(0.0, 1.0)] = 1.0
    weight_decay: Annotated[float, Between(0.0, 100.0)] = 0.05
    betas: Annotated[tuple[float, float], Between(0.0, 0.999999)] = (0.9, 0.95)
    warmup_steps: Annotated[int, Between(0, 10**9)] = 200
    clip_norm: Annotated[float, Between(1e-9, 1e9)] = 1.0
    ema_decay: Annotated[float, Between(0.0, 0.999999)] = 0.999
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    log_every: Annotated[int, Between(1, 10**9)] = 10
    checkpoint_every: Annotated[int, Between(1, 10**9)] = 500

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class ValidateConfig:
    """Closed-loop validation during training, on seeds that neither recording nor evaluation uses.

    Attributes:
        every: steps between two validations in the env; one more comes at the end of training. 0 for that one alone
            (it plays ``validate.episodes`` episodes), -1 for none.
        episodes: episodes that one validation plays.
        workers: processes that step the envs.
    """

    every: Annotated[int, Between(-1, 10**9)] = 0
    episodes: Annotated[int, Between(1, 10**6)] = 20
    workers: Annotated[int, Between(1, 1024)] = 1

    def __post_init__(self) -> None:
        require_ranges(self)


OBJECTIVE = "behaviour_cloning"  # of recipes that do not say it, and of all before there were others


@dataclass(frozen=True)
class Recipe:
    """All that a training run depends on, but for the data itself.

    Attributes:
        name: the recipe's name; the run's default folder is ``runs/NAME``.
        env: the env of the closed-loop validation; "" for none, and then ``validate.every`` is -1.
        policy: the policy's name in the registry; "" where the objective trains something else.
        policy_config: the frozen config dataclass of the policy, or of what else is trained; ``--policy.FIELD``
            overrides it. A method ``check(prefix)`` raises VlaError for impossible settings, see ``vla.config`` for the
            range of each.
        init: the agent, by name or folder, whose weights and statistics the run starts from; empty for fresh ones.
        init_share: how much of ``init`` there is in the agent that is written, 0 to 1: 0.5 is half way between the
            weights that the run started from and those that it came to. It keeps what ``init`` could do beside what
            the run taught (WiSE-FT; Wortsman et al., 2022).
        trunk_from: the agent, by name or folder, of this or another policy, whose trunk the run takes over; empty for
            none. The trunk then stays as it is, and what it makes of each frame is worked out once.
        objective: what it is trained for: a name of ``vla.train.known``, or outside code as ``package.module:Class``.
            Only the recipe's code says it.
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
    init_share: Annotated[float, Between(0.0, 0.999999)] = 0.0
    trunk_from: str = ""
    seed: Annotated[int, Between(0, 2**63 - 1)] = 0
    objective: str = OBJECTIVE

    def __post_init__(self) -> None:
        require_ranges(self)

    def check(self) -> None:
        """Raise VlaError, naming the settings, where they do not go together: before any work is done."""
        data, validate, trunk = self.data, self.validate, getattr(self.policy_config, "trunk", None)
        if validate.every >= 0 and not self.env:
            raise VlaError(f"--validate.every {validate.every} needs an env to play in; name it with --env")
        if data.decision_s and data.decision_steps:
            raise VlaError(f"--data.decision_steps {data.decision_steps} must be 0 beside --data.decision_s")
        if data.stills and not self.env:
            raise VlaError(f"--data.stills {data.stills} needs an env to render them; name it with --env")
        if data.stills and not getattr(self.policy_config, "learns_from_stills", True):
            raise VlaError(f"--data.stills {data.stills} must be 0 for a policy that learns nothing from them")
        if data.stills_questions and not data.stills:
            raise VlaError(f"--data.stills_questions {data.stills_questions} asks about stills: --data.stills is 0")
        if data.stills_questions and not getattr(trunk, "speaks", False):
            raise VlaError("answers need a trunk that speaks: --policy.trunk.type language_model")
        if self.init_share and not self.init:
            raise VlaError(f"--init_share {self.init_share} must be 0 without --init")
        if self.trunk_from:
            changed = {"init": self.init, "data.stills": data.stills, "data.colour_jitter": data.colour_jitter}
            for name, value in changed.items():
                if value:
                    raise VlaError(
                        f"--{name} {value} goes with a trunk that learns, and --trunk_from keeps it as it is"
                    )
            if len(getattr(self.policy_config, "observation_steps", (0,))) > 1:
                raise VlaError("--trunk_from is for policies that see one observation: --policy.observation_steps 0")
        if hasattr(self.policy_config, "check"):
            self.policy_config.check("policy.")


_ALIAS = {"policy": "policy_config"}
_FIXED = ("name", "policy", "policy_config", "objective")


def with_overrides(recipe: Recipe, arguments: Sequence[str]) -> Recipe:
    """The recipe with ``--section.field value`` (or ``=value``) applied in order.

    Raises VlaError for an unknown key (with the nearest one and the section's fields), a missing value, or a
    value that does not fit the field's type.
    """
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise VlaError(f"'{word}' is not an override; write one as --section.field value, e.g. --optim.steps 2000")
        key, equals, text = word[2:].partition("=")
        path = key.split(".")
        _check_key(recipe, path)  # an unknown key is the better message, even without a value
        if not equals and not rest:
            raise VlaError(f"--{key} needs a value, e.g. --{key} {_example(dict(settings(recipe))[key])}")
        recipe = _replace(recipe, recipe, path, f"--{key}", text if equals else rest.pop(0))
    return recipe


def _replace(recipe: Recipe, node: Any, path: list[str], key: str, text: str) -> Any:
    name = _ALIAS.get(path[0], path[0]) if node is recipe else path[0]
    now, hint = getattr(node, name), typing.get_type_hints(type(node))[name]
    if path[1:] == ["type"] and tag_of(type(now)):
        kind = members(hint)[parse_value(text, Literal[tuple(members(hint))], key)]
        value = now if type(now) is kind else kind()
    elif len(path) > 1:
        value = _replace(recipe, now, path[1:], key, text)
    else:
        value = parse_value(text, hint, key)
    try:
        return dataclasses.replace(node, **{name: value})
    except VlaError as error:
        raise VlaError(f"{key} {text} is impossible: {error}") from error


def _check_key(recipe: Recipe, path: list[str]) -> None:
    """Raise VlaError unless ``path`` names a field that may be overridden."""
    node, key, kinds = recipe, "--" + ".".join(path), dict[str, type]()
    for depth, part in enumerate(path):
        fields = _open_fields(recipe, node)
        where = "--" + ".".join(path[:depth]) if depth else "the recipe"
        if part not in fields:
            others = {f.name: tag for tag, kind in reversed(kinds.items()) for f in dataclasses.fields(kind)}
            near = difflib.get_close_matches(part, others, n=1, cutoff=0.75)
            guess = f" (--{where[2:]}.type {others[near[0]]} has {near[0]})" if near and near[0] not in fields else ""
            guess = guess or _suggestion(recipe, path)
            raise VlaError(f"unknown setting {key}{guess}; {where} has {', '.join(fields)}")
        name = _ALIAS.get(part, part) if node is recipe else part
        kinds, node = members(typing.get_type_hints(type(node)).get(name)), getattr(node, name)
        last = depth == len(path) - 1
        if last and dataclasses.is_dataclass(node):
            raise VlaError(f"{key} is a section; set one of its fields: {', '.join(_open_fields(recipe, node))}")
        if not last and not dataclasses.is_dataclass(node):
            raise VlaError(f"unknown setting {key}: --{'.'.join(path[: depth + 1])} is a single value")


def _open_fields(recipe: Recipe, node: Any) -> list[str]:
    names = [f.name for f in dataclasses.fields(node)]
    if node is recipe:
        return ["policy", *(n for n in names if n not in _FIXED)]
    return ["type", *(n for n in names if n != "type")] if tag_of(type(node)) else names


def _suggestion(recipe: Recipe, path: list[str]) -> str:
    keys = list(dict(settings(recipe)))
    same_field = [k for k in keys if k.split(".")[-1] == path[-1]]
    near = same_field or difflib.get_close_matches(".".join(path), keys, n=1, cutoff=0.6)
    near = near or [k for k in keys if difflib.get_close_matches(path[-1], [k.split(".")[-1]], cutoff=0.75)]
    return f" (did you mean --{near[0]}?)" if near else ""


def _example(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def settings(recipe: Recipe) -> list[tuple[str, Any]]:
    """Every setting that may be overridden, as (dotted name, value), in the order of the fields."""
    return [(key, value) for key, value, _ in _rows(recipe, recipe, "", "")]


def explained(recipe: Recipe) -> dict[str, str]:
    """What each setting means, in one line: of the ``Attributes`` in the docstring of its config."""
    return {key: meaning for key, _, meaning in _rows(recipe, recipe, "", "") if meaning}


def _rows(recipe: Recipe, node: Any, prefix: str, tags: str) -> Iterator[tuple[str, Any, str]]:
    said, hints = attributes_of(type(node)), typing.get_type_hints(type(node))
    for part in _open_fields(recipe, node):
        name = _ALIAS.get(part, part) if node is recipe else part
        value = getattr(node, name)
        if dataclasses.is_dataclass(value):
            yield from _rows(recipe, value, f"{prefix}{part}.", ", ".join(members(hints[name])))
        else:
            yield prefix + part, value, f"one of {tags}" if part == "type" and tags else said.get(name, "")


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON types, for provenance."""
    return _plain(dataclasses.asdict(recipe))


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def of_today(data: dict[str, Any]) -> dict[str, Any]:
    """What ``recipe_to_dict`` gave, with the settings that recipes did not have yet as they were then."""
    return {"objective": OBJECTIVE, **data, "data": {"decision_s": 0.0, **data.get("data", {})}}


def restored(recipe: Recipe, data: dict[str, Any]) -> Recipe:
    """``recipe`` with the settings that ``recipe_to_dict`` gave. Raises VlaError for one that it has not."""
    open_ = {name: value for name, value in of_today(data).items() if name not in ("name", "policy", "objective")}
    return from_dict(type(recipe), open_, recipe)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def describe(recipe: Recipe) -> str:
    """The recipe for reading: name, env, policy, then every setting on a line of its own, with what it means."""
    rows = settings(recipe)
    width, meanings = max(len(key) for key, _ in rows), explained(recipe)
    what = f"policy {recipe.policy}" if recipe.policy else f"objective {recipe.objective}"
    head = f"recipe {recipe.name}: {what} on env {recipe.env}"
    lines = [f"  {key:<{width}}  {_example(value):<12}  {meanings.get(key, '')}".rstrip() for key, value in rows]
    return "\n".join([head, *lines])
