"""What asks to see the desk as it will be: "show me the desk after the pens are put away"."""

from __future__ import annotations

import numpy as np

import envs.tidy_desk.instructions as instructions
from envs.tidy_desk.goals import LANGUAGES, Goal
from envs.tidy_desk.phrases import Words, words

# Around an instruction, whatever it asks for.
_AROUND = {
    "en": words(
        ["show me what comes of this: {do}", "{do}, and show me the result", "imagine the desk after this: {do}"],
        ["how will it look? {do}", "picture the desk once this is done: {do}"],
    ),
    "zh": words(
        ["{do}，给我看看结果", "想象一下做完之后的桌面：{do}", "给我看看这样做之后的样子：{do}"],
        ["会变成什么样？{do}", "画出做完之后的桌面：{do}"],
    ),
}
# A state in place of a deed. Slots as in ``envs.tidy_desk.phrases``.
_PUT = {
    "en": words(
        [
            "show me the desk with {item} in {rec}",
            "the desk after {item} {is} put in {rec}",
            "{item} in {rec}",
            "what the desk looks like when {item} {is} in {rec}",
        ],
        ["the desk as it is once {item} {is} in {rec}", "let me see {item} in {rec}"],
    ),
    "zh": words(
        ["{item}在{rec}里的桌面", "给我看看{item}放进{rec}之后的桌面", "{item}在{rec}里"],
        ["让我看看{item}在{rec}里的样子", "{item}收进{rec}以后的桌面"],
    ),
}
_AWAY = {
    "en": words(
        ["show me the desk after {item} {is} put away", "the desk when {item} {is} gone", "the desk without {item}"],
        ["show me the desk once {item} {is} cleared away", "what does the desk look like after {item} {is} put away?"],
    ),
    "zh": words(
        ["给我看看{item}收好之后的桌面", "{item}收拾好以后的桌面", "没有{item}的桌面"],
        ["{item}收好后桌子是什么样的？", "让我看看{item}收起来之后的桌面"],
    ),
}
_ALL = {
    "en": words(
        ["the tidy desk", "show me {desk} when it is tidy", "{desk} with everything in its place"],
        ["what does {desk} look like when it is tidy?", "show me {desk} after it is tidied"],
    ),
    "zh": words(
        ["整洁的桌面", "给我看看整理好的{desk}", "所有东西都归位之后的{desk}"],
        ["{desk}收拾好以后是什么样的？", "让我看看整齐的{desk}"],
    ),
}


def foreseen(goal: Goal, split: str, rng: np.random.Generator) -> list[str]:
    """See ``vla.contracts.captions.Foresees``: in each language an instruction, and a sentence that asks to see."""
    found = []
    for language in LANGUAGES:
        found.append(instructions.write(goal, language, split, rng))
        found.append(_view(goal, language, split, rng))
    return found


def _view(goal: Goal, language: str, split: str, rng: np.random.Generator) -> str:
    do = instructions.write(goal, language, split, rng).rstrip(".。?？")
    do = do if do.startswith(("I ", "I'")) else do[:1].lower() + do[1:]
    tables = {"composed": [_AROUND], "all": [_AROUND, _ALL]}.get(goal.kind, [_AROUND, _PUT, _AWAY])
    train, new = (
        tuple((form.replace("{do}", do),) for table in tables for (form,) in getattr(table[language], part))
        for part in ("train", "new")
    )
    slots = {} if goal.kind == "composed" else instructions.grammar(goal, language, split)[1]
    mode = "train" if split == "train" else "template"
    return instructions.finish(instructions.draw(Words(train, new), slots, mode, rng), language, rng)
