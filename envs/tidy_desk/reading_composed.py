"""Composed requests read: several things, all but one, one after the other, one told by another, a number, a question.

``envs.tidy_desk.reading`` asks here first for what only a composed goal can mean (``compose``), and last for what
names more than one thing (``several``) or sends a thing elsewhere (``elsewhere``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from envs.tidy_desk.destinations import RECEPTACLE, Place, places_in
from envs.tidy_desk.goals import NOUNS, Goal, Thing, category_of
from envs.tidy_desk.words import CATEGORY, NOUN, OTHER_COLOR, color_of

_ASKED = re.compile(
    r"\b(?:is|are) there\b|\bthere (?:is|are)\b|\bshould there be\b|\bif you (?:see|find|spot)\b"
    r"|\bany (?=(?:\w+ ){1,2}left)|有没有|如果桌?上?有|要是桌?上?有|还有(?!一?[件个])|(?:^|上)有(?=.{1,6}吗)"
)
_OTHERWISE = re.compile(
    r"\b(?:otherwise|or else|if not|if there (?:is|are) (?:none|not)|else)\b|没有的话|没有就|否则|不然"
)
_BUT = re.compile(
    r"\b(?:except|besides|apart from|other than|(?:everything|all|anything) but)\b|\bdo(?:nt| not| n t) touch\b"
    r"|\bleave (?!the rest|no)|\bkeep\b|除了|以外|之外|不要动|不动|别动|留着|留下|保留"
)
_THE_REST = re.compile(
    r"\b(?:everything|all else|all the (?:other|rest)|anything|the rest|the others|desk|table|all (?:but|except))\b"
    r"|都|全|其他|其余|别的|所有东西|桌面|桌子"
)
_ORDER = re.compile(
    r"\b(?:first|afterwards?|after|start with)\b"
    r"|先.*(?:再|然后|接着)|完.*(?:以后|之后)再|从.*开始|在前.*在后"
)
_NEXT = re.compile(r"\bthen\b")  # only between two things: "right then" may begin any request
_BEFORE = re.compile(r"\bbefore\b(?! i\b)")  # not behind them: "before lunch"
_RELATIONS = {
    "nearest": re.compile(r"\b(?:nearest|closest)\b|最近|最靠近"),
    "farthest": re.compile(r"\b(?:farthest|furthest|most distant)\b|最远"),
    "left": re.compile(r"\bleft of\b|\bleft hand side of\b|左边|左侧|左面"),
    "right": re.compile(r"\bright of\b|\bright hand side of\b|右边|右侧|右面"),
}
_NUMBERS = {"one": 1, "two": 2, "three": 3, "a pair": 2, "一": 1, "两": 2, "二": 2, "俩": 2, "三": 3}
_NUMBER = re.compile(
    r"(?:\b(?P<of>one|two|three|a pair) of (?:the |my |these |those )?|\b(?P<en>two|three) )$"
    r"|(?:(?:任意|随便|其中|任何)(?P<any>一)|(?P<zh>[两二俩三]))(?:支|块|个|只|根|件)$"
)
_BEFORE_IT = re.compile(r"\b(?P<en>red|green|blue|yellow|orange|purple|violet|white|black|pink)"
                        r"(?: coloured| colored)? $|(?P<zh>[红绿蓝黄橙橘紫白黑粉])(?:颜?色)?的?$")  # fmt: skip
_AFTER_IT = re.compile(
    r" (?:that is|thats|which is) (?P<en>red|green|blue|yellow|orange|purple|violet|white|black|pink)\b"
)
_JOINED = re.compile(r" ?(?:and|or|和|或)(?: the)? ?")
_AND = re.compile(r"\b(?:and|plus|as well as|also|with|both|or)\b|[和与跟及并或]|还有|加上")
_MORE = re.compile(r"\b(?:all|every|each|any)(?: the| of the)? $|(?:所有|全部|每一?[支块个件]?|各种)的?$")


@dataclass(frozen=True)
class Mention:
    """A thing that a sentence names, from character ``start`` to ``end``; ``noun`` is "" of a kind's name."""

    start: int
    end: int
    thing: Thing
    noun: str

    @property
    def one(self) -> Thing:
        """The noun in that colour, where ``thing`` may be a whole kind."""
        return (self.thing[0], self.noun) if self.noun else self.thing


def mentions(clean: str) -> list[Mention]:
    """What things a sentence without capitals and punctuation names, from left to right."""
    masked = RECEPTACLE.sub(lambda match: "\0" * len(match.group()), clean)
    found = []
    for match in NOUN.finditer(masked):
        noun, before = match.lastgroup or "", masked[: match.start()]
        said = _BEFORE_IT.search(before) or _AFTER_IT.match(masked[match.end() :])
        color = color_of(said) if said else ""
        many = match.group().endswith("s") or bool(_MORE.search(before))
        if match.group() == "笔":
            many = many or not re.search(r"[一两二三那这该][支只根个]$", before)
        group = many and not color and noun in ("pen", "block")
        found.append(Mention(match.start(), match.end(), ("", NOUNS[noun]) if group else (color, noun), noun))
    for category, pattern in CATEGORY.items():
        found += [
            Mention(m.start(), m.end(), ("", category), "")
            for m in pattern.finditer(masked)
            if not any(one.start < m.end() and m.start() < one.end for one in found)  # "waste paper" is one thing
        ]
    found.sort(key=lambda one: one.start)
    merged: list[Mention] = []
    for one in found:
        last = merged[-1] if merged else None
        kind = category_of(one.thing)
        alike = last is not None and category_of(last.thing) == kind and not one.thing[0] and not last.thing[0]
        between = masked[last.end : one.start] if last is not None else ""
        if last is not None and not one.thing[0] and category_of(last.thing) == kind and not between.strip():
            merged[-1] = Mention(last.start, one.end, last.thing, last.noun)  # "rubber eraser" is one thing
        elif last is not None and alike and _JOINED.fullmatch(between):
            merged[-1] = Mention(last.start, one.end, ("", kind), "")
        else:
            merged.append(one)
    return merged


def compose(clean: str) -> Goal | None:
    """The composed goal that a sentence asks for in so many words; None where it asks for something else."""
    found = mentions(clean)
    if not found or OTHER_COLOR.search(NOUN.sub("⟨⟩", clean)):
        return None
    for read in (_question, _except, _relation, _order, _quantity):
        goal = read(clean, found)
        if goal is not None:
            return goal
    return None


def several(clean: str, colored: bool = False) -> Goal | None:
    """Two or three things to put where they belong; None where others are named, or other places.

    ``colored`` asks for one with a colour among them: of kinds alone, all three may stand for everything.
    """
    found = mentions(clean)
    if colored and not any(one.thing[0] for one in found):
        return None
    things = tuple(dict.fromkeys(one.thing for one in found))
    places = {place.category for place in places_in(clean) if not place.source} - {""}
    fits = 2 <= len(things) <= 3 and bool(_AND.search(clean[found[0].end : found[-1].start]))
    fits &= places <= {category_of(thing) for thing in things}
    return _goal("several", things) if fits else None


def elsewhere(goal: Goal, places: list[Place]) -> Goal:
    """A named goal, or the composed one where its thing is to go in another receptacle than its own."""
    aims = {place.category for place in places if place.aim} or {p.category for p in places if not p.source}
    if goal.item is None or len(aims) != 1 or aims <= {"", goal.category}:
        return goal
    return Goal("composed", "place", things=(goal.item,), place=aims.pop())


def _goal(sort: str, things: tuple[Thing, ...], **more: object) -> Goal | None:
    return Goal("composed", sort, things=things, **more) if len(set(things)) == len(things) else None  # type: ignore[arg-type]


def _question(clean: str, found: list[Mention]) -> Goal | None:
    asked = _ASKED.search(clean)
    looked_for = [one for one in found if asked and 0 <= one.start - asked.end() <= 12][:1]
    if not looked_for:
        return None
    otherwise = [match.end() for match in _OTHERWISE.finditer(clean) if match.end() > looked_for[0].end]
    others = [one for one in found if otherwise and one.start >= otherwise[0]]
    if len(others) > 1 or len(found) > 1 + len(others):
        return None
    # "Any pens" are the kind that bears the name.
    one, color, noun = looked_for[0], looked_for[0].thing[0], looked_for[0].noun
    thing = ("", NOUNS[noun]) if not color and noun in ("pen", "block") else one.thing
    aims = {place.category for place in places_in(clean) if place.aim} - {""}
    if not aims <= {category_of(thing), *(category_of(other.thing) for other in others)}:
        return None
    return _goal("question", (thing, *(other.thing for other in others)))


def _except(clean: str, found: list[Mention]) -> Goal | None:
    if not _BUT.search(clean) or not _THE_REST.search(clean) or len(found) != 1:
        return None
    return _goal("except", (found[0].thing,))


def _order(clean: str, found: list[Mention]) -> Goal | None:
    if len(found) != 2:
        return None
    first, second = found
    between, ahead = clean[first.end : second.start], clean[: first.start]
    if not (_ORDER.search(clean) or _NEXT.search(between) or _BEFORE.search(clean[: second.start])):
        return None
    turned = re.search(r"\bonly after\b|\bafter\b(?! that)", between) or re.search(r"\bbefore\b", ahead)
    things = (second.thing, first.thing) if turned else (first.thing, second.thing)
    return _goal("order", things)


def _relation(clean: str, found: list[Mention]) -> Goal | None:
    for relation, pattern in _RELATIONS.items():
        match = pattern.search(clean)
        if match is None:
            continue
        places = [place for place in places_in(clean) if not place.aim or place.source]
        if match.group()[0] >= "\u3400":  # 离盒子最近的积木, 最靠近盒子的积木: what is meant comes last
            meant = [one for one in found if one.start >= match.end()][-1:]
            marks = [one for one in found if meant and one.start < meant[0].start]
            places = [place for place in places_in(clean) if meant and place.start < meant[0].start]
        else:
            meant, marks = found[:1], found[1:]
            places = [place for place in places_in(clean) if place.start > match.start()][:1]
        own = [place.category for place in places_in(clean) if place not in places]
        if not meant or not meant[0].noun or meant[0].one[0] or not {*own, ""} <= {"", category_of(meant[0].one)}:
            return None
        things: tuple[Thing, ...] = (meant[0].one,)
        if len(marks) == 1 and not places:
            return _goal("relation", (*things, marks[0].one), relation=relation) if marks[0].noun else None
        if not marks and len(places) == 1 and places[0].category:
            return _goal("relation", things, relation=relation, place=places[0].category)
        return None
    return None


def _quantity(clean: str, found: list[Mention]) -> Goal | None:
    if len(found) != 1 or not found[0].noun or found[0].one[0]:
        return None
    match = _NUMBER.search(clean[: found[0].start])
    if match is None:
        return None
    return _goal("quantity", (found[0].one,), count=_NUMBERS[next(word for word in match.groups() if word)])
