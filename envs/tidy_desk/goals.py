"""What the desk can be asked for: the things on it, a goal, and the one plain sentence for each."""

from __future__ import annotations

import re
from dataclasses import dataclass

import envs.tidy_desk.phrases as phrases
from vla.contracts import VlaError

NOUNS: dict[str, str] = {
    "pen": "pens",
    "marker": "pens",
    "eraser": "blocks",
    "block": "blocks",
    "paper_ball": "waste",
    "bottle_cap": "waste",
}
CATEGORIES = ("pens", "blocks", "waste")
COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black", "pink")
_MANY = ("red", "green", "blue", "yellow", "orange", "purple")
NOUN_COLORS: dict[str, tuple[str, ...]] = {
    "pen": _MANY,
    "marker": _MANY,
    "eraser": _MANY,
    "block": _MANY,
    "paper_ball": ("white", "yellow", "pink"),
    "bottle_cap": _MANY,
}
RECEPTACLES: dict[str, dict[str, str]] = {
    "en": {"pens": "pen tray", "blocks": "block box", "waste": "waste bin"},
    "zh": {"pens": "笔盘", "blocks": "积木盒", "waste": "垃圾桶"},
}
LANGUAGES = ("en", "zh")
SPLITS = ("train", "heldout")
KINDS = ("all", "category", "named")  # what an episode draws from where nothing is asked for
# What a goal of the kind "composed" has for its category.
COMPOSED = ("several", "except", "order", "relation", "quantity", "place", "question")
RELATIONS = ("nearest", "farthest", "left", "right")

Thing = tuple[str, str]
"""A colour, or "" for any, and a noun or a category: what of the desk's things is meant."""


@dataclass(frozen=True)
class Goal:
    """What is asked for.

    Attributes:
        kind: "all" (tidy everything), "category", "named" (one item) or "composed".
        category: "pens", "blocks" or "waste"; "" for everything. A named goal fills it in from its noun. Of a composed
            goal one of COMPOSED, which says how to read the rest.
        item: (colour, noun) of a named goal; the colour "" means any colour.
        things: of a composed goal. ``several``: two or three to put away; ``except``: what stays; ``order``: two, the
            first one first; ``relation``: the one asked for, and the one that it is told by; ``quantity`` and
            ``place``: one; ``question``: what is looked for, and what else is to be put away where that is missing.
        place: the receptacle, by its category: of ``place`` where the thing goes, of ``relation`` what the one asked
            for is told by, instead of a thing.
        relation: one of RELATIONS.
        count: how many, of ``quantity``.

    Raises VlaError where these do not fit together.
    """

    kind: str
    category: str = ""
    item: Thing | None = None
    things: tuple[Thing, ...] = ()
    place: str = ""
    relation: str = ""
    count: int = 0

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, "composed"):
            raise VlaError(f"there is no kind of goal '{self.kind}'; known: {', '.join(KINDS)}, composed")
        if (self.kind == "named") != (self.item is not None):
            raise VlaError("a named goal needs an item (colour, noun), and no other goal takes one")
        for color, noun in (*self.things, *([self.item] if self.item else [])):
            known = (*NOUNS, *(() if self.item else CATEGORIES))
            if noun not in known or (color and color not in COLORS):
                raise VlaError(
                    f"there is no item '{color} {noun}'; nouns: {', '.join(NOUNS)}; colours: {', '.join(COLORS)}"
                )
        if self.item is not None:
            object.__setattr__(self, "category", NOUNS[self.item[1]])
        if self.kind == "composed":
            self._check_parts()
        elif (self.kind == "all") != (self.category == "") or self.category not in ("", *CATEGORIES):
            raise VlaError(f"a goal of kind '{self.kind}' cannot have the category '{self.category}'")
        elif self.things or self.place or self.relation or self.count:
            raise VlaError(f"a goal of kind '{self.kind}' has no parts")

    def _check_parts(self) -> None:
        sizes = {"several": (2, 3), "order": (2,), "relation": (1 if self.place else 2,), "question": (1, 2)}
        if self.category not in COMPOSED:
            raise VlaError(f"a composed goal is one of {', '.join(COMPOSED)}, and not '{self.category}'")
        fits = len(self.things) in sizes.get(self.category, (1,))
        fits &= self.relation in RELATIONS if self.category == "relation" else not self.relation
        fits &= self.place in CATEGORIES if self.category == "place" else self.place in ("", *CATEGORIES)
        fits &= self.category in ("place", "relation") or not self.place
        fits &= 1 <= self.count <= 3 if self.category == "quantity" else not self.count
        if not fits or len(set(self.things)) < len(self.things):
            raise VlaError(f"a goal '{self.category}' cannot have these parts: {self}")


def category_of(thing: Thing) -> str:
    """A thing's category."""
    return NOUNS.get(thing[1], thing[1])


def is_meant(thing: Thing, color: str, noun: str) -> bool:
    """Whether an item is what is meant."""
    return thing[0] in ("", color) and thing[1] in (noun, NOUNS[noun])


def spoken(category: str, language: str = "en") -> str:
    """A category's receptacle, e.g. ``pen tray``."""
    return RECEPTACLES[language][category]


def sub_instruction(color: str, noun: str, language: str, into: str = "") -> str:
    """The one fixed sentence for moving one item, e.g. ``put the red pen in the pen tray``.

    ``into`` is the receptacle's category where that is not the item's own.
    """
    into = into or NOUNS[noun]
    receptacle = spoken(into, language)
    color_word, noun_word = phrases.COLOR_WORDS[language].get(color, ""), phrases.NOUN_WORDS[language][noun][0]
    if language == "zh":
        verb = "扔进" if into == "waste" else "放进"
        return f"把{color_word + '色的' if color_word else ''}{noun_word}{verb}{receptacle}"
    return f"put the {color_word + ' ' if color_word else ''}{noun_word} in the {receptacle}"


def language_of(text: str) -> str:
    """The language of a sentence: "zh" where it holds a Chinese character, else "en"."""
    return "zh" if re.search(r"[\u3400-\u9fff]", text) else "en"
