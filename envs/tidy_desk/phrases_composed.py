"""The phrase tables for composed goals, as ``envs.tidy_desk.phrases`` has them for the others.

Further slots of a template, and the fields that one choice fills:

* ``a``, ``b``, ``c``: ``{a}`` and so on, an item or a group
* ``told``: ``{told}``, one thing told by another; ``some``: ``{some}``, a number of things
* ``any``: ``{any}``, ``{are}``, ``{them}``, ``{do}``, ``{aside}``: what is looked for, without an article, and the
  words that agree with it; ``else``: ``{else}``, what is put away where there is none
"""

from __future__ import annotations

from envs.tidy_desk.phrases import Choice, Words, words

FIELDS: dict[str, Choice] = {
    "a": ("a",),
    "b": ("b",),
    "c": ("c",),
    "told": ("told",),
    "some": ("some",),
    "any": ("any", "are", "them", "do", "aside"),
    "else": ("else",),
}

# Groups that are one word, as they stand in a longer sentence: English with and without the article, and Chinese.
GROUPS: dict[str, dict[str, Words]] = {
    "en": {
        "pens": words(["the pens", "all the pens", "the writing tools"], ["every pen"]),
        "blocks": words(["the blocks", "all the blocks"], ["every block"]),
        "waste": words(["the trash", "the rubbish", "the garbage", "all the trash"], ["every bit of trash"]),
    },
    "zh": {
        "pens": words(["所有的笔", "笔", "所有笔"], ["每一支笔"]),
        "blocks": words(["所有的积木", "全部的积木", "所有积木"], ["每一块积木"]),
        "waste": words(["垃圾", "所有垃圾", "废物"], ["每一件垃圾"]),
    },
}
LOOKED_FOR: dict[str, dict[str, Words]] = {
    "en": {
        "pens": words(["pens|are|them|put|away", "writing tools|are|them|put|away"], ["pen|is|it|put|away"]),
        "blocks": words(["blocks|are|them|put|away", "toy blocks|are|them|put|away"], ["block|is|it|put|away"]),
        "waste": words(["rubbish|is|it|throw|away", "trash|is|it|throw|away", "garbage|is|it|throw|away"],
                       ["waste|is|it|throw|out"]),
    },
    "zh": {
        "pens": words(["笔||它们|收好|"], ["文具||它们|收好|"]),
        "blocks": words(["积木||它们|收好|", "积木块||它们|收好|"], ["方块||它们|收好|"]),
        "waste": words(["垃圾||它们|扔掉|", "废物||它们|扔掉|"], ["废品||它们|扔掉|"]),
    },
}  # fmt: skip

# How one thing is told by another, and how a number of things is said ({n}: singular or plural; {m}: what counts it).
RELATIONS: dict[str, dict[str, Words]] = {
    "en": {
        "nearest": words(["{x} nearest to {y}", "{x} closest to {y}", "{x} nearest {y}"],
                         ["{x} that is nearest to {y}"]),
        "farthest": words(["{x} farthest from {y}", "{x} furthest from {y}"], ["{x} most distant from {y}"]),
        "left": words(["{x} to the left of {y}", "{x} left of {y}"], ["{x} on the left of {y}"]),
        "right": words(["{x} to the right of {y}", "{x} right of {y}"], ["{x} on the right of {y}"]),
    },
    "zh": {
        "nearest": words(["离{y}最近的{x}", "离{y}最近的那{m}{x}"], ["最靠近{y}的{x}"]),
        "farthest": words(["离{y}最远的{x}", "离{y}最远的那{m}{x}"], ["距{y}最远的{x}"]),
        "left": words(["{y}左边的{x}", "{y}左边的那{m}{x}"], ["{y}左侧的{x}"]),
        "right": words(["{y}右边的{x}", "{y}右边的那{m}{x}"], ["{y}右侧的{x}"]),
    },
}  # fmt: skip
NUMBERS: dict[str, dict[int, Words]] = {
    "en": {
        1: words(["one of the {n}s", "only one of the {n}s"], ["just one of the {n}s"]),
        2: words(["two of the {n}s", "two {n}s", "only two of the {n}s"], ["just two {n}s", "any two {n}s"]),
        3: words(["three of the {n}s", "three {n}s"], ["any three {n}s"]),
    },
    "zh": {
        1: words(["其中一{m}{n}", "任意一{m}{n}"], ["随便一{m}{n}"]),
        2: words(["两{m}{n}", "其中两{m}{n}", "任意两{m}{n}"], ["随便两{m}{n}"]),
        3: words(["三{m}{n}", "其中三{m}{n}"], ["随便三{m}{n}"]),
    },
}  # fmt: skip

TEMPLATES: dict[str, dict[str, Words]] = {
    "en": {
        "two": words(
            ["{open}put {a} and {b} away{close}", "{open}put away {a} and {b}{close}",
             "{open}tidy {a} and {b} away{close}",
             "{open}put {a} away, and {b} too{close}", "{a} and {b} should be put away",
             "{open}put {a} and {b} where they belong{close}"],
            ["{open}clear away {a} together with {b}{close}", "I want {a} and {b} in their places",
             "{open}deal with {a} and also with {b}{close}", "both {a} and {b} have to go where they belong"],
        ),
        "three": words(
            ["{open}put {a}, {b} and {c} away{close}", "{open}put away {a}, {b} and {c}{close}",
             "{a}, {b} and {c} should be put away", "{open}tidy {a}, {b} and {c} away{close}"],
            ["{open}clear away {a}, {b} and also {c}{close}", "I want {a}, {b} and {c} in their places"],
        ),
        "except": words(
            ["{open}put everything away except {a}{close}", "{open}tidy everything but {a}{close}",
             "{open}put away everything except for {a}{close}", "everything except {a} should be put away",
             "{open}tidy the desk but leave {a} alone{close}"],
            ["apart from {a}, {open}put everything away{close}",
             "{open}put everything away and do not touch {a}{close}",
             "everything other than {a} has to go"],
        ),
        "order": words(
            ["first {a}, then {b}", "first {a} and then {b}", "{open}put {a} away first and then {b}{close}",
             "{open}first put {a} away, then {b}{close}", "{open}put away {a}, then {b}{close}"],
            ["{open}put {b} away, but only after {a}{close}", "{a} before {b}",
             "{open}start with {a} and go on with {b}{close}", "{open}deal with {a}, and with {b} afterwards{close}"],
        ),
        "relation": words(
            ["{open}put {told} away{close}", "{open}put away {told}{close}", "{told} should be put away",
             "{open}take {told} and put it where it belongs{close}"],
            ["{open}find {told} and put it away{close}", "only {told} has to go where it belongs",
             "I mean {told}, {open}put it away{close}"],
        ),
        "quantity": words(
            ["{open}put {some} away{close}", "{open}put away {some}{close}", "{open}tidy {some} away{close}"],
            ["{open}clear away {some} and leave the rest{close}", "{some} should go, no more"],
        ),
        "question": words(
            ["{are} there any {any}? then {do} {them} {aside}", "if there {are} any {any}, {do} {them} {aside}",
             "{are} there any {any}? if so, {do} {them} {aside}",
             "see whether there {are} any {any}, and if so {do} {them} {aside}"],
            ["should there be any {any}, {do} {them} {aside}", "any {any} left? then {do} {them} {aside}"],
        ),
        "choice": words(
            ["if there {are} any {any}, {do} {them} {aside}, otherwise put {else} away",
             "{are} there any {any}? then {do} {them} {aside}, if not, put {else} away",
             "{are} there any {any}? if so, {do} {them} {aside}, otherwise put away {else}"],
            ["should there be any {any}, {do} {them} {aside}, or else put {else} away",
             "any {any} left? then {do} {them} {aside}, and if there are none put {else} away"],
        ),
    },
    "zh": {
        "two": words(
            ["{open}把{a}和{b}放好{close}", "{open}把{a}和{b}都收好{close}", "{open}收拾{a}和{b}{close}",
             "{a}和{b}都要放好",
             "{open}把{a}和{b}放到该放的地方{close}"],
            ["{open}把{a}还有{b}一起归位{close}", "{a}跟{b}都要放到该放的地方", "我想把{a}和{b}都归位"],
        ),
        "three": words(
            ["{open}把{a}、{b}和{c}放好{close}", "{open}收拾{a}、{b}和{c}{close}", "{a}、{b}和{c}都要放好"],
            ["{open}把{a}、{b}还有{c}一起归位{close}", "我想把{a}、{b}和{c}都归位"],
        ),
        "except": words(
            ["{open}把除了{a}以外的东西都收好{close}", "除了{a}，{open}把其他东西都放好{close}",
             "{open}收拾桌面，但不要动{a}{close}", "除了{a}都收好"],
            ["{a}留着，{open}把其余的都归位{close}", "{open}把所有东西放好，{a}不要动{close}", "{a}之外的都要收起来"],
        ),
        "order": words(
            ["{open}先收拾{a}，再收拾{b}{close}", "{open}先把{a}放好，再把{b}放好{close}",
             "{open}先放好{a}，然后放好{b}{close}",
             "先{a}，再{b}"],
            ["{open}收拾完{a}以后再收拾{b}{close}", "{open}从{a}开始，接着是{b}{close}",
             "{a}在前，{b}在后，{open}都放好{close}"],
        ),
        "relation": words(
            ["{open}把{told}放好{close}", "{open}收拾{told}{close}", "{open}把{told}收好{close}", "{told}要放好"],
            ["{open}找到{told}，然后放好{close}", "只有{told}要归位", "我说的是{told}，{open}把它收起来{close}"],
        ),
        "quantity": words(
            ["{open}把{some}放好{close}", "{open}收拾{some}{close}", "{open}把{some}收好{close}"],
            ["{open}把{some}归位，其余的不用{close}", "{some}要放好，不要多"],
        ),
        "question": words(
            ["有{any}吗？有的话就把{them}{do}", "如果有{any}，就把{them}{do}", "看看有没有{any}，有就{do}",
             "桌上有{any}吗？有就把{them}{do}", "检查一下有没有{any}，有的话{do}"],
            ["要是桌上有{any}就{do}", "桌上还有{any}没有？有的话{do}"],
        ),
        "choice": words(
            ["如果有{any}，就把{them}{do}，没有就把{else}收好", "有{any}吗？有的话就{do}，没有就收拾{else}",
             "看看有没有{any}，有就{do}，没有的话就把{else}放好"],
            ["要是桌上有{any}就{do}，否则把{else}收好", "桌上还有{any}没有？有的话{do}，不然就收拾{else}"],
        ),
    },
}  # fmt: skip
