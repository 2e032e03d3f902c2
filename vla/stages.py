"""A recipe of several stages: what each records first, what it trains then, and when the next may begin.

One command carries it all out, see ``vla.train.staged``. Overrides name the stage, ``--cloning.optim.steps 100``; one
without a stage, ``--optim.precision bf16``, is meant for all of them.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from vla.config import Between, from_dict, require_ranges
from vla.contracts import VlaError
from vla.recipe import Recipe, describe, recipe_to_dict, restored, with_overrides
from vla.settings import parse_value


@dataclass(frozen=True)
class Recording:
    """A dataset that a stage records, as ``vla record`` does, into ``data/NAME`` of the run's folder.

    Attributes:
        name: its folder's.
        episodes: how many are played.
        noise: the most action noise, metres.
        items: fewest and most items in an episode; empty leaves it to the env.
        kind: of the instructions.
        env_options: arguments for the env's constructor, ``NAME=VALUE`` each.
        randomize: axes of ``vla.perturb`` that vary from episode to episode.
        in_turns: whether the agent of the stage before acts in turns with the expert, who corrects it.
        safe: whether nothing is learnt from what led to a violation of the env's safety limits.
    """

    name: str
    episodes: Annotated[int, Between(1, 10**7)]
    noise: Annotated[float, Between(0.0, 0.999)] = 0.0
    items: tuple[int, ...] = ()
    kind: Literal["all", "category", "named", "any", "composed"] = "any"
    env_options: tuple[str, ...] = ()
    randomize: tuple[str, ...] = ()
    in_turns: bool = False
    safe: bool = False

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class Stage:
    """Recordings, and a training on them and on those of earlier stages.

    Attributes:
        name: of its folder in the run's.
        recipe: what is trained. Its ``data.path`` and ``data.corrections`` are names of recordings, and its ``init`` is
            the name of an earlier stage, or an agent as in any recipe.
        record: what is recorded before.
        least: figures of the training, by the names of its log, that must be reached for the run to go on.
    """

    name: str
    recipe: Recipe
    record: tuple[Recording, ...] = ()
    least: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class StagedRecipe:
    """Stages, one after the other; the agent of the last is the run's.

    Attributes:
        name: the recipe's name; the run's default folder is ``runs/NAME``.
        stages: at least one, with names of their own.
        seed: seeds everything: weights, orders, draws, stills and recordings.
    """

    name: str
    stages: tuple[Stage, ...]
    seed: int = 0

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises VlaError where there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise VlaError(f"{self.name} has no stage '{name}'; it has {', '.join(one.name for one in self.stages)}")

    def seed_of(self, recording: str) -> int:
        """The recording's seed: another for each one, and for each seed of the run."""
        names = [one.name for stage in self.stages for one in stage.record]
        return 100 * self.seed + names.index(recording)

    def check(self) -> None:
        """Raise VlaError where a stage uses what no stage before it made, or its settings do not go together."""
        recorded, trained = list[str](), list[str]()
        for stage in self.stages:
            new = [one.name for one in stage.record]
            twice = {one for one in new if one in recorded or new.count(one) > 1} | ({stage.name} & {*trained})
            if twice:
                raise VlaError(f"{self.name} has '{min(twice)}' twice")
            if not trained and any(one.in_turns for one in stage.record):
                raise VlaError(f"stage {stage.name} has no agent before it to record in turns with")
            recorded += new
            missing = [
                name for name in (stage.recipe.data.path, *stage.recipe.data.corrections) if name not in recorded
            ]
            if missing:
                raise VlaError(f"stage {stage.name} has no recording '{missing[0]}'; there is {', '.join(recorded)}")
            try:
                stage.recipe.check()
            except VlaError as error:
                raise VlaError(f"stage {stage.name}: {error}") from error
            trained.append(stage.name)

    def trained(self, name: str) -> Recipe:
        """What a stage trains, as it is called in logs and provenance."""
        stage = self.stage(name)
        return replace(stage.recipe, name=f"{self.name}.{name}")


def with_stage_overrides(staged: StagedRecipe, arguments: Sequence[str]) -> StagedRecipe:
    """The recipe with overrides applied in order.

    Of a stage: ``--STAGE.optim.steps 9``, ``--STAGE.record.NAME.episodes 9`` or ``--STAGE.least FIGURE=0.5``. Of all:
    ``--optim.batch_size 9`` and the like, ``--seed``, ``--env``; ``--scale 0.1`` shrinks everything to a tenth.

    Raises VlaError for an unknown key, a missing value, or a value that does not fit the field's type.
    """
    rest = list(arguments)
    names = [stage.name for stage in staged.stages]
    while rest:
        word = rest.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        first, _, field = key.partition(".")
        words = [word] if equals or not rest else [word, rest.pop(0)]
        if first == "scale":
            staged = _scaled(staged, parse_value(words[-1] if not equals else text, float, "--scale"))
        elif first in names and field.startswith("record."):
            value = text if equals else words[1] if len(words) > 1 else ""
            staged = _with(staged, first, lambda s, f=field, v=value, k=key: _rerecorded(s, f, v, k))
        elif first in names and field == "least":
            least = _least(text if equals else words[-1], key)
            staged = _with(staged, first, lambda s, one=least: replace(s, least=one))
        elif first in names and field:
            own = [f"--{field}{equals}{text}", *words[1:]]
            staged = _with(staged, first, lambda s, o=own: replace(s, recipe=with_overrides(s.recipe, o)))
        elif first in ("init", "init_share"):
            raise VlaError(f"--{first} is a single stage's setting: --{names[-1]}.{first}")
        else:
            for name in names:
                staged = _with(staged, name, lambda s, w=words: replace(s, recipe=with_overrides(s.recipe, w)))
            staged = replace(staged, seed=staged.stages[0].recipe.seed)
    return staged


def _least(text: str, key: str) -> tuple[tuple[str, float], ...]:
    """``grounding_accuracy=0.5`` as a stage holds it; nothing for an empty text."""
    pairs = [one.partition("=") for one in text.split(",") if one]
    return tuple((name, parse_value(value, float, f"--{key} {name}")) for name, _, value in pairs)


def _with(staged: StagedRecipe, name: str, change: Any) -> StagedRecipe:
    return replace(staged, stages=tuple(change(one) if one.name == name else one for one in staged.stages))


def _rerecorded(stage: Stage, field: str, text: str, key: str) -> Stage:
    _, name, attribute = (*field.split("."), "", "")[:3]
    known = {one.name: one for one in stage.record}
    fields = [one.name for one in dataclasses.fields(Recording) if one.name != "name"]
    if name not in known or attribute not in fields:
        raise VlaError(
            f"unknown setting --{key}; it is --{stage.name}.record.NAME.FIELD, where NAME is one of "
            f"{', '.join(known) or 'none'}, and FIELD one of {', '.join(fields)}"
        )
    value = parse_value(text, typing.get_type_hints(Recording)[attribute], f"--{key}")
    try:
        changed = replace(known[name], **{attribute: value})
    except VlaError as error:
        raise VlaError(f"--{key} {text} is impossible: {error}") from error
    return replace(stage, record=tuple(changed if one.name == name else one for one in stage.record))


def _scaled(staged: StagedRecipe, scale: float) -> StagedRecipe:
    """Steps, episodes and stills times ``scale``, one at least."""
    if not 0 < scale <= 100:
        raise VlaError(f"--scale is a share of the recipe's size, above 0, and is {scale}")

    def times(number: int) -> int:
        return max(1, round(number * scale)) if number else 0

    def shrunk(stage: Stage) -> Stage:
        data, optim = stage.recipe.data, stage.recipe.optim
        recipe = replace(
            stage.recipe,
            data=replace(data, stills=times(data.stills)),
            optim=replace(optim, steps=times(optim.steps), warmup_steps=times(optim.warmup_steps)),
        )
        record = tuple(replace(one, episodes=times(one.episodes)) for one in stage.record)
        return replace(stage, recipe=recipe, record=record)

    return replace(staged, stages=tuple(map(shrunk, staged.stages)))


def staged_to_dict(staged: StagedRecipe) -> dict[str, Any]:
    """As plain JSON types."""
    return {
        "name": staged.name,
        "seed": staged.seed,
        "stages": {
            stage.name: {"recipe": recipe_to_dict(stage.recipe), "record": [recording_to_dict(o) for o in stage.record]}
            for stage in staged.stages
        },
    }


def recording_to_dict(recording: Recording) -> dict[str, Any]:
    """As plain JSON types."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(recording).items()
    }


def restored_stages(staged: StagedRecipe, data: dict[str, Any]) -> StagedRecipe:
    """``staged`` with the settings that ``staged_to_dict`` gave. Raises VlaError where they are of other stages."""
    if list(data["stages"]) != [stage.name for stage in staged.stages]:
        raise VlaError(f"the run has the stages {', '.join(data['stages'])}, and {staged.name} others")
    stages = tuple(
        replace(
            stage,
            recipe=restored(stage.recipe, data["stages"][stage.name]["recipe"]),
            record=tuple(from_dict(Recording, one) for one in data["stages"][stage.name]["record"]),
        )
        for stage in staged.stages
    )
    return replace(staged, seed=data["seed"], stages=stages)


def describe_stages(staged: StagedRecipe) -> str:
    """For reading: each stage's recordings, and every setting of its training."""
    lines = [f"recipe {staged.name}: {len(staged.stages)} stages, one after the other"]
    for stage in staged.stages:
        lines += ["", f"stage {stage.name}"]
        for one in stage.record:
            said = {k: v for k, v in recording_to_dict(one).items() if v not in ((), [], "", False) and k != "name"}
            lines.append(f"  record {one.name}: " + ", ".join(f"{name} {value}" for name, value in said.items()))
        lines += [f"  to go on: {name} of {value} at least" for name, value in stage.least]
        lines += [f"  {line}" for line in describe(stage.recipe).splitlines()]
    return "\n".join(lines)
