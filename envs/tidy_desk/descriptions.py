"""What is on the desk, in words: what could be asked for, what is being done now, and what went wrong in the end."""

from __future__ import annotations

import numpy as np

import envs.tidy_desk.instructions as instructions
import envs.tidy_desk.phrases as phrases
from envs.tidy_desk.goals import CATEGORIES, Goal, spoken, sub_instruction
from envs.tidy_desk.items import Receptacle
from envs.tidy_desk.scene import Scene
from vla.contracts import ReferringExpression
from vla.contracts.abilities import Shortfall

_BESIDE = 0.06  # metres: what lies nearer to its receptacle than that lies beside it
# The worst first; where several things are amiss, this one names the failure.
_REASONS = ("wrong place", "beside its place", "dropped", "ran out of time")


def _expression(scene: Scene, text: str, index: int) -> ReferringExpression:
    """A sentence that is about one item."""
    item = scene.placed[index].item
    receptacle = scene.receptacles[item.category]
    yaws = np.array([*item.lies(scene.rotations[index]), receptacle.yaw, receptacle.symmetry], np.float32)
    offsets = np.concatenate([place - scene.tabletop.position for place in scene.places_of(index, item.category)])
    return ReferringExpression(text, scene.points_of(index, item.category), yaws, offsets.astype(np.float32))


def referring_expressions(scene: Scene) -> list[ReferringExpression]:
    """Plain sentences for each item on the desk, in place or not, and for each category and the whole desk.

    An item is named, and where no other has its colour asked for by that alone, which leaves it to the eyes where
    it goes. A category and the desk stand for the item to move first; where there is none they are left out.
    """
    found, rng = [], np.random.default_rng(scene.seed)
    for index, placed in enumerate(scene.placed):
        text = sub_instruction(placed.item.color, placed.item.noun, scene.language)
        found.append(_expression(scene, text, index))
    colors = [placed.item.color for placed in scene.placed]
    for index, color in enumerate(colors):
        if colors.count(color) == 1:
            found.append(_expression(scene, instructions.by_color(color, scene.language, rng), index))
    for category in ("", *CATEGORIES):
        first = scene.choose_target([category in ("", placed.item.category) for placed in scene.placed])
        if first is not None:
            goal = Goal("category" if category else "all", category)
            found.append(_expression(scene, instructions.write(goal, scene.language, "train", rng), first))
    return found


def doing(scene: Scene) -> str:
    """What is being done now, and how much is in place, in the language of the instruction."""
    zh, asked = scene.language == "zh", scene.demand.count
    index = scene.target if scene.held is None else scene.held
    if index is None:
        now = "要求的都已放好" if zh else "all that was asked for is in place"
    else:
        item = scene.placed[index].item
        name = f"{phrases.COLOR_WORDS['zh'][item.color]}色{phrases.NOUN_WORDS['zh'][item.noun][0]}" if zh else item.name
        into = scene.demand.into[index]
        where = spoken(into, scene.language)
        if scene.held is None:
            now = ("下一步：" if zh else "next: ") + sub_instruction(item.color, item.noun, scene.language, into)
        elif scene.asked[index] and not scene.due()[index]:
            now = f"拿着{name}，还没轮到它" if zh else f"holding the {name}, whose turn it is not"
        elif scene.asked[index]:
            now = f"正把{name}送到{where}" if zh else f"moving the {name} to the {where}"
        else:
            now = f"拿着{name}，并未要求" if zh else f"holding the {name}, which was not asked for"
    placed = round(scene.progress * asked)
    return f"{now} · {placed}/{asked}" if zh else f"{now} · {placed} of {asked} in place"


def shortfall(scene: Scene) -> Shortfall:
    """Why the desk is not as it was asked for."""
    for index in scene.disturbed:
        name = scene.placed[index].item.name
        if scene.asked[index]:
            return Shortfall("one too many", f"moved the {name} too, and only {scene.demand.count} were asked for")
        if index in scene.gripped:
            return Shortfall("wrong item", f"picked up the {name}, which was not asked for")
        how = f"pushed the {name} {scene.moved[index] * 100:.0f} cm away, which was not asked for"
        return Shortfall("touched something else", how)
    for index in sorted(scene.early):
        name = scene.placed[index].item.name
        return Shortfall("wrong order", f"put the {name} away before what had to go first")
    missing = [_missing(scene, index) for index, asked in enumerate(scene.asked) if asked and not scene.resting[index]]
    if not missing:
        return Shortfall("ran out of time", "all lies in place, and had not lain there for long enough")
    missing.sort(key=lambda one: _REASONS.index(one.reason))
    missing = missing[: scene.demand.count - round(scene.progress * scene.demand.count)]
    more = f"; and {len(missing) - 2} more" if len(missing) > 2 else ""
    return Shortfall(missing[0].reason, "; ".join(one.detail for one in missing[:2]) + more)


def _missing(scene: Scene, index: int) -> Shortfall:
    """Where an item is that should be in its receptacle, and is not."""
    item, at = scene.placed[index].item, scene.positions[index]
    into = scene.demand.into[index]
    own = scene.receptacles[into]
    name, place = f"the {item.name}", f"the {spoken(into)}"
    if scene.held == index:
        return Shortfall("ran out of time", f"{name} was still in the grip")
    if scene.inside[index]:
        return Shortfall("ran out of time", f"{name} had not come to rest in {place}")
    if _beyond(own, at) == 0.0:
        return Shortfall("beside its place", f"{name} leans on the edge of {place}")
    for other in scene.receptacles.values():
        if _beyond(other, at) == 0.0:
            return Shortfall("wrong place", f"{name} lies in the {spoken(other.category)}")
    away = _beyond(own, at)
    if scene.moved[index] < 0.01:
        how = "touched, and not picked up" if index in scene.touched else "never touched"
        return Shortfall("ran out of time", f"{name} was {how}")
    if away < _BESIDE:
        return Shortfall("beside its place", f"{name} lies {away * 100:.0f} cm beside {place}")
    if index in scene.gripped:
        return Shortfall("dropped", f"{name} was dropped {away * 100:.0f} cm from {place}")
    return Shortfall("ran out of time", f"{name} was pushed, and not picked up")


def _beyond(receptacle: Receptacle, at: np.ndarray) -> float:
    """How far a point lies outside of a receptacle's walls, metres; 0 over it."""
    outside = np.abs(receptacle.local(at)[:2]) - receptacle.outside
    return float(np.linalg.norm(np.maximum(outside, 0.0)))
