"""More of what people say than the grammar writes, for training alone: ``widen`` is a recipe's ``data.paraphrase``.

Half of the sentences stay the grammar's own. In the others things and colours have other names, out of
``envs.tidy_desk.lexicon``; the request may have no verb or another order; people chat before and after it; and now and
then a finger slips. Nothing here is what evaluation keeps for itself: not the held-out phrases, nor the small talk of
``envs.tidy_desk.rewording``.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

import envs.tidy_desk.phrases as phrases
from envs.tidy_desk.goals import COLORS, LANGUAGES, NOUNS, Goal, language_of
from envs.tidy_desk.instructions import by_color, draw, finish, grammar, item_words, parse_again, pick, write
from envs.tidy_desk.lexicon import Names, names
from envs.tidy_desk.phrases import Words

_PLAIN, _OTHER_NAME, _BARE, _CHATTER, _SLIP = 0.5, 0.5, 0.35, 0.4, 0.1  # how often

# A request without a verb, or in another order. No opener goes with them.
_BARE_ONES: dict[str, tuple[str, ...]] = {
    "en": (
        "{item}, {rec}", "{item}, {rec} please", "{item} - {rec}", "{item} into {rec} please", "{item} in {rec}",
        "{item}: {rec}", "{rec}: {item}", "{rec} for {item}", "{rec}, {item}", "into {rec} with {item}",
        "{item}, {put} {it} {in} {rec}", "into {rec} {goes} {item}", "{put} {in} {rec} {item}", "{item} -> {rec}",
        "{item} please", "{item}, away please", "away with {item}", "just {item}", "{item}, you know where",
    ),
    "zh": (
        "{item}，{rec}", "{item}，放{rec}", "{item}→{rec}", "{item}：{rec}", "{rec}：{item}", "{rec}，{item}",
        "{item}，{put}{rec}{in}", "{item}{put}{rec}{in}", "{put}{rec}{in}，{item}", "{rec}里，{item}",
        "{item}，你知道放哪儿", "就{item}", "{item}，拜托", "{item}进{rec}",
    ),
}  # fmt: skip
_BARE_ALL: dict[str, tuple[str, ...]] = {
    "en": (
        "everything away please", "{desk}, please", "{desk}: {tidy} it", "{desk}, {tidy} it", "all of it, away",
        "everything in its own place", "a clear desk please", "away with all of it",
    ),
    "zh": ("{desk}，{tidy}", "{desk}，拜托", "东西全归位", "全部放好", "{desk}上的，都归位", "都放回去", "通通收好"),
}  # fmt: skip

# What people say around a request: to whom, why, and how they part. It asks for nothing, and names nothing here.
_CALLS: dict[str, tuple[str, ...]] = {
    "en": (
        "hey robot", "robot", "hello", "okay", "right then", "excuse me", "hey buddy", "listen", "so", "well", "um",
        "my friend", "oh", "one more thing", "quick question", "good evening", "hi again", "alright", "yo",
    ),
    "zh": ("嘿机器人", "喂", "那个", "不好意思", "小家伙", "你好啊", "好了", "嗯", "哎", "伙计", "下午好", "对了"),
}  # fmt: skip
_REASONS: dict[str, tuple[str, ...]] = {
    "en": (
        "when you have a minute", "if it is no trouble", "before I forget", "since you are here", "as soon as you can",
        "my hands are full", "I am running late", "somebody is at the door", "the meeting starts soon", "sorry to ask",
        "this has bothered me all day", "I have a favour to ask", "we are nearly done", "mum is on her way", "you know",
        "I can't find my glasses", "it looks awful in here", "the lecture is over", "if you don't mind",
    ),
    "zh": (
        "有空的话", "趁你在这儿", "我手上没空", "马上要开会了", "外面下雨了", "突然想起来", "还有件事", "老师快到了",
        "要是方便", "不嫌麻烦的话", "我赶时间", "这里看着真难受", "下课了", "我找不到眼镜了", "我想了想",
    ),
}  # fmt: skip
_PARTINGS: dict[str, tuple[str, ...]] = {
    "en": (
        "thank you", "cheers", "that is all", "no rush", "as quick as you can", "be careful", "you are the best",
        "bless you", "if you can", "I owe you one", "will you", "ok", "right away", "there's a good robot",
        "and then have a rest", "much appreciated", "it would be great", "before lunch", "for me", "when you are ready",
    ),
    "zh": (
        "多谢", "感谢", "拜托了", "不着急", "快一点", "就这样", "行吗", "可以吗", "谢啦", "小心点", "等你好消息",
        "越快越好", "好不好", "麻烦了", "你最好了",
    ),
}  # fmt: skip
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_DROPPED = "把将的请里，"  # what people leave out of a Chinese sentence when they type in haste


def widen(text: str, rng: np.random.Generator) -> str:
    """Another sentence, in either language, that asks for the same as ``text``; what isn't understood is chatted about.

    Raises VlaError where the packages with the words are missing.
    """
    goal, color, language = parse_again(text), _colors_asked_for().get(text, ""), pick(LANGUAGES, rng)
    further = names()[language]
    if rng.random() < _PLAIN:
        return write(goal, language, "train", rng) if goal else by_color(color, language, rng) if color else text
    if goal is not None:
        sentence = _request(goal, language, further, rng)
    elif color:
        sentence = pick(phrases.BY_COLOR[language], rng).format(c=_color_word(color, language, further, rng))
    else:
        sentence, language = text, language_of(text)
    return finish(_slipped(_amid_chatter(sentence, language, rng), language, rng), language, rng)


@lru_cache(maxsize=1)
def _colors_asked_for() -> dict[str, str]:
    """The sentences of ``by_color``, and the colour in each."""
    words = [(color, language) for language in LANGUAGES for color in COLORS]
    return {
        form.format(c=phrases.COLOR_WORDS[language][color]): color
        for color, language in words
        for form in phrases.BY_COLOR[language]
    }


def _request(goal: Goal, language: str, further: Names, rng: np.random.Generator) -> str:
    templates, slots = grammar(goal, language, "train")
    if goal.kind == "composed":
        return draw(templates, slots, "train", rng)
    if goal.kind != "all":
        slots["item"] = _item(goal, language, further, rng)
    if goal.category == "waste" and rng.random() < _OTHER_NAME:
        the = "the " if language == "en" else ""
        slots["rec"] = Words(tuple((f"{the}{word}",) for word in further["waste bin"]))
    bare = rng.random() < _BARE
    ones = (_BARE_ALL if goal.kind == "all" else _BARE_ONES)[language]
    return draw(Words(tuple((one,) for one in ones)) if bare else templates, slots, "train", rng)


def _item(goal: Goal, language: str, further: Names, rng: np.random.Generator) -> Words:
    """What the item or the group is called this time."""
    if goal.item is not None:
        color, noun = goal.item
        others = further[noun] if rng.random() < _OTHER_NAME else ()
        called = pick(others or phrases.NOUN_WORDS[language][noun], rng)
        return item_words(goal.item, language, _color_word(color, language, further, rng), (called,))
    nouns = [noun for noun, category in NOUNS.items() if category == goal.category]
    first, second = (str(noun) for noun in rng.permutation(nouns))
    named = [pick(further[noun] or phrases.NOUN_WORDS[language][noun], rng) for noun in (first, second)]
    if language == "zh":
        kinds = [f"{named[0]}和{named[1]}", *(f"所有{word}" for word in further[goal.category])]
        return Words(tuple((kind, "它们", "", "", "") for kind in kinds))
    many = "s" if goal.category == "pens" else ""
    kinds = [f"the {named[0]}s and the {named[1]}s", *(f"all the {word}{many}" for word in further[goal.category])]
    return Words(tuple((kind, "them", "go", "belong", "are") for kind in kinds))


def _color_word(color: str, language: str, further: Names, rng: np.random.Generator) -> str:
    """What a colour is called this time; in Chinese without 色, which the sentence adds."""
    if not color or not further[color] or rng.random() >= _OTHER_NAME:
        return phrases.COLOR_WORDS[language].get(color, "")
    return pick(further[color], rng).removesuffix("色")


def _amid_chatter(sentence: str, language: str, rng: np.random.Generator) -> str:
    """The sentence, and now and then something before it and something after it."""
    stop = "，" if language == "zh" else ", "
    before = [pick(words[language], rng) for words in (_CALLS, _REASONS) if rng.random() < _CHATTER]
    after = [pick(_PARTINGS[language], rng)] if rng.random() < _CHATTER else []
    if after and sentence[-1] in "?？":
        return stop.join([*before, sentence]) + ("" if language == "zh" else " ") + after[0]
    return stop.join([*before, sentence, *after])


def _slipped(sentence: str, language: str, rng: np.random.Generator) -> str:
    """Now and then a slip: in English of one letter in a long word, in Chinese of a small word that is left out."""
    if rng.random() >= _SLIP:
        return sentence
    if language == "zh":
        places = [i for i, letter in enumerate(sentence) if letter in _DROPPED]
        at = pick(places, rng) if places else len(sentence)
        return sentence[:at] + sentence[at + 1 :]
    words = list(re.finditer(r"[a-z]{5,}", sentence))
    if not words:
        return sentence
    at = (word := pick(words, rng)).start() + int(rng.integers(1, len(word.group()) - 1))
    row = next(keys for keys in _KEYS if sentence[at] in keys)
    beside = row[max(0, row.index(sentence[at]) - 1)]
    slips = (
        sentence[at + 1] + sentence[at],
        sentence[at + 1],
        sentence[at] * 2 + sentence[at + 1],
        beside + sentence[at + 1],
    )
    return sentence[:at] + pick(slips, rng) + sentence[at + 2 :]
