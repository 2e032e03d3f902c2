"""The present desk in sentences: true ones, ones that differ from them in one word and are not true, and wishes.

What cannot be told beyond doubt (see ``envs.tidy_desk.questions.place_of``) is left out of captions. A wish counts as
done when all that it asks for lies in its receptacle and no finger touches it; whether something else was disturbed on
the way cannot be seen in a picture, and does not count.
"""

from __future__ import annotations

import numpy as np

import envs.tidy_desk.instructions as instructions
from envs.tidy_desk.goals import CATEGORIES, LANGUAGES, NOUN_COLORS, NOUNS, Goal, spoken
from envs.tidy_desk.questions import name, place_of, region_of, touched
from envs.tidy_desk.scene import Scene
from vla.contracts.captions import Caption, Wish

_MOST = 4  # things in one caption
_HELD, _DESK = "gripper", "desk"
_LEFT_OF = 0.06  # metres by which one thing is left of another, to be said so
_RELATED = 0.4  # how often a caption also tells two things by each other
_SIDES = {
    "en": {"left": "on the left", "middle": "in the middle", "right": "on the right", _DESK: "on the desk"},
    "zh": {"left": "在左边", "middle": "在中间", "right": "在右边", _DESK: "在桌上"},
}
_BESIDE = {"en": {"left": "left of", "right": "right of"}, "zh": {"left": "左边", "right": "右边"}}

Said = tuple[str, str, str, str]
"""Colour, noun, place or side, and the name of another thing where the side is seen from that; else ""."""


def captions(scene: Scene, rng: np.random.Generator) -> list[Caption]:
    """See ``vla.contracts.captions.Captions``: up to four things and where they are, in each language."""
    things = _things(scene)
    return [_caption(scene, things, language, rng) for language in LANGUAGES if things]


def _things(scene: Scene) -> list[tuple[int, str]]:
    """The things whose place is beyond doubt, and that place: a category, ``gripper``, a side, or ``desk``."""
    found = []
    for index in range(len(scene.placed)):
        place = place_of(scene, index)
        if place is not None:
            region = region_of(scene.positions[index])
            found.append((index, place or (region[0] if region else _DESK)))
    return found


def _caption(scene: Scene, things: list[tuple[int, str]], language: str, rng: np.random.Generator) -> Caption:
    chosen = [things[int(i)] for i in rng.permutation(len(things))[:_MOST]]
    said: list[Said] = [(scene.placed[i].item.color, scene.placed[i].item.noun, place, "") for i, place in chosen]
    related = _relation(scene, things, language, rng)
    if related is not None and rng.random() < _RELATED:
        said.append(related)
    which = [int(rng.integers(3)) if rng.random() < 0.4 else 0 for _ in said]
    wrong: dict[str, str] = {}
    for kind in ("colour", "item", "receptacle", "relation"):
        changed = [(at, other) for at, one in enumerate(said) for other in _changed(scene, things, one, kind)]
        if changed:
            at, other = changed[int(rng.integers(len(changed)))]
            wrong[kind] = _joined([*said[:at], other, *said[at + 1 :]], which, language)
    return Caption(_joined(said, which, language), language, tuple(wrong.values()), tuple(wrong))


def _relation(scene: Scene, things: list[tuple[int, str]], language: str, rng: np.random.Generator) -> Said | None:
    """One thing told by another that it lies left or right of."""
    at = scene.positions[:, 1]
    pairs = [(a, b) for a, _ in things for b, _ in things if abs(at[a] - at[b]) > _LEFT_OF]
    if not pairs:
        return None
    a, b = pairs[int(rng.integers(len(pairs)))]
    one, other = scene.placed[a].item, scene.placed[b].item
    side = "left" if at[a] > at[b] else "right"  # seen by the robot
    return one.color, one.noun, side, name(other.color, other.noun, language, 0, "the")


def _changed(scene: Scene, things: list[tuple[int, str]], said: Said, kind: str) -> list[Said]:
    """What is said, with one of its words exchanged so that it is not true of anything on the desk."""
    color, noun, place, other = said
    here = {(scene.placed[i].item.color, scene.placed[i].item.noun): where for i, where in things}
    unsure = {(one.item.color, one.item.noun) for one in scene.placed} - here.keys()

    def false(thing: tuple[str, str]) -> bool:
        return thing not in unsure and (here.get(thing) != place if not other else thing not in here)

    if kind == "colour":
        return [(c, noun, place, other) for c in NOUN_COLORS[noun] if c != color and false((c, noun))]
    if kind == "item":
        alike = [n for n in NOUNS if n != noun and color in NOUN_COLORS[n] and false((color, n))]
        return [(color, n, place, other) for n in alike]
    if kind == "relation":
        swapped = {"left": "right", "right": "left"}.get(place)
        return [(color, noun, swapped, other)] if swapped else []
    if other:
        return []
    return [(color, noun, c, "") for c in CATEGORIES if c != place]


def _joined(said: list[Said], which: list[int], language: str) -> str:
    parts = []
    for (color, noun, place, other), form in zip(said, which, strict=True):
        thing = name(color, noun, language, form, "the")
        if other:
            side = _BESIDE[language][place]
            parts.append(f"{thing} {side} {other}" if language == "en" else f"{thing}在{other}{side}")
        elif place in _SIDES[language]:
            parts.append(f"{thing} {_SIDES[language][place]}" if language == "en" else thing + _SIDES[language][place])
        else:
            where = ("夹爪" if language == "zh" else "gripper") if place == _HELD else spoken(place, language)
            parts.append(f"{thing} in the {where}" if language == "en" else f"{thing}在{where}里")
    return (", " if language == "en" else "，").join(parts)


def wishes(scene: Scene, goal: Goal, rng: np.random.Generator, split: str) -> list[Wish]:
    """See ``vla.contracts.captions.Captions``: the episode's own, each thing's, each category's and all of it."""
    free = [i not in touched(scene) for i in range(len(scene.placed))]
    places = [place_of(scene, i) if free[i] else None for i in range(len(scene.placed))]
    items = [one.item for one in scene.placed]
    tidy = [place == item.category for place, item in zip(places, items, strict=True)]
    asked: list[tuple[Goal, bool]] = [(goal, scene.progress == 1.0)]
    for index, item in enumerate(items):
        thing = (item.color, item.noun)
        asked.append((Goal("named", item=thing), tidy[index]))
        other = [category for category in CATEGORIES if category != item.category]
        into = places[index] if places[index] in other else other[int(rng.integers(len(other)))]
        if rng.random() < 0.5:
            moved = Goal("composed", "place", things=(thing,), place=str(into))
            asked.append((moved, places[index] == into))
    for category in CATEGORIES:
        those = [done for done, item in zip(tidy, items, strict=True) if item.category == category]
        if those:
            asked.append((Goal("category", category), all(those)))
    asked.append((Goal("all"), all(tidy)))
    found = []
    for wanted, done in asked:
        language = instructions.pick(LANGUAGES, rng)
        found.append(Wish(instructions.write(wanted, language, split, rng), language, done))
    return found
