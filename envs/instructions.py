"""What the desk can be asked for: a grammar that writes and understands English and Chinese instructions.

``write`` says a goal in one of many ways; ``parse`` reads every sentence that ``write`` can give, and other sentences
that use the same words. The phrases themselves are in ``envs.phrases``.

Training and evaluation never share a sentence (``split="train"`` and ``split="heldout"``). A held-out sentence has a
template that training never uses, or one phrase that training never uses, or an opener and a verb that training never
joins.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from envs import phrases
from envs.phrases import Choice, Words
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
RECEPTACLES: dict[str, str] = {"pens": "pen_tray", "blocks": "block_box", "waste": "waste_bin"}
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


def write(goal: Goal, language: str, split: str, rng: np.random.Generator) -> str:
    """Say ``goal`` in a random way.

    Args:
        goal: what is asked for.
        language: "en" or "zh".
        split: "train" or "heldout"; the two never give the same sentence.
        rng: the source of randomness; the same state gives the same sentence.
    """
    templates, slots = _grammar(goal, language, split)
    mode = "train" if split == "train" else str(rng.choice(["template", "word", "pair"], p=[0.5, 0.3, 0.2]))
    while True:
        pool = templates.new if mode == "template" else templates.train
        index = int(rng.integers(len(pool)))
        template = pool[index][0]
        used = _slots_in(template, slots)
        picked = {name: int(rng.integers(len(slots[name].train))) for name in used}
        choices = {name: slots[name].train[i] for name, i in picked.items()}
        if mode == "word":
            able = [name for name in used if slots[name].new]
            if not able:
                continue
            name = able[int(rng.integers(len(able)))]
            choices[name] = slots[name].new[int(rng.integers(len(slots[name].new)))]
        elif mode != "template" and _held_pair(index, picked) != (mode == "pair"):
            continue
        return _finish(_fill(template, choices), language, rng)


def all_sentences(goal: Goal, language: str, split: str) -> Iterator[str]:
    """Every sentence that ``write`` can give for ``goal``, less its capitals and full stops; some come twice."""
    templates, slots = _grammar(goal, language, split)
    if split == "heldout":
        for (template,) in templates.new:
            used = _slots_in(template, slots)
            for combination in itertools.product(*(slots[name].train for name in used)):
                yield _fill(template, dict(zip(used, combination, strict=True)))
    for index, (template,) in enumerate(templates.train):
        used = _slots_in(template, slots)
        for numbers in itertools.product(*(range(len(slots[name].train)) for name in used)):
            picked = dict(zip(used, numbers, strict=True))
            choices = {name: slots[name].train[i] for name, i in picked.items()}
            if _held_pair(index, picked) == (split == "heldout"):
                yield _fill(template, choices)
            if split == "heldout":
                for name in used:
                    # One turn of the replaced slot is enough: its trained phrase does not stay in the sentence.
                    for new in slots[name].new if picked[name] == 0 else ():
                        yield _fill(template, {**choices, name: new})


def sub_instruction(color: str, noun: str, language: str) -> str:
    """The one fixed sentence for moving one item, e.g. ``put the red pen in the pen tray``."""
    color_word, noun_word = phrases.COLOR_WORDS[language].get(color, ""), phrases.NOUN_WORDS[language][noun][0]
    if language == "zh":
        verb = "扔进" if NOUNS[noun] == "waste" else "放进"
        receptacle = {"pens": "笔盘", "blocks": "积木盒", "waste": "垃圾桶"}[NOUNS[noun]]
        return f"把{color_word + '色的' if color_word else ''}{noun_word}{verb}{receptacle}"
    receptacle = RECEPTACLES[NOUNS[noun]].replace("_", " ")
    return f"put the {color_word + ' ' if color_word else ''}{noun_word} in the {receptacle}"


def by_color(color: str, language: str, rng: np.random.Generator) -> str:
    """A sentence for the one thing of a colour that leaves open what it is, and so where it goes.

    For stills alone: ``parse`` does not understand it.
    """
    forms = phrases.BY_COLOR[language]
    return forms[int(rng.integers(len(forms)))].format(c=phrases.COLOR_WORDS[language][color])


def paraphrase(text: str, rng: np.random.Generator) -> str:
    """Another training sentence, in either language, that asks for the same; ``text`` itself if it isn't understood."""
    goal = _parse_again(text)
    return text if goal is None else write(goal, LANGUAGES[int(rng.integers(len(LANGUAGES)))], "train", rng)


def language_of(text: str) -> str:
    """The language of a sentence: "zh" where it holds a Chinese character, else "en"."""
    return "zh" if re.search(r"[\u3400-\u9fff]", text) else "en"


def _grammar(goal: Goal, language: str, split: str) -> tuple[Words, dict[str, Words]]:
    """The templates and the phrases for each slot that can say ``goal``."""
    if language not in LANGUAGES or split not in SPLITS:
        raise VlaError(f"no sentences for language '{language}' and split '{split}'; known: {LANGUAGES} and {SPLITS}")
    slots = {"open": phrases.OPENERS[language]}
    if goal.kind == "all":
        slots |= {"tidy": phrases.TIDY_WORDS[language], "desk": phrases.DESK_WORDS[language]}
        return phrases.ALL_TEMPLATES[language], slots
    slots |= {
        "put": phrases.PUT_WORDS[language][goal.category],
        "rec": phrases.RECEPTACLE_WORDS[language][goal.category],
        "item": _item_words(goal, language),
    }
    move, away = phrases.MOVE_TEMPLATES[language], phrases.AWAY_TEMPLATES[language][goal.category]
    return Words(move.train + away.train, move.new + away.new), slots


def _item_words(goal: Goal, language: str) -> Words:
    """The ways to name the goal's item or group, each with the words that agree with it."""
    if goal.item is None:
        words = phrases.GROUPS[language][goal.category]
        return Words(
            tuple(_agree(w[0], language) for w in words.train), tuple(_agree(w[0], language) for w in words.new)
        )
    color, noun = goal.item
    forms = phrases.ITEM_FORMS[language][0 if color else 1]
    color_word, measure = phrases.COLOR_WORDS[language].get(color, ""), phrases.MEASURES[noun]

    def named(group: tuple[Choice, ...]) -> tuple[Choice, ...]:
        pairs = itertools.product(phrases.NOUN_WORDS[language][noun], group)
        # A bare 笔 means the pens as a group, so one pen of any colour always has its measure word.
        return tuple(
            _agree(form.format(c=color_word, n=word, m=measure), language)
            for word, (form,) in pairs
            if not (word == "笔" and form == "{n}")
        )

    return Words(named(forms.train), named(forms.new))


def _agree(phrase: str, language: str) -> Choice:
    """The fields of the slot ``item``: the phrase, its pronoun, and verbs in the right number."""
    if language == "zh":
        group = re.search(r"所有|全部|和|每|各种|^笔$|桌上的笔|垃圾|废物", phrase)
        return phrase, "它们" if group else "它", "", "", ""
    many = re.search(r"\b(pens|markers|blocks|erasers|tools|balls|caps)\b", phrase) and not phrase.startswith("each")
    if many:
        return phrase, "them", "go", "belong", "are"
    return phrase, "them" if phrase.startswith(("each", "every")) else "it", "goes", "belongs", "is"


def _slots_in(template: str, slots: dict[str, Words]) -> list[str]:
    return [name for name in slots if "{" + phrases.FIELDS[name][0] + "}" in template]


def _fill(template: str, choices: dict[str, Choice]) -> str:
    fields = {"open": "", "close": ""}
    for name, choice in choices.items():
        fields.update(zip(phrases.FIELDS[name], choice, strict=True))
    return template.format(**fields)


def _held_pair(template: int, picked: dict[str, int]) -> bool:
    """Whether training keeps away from this opener with this verb (or this template, where no verb is chosen)."""
    return "open" in picked and (picked["open"] + picked.get("put", picked.get("tidy", template))) % 5 == 4


def _finish(sentence: str, language: str, rng: np.random.Generator) -> str:
    """Now and then a capital letter and a full stop, as people type."""
    if language == "en" and rng.random() < 0.25:
        sentence = sentence[0].upper() + sentence[1:]
    if sentence[-1] not in "?？" and rng.random() < 0.25:
        sentence += "。" if language == "zh" else "."
    return sentence


# --- reading -----------------------------------------------------------------------------------------------------

# Receptacles are taken out first, since "pen tray" holds the word "pen".
_RECEPTACLE = re.compile(
    r"\b(?:(?:pen|pencil|stationery|marker) )?(?:tray|holder)s?(?: for (?:the )?(?:pens|markers|pencils))?\b"
    r"|\b(?:(?:block|toy|eraser|storage|toy block) )?(?:box|container)\b"
    r"(?: for (?:the )?(?:toy )?(?:blocks|toys|erasers)\b)?"
    r"|\b(?:(?:waste ?paper|waste|trash|rubbish|garbage|dust|litter) ?)?(?:bin|can|basket|bucket)\b(?! you| i\b)"
    r"|\b(?:in|into|inside|to) the (?:trash|rubbish|garbage)\b|\bthe trash is where\b|\bis the trash$"
    r"|(?:放|装)(?:笔|积木|方块|垃圾)的(?:盘子|托盘|盒子|箱子|桶)"
    r"|文具盘|托盘|盘子|(?:笔|文具)(?:盘|托|筒|盒)子?|(?:积木|方块|玩具|收纳)?(?:盒|箱)子?"
    r"|(?:垃圾|废物|废纸)?(?:桶|箱|篓|筐)|纸篓|垃圾筒"
)
_NOUN_PATTERNS: dict[str, str] = {
    "marker": r"\bmarkers?(?: pens?)?\b|\bfelt tips?(?: pens?)?\b|\bhighlighters?\b|记号笔|马克笔|白板笔|荧光笔",
    "eraser": r"\b(?:pencil )?(?:eraser|rubber)s?\b|橡皮擦?",
    "pen": r"\b(?:ball ?point )?(?:pen|pencil)s?\b|\bball ?points?\b|圆珠笔|签字笔|钢笔|水笔|铅笔|笔",
    "block": r"\b(?:(?:toy|building|wooden) )?(?:block|cube|brick)s?\b|积木块?|方块|木块",
    "paper_ball": r"\b(?:balls?|wads?) of paper\b|\b(?:crumpled |waste |scrap )?papers?(?: (?:ball|wad)s?)?\b"
    r"|废?纸团|废?纸球|废纸",
    "bottle_cap": r"\b(?:bottle )?(?:cap|lid)s?\b|\bbottle tops?\b|瓶盖子?|盖子",
}
_NOUN = re.compile("|".join(f"(?P<{noun}>{pattern})" for noun, pattern in _NOUN_PATTERNS.items()))
_COLOR = re.compile(
    r"\b(?P<en>red|green|blue|yellow|orange|purple|violet|white|black|pink)\b"
    r"|(?P<zh>[红绿蓝黄橙橘紫白黑粉])(?=颜?色|的|⟨)"
)  # fmt: skip
_COLOR_ALIASES = {word: color for color, word in phrases.COLOR_WORDS["zh"].items()} | {
    "橘": "orange",
    "violet": "purple",
}
_CATEGORY: dict[str, re.Pattern[str]] = {
    "pens": re.compile(r"\bwriting (?:tools?|things|utensils?|instruments?)\b|\bstationery\b|文具|书写工具"),
    "waste": re.compile(r"\b(?:trash|rubbish|garbage|waste|litter|junk)\b|垃圾|废物|废品"),
}
_MANY_WORDS = re.compile(r"\b(?:all|every|each|any)\b|所有|全部|每|各种|都|一切")
_EVERYTHING = re.compile(
    r"\b(?:everything|all|things|items|objects|stuff|tidy|clean|clear|organi[sz]e|sort|declutter|straighten|mess|messy)\b"
    r"|整理|收拾|清理|打扫|归置|归位|整洁|整齐|干净|东西|物品|所有|全部"
)
_REFUSED = re.compile(r"\b(?:except|besides|don ?t|do not|never|without|not)\b|除了|以外|不要|别(?!的)|不许|千万不")


def parse(text: str) -> Goal | None:
    """Understand a sentence in English or Chinese, whatever its case, punctuation and politeness.

    Nouns say most, then category words, then words for everything. "pens" and "blocks" name their category; the plural
    of another noun names that noun in any colour. None comes back where nothing is recognised, and where the sentence
    asks for what a Goal cannot hold: an exception ("everything except the pens"), two named items, two categories.
    """
    clean = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")
    clean = " ".join(re.sub(r"[^\w\u3400-\u9fff]+|_", " ", clean).split())
    if language_of(clean) == "zh":
        clean = re.sub(r"(?<=[\u3400-\u9fff]) (?=[\u3400-\u9fff])", "", clean)
    if _REFUSED.search(clean):
        return None
    clean = _RECEPTACLE.sub(" ", clean)
    found = [(match.lastgroup or "", match.group()) for match in _NOUN.finditer(clean)]
    bare = _NOUN.sub("⟨⟩", clean)
    colors = [_color(match) for match in _COLOR.finditer(bare)]
    categories = {c for c, pattern in _CATEGORY.items() if pattern.search(bare)} | {NOUNS[noun] for noun, _ in found}
    if len(categories) == len(CATEGORIES):
        return Goal("all")
    if len(categories) > 1 or len(set(colors)) > 1:
        return None
    nouns = {noun for noun, _ in found}
    if len(nouns) == 1:
        noun, word = found[0]
        return _named_or_group(noun, word, colors[0] if colors else "", bare)
    if colors:
        return None
    if categories:
        return Goal("category", categories.pop())
    return Goal("all") if _EVERYTHING.search(bare) else None


_parse_again = lru_cache(maxsize=8192)(parse)


def _color(match: re.Match[str]) -> str:
    word = match.group("en") or match.group("zh")
    return _COLOR_ALIASES.get(word, word)


def _named_or_group(noun: str, word: str, color: str, bare: str) -> Goal:
    """One noun was found: is it that item, or the category that bears its name?"""
    many = bool(_MANY_WORDS.search(bare)) or word.endswith("s")
    if word == "笔":
        many = many or not re.search(r"[一那这该][支只根个]", bare)
    if color == "" and many and noun in ("pen", "block"):
        return Goal("category", NOUNS[noun])
    return Goal("named", item=(color, noun))
