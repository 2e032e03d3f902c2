"""Composed goals, drawn at random, and desks on which they can be met and told apart."""

from __future__ import annotations

import numpy as np

from envs.tidy_desk.demand import demand_of
from envs.tidy_desk.goals import CATEGORIES, COMPOSED, NOUN_COLORS, NOUNS, RELATIONS, Goal, Thing, category_of, is_meant
from envs.tidy_desk.instructions import pick
from envs.tidy_desk.items import Receptacle
from envs.tidy_desk.layout import MOST_OF_A_CATEGORY, Placed, sample_layout
from vla.contracts import VlaError

STAYING = ("relation", "quantity", "place")
"""The sorts of composed goals on which no item lies in a receptacle at the start."""

_TRIES = 200  # layouts of the same items before others are drawn


def random_composed(kind: str, category: str | None, rng: np.random.Generator) -> Goal:
    """A goal of the kind ``composed``; its category, one of COMPOSED, is random where it is left open."""
    sort = category or pick(COMPOSED, rng)
    if sort not in COMPOSED:
        raise VlaError(f"there is no composed goal '{sort}'; known: {', '.join(COMPOSED)}")
    if sort == "several":
        return Goal(kind, sort, things=_items(int(rng.integers(2, 4)), rng))
    if sort == "except":
        return Goal(kind, sort, things=_items(1, rng) if rng.random() < 0.6 else (("", pick(CATEGORIES, rng)),))
    if sort == "order":
        return Goal(kind, sort, things=_items(2, rng) if rng.random() < 0.5 else _groups(2, rng))
    if sort == "relation":
        noun, relation = pick(tuple(NOUNS), rng), pick(RELATIONS, rng)
        if relation in ("nearest", "farthest") and rng.random() < 0.5:
            return Goal(kind, sort, things=(("", noun),), place=pick(CATEGORIES, rng), relation=relation)
        other = pick([one for one in NOUNS if one != noun], rng)
        return Goal(kind, sort, things=(("", noun), ("", other)), relation=relation)
    if sort == "quantity":
        return Goal(kind, sort, things=(("", pick(tuple(NOUNS), rng)),), count=int(rng.integers(1, 3)))
    if sort == "place":
        (thing,) = _items(1, rng)
        return Goal(kind, sort, things=(thing,), place=pick([c for c in CATEGORIES if c != category_of(thing)], rng))
    return Goal(kind, sort, things=_groups(int(rng.integers(1, 3)), rng))


def _items(count: int, rng: np.random.Generator) -> tuple[Thing, ...]:
    """Different named items."""
    found: list[Thing] = []
    while len(found) < count:
        noun = pick(tuple(NOUNS), rng)
        thing = (pick(NOUN_COLORS[noun], rng), noun)
        found += [thing] if thing not in found else []
    return tuple(found)


def _groups(count: int, rng: np.random.Generator) -> tuple[Thing, ...]:
    """Different categories."""
    return tuple(("", str(category)) for category in rng.permutation(CATEGORIES)[:count])


def sample_composed(
    goal: Goal, count: int, split: str, rng: np.random.Generator
) -> tuple[dict[str, Receptacle], list[Placed]]:
    """Items and places for them, so that the goal can be met and leaves no doubt.

    There are as many items as ``count`` says, or as few more as the goal needs.
    """
    while True:
        things = _things(goal, count, rng)
        for _ in range(_TRIES if goal.relation else 1):
            receptacles, placed = sample_layout(things, split, rng)
            if any(demand_of(goal, placed, receptacles).asked):
                return receptacles, placed


def _things(goal: Goal, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """The (noun, colour) of each item: what the goal speaks of, and then others."""
    chosen: list[tuple[str, str]] = []

    def fits(thing: tuple[str, str]) -> bool:
        full = sum(NOUNS[noun] == NOUNS[thing[0]] for noun, _ in chosen) >= MOST_OF_A_CATEGORY
        return thing not in chosen and not full

    def add(meant: Thing) -> None:
        nouns = [noun for noun, category in NOUNS.items() if meant[1] in (noun, category, "")]
        while True:
            noun = pick(nouns, rng)
            thing = (noun, meant[0] if meant[0] in NOUN_COLORS[noun] else pick(NOUN_COLORS[noun], rng))
            if fits(thing):
                chosen.append(thing)
                return

    sort, things = goal.category, goal.things
    absent: list[Thing] = []  # what must not be there a further time, or at all
    if sort == "question":
        absent = [things[0]]
        if len(things) == 1 or rng.random() < 0.5:  # the answer is yes
            add(things[0])
            absent = []
        if len(things) == 2:
            add(things[1])
    elif sort == "relation":
        add(things[0])
        add(things[0])
        for mark in things[1:]:
            add(mark)
        absent = [*things[1:], things[0]]
    elif sort == "quantity":
        for _ in range(goal.count + 1):
            add(things[0])
        # A marker might count as a pen.
        absent = [("", noun) for noun in NOUNS if NOUNS[noun] == category_of(things[0]) and noun != things[0][1]]
    else:
        for thing in things:
            add(thing)
        absent = [thing for thing in things if not thing[0] and thing[1] in NOUNS]
        if sort in ("several", "place") and rng.random() < 0.5 and count > len(chosen) and things[0][0]:
            add(("", things[0][1]))  # the same thing in another colour: the name must be read
    while len(chosen) < max(count, 2):
        noun = pick(tuple(NOUNS), rng)
        thing = (noun, pick(NOUN_COLORS[noun], rng))
        if fits(thing) and not any(is_meant(one, thing[1], thing[0]) for one in absent):
            chosen.append(thing)
    return chosen
