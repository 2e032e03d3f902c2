"""How the desk is asked: a grammar that writes English and Chinese instructions.

``write`` says a goal in one of many ways; ``envs.tidy_desk.reading.parse`` reads every sentence that ``write`` can
give, and other sentences that use the same words. The phrases themselves are in ``envs.tidy_desk.phrases``.

Training and evaluation never share a sentence (``split="train"`` and ``split="heldout"``). A held-out sentence has a
template that training never uses, or one phrase that training never uses, or an opener and a verb that training never
joins.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

import envs.tidy_desk.phrases as phrases
import envs.tidy_desk.phrases_composed as composed
from envs.tidy_desk.goals import (
    LANGUAGES,
    NOUNS,
    SPLITS,
    Goal,
    Thing,
)
from envs.tidy_desk.phrases import Choice, Words
from envs.tidy_desk.reading import parse
from vla.contracts import VlaError

_FIELDS = phrases.FIELDS | composed.FIELDS


def write(goal: Goal, language: str, split: str, rng: np.random.Generator) -> str:
    """Say ``goal`` in a random way.

    Args:
        goal: what is asked for.
        language: "en" or "zh".
        split: "train" or "heldout"; the two never give the same sentence.
        rng: the source of randomness; the same state gives the same sentence.
    """
    templates, slots = grammar(goal, language, split)
    mode = "train" if split == "train" else str(rng.choice(["template", "word", "pair"], p=[0.5, 0.3, 0.2]))
    if mode == "pair" and not any("{open}" in template for (template,) in templates.train):
        mode = "template"
    return finish(draw(templates, slots, mode, rng), language, rng)


def draw(templates: Words, slots: dict[str, Words], mode: str, rng: np.random.Generator) -> str:
    """A sentence out of a grammar, less its capital and full stop.

    Args:
        templates, slots: as ``grammar`` gives them.
        mode: ``train``, or what is new about the sentence: its ``template``, a ``word``, or a ``pair`` of phrases.
        rng: the source of randomness.
    """
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
        return _fill(template, choices)


def all_sentences(goal: Goal, language: str, split: str) -> Iterator[str]:
    """Every sentence that ``write`` can give for ``goal``, less its capitals and full stops; some come twice."""
    templates, slots = grammar(goal, language, split)
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


def by_color(color: str, language: str, rng: np.random.Generator) -> str:
    """A sentence for the one thing of a colour that leaves open what it is, and so where it goes.

    For stills alone: ``parse`` does not understand it.
    """
    forms = phrases.BY_COLOR[language]
    return forms[int(rng.integers(len(forms)))].format(c=phrases.COLOR_WORDS[language][color])


def paraphrase(text: str, rng: np.random.Generator) -> str:
    """Another training sentence, in either language, that asks for the same; ``text`` itself if it isn't understood."""
    goal = parse_again(text)
    return text if goal is None else write(goal, pick(LANGUAGES, rng), "train", rng)


def pick[T](among: Sequence[T], rng: np.random.Generator) -> T:
    """One of them, each as likely."""
    return among[int(rng.integers(len(among)))]


parse_again = lru_cache(maxsize=8192)(parse)


def grammar(goal: Goal, language: str, split: str) -> tuple[Words, dict[str, Words]]:
    """The templates and the phrases for each slot that can say ``goal``."""
    if language not in LANGUAGES or split not in SPLITS:
        raise VlaError(f"no sentences for language '{language}' and split '{split}'; known: {LANGUAGES} and {SPLITS}")
    slots = {"open": phrases.OPENERS[language]}
    if goal.kind == "composed":
        return _composed_grammar(goal, language, slots)
    if goal.kind == "all":
        slots |= {"tidy": phrases.TIDY_WORDS[language], "desk": phrases.DESK_WORDS[language]}
        return phrases.ALL_TEMPLATES[language], slots
    slots |= {
        "put": phrases.PUT_WORDS[language][goal.category],
        "rec": phrases.RECEPTACLE_WORDS[language][goal.category],
        "item": _group_words(goal.category, language) if goal.item is None else item_words(goal.item, language),
    }
    move, away = phrases.MOVE_TEMPLATES[language], phrases.AWAY_TEMPLATES[language][goal.category]
    return Words(move.train + away.train, move.new + away.new), slots


def _composed_grammar(goal: Goal, language: str, slots: dict[str, Words]) -> tuple[Words, dict[str, Words]]:
    """See ``grammar``."""
    sort, things, templates = goal.category, goal.things, composed.TEMPLATES[language]
    if sort == "place":
        move = phrases.MOVE_TEMPLATES[language]
        put, rec = phrases.PUT_WORDS[language][goal.place], phrases.RECEPTACLE_WORDS[language][goal.place]
        return move, slots | {"put": put, "rec": rec, "item": item_words(things[0], language)}
    if sort == "relation":
        told = _told(goal, language)
        return templates[sort], slots | {"told": told}
    if sort == "quantity":
        color, noun = things[0]
        said = phrases.COLOR_WORDS[language].get(color, "")
        counted = f"{said} {phrases.NOUN_WORDS[language][noun][0]}".strip() if language == "en" else ""
        counted = counted or (f"{said}色" if said else "") + phrases.NOUN_WORDS[language][noun][0]
        some = composed.NUMBERS[language][goal.count]
        return templates[sort], slots | {"some": _each(some, lambda t: t.format(n=counted, m=phrases.MEASURES[noun]))}
    if sort == "question":
        looked_for = _looked_for(things[0], language)
        if len(things) == 1:
            return templates[sort], slots | {"any": looked_for}
        return templates["choice"], slots | {"any": looked_for, "else": _said(things[1], language)}
    named = dict(zip("abc", (_said(thing, language) for thing in things), strict=False))
    return templates[{2: "two", 3: "three"}[len(things)] if sort == "several" else sort], slots | named


def _looked_for(thing: Thing, language: str) -> Words:
    """The ways to name what a question asks after."""
    color, noun = thing
    if noun not in NOUNS:
        return composed.LOOKED_FOR[language][noun]
    said, word = phrases.COLOR_WORDS[language].get(color, ""), phrases.NOUN_WORDS[language][noun][0]
    waste = NOUNS[noun] == "waste"
    if language == "zh":
        return Words((((f"{said}色的" if said else "") + word, "", "它们", "扔掉" if waste else "收好", ""),))
    return Words(((f"{said} {word}s".strip(), "are", "them", "throw" if waste else "put", "away"),))


def _told(goal: Goal, language: str) -> Words:
    """The ways to tell a thing by another, or by a receptacle."""
    noun = goal.things[0][1]
    called = [f"the {word}" if language == "en" else word for word in phrases.NOUN_WORDS[language][noun]]
    if goal.place:
        marks = [mark for (mark,) in phrases.RECEPTACLE_WORDS[language][goal.place].train if mark != "the trash"]
    else:
        marks = [f"the {w}" if language == "en" else w for w in phrases.NOUN_WORDS[language][goal.things[1][1]]]
    forms = composed.RELATIONS[language][goal.relation]

    def all_ways(some: tuple[Choice, ...]) -> tuple[Choice, ...]:
        ways = itertools.product(some, called, marks)
        return tuple((form.format(x=x, y=y, m=phrases.MEASURES[noun]),) for (form,), x, y in ways)

    return Words(all_ways(forms.train), all_ways(forms.new))


def _said(thing: Thing, language: str) -> Words:
    """The ways to name a thing within a longer sentence."""
    if thing[1] not in NOUNS:
        return composed.GROUPS[language][thing[1]]
    named = item_words(thing, language)
    return Words(tuple(choice[:1] for choice in named.train), tuple(choice[:1] for choice in named.new))


def _each(some: Words, change: Callable[[str], str]) -> Words:
    """The same choices of one field, changed."""
    return Words(tuple((change(one),) for (one,) in some.train), tuple((change(one),) for (one,) in some.new))


def _group_words(category: str, language: str) -> Words:
    """The ways to name a category, each with the words that agree with it."""
    words = phrases.GROUPS[language][category]
    return Words(tuple(_agree(w[0], language) for w in words.train), tuple(_agree(w[0], language) for w in words.new))


def item_words(item: tuple[str, str], language: str, color_word: str = "", nouns: tuple[str, ...] = ()) -> Words:
    """The ways to name an item, each with the words that agree with it.

    Args:
        item: its colour, which may be "", and its noun.
        language: "en" or "zh".
        color_word, nouns: what they are called instead of as usual.
    """
    color, noun = item
    forms = phrases.ITEM_FORMS[language][0 if color else 1]
    color_word, measure = color_word or phrases.COLOR_WORDS[language].get(color, ""), phrases.MEASURES[noun]

    def named(group: tuple[Choice, ...]) -> tuple[Choice, ...]:
        pairs = itertools.product(nouns or phrases.NOUN_WORDS[language][noun], group)
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
    return [name for name in slots if "{" + _FIELDS[name][0] + "}" in template]


def _fill(template: str, choices: dict[str, Choice]) -> str:
    fields = {"open": "", "close": ""}
    for name, choice in choices.items():
        fields.update(zip(_FIELDS[name], choice, strict=True))
    return template.format(**fields)


def _held_pair(template: int, picked: dict[str, int]) -> bool:
    """Whether training keeps away from this opener with this verb (or this template, where no verb is chosen)."""
    return "open" in picked and (picked["open"] + picked.get("put", picked.get("tidy", template))) % 5 == 4


def finish(sentence: str, language: str, rng: np.random.Generator) -> str:
    """Now and then a capital letter and a full stop, as people type."""
    if language == "en" and rng.random() < 0.25:
        sentence = sentence[0].upper() + sentence[1:]
    if sentence[-1] not in "?？" and rng.random() < 0.25:
        sentence += "。" if language == "zh" else "."
    return sentence
