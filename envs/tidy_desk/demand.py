"""What a goal asks of the things that lie on the desk: which of them go where, in which order, and how many."""

from __future__ import annotations

import math
from dataclasses import dataclass

from envs.tidy_desk.goals import Goal, Thing, is_meant
from envs.tidy_desk.items import Receptacle
from envs.tidy_desk.layout import Placed

APART = 0.05  # metres by which a relation must hold better for the one than for any other, that it can be seen


@dataclass(frozen=True)
class Demand:
    """Lists are over the items, in the scene's order.

    Attributes:
        asked: whether it is to be put away; at least one is.
        into: the receptacle that it belongs in now, by category.
        turns: those of a later turn must not be put away while one of an earlier turn is not.
        count: how many of the asked-for ones are to be put away, and no more.
    """

    asked: list[bool]
    into: list[str]
    turns: list[int]
    count: int


def demand_of(goal: Goal, placed: list[Placed], receptacles: dict[str, Receptacle]) -> Demand:
    """What the goal asks of these items where they lie. Of a named goal the first one is meant."""
    items = [one.item for one in placed]
    into, turns = [item.category for item in items], [0] * len(items)

    def meant(thing: Thing) -> list[bool]:
        return [is_meant(thing, item.color, item.noun) for item in items]

    if goal.kind == "named":
        asked = [index == 0 for index in range(len(items))]
    elif goal.kind != "composed":
        asked = [goal.category in ("", item.category) for item in items]
    elif goal.category == "except":
        asked = [not kept for kept in meant(goal.things[0])]
    elif goal.category == "question":
        asked = next((found for thing in goal.things if any(found := meant(thing))), [])
    elif goal.category == "relation":
        chosen = told_apart(goal, placed, receptacles)
        asked = [index == chosen for index in range(len(items))]
    else:
        each = [meant(thing) for thing in goal.things]
        asked = [any(ones) for ones in zip(*each, strict=True)]
        if goal.category == "order":
            turns = [1 if later and not first else 0 for first, later in zip(*each, strict=True)]
        if goal.category == "place":
            into = [goal.place if wanted else own for wanted, own in zip(asked, into, strict=True)]
    return Demand(asked, into, turns, goal.count or sum(asked))


def told_apart(goal: Goal, placed: list[Placed], receptacles: dict[str, Receptacle]) -> int | None:
    """The item that a relation means; None where it fits none, or none clearly enough."""
    wanted = [index for index, one in enumerate(placed) if is_meant(goal.things[0], one.item.color, one.item.noun)]
    if goal.place:
        at = (receptacles[goal.place].x, receptacles[goal.place].y)
    else:
        marks = [one for one in placed if is_meant(goal.things[1], one.item.color, one.item.noun)]
        if len(marks) != 1:
            return None
        at = (marks[0].x, marks[0].y)
    # How well it holds: in metres, the more the better. Left is where y grows, as the robot and its camera see it.
    holds = {
        "nearest": lambda x, y: -math.hypot(x - at[0], y - at[1]),
        "farthest": lambda x, y: math.hypot(x - at[0], y - at[1]),
        "left": lambda x, y: y - at[1],
        "right": lambda x, y: at[1] - y,
    }[goal.relation]
    ranked = sorted(wanted, key=lambda index: holds(placed[index].x, placed[index].y), reverse=True)
    if len(ranked) < 2:
        return None
    best, second = (holds(placed[index].x, placed[index].y) for index in ranked[:2])
    if goal.relation in ("left", "right"):  # of two pens one lies to the left, and the other does not
        return ranked[0] if best > APART and second < -APART else None
    return ranked[0] if best - second > APART else None
