"""What a sentence asks the desk for: ``understand`` reads English and Chinese, or says why it can't be done.

It is generous with case, punctuation, politeness, small talk and synonyms. What it refuses means nothing here, or
contradicts the desk: a kind goes in its own receptacle, so the pens can't go in the bin, unless one of them is meant.
"""

from __future__ import annotations

import re

from envs.tidy_desk.destinations import RECEPTACLE, Place, contradiction, places_in, turns_of
from envs.tidy_desk.goals import (
    CATEGORIES,
    COLORS,
    NOUN_COLORS,
    NOUNS,
    Goal,
    category_of,
    language_of,
    spoken,
    sub_instruction,
)
from envs.tidy_desk.reading_composed import compose, elsewhere, several
from envs.tidy_desk.words import CATEGORY, COLOR, MANY_WORDS, NOUN, OTHER_COLOR, clean_text, color_of

_EVERYTHING = re.compile(
    r"\b(?:everything|all|things|items|objects|stuff|tidy|clean|clear|organi[sz]e|sort|declutter|straighten|mess|messy)\b"
    r"|整理|收拾|清理|打扫|归置|归位|整洁|整齐|干净|东西|物品|所有|全部"
)
_REFUSED = re.compile(
    r"\b(?:except|besides|don ?t|do not|never|without|not|mustnt|shouldnt|avoid|ignore|skip|apart from|other than"
    r"|(?:everything|all|anything) but|(?:leave|keep) (?!no).*\b(?:alone|there|where|on the (?:desk|table)))\b"
    r"|除了|以外|之外|不要|别(?!的)|不许|千万不|不用|不必|不能|不准|留下|留着|保留|勿"
)
# What is asked of the desk as a whole is about one of these; another thing after "all", or "clean the", is not here.
_WHOLE = re.compile(
    r"\b(?:desk|desktop|table|tabletop|workspace|worktop|workbench|bench|place|area|surface|counter|room|office|space|"
    r"everything|things?|items?|objects?|stuff|mess|clutter|lot|it|up)\b|桌|台|东西|物|一切|全部|所有|这里|这儿|它|每样"
)
_SOMETHING_ELSE = re.compile(
    r"\b(?:all|tidy|clean|clear|organi[sz]e|sort|declutter|straighten)(?: up| out| off| away| of)?"
    r" (?:the|my|our|your|this|that|these|those) [a-z]+|\ball [a-z]+s\b"
    r"|[把将](?!我|你)[^ ]{1,8}?(?:整理|收拾|清理|打扫|归置|归位)|(?:整理|收拾|清理|打扫)(?:一下)?"
    r"(?:厨房|房间|卧室|客厅|浴室|衣|床|地板|地面|冰箱|抽屉|书架|院子)"
)
_HAND_OVER = re.compile(
    r"\b(?:give|hand|bring|pass|fetch)(?: it)?(?: to)? (?:me|us|him|her)\b|[递交拿送]给(?:我|你|他|她)"
)
_THROW_AWAY = re.compile(
    r"\b(?:throw|toss|chuck)(?:ing)?\b.*\b(?:away|out)\b|\bdiscard\b|\bget rid of\b(?!.*\b(?:mess|clutter)\b)"
    r"|扔掉|丢掉|扔了|丢了|倒掉"
)
# Where nothing is tidied to. The nouns that may follow say when, or the desk's own places.
_ELSEWHERE = re.compile(
    r"\b(?:in|into|inside|onto|on|on top of|under|beneath|behind|beside|next to|to) "
    r"(?:the|my|a|an|that|this|your|his|her|our) (?!(?:desk|desktop|table|tabletop|workspace|worktop|workbench|bench|"
    r"surface|counter|places?|spots?|home|right|correct|proper|appropriate|matching|way|order|minute|moment|second|"
    r"while|meantime|meanwhile|morning|afternoon|evening|end|other|others)\b)[a-z]+"
    r"|[放移扔丢收送摆推挪搬](?:到|在|进|入|至)(?!原|该|它|自|位|应|正确|合适|属|各|桌|书桌|工作|一起|指定|相应|对应|他|"
    r"一边|那|这|哪|好|地方|其)[^ ]"
)
# A receptacle, masked, that would be put in a thing.
_PLACE_MOVED = re.compile(
    r"\0 (?:in|into|inside|onto|on|on top of|under|beneath) (?:the |my |a |an |that |this |your |every |all )*"
    rf"(?:[a-z]+ )?(?:{NOUN.pattern})|[把将][^\0]{{0,4}}\0+[放移扔丢收送摆推挪搬](?:到|在|进|入|至)",
)
_PLAIN = {  # the plain sentence for a category, and for everything
    "en": {
        "pens": "put all the pens in the pen tray",
        "blocks": "put all the blocks and erasers in the block box",
        "waste": "throw all the trash in the waste bin",
        "": "tidy the desk",
    },
    "zh": {
        "pens": "把所有的笔放进笔盘",
        "blocks": "把所有积木和橡皮放进积木盒",
        "waste": "把所有垃圾扔进垃圾桶",
        "": "请整理桌面",
    },
}


def parse(text: str) -> Goal | None:
    """What a sentence asks for, whatever its case, punctuation and politeness; None where ``understand`` refuses it.

    Nouns say most, then category words, then words for everything. "pens" and "blocks" name their category; the plural
    of another noun names that noun in any colour.
    """
    return understand(text)[0]


def understand(text: str) -> tuple[Goal | None, str]:
    """What a sentence asks for, or why that can't be done, in a few words; the other of the two is empty.

    Refused is what names nothing on the desk; what a Goal cannot hold: a prohibition, two exceptions, four things; and
    what contradicts the desk: another receptacle than a kind's own (one thing may go in another), another place than a
    receptacle, a colour that nothing has, a hand-over.
    """
    clean = clean_text(text)
    if not re.search(r"\w", clean):
        return None, "it holds no words"
    composed = compose(clean)
    if composed is not None:
        reason = _objection_to_composed(composed, clean)
        return (None, reason) if reason else (composed, "")
    if _REFUSED.search(clean):
        return None, "exceptions are understood of one thing or one kind, and prohibitions are not"
    if (composed := several(clean, colored=True)) is not None:
        reason = _objection_to_composed(composed, clean)
        return (None, reason) if reason else (composed, "")
    bare_of_places = RECEPTACLE.sub(" ", clean)
    found = [(match.lastgroup or "", match.group()) for match in NOUN.finditer(bare_of_places)]
    bare = NOUN.sub("⟨⟩", bare_of_places)
    colors = [color_of(match) for match in COLOR.finditer(bare)]
    categories = {c for c, pattern in CATEGORY.items() if pattern.search(bare)} | {NOUNS[noun] for noun, _ in found}
    goal: Goal | None = None
    if len(categories) == len(CATEGORIES) and not colors:
        goal = Goal("all")
    elif (len(categories) > 1 or len(set(colors)) > 1) and (composed := several(clean)):
        return composed, ""
    elif len(categories) > 1 or len(set(colors)) > 1:
        return None, "it names more than one thing, and is neither about one item, nor one category, nor everything"
    elif len({noun for noun, _ in found}) == 1:
        noun, word = found[0]
        goal = _named_or_group(noun, word, colors[0] if colors else "", bare)
    elif colors:
        return None, f"it does not say which thing is {colors[0]}" if not found else "it names more than one thing"
    elif categories:
        goal = Goal("category", categories.pop())
    elif _EVERYTHING.search(bare):
        goal = Goal("all")
    if goal is None:
        return None, "it names nothing that can be tidied here"
    goal = elsewhere(goal, places_in(clean))
    reason = _objection(goal, clean, bare, bool(categories or found))
    return (None, reason) if reason else (goal, "")


def nearest(text: str, most: int = 3) -> list[str]:
    """Sentences in the language of ``text`` that can be understood and come nearest to it: at least one."""
    language, clean = language_of(text), clean_text(text)
    plain = _PLAIN[language]
    bare = RECEPTACLE.sub(lambda match: " " * len(match.group()), clean)
    items = []
    for match in NOUN.finditer(bare):
        before = list(COLOR.finditer(bare[max(0, match.start() - 9) : match.start()] + "⟨"))
        color = color_of(before[-1]) if before else ""
        items.append(_named_or_group(match.lastgroup or "", match.group(), color, bare))
    named = {goal.category for goal in items} | {c for c, pattern in CATEGORY.items() if pattern.search(bare)}
    colors = [color_of(match) for match in COLOR.finditer(bare)]
    if items and _REFUSED.search(clean):
        found = [plain[category] for category in CATEGORIES if category not in named]
    elif items:
        found = [sub_instruction(*one.item, language) if one.item else plain[one.category] for one in items]
    elif named:
        found = [plain[category] for category in CATEGORIES if category in named]
    elif colors:
        found = [sub_instruction(colors[0], noun, language) for noun in NOUNS if colors[0] in NOUN_COLORS[noun]]
    elif kinds := [place.category for place in places_in(clean) if place.category]:
        found = [plain[category] for category in kinds] + [plain[""]]
    else:
        found = [plain[""], sub_instruction("red", "pen", language), plain["waste"]]
    return list(dict.fromkeys(found))[:most] or [plain[""]]


def _named_or_group(noun: str, word: str, color: str, bare: str) -> Goal:
    """One noun was found: is it that item, or the category that bears its name?"""
    many = bool(MANY_WORDS.search(bare)) or word.endswith("s")
    if word == "笔":
        many = many or not re.search(r"[一那这该][支只根个]", bare)
    if color == "" and many and noun in ("pen", "block"):
        return Goal("category", NOUNS[noun])
    return Goal("named", item=(color, noun))


def _objection(goal: Goal, clean: str, bare: str, named: bool) -> str:
    """Why what ``clean`` asks for contradicts the desk; "" where it doesn't. ``named``: it names a thing or a kind."""
    places = places_in(clean)
    if goal.kind != "all":
        other = OTHER_COLOR.search(bare)
        if other:
            return f"nothing here is {other.group()}; the colours are {', '.join(COLORS)}"
    if _HAND_OVER.search(clean):
        return "it hands nothing over"
    if goal.kind == "all":
        return _objection_to_all(clean, bare, places, named)
    wrong = None if goal.kind == "composed" else contradiction(goal.category, places)
    if wrong is not None:
        return f"{_subject(goal)} go in the {spoken(goal.category)}, and not {wrong}"
    if _PLACE_MOVED.search(_masked(clean)):
        return "tray, box and bin stay where they are"
    thrown = goal.category != "waste" and not any(place.category == goal.category for place in places)
    if thrown and _THROW_AWAY.search(clean):
        return f"{_subject(goal)} go in the {spoken(goal.category)}, and are not thrown away"
    if not places and _ELSEWHERE.search(bare[bare.find("⟨") :]):
        return f"{_subject(goal)} go in the {spoken(goal.category)}, and nowhere else"
    return ""


def _objection_to_composed(goal: Goal, clean: str) -> str:
    kinds = {category_of(thing) for thing in goal.things}
    if _HAND_OVER.search(clean):
        return "it hands nothing over"
    if _PLACE_MOVED.search(_masked(clean)):
        return "tray, box and bin stay where they are"
    if goal.category != "except" and "waste" not in kinds and goal.place != "waste" and _THROW_AWAY.search(clean):
        return f"{' and '.join(sorted(kinds))} are not thrown away"
    bare = NOUN.sub("⟨⟩", RECEPTACLE.sub(" ", clean))
    if not goal.relation and not places_in(clean) and _ELSEWHERE.search(bare[bare.find("⟨") :]):
        return f"things go in the {', the '.join(spoken(category) for category in CATEGORIES)}, and nowhere else"
    return ""


def _objection_to_all(clean: str, bare: str, places: list[Place], named: bool) -> str:
    by_kind = "everything goes by its kind: " + ", ".join(f"{c} in the {spoken(c)}" for c in CATEGORIES)
    if named:
        items = [(match.start(), NOUNS[match.lastgroup or ""]) for match in NOUN.finditer(_masked(clean))]
        items += [(m.start(), c) for c, pattern in CATEGORY.items() for m in pattern.finditer(_masked(clean))]
        return "" if turns_of(items, places) else by_kind
    aims = {place.category for place in places if not place.source} if any(place.aim for place in places) else set()
    if (aims and "" not in aims and aims != set(CATEGORIES)) or _THROW_AWAY.search(clean):
        return by_kind
    if _SOMETHING_ELSE.search(bare) and not _WHOLE.search(bare):
        return "it names nothing that can be tidied here"
    return ""


def _masked(clean: str) -> str:
    return RECEPTACLE.sub(lambda match: "\0" * len(match.group()), clean)


def _subject(goal: Goal) -> str:
    return goal.category if goal.item is None else goal.item[1].replace("_", " ") + "s"
