"""Where a sentence says that things go: the receptacles in it, which they are, and whether they fit the things."""

from __future__ import annotations

import re
from dataclasses import dataclass

from envs.tidy_desk.goals import spoken

# Receptacles are taken out of a sentence before its nouns are read, since "pen tray" holds the word "pen".
RECEPTACLE = re.compile(
    r"\b(?:pen|pencil|stationery|marker) (?:box|case|cup|pot)\b"
    r"|\b(?:(?:pen|pencil|stationery|marker) )?(?:tray|holder)s?(?: for (?:the )?(?:pens|markers|pencils))?\b"
    r"|\b(?:toy|block|eraser) (?:bin|basket|bucket)\b|\bpaper (?:bin|basket)\b"
    r"|\b(?:(?:block|toy|eraser|storage|toy block) )?(?:box|container)\b"
    r"(?: for (?:the )?(?:toy )?(?:blocks|toys|erasers)\b)?"
    r"|\b(?:(?:waste ?paper|waste|trash|rubbish|garbage|dust|litter) ?)?(?:bin|can(?! you\b| i\b)|basket|bucket)\b"
    r"|\b(?:in|into|inside|to) the (?:trash|rubbish|garbage)\b|\bthe trash is where\b|\bis the trash$"
    r"|(?:放|装)(?:笔|积木|方块|垃圾)的(?:盘子|托盘|盒子|箱子|桶)"
    r"|文具盘|托盘|盘子|(?:笔|文具)(?:盘|托|筒|盒)子?|(?:积木|方块|玩具|收纳)?(?:盒|箱)子?"
    r"|(?:垃圾|废物|废纸)?(?:桶|箱|篓|筐)|纸篓|垃圾筒"
)
# Which receptacle a phrase means: the first that fits. "" may be any.
_MEANINGS = (
    ("blocks", r"toy|block|eraser|积木|方块|玩具"),
    ("pens", r"pen|stationery|marker|tray|holder|笔|文具|盘"),
    ("waste", r"waste|trash|rubbish|garbage|dust|litter|paper|垃圾|废|纸"),
    ("", r"container|storage|basket|bucket|收纳|箱|筐"),
    ("blocks", r"box|盒"),
    ("waste", r"bin|can|桶|篓"),
)
_INTO = re.compile(
    r"(?:\b(?:in|into|inside|to)(?: (?:the|a|my|its|your|that|this))?(?: [a-z]+)?|[进到入回在往]) ?$"
)  # "(?: [a-z]+)?": an adjective
_OUT_OF = re.compile(
    r"(?:\b(?:out of|from|off|near|beside|behind|by|next to"
    r"|(?:that is|thats|which is|lying|sitting|fallen) (?:in|into))(?: (?:the|a|my|that|this))?|从) ?$"
)
_OF_ZH = re.compile(r"^(?:里面?|中|上|旁|外)(?:边|面)?的|^(?:旁边?|外面?)")
_ARTICLE = re.compile(r"\b(?:the|a|my|your|that|this|in|into|to|inside) $")


@dataclass(frozen=True)
class Place:
    """A receptacle that a sentence names.

    Attributes:
        start: its first character's number.
        category: what goes in; "" where the words leave that open.
        aim: something is to be put in it.
        source: something is in it, or near it, or is to come out of it.
    """

    start: int
    category: str
    aim: bool
    source: bool


def places_in(clean: str) -> list[Place]:
    """The receptacles in a sentence without capitals and punctuation, from left to right."""
    found = []
    for match in RECEPTACLE.finditer(clean):
        words, before, after = match.group(), clean[: match.start()], clean[match.end() :]
        if words == "can" and not _ARTICLE.search(before):  # "can we tidy up"
            continue
        category = next(category for category, pattern in _MEANINGS if re.search(pattern, words))
        source = bool(_OUT_OF.search(before) or _OF_ZH.search(after))
        aim = not source and bool(_INTO.search(before) or re.match(r"(?:in|into|inside|to) ", words))
        found.append(Place(match.start(), category, aim, source))
    return found


def contradiction(category: str, places: list[Place]) -> str | None:
    """How the places contradict that things of this category go in their own one, in words; None where they don't."""
    aims = [place for place in places if place.aim] or [place for place in places if not place.source]
    if aims:
        wrong = [place.category for place in aims if place.category not in ("", category)]
        return f"in the {spoken(wrong[0])}" if wrong else None
    out = any(place.source and place.category == category for place in places)
    return "out of it" if out else None


def turns_of(items: list[tuple[int, str]], places: list[Place]) -> bool:
    """Whether things of all categories, each a position and its category, and the places named beside them agree.

    "pens in the tray, blocks in the box" is read in turns; "pens and blocks in the tray and the box" as two lists.
    """
    marks = sorted(
        [(start, "item", category) for start, category in items]
        + [(place.start, "place", place.category) for place in places if not place.source]
    )
    runs: list[tuple[str, set[str]]] = []
    for _, kind, category in marks:
        if not runs or runs[-1][0] != kind:
            runs.append((kind, set()))
        runs[-1][1].add(category)
    pairs = zip(runs[::2], runs[1::2], strict=False)
    for first, second in pairs:
        things, where = (first[1], second[1]) if first[0] == "item" else (second[1], first[1])
        if "" not in where and not things <= where:
            return False
    return True
