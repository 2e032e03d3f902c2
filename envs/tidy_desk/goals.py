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
KINDS = ("all", "category", "named")


@dataclass(frozen=True)
class Goal:
    """What is asked for.

    Attributes:
        kind: "all" (tidy everything), "category" or "named" (one item).
        category: "pens", "blocks" or "waste"; "" for everything. A named goal fills it in from its noun.
        item: (colour, noun) of a named goal; the colour "" means any colour.

    Raises VlaError where these do not fit together.
    """

    kind: str
    category: str = ""
    item: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise VlaError(f"there is no kind of goal '{self.kind}'; known: {', '.join(KINDS)}")
        if (self.kind == "named") != (self.item is not None):
            raise VlaError("a named goal needs an item (colour, noun), and no other goal takes one")
        if self.item is not None:
            color, noun = self.item
            if noun not in NOUNS or (color and color not in COLORS):
                raise VlaError(
                    f"there is no item '{color} {noun}'; nouns: {', '.join(NOUNS)}; colours: {', '.join(COLORS)}"
                )
            object.__setattr__(self, "category", NOUNS[noun])
        if (self.kind == "all") != (self.category == "") or self.category not in ("", *CATEGORIES):
            raise VlaError(f"a goal of kind '{self.kind}' cannot have the category '{self.category}'")


def spoken(category: str, language: str = "en") -> str:
    """A category's receptacle, e.g. ``pen tray``."""
    return RECEPTACLES[language][category]


def sub_instruction(color: str, noun: str, language: str) -> str:
    """The one fixed sentence for moving one item, e.g. ``put the red pen in the pen tray``."""
    receptacle = spoken(NOUNS[noun], language)
    color_word, noun_word = phrases.COLOR_WORDS[language].get(color, ""), phrases.NOUN_WORDS[language][noun][0]
    if language == "zh":
        verb = "扔进" if NOUNS[noun] == "waste" else "放进"
        return f"把{color_word + '色的' if color_word else ''}{noun_word}{verb}{receptacle}"
    return f"put the {color_word + ' ' if color_word else ''}{noun_word} in the {receptacle}"


def language_of(text: str) -> str:
    """The language of a sentence: "zh" where it holds a Chinese character, else "en"."""
    return "zh" if re.search(r"[\u3400-\u9fff]", text) else "en"
