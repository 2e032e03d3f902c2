"""The phrase tables behind ``envs.tidy_desk.instructions``, in English ("en") and Chinese ("zh").

A sentence is a template whose slots are filled with phrases. Each table is split into what training sees
(``train``) and what is kept for evaluation (``new``). Colours, item names and category names all occur in
training; what is new in evaluation is the structure of a sentence, a verb, an opener or a receptacle's name.

Slots of a template, and the fields that one choice fills:

* ``open``: ``{open}`` and ``{close}``, what is said before and after a request
* ``put``: ``{put}`` and ``{in}``, a verb and its preposition (in Chinese, what follows the receptacle)
* ``rec``: ``{rec}``, the receptacle
* ``item``: ``{item}``, ``{it}``, ``{goes}``, ``{belongs}``, ``{is}``: the item or the group, and words that
  agree with it
* ``tidy``: ``{tidy}``, a verb that takes the desk; ``desk``: ``{desk}``
"""

from __future__ import annotations

from dataclasses import dataclass

Choice = tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """The choices for one slot: those that training writes, and those kept for evaluation."""

    train: tuple[Choice, ...]
    new: tuple[Choice, ...] = ()


def words(train: list[str], new: list[str] | None = None) -> Words:
    """The choices for a slot: each line is split at ``|`` into the fields of one choice."""
    return Words(tuple(tuple(w.split("|")) for w in train), tuple(tuple(w.split("|")) for w in new or []))


FIELDS: dict[str, Choice] = {
    "open": ("open", "close"),
    "put": ("put", "in"),
    "rec": ("rec",),
    "item": ("item", "it", "goes", "belongs", "is"),
    "tidy": ("tidy",),
    "desk": ("desk",),
}

COLOR_WORDS: dict[str, dict[str, str]] = {
    "en": {c: c for c in ("red", "green", "blue", "yellow", "orange", "purple", "white", "black", "pink")},
    "zh": {
        "red": "红",
        "green": "绿",
        "blue": "蓝",
        "yellow": "黄",
        "orange": "橙",
        "purple": "紫",
        "white": "白",
        "black": "黑",
        "pink": "粉",
    },
}  # fmt: skip

NOUN_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "pen": ("pen", "ballpoint pen", "ballpoint"),
        "marker": ("marker", "felt-tip", "marker pen"),
        "eraser": ("eraser", "rubber", "pencil eraser"),
        "block": ("block", "toy block", "building block"),
        "paper_ball": ("paper ball", "crumpled paper", "paper wad", "ball of paper"),
        "bottle_cap": ("bottle cap", "bottle top", "bottle lid"),
    },
    "zh": {
        "pen": ("笔", "圆珠笔", "签字笔"),
        "marker": ("记号笔", "马克笔"),
        "eraser": ("橡皮", "橡皮擦"),
        "block": ("积木", "方块", "积木块"),
        "paper_ball": ("纸团", "废纸团", "纸球"),
        "bottle_cap": ("瓶盖", "盖子", "瓶盖子"),
    },
}

# What counts one thing of a kind in Chinese: 那支笔, 那块橡皮, 那个瓶盖.
MEASURES: dict[str, str] = {
    "pen": "支",
    "marker": "支",
    "eraser": "块",
    "block": "块",
    "paper_ball": "个",
    "bottle_cap": "个",
}

# What asks for one thing by its colour alone.
BY_COLOR: dict[str, tuple[str, ...]] = {
    "en": (
        "put the {c} thing where it belongs",
        "put the {c} thing away",
        "take the {c} one and put it in its place",
        "tidy away the {c} item",
    ),
    "zh": ("把{c}色的东西放好", "把{c}色的那个放到该放的地方", "收拾{c}色的东西", "把{c}色那个归位"),
}

# How a colour and a noun make an item: forms with a colour, then forms without.
ITEM_FORMS: dict[str, tuple[Words, Words]] = {
    "en": (
        words(
            ["the {c} {n}", "that {c} {n}", "the {c} {n} on the desk"],
            ["the {n} that is {c}", "the {c}-coloured {n}"],
        ),
        words(["the {n}", "that {n}", "the {n} on the desk"], ["the {n} lying there"]),
    ),
    "zh": (
        words(
            ["{c}色的{n}", "{c}色{n}", "{c}{n}", "那{m}{c}色的{n}", "桌上的{c}色{n}"],
            ["这{m}{c}{n}", "{c}颜色的{n}"],
        ),
        words(["{n}", "那{m}{n}", "桌上的那{m}{n}"], ["躺在那儿的那{m}{n}", "这{m}{n}"]),
    ),
}  # fmt: skip

GROUPS: dict[str, dict[str, Words]] = {
    "en": {
        "pens": words(
            ["the pens", "all the pens", "the pens and markers", "the markers and pens", "all the pens and markers",
             "the writing tools", "all writing tools"],
            ["every pen and marker", "each of the pens", "any pens and markers"],
        ),
        "blocks": words(
            ["the blocks and erasers", "the erasers and blocks", "all the blocks and erasers", "the blocks",
             "all the erasers and blocks", "all the blocks"],
            ["every block and eraser", "each of the blocks and erasers", "any blocks and erasers"],
        ),
        "waste": words(
            ["the trash", "all the trash", "the rubbish", "the garbage", "the paper balls and bottle caps",
             "all the waste", "the bottle caps and paper balls"],
            ["every piece of trash", "any rubbish", "each paper ball and bottle cap"],
        ),
    },
    "zh": {
        "pens": words(
            ["所有的笔", "笔", "全部的笔", "所有笔", "桌上的笔", "圆珠笔和马克笔", "笔和记号笔"],
            ["每一支笔", "各种笔", "桌上全部的笔"],
        ),
        "blocks": words(
            ["积木和橡皮", "所有积木和橡皮", "橡皮和积木", "全部的方块和橡皮", "桌上的橡皮和积木", "所有的积木"],
            ["每一块积木和橡皮", "桌上全部的积木和橡皮"],
        ),
        "waste": words(
            ["垃圾", "所有垃圾", "桌上的垃圾", "全部的垃圾", "纸团和瓶盖", "所有的纸团和瓶盖", "废物"],
            ["每一件垃圾", "各种垃圾", "桌上全部的纸团和瓶盖"],
        ),
    },
}  # fmt: skip

RECEPTACLE_WORDS: dict[str, dict[str, Words]] = {
    "en": {
        "pens": words(["the tray", "the pen tray", "the pen holder"], ["the tray for pens", "the stationery tray"]),
        "blocks": words(["the box", "the block box", "the box for blocks"], ["the toy box", "the block container"]),
        "waste": words(
            ["the bin", "the waste bin", "the trash can", "the trash", "the rubbish bin"],
            ["the wastebasket", "the garbage can"],
        ),
    },
    "zh": {
        "pens": words(["笔盘", "托盘", "笔托"], ["放笔的盘子", "文具盘"]),
        "blocks": words(["积木盒", "盒子", "方块盒"], ["装积木的盒子", "积木箱"]),
        "waste": words(["垃圾桶", "垃圾箱", "废纸篓"], ["废物桶", "垃圾筐"]),
    },
}

_PUT_EN = words(
    ["put|in", "place|in", "put|into", "move|to", "drop|into", "return|to"], ["set|inside", "lay|in", "stow|in"]
)
_PUT_ZH = words(["放进|", "放到|里", "放入|", "收进|", "移到|里", "放回|"], ["摆进|", "装进|", "送到|里面"])
PUT_WORDS: dict[str, dict[str, Words]] = {
    "en": {
        "pens": _PUT_EN,
        "blocks": _PUT_EN,
        "waste": words(
            ["throw|in", "put|in", "toss|into", "drop|into", "move|to", "throw|into"], ["chuck|in", "dump|in"]
        ),
    },
    "zh": {
        "pens": _PUT_ZH,
        "blocks": _PUT_ZH,
        "waste": words(["扔进|", "丢进|", "放进|", "扔到|里", "投进|", "丢到|里"], ["抛进|", "送到|里面"]),
    },
}  # fmt: skip

OPENERS: dict[str, Words] = {
    "en": words(
        ["|", "please |", "could you |?", "can you please |?", "|, please", "robot, |", "now |",
         "I'd like you to |", "hey, |"],
        ["kindly |", "go ahead and |", "next, |", "I need you to |", "|, thanks", "would you |?"],
    ),
    "zh": words(
        ["|", "请|", "请你|", "帮我|", "请帮我|", "|吧", "机器人，|", "现在|", "麻烦你|", "|，好吗？"],
        ["劳驾|", "接下来|", "帮忙|", "辛苦你|", "|，谢谢"],
    ),
}  # fmt: skip

# Templates that name an item or a group. "{open}" stands only before a verb that can follow "could you".
MOVE_TEMPLATES: dict[str, Words] = {
    "en": words(
        [
            "{open}{put} {item} {in} {rec}{close}",
            "{open}pick up {item} and {put} {it} {in} {rec}{close}",
            "{open}take {item} and {put} {it} {in} {rec}{close}",
            "{open}grab {item}, then {put} {it} {in} {rec}{close}",
            "{item} {goes} in {rec}",
            "{item} {belongs} in {rec}",
            "{item} should go into {rec}",
            "{open}move {item} over to {rec}{close}",
        ],
        [
            "{open}find {item} and {put} {it} {in} {rec}{close}",
            "the place for {item} is {rec}",
            "{open}bring {item} to {rec}{close}",
            "I want {item} in {rec}",
            "{open}make sure {item} {goes} into {rec}{close}",
            "{open}get hold of {item}, lift {it} and {put} {it} {in} {rec}{close}",
            "{rec} is where {item} {belongs}",
            "do you see {item}? {put} {it} {in} {rec}",
            "your job is to {put} {item} {in} {rec}",
        ],
    ),
    "zh": words(
        [
            "{open}把{item}{put}{rec}{in}{close}",
            "{open}将{item}{put}{rec}{in}{close}",
            "{open}拿起{item}，{put}{rec}{in}{close}",
            "{open}拿起{item}，把{it}{put}{rec}{in}{close}",
            "{item}应该{put}{rec}{in}",
            "{item}要{put}{rec}{in}",
            "{open}抓起{item}{put}{rec}{in}{close}",
        ],
        [
            "{open}找到{item}，然后{put}{rec}{in}{close}",
            "{item}的位置是{rec}",
            "{item}请{put}{rec}{in}",
            "我想把{item}{put}{rec}{in}",
            "你的任务是把{item}{put}{rec}{in}",
            "看到{item}了吗？把{it}{put}{rec}{in}",
            "{open}先拿起{item}，再{put}{rec}{in}{close}",
            "{rec}才是{item}该去的地方",
        ],
    ),
}

# Templates without a receptacle, by category.
AWAY_TEMPLATES: dict[str, dict[str, Words]] = {
    "en": {
        "pens": words(
            ["{open}put {item} away{close}", "{open}tidy {item} away{close}"],
            ["{open}clear away {item}{close}"],
        ),
        "blocks": words(
            ["{open}put {item} away{close}", "{open}tidy {item} away{close}"],
            ["{open}clear away {item}{close}"],
        ),
        "waste": words(
            ["{open}throw {item} away{close}", "{open}get rid of {item}{close}"],
            ["{open}throw out {item}{close}", "{open}clear away {item}{close}"],
        ),
    },
    "zh": {
        "pens": words(["{open}把{item}收好{close}", "{open}收拾{item}{close}"], ["{open}把{item}收起来{close}"]),
        "blocks": words(["{open}把{item}收好{close}", "{open}收拾{item}{close}"], ["{open}把{item}收起来{close}"]),
        "waste": words(["{open}把{item}扔掉{close}", "{open}丢掉{item}{close}"], ["{open}把{item}清理掉{close}"]),
    },
}  # fmt: skip

TIDY_WORDS: dict[str, Words] = {
    "en": words(
        ["tidy", "tidy up", "clean up", "clear", "organise", "clean"], ["sort out", "declutter", "straighten up"]
    ),
    "zh": words(["整理", "收拾", "清理", "打扫", "整理好", "收拾一下"], ["清理干净", "归置一下"]),
}

DESK_WORDS: dict[str, Words] = {
    "en": words(
        ["the desk", "the table", "my desk", "this desk", "the whole desk"], ["the workspace", "this messy desk"]
    ),
    "zh": words(["桌面", "桌子", "书桌", "整个桌面", "这张桌子"], ["工作台", "我的桌子", "这张乱桌子"]),
}

ALL_TEMPLATES: dict[str, Words] = {
    "en": words(
        [
            "{open}{tidy} {desk}{close}",
            "{open}{tidy} {desk} and put everything away{close}",
            "{open}put everything on {desk} away{close}",
            "{open}put everything on {desk} where it belongs{close}",
            "{open}put all the things on {desk} in their places{close}",
            "{open}sort everything on {desk}{close}",
            "{open}put the pens in the tray, the blocks in the box and the trash in the bin{close}",
            "{open}{tidy} everything on {desk}{close}",
        ],
        [
            "{open}make {desk} tidy{close}",
            "{desk} is a mess, {open}{tidy} it{close}",
            "everything on {desk} should go where it belongs",
            "I want {desk} tidy and everything in its place",
            "{open}find a place for everything on {desk}{close}",
            "{open}sort all the things on {desk} into the tray, the box and the bin{close}",
            "nothing should be left on {desk}, {open}put everything away{close}",
        ],
    ),
    "zh": words(
        [
            "{open}{tidy}{desk}{close}",
            "{open}把{desk}{tidy}{close}",
            "{open}把{desk}上的东西都放好{close}",
            "{open}把{desk}上所有东西放到该放的地方{close}",
            "{open}把{desk}上的东西全部归位{close}",
            "{open}把{desk}收拾干净{close}",
            "{open}把笔放进笔盘，积木放进积木盒，垃圾扔进垃圾桶{close}",
            "{open}{tidy}{desk}上的所有东西{close}",
        ],
        [
            "{desk}太乱了，{open}{tidy}{close}",
            "{desk}上的东西都要放回原处",
            "{open}让{desk}变得整洁{close}",
            "我想让{desk}整齐干净",
            "{open}给{desk}上的每样东西找到位置{close}",
            "{open}把{desk}上的东西都收起来，放到该放的地方{close}",
        ],
    ),
}
