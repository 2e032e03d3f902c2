"""The perturbation ``language``: the same request in other words."""

from __future__ import annotations

import numpy as np

from envs.tidy_desk.goals import LANGUAGES, Goal
from envs.tidy_desk.instructions import write

# What people say around a request. It names nothing that lies on a desk, and asks for nothing.
_BEFORE = {
    "en": (
        "Good morning, sorry to bother you again. ",
        "Hi there, it has been a long day. ",
        "I have visitors in ten minutes, so listen: ",
        "My sister calls at noon, and before that ",
    ),
    "zh": (
        "早上好，又来麻烦你了。",
        "你好，今天真够忙的。",
        "十分钟后有客人要来，听我说：",
        "我中午要接个电话，在那之前",
    ),
}
_AFTER = {
    "en": (" I will be back in five minutes.", " Thanks a lot, take your time.", " That would really help me."),
    "zh": ("我五分钟后回来。", "辛苦了，慢慢来。", "这样就帮了我大忙了。"),
}


def reword(goal: Goal, said: str, language: str, strength: str, rng: np.random.Generator) -> tuple[str, str]:
    """Say ``goal`` in a held-out sentence that is not ``said``.

    Args:
        goal: what is asked for; it stays the same.
        said: the sentence that is replaced.
        language: its language, ``en`` or ``zh``.
        strength: ``mild`` keeps the language, ``medium`` changes it, ``strong`` also adds small talk around it.
        rng: the source of randomness; the same state gives the same sentence.

    Returns:
        the sentence and its language.
    """
    if strength != "mild":
        language = next(other for other in LANGUAGES if other != language)
    sentence = write(goal, language, "heldout", rng)
    while sentence == said:
        sentence = write(goal, language, "heldout", rng)
    if strength != "strong":
        return sentence, language
    end = "" if sentence[-1] in ".?。？" else "。" if language == "zh" else "."
    before, after = (pool[language][int(rng.integers(len(pool[language])))] for pool in (_BEFORE, _AFTER))
    return before + sentence + end + after, language
