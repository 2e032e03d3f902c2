"""What lies where at the start of a tidy_desk episode, drawn from a seed.

Training and evaluation differ in layout: read from left to right, the three receptacles stand in one of four orders
in training, and in one of the other two when held out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from envs.tabletop.rectangles import Rectangle, clear
from envs.tidy_desk.goals import CATEGORIES, NOUN_COLORS, NOUNS, Goal
from envs.tidy_desk.items import Item, Receptacle, make_item, make_receptacle
from vla.contracts import VlaError

AREA_LOW, AREA_HIGH = (0.325, -0.285), (0.700, 0.285)
CORNERS = np.array([(x, y, 0.0) for x in (AREA_LOW[0], AREA_HIGH[0]) for y in (AREA_LOW[1], AREA_HIGH[1])])
MOST_OF_A_CATEGORY = 3
_REACH = 0.74  # metres from the base axis to an item
_APART = 0.02  # metres between two items, and between an item and a receptacle
_FINGERS = (0.013, 0.064)  # half length and half width of what the open fingers need around an item's centre
# How far beyond the area the centre of an item may lie, metres; see ``move_beyond``.
BEYOND = {"mild": (0.003, 0.012), "medium": (0.012, 0.027), "strong": (0.027, 0.060)}
_HELDOUT_ORDERS = (("blocks", "pens", "waste"), ("waste", "blocks", "pens"))


@dataclass(frozen=True)
class Placed:
    """An item and its pose: on the table, or ``above`` metres over it, from where it falls."""

    item: Item
    x: float
    y: float
    yaw: float
    above: float = 0.0


def half_tidied(
    placed: list[Placed],
    receptacles: dict[str, Receptacle],
    rng: np.random.Generator,
    share: float = 0.25,
    mishaps: float = 0.25,
) -> list[Placed]:
    """The same items as in the middle of an episode.

    Each lies in its receptacle already with probability ``share``; with probability ``mishaps`` it falls into or on
    the rim of any receptacle, the wrong ones too.
    """
    free = {category: list(receptacle.places) for category, receptacle in receptacles.items()}
    result = []
    for index, thing in enumerate(placed):
        places, luck = free[thing.item.category], rng.random()
        if luck < share and places:
            receptacle = receptacles[thing.item.category]
            x, y = receptacle.world(*places.pop(0)).tolist()
            yaw = receptacle.yaw if thing.item.category == "pens" else thing.yaw
            thing = replace(thing, x=x, y=y, yaw=yaw)
        elif luck > 1.0 - mishaps:
            receptacle = receptacles[str(rng.choice(CATEGORIES))]
            x, y = receptacle.world(*(rng.uniform(-1.1, 1.1, 2) * receptacle.half)).tolist()
            # One above the other, lest two fall through each other.
            thing = replace(thing, x=x, y=y, above=receptacle.wall + 0.01 + 0.035 * index)
        result.append(thing)
    return result


def choose_things(goal: Goal, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """The (noun, colour) of each of ``count`` items, all different, so that ``goal`` can be met and told apart.

    The first ones are what the goal asks for: one item if named, one to ``count - 1`` of a category. At most
    MOST_OF_A_CATEGORY share a category.
    """
    chosen: list[tuple[str, str]] = []

    def add(nouns: list[str]) -> None:
        while True:
            noun = nouns[int(rng.integers(len(nouns)))]
            color = str(rng.choice(NOUN_COLORS[noun]))
            if (noun, color) not in chosen:
                chosen.append((noun, color))
                return

    def full(category: str) -> bool:
        return sum(NOUNS[noun] == category for noun, _ in chosen) >= MOST_OF_A_CATEGORY

    if goal.kind == "named":
        assert goal.item is not None
        color, noun = goal.item
        chosen.append((noun, color or str(rng.choice(NOUN_COLORS[noun]))))
        others = [n for n in NOUNS if color or n != noun]
        if color and rng.random() < 0.5:  # the same kind of thing in another colour: the name must be read
            add([noun])
    elif goal.kind == "category":
        for _ in range(int(rng.integers(1, min(MOST_OF_A_CATEGORY, max(1, count - 1)) + 1))):
            add([n for n in NOUNS if NOUNS[n] == goal.category])
        others = [n for n in NOUNS if NOUNS[n] != goal.category]
    else:
        others = list(NOUNS)
    while len(chosen) < count:
        add([n for n in others if not full(NOUNS[n])])
    return chosen


def random_goal(kind: str, category: str | None, rng: np.random.Generator) -> Goal:
    """A goal of the given kind; its category and item are random where they are left open."""
    if kind == "all":
        if category:
            raise VlaError(f"kind 'all' means every category; leave category '{category}' out")
        return Goal("all")
    category = category or str(rng.choice(CATEGORIES))
    if category not in CATEGORIES:
        raise VlaError(f"there is no category '{category}'; known: {', '.join(CATEGORIES)}")
    if kind == "category":
        return Goal("category", category)
    noun = str(rng.choice([n for n in NOUNS if NOUNS[n] == category]))
    return Goal("named", item=(str(rng.choice(NOUN_COLORS[noun])), noun))


def sample_layout(
    things: list[tuple[str, str]], split: str, rng: np.random.Generator
) -> tuple[dict[str, Receptacle], list[Placed]]:
    """Random places for the three receptacles and the items, with room for the fingers around each item."""
    items = [make_item(noun, color, split, rng) for noun, color in things]
    order = sorted(range(len(items)), key=lambda i: -items[i].size[0])  # the long ones are the hardest to place
    while True:
        receptacles = _place_receptacles(split, rng)
        solid: list[Rectangle] = [(r.x, r.y, r.yaw, *r.outside) for r in receptacles.values()]
        room: list[Rectangle] = []
        found: dict[int, Placed] = {}
        for index in order:
            placed = _place_item(items[index], solid, room, rng)
            if placed is None:
                break
            found[index] = placed
            solid.append(_footprint(placed))
            room.extend(_finger_room(placed))
        if len(found) == len(items):
            return receptacles, [found[i] for i in range(len(items))]


def move_beyond(
    placed: list[Placed], receptacles: dict[str, Receptacle], strength: str, rng: np.random.Generator
) -> list[Placed]:
    """The perturbation ``layout``: the same items, outside of the area where training puts them.

    Each centre lies beyond the area's edge by as much as ``BEYOND`` says, within the arm's reach and in the scene
    camera's view, with room for the fingers. An item for which no place is free stays where it is; the first, which is
    always asked for, is moved first.
    """
    result = list(placed)
    margin = BEYOND[strength][1]
    low, high = np.array((*AREA_LOW, -math.pi)) - (margin, margin, 0), np.array((*AREA_HIGH, math.pi))
    for index in range(len(placed)):
        spots = rng.uniform(low, high + (margin, margin, 0), (3000, 3))
        receptacle_room: list[Rectangle] = [(r.x, r.y, r.yaw, *r.outside) for r in receptacles.values()]
        others = [other for i, other in enumerate(result) if i != index]
        solid = receptacle_room + [_footprint(other) for other in others]
        room = [rectangle for other in others for rectangle in _finger_room(other)]
        for x, y, yaw in spots[_is_beyond(spots, strength)].tolist():
            moved = replace(placed[index], x=x, y=y, yaw=yaw)
            if _has_room(moved, solid, room):
                result[index] = moved
                break
    return result


def _is_beyond(spots: np.ndarray, strength: str) -> np.ndarray:
    x, y = spots[:, 0], np.abs(spots[:, 1])
    excess = np.max((AREA_LOW[0] - x, x - AREA_HIGH[0], y - AREA_HIGH[1]), axis=0)
    least, most = BEYOND[strength]
    in_view = y < 0.288 + 0.107 * (AREA_HIGH[0] - x)  # the picture's side edges, less one centimetre
    return (least <= excess) & (excess <= most) & in_view & (np.hypot(x, y) <= _REACH)


def occupied(placed: list[Placed], receptacles: dict[str, Receptacle]) -> list[Rectangle]:
    """What must stay free of anything else: items, receptacles and the fingers' room around each item."""
    things = [(r.x, r.y, r.yaw, *r.outside) for r in receptacles.values()] + [_footprint(one) for one in placed]
    return things + [rectangle for one in placed for rectangle in _finger_room(one)]


def _place_receptacles(split: str, rng: np.random.Generator) -> dict[str, Receptacle]:
    shades = {category: make_receptacle(category, 0.0, 0.0, 0.0, rng) for category in CATEGORIES}
    while True:
        placed: dict[str, Receptacle] = {}
        taken: list[Rectangle] = []
        for category in CATEGORIES:
            for _ in range(8):
                yaw = math.radians(rng.uniform(-25, 25))
                if category == "pens" and rng.random() < 0.5:
                    yaw += math.pi / 2
                x, y = _somewhere(rng)
                footprint = (x, y, yaw, *shades[category].outside)
                if _inside_area(footprint) and all(clear(footprint, other, 0.012) for other in taken):
                    placed[category] = replace(shades[category], x=x, y=y, yaw=yaw)
                    taken.append(footprint)
                    break
            else:
                break
        if len(placed) == len(CATEGORIES):
            order = tuple(sorted(CATEGORIES, key=lambda c: -placed[c].y))
            if (order in _HELDOUT_ORDERS) == (split == "heldout"):
                return placed


def _place_item(item: Item, solid: list[Rectangle], room: list[Rectangle], rng: np.random.Generator) -> Placed | None:
    for _ in range(60):
        placed = Placed(item, *_somewhere(rng), float(rng.uniform(-math.pi, math.pi)))
        within = math.hypot(placed.x, placed.y) <= _REACH and _inside_area(_footprint(placed))
        if within and _has_room(placed, solid, room):
            return placed
    return None


def _has_room(placed: Placed, solid: list[Rectangle], room: list[Rectangle]) -> bool:
    """Whether it is clear of solid things and of the fingers' room around others, and its own fingers' room is free."""
    footprint = _footprint(placed)
    return (
        all(clear(footprint, other, _APART) for other in solid)
        and all(clear(footprint, other, 0.0) for other in room)
        and all(clear(mine, other, 0.0) for mine in _finger_room(placed) for other in solid)
    )


def _footprint(placed: Placed) -> Rectangle:
    return (placed.x, placed.y, placed.yaw, placed.item.size[0], placed.item.size[1])


def _finger_room(placed: Placed) -> list[Rectangle]:
    """Where the open fingers may come down: across a long thing, along y beside a round one, on any side of a cube."""
    symmetry = placed.item.symmetry
    yaws = {0.0: [0.0], math.pi: [placed.yaw]}.get(symmetry, [placed.yaw, placed.yaw + math.pi / 2])
    return [(placed.x, placed.y, yaw, *_FINGERS) for yaw in yaws]


def _somewhere(rng: np.random.Generator) -> tuple[float, float]:
    u, v = rng.random(2).tolist()
    return AREA_LOW[0] + u * (AREA_HIGH[0] - AREA_LOW[0]), AREA_LOW[1] + v * (AREA_HIGH[1] - AREA_LOW[1])


def _inside_area(rectangle: Rectangle) -> bool:
    x, y, yaw, length, width = rectangle
    c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
    reach_x, reach_y = length * c + width * s, length * s + width * c
    return (
        AREA_LOW[0] <= x - reach_x
        and x + reach_x <= AREA_HIGH[0]
        and AREA_LOW[1] <= y - reach_y
        and y + reach_y <= AREA_HIGH[1]
    )
