"""How questions about the desk are worded, in English ("en") and Chinese ("zh"): see ``envs.tidy_desk.questions``.

Of each form, what training asks and what is kept for evaluation. ``{a}`` and ``{b}`` are things, ``{an}`` is one with
its article, ``{group}`` several with their measure word ``{m}``, ``{rec}`` a receptacle, ``{told}`` an instruction.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Forms:
    """Ways to ask the same: in training, and kept for evaluation."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


FORMS: dict[str, dict[str, Forms]] = {
    "en": {
        "caption": Forms(
            ("describe the desk", "describe what you see", "what does the desk look like?", "tell me about the scene"),
            ("give me a description of the desk", "put what you see into words"),
        ),
        "objects": Forms(
            ("what is on the desk?", "what things do you see?", "list the things on the desk", "what is there?"),
            ("name everything that lies here", "which objects can you make out?"),
        ),
        "position": Forms(
            ("where is {a}?", "where do you see {a}?", "where does {a} lie?", "tell me where {a} is"),
            ("in what place is {a}?", "I am looking for {a}, where did it go?"),
        ),
        "count": Forms(
            ("how many {group} are there?", "count the {group}", "how many {group} do you see?"),
            ("what is the number of {group}?", "tell me how many {group} lie here"),
        ),
        "nearest": Forms(
            ("what is nearest to {a}?", "what lies closest to {a}?", "which thing is nearest to {a}?"),
            ("what is the neighbour of {a}?", "next to {a}, what is there?"),
        ),
        "left": Forms(
            ("is {a} left of {b}?", "does {a} lie to the left of {b}?", "is {a} further left than {b}?"),
            ("would you say that {a} is on the left of {b}?", "seen from the robot, is {a} to the left of {b}?"),
        ),
        "right": Forms(
            ("is {a} right of {b}?", "does {a} lie to the right of {b}?", "is {a} further right than {b}?"),
            ("would you say that {a} is on the right of {b}?", "seen from the robot, is {a} to the right of {b}?"),
        ),
        "there": Forms(
            ("is there {an} on the desk?", "do you see {an}?", "is {an} there?"),
            ("does the desk have {an}?", "can {an} be seen here?"),
        ),
        "inside": Forms(
            ("is {a} in the {rec}?", "does {a} lie in the {rec}?"),
            ("has {a} been put in the {rec}?", "would I find {a} in the {rec}?"),
        ),
        "next": Forms(
            ("you were told: {told}. What comes next?", "the task is: {told}. What is the next step?",
             "told this: {told}. What do you do now?"),
            ("the wish was: {told}. Which step follows?", "given {told}, what has to be done first?"),
        ),
        "gripper": Forms(
            ("what is in the gripper?", "what does the arm hold?", "what are you holding?"),
            ("which thing is between the fingers?", "what have you picked up?"),
        ),
    },
    "zh": {
        "caption": Forms(
            ("描述一下桌面", "说说你看到的", "桌上是什么情况？", "描述你看到的画面"),
            ("请把眼前的桌面讲一讲", "用几句话介绍这张桌子"),
        ),
        "objects": Forms(
            ("桌上有什么？", "你看到哪些东西？", "列出桌上的东西", "这里有什么？"),
            ("把躺在这儿的东西都说出来", "你能认出哪些物品？"),
        ),
        "position": Forms(
            ("{a}在哪里？", "你在哪儿看到{a}？", "{a}放在哪儿？", "告诉我{a}在哪里"),
            ("{a}的位置是？", "我在找{a}，它去哪儿了？"),
        ),
        "count": Forms(
            ("有几{m}{group}？", "数一数{group}", "你看到几{m}{group}？"),
            ("{group}一共有多少？", "请告诉我{group}的数量"),
        ),
        "nearest": Forms(
            ("离{a}最近的是什么？", "{a}旁边是什么？", "什么东西离{a}最近？"),
            ("哪样东西挨着{a}？", "跟{a}靠得最近的是哪个？"),
        ),
        "left": Forms(
            ("{a}在{b}的左边吗？", "{a}是不是在{b}左边？", "比起{b}，{a}更靠左吗？"),
            ("从机器人看，{a}位于{b}左侧吗？", "你觉得{a}是在{b}的左侧吗？"),
        ),
        "right": Forms(
            ("{a}在{b}的右边吗？", "{a}是不是在{b}右边？", "比起{b}，{a}更靠右吗？"),
            ("从机器人看，{a}位于{b}右侧吗？", "你觉得{a}是在{b}的右侧吗？"),
        ),
        "there": Forms(
            ("桌上有{an}吗？", "你看到{an}了吗？", "有没有{an}？"),
            ("这里能看见{an}吗？", "这张桌子上存在{an}吗？"),
        ),
        "inside": Forms(
            ("{a}在{rec}里吗？", "{a}是不是在{rec}里？"),
            ("{a}已经放进{rec}了吗？", "我能在{rec}里找到{a}吗？"),
        ),
        "next": Forms(
            ("有人说：{told}。下一步做什么？", "任务是：{told}。接下来呢？", "听到{told}。现在该做什么？"),
            ("要求是这样的：{told}。那么该先动哪个？", "为了{told}，第一步是什么？"),
        ),
        "gripper": Forms(
            ("夹爪里是什么？", "机械臂拿着什么？", "你手里拿着什么？"),
            ("手指之间夹着什么？", "你夹起了什么？"),
        ),
    },
}  # fmt: skip

# What is counted: several things of a noun, of a category, or all of them; in Chinese with the measure word.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "en": {
        "": ("things", ""), "pens": ("pens and markers", ""), "blocks": ("blocks and erasers", ""),
        "waste": ("paper balls and bottle caps", ""), "pen": ("ballpoint pens", ""), "marker": ("markers", ""),
        "eraser": ("erasers", ""), "block": ("toy blocks", ""), "paper_ball": ("paper balls", ""),
        "bottle_cap": ("bottle caps", ""),
    },
    "zh": {
        "": ("东西", "件"), "pens": ("圆珠笔和记号笔", "支"), "blocks": ("积木和橡皮", "块"),
        "waste": ("纸团和瓶盖", "个"), "pen": ("圆珠笔", "支"), "marker": ("记号笔", "支"), "eraser": ("橡皮", "块"),
        "block": ("积木块", "块"), "paper_ball": ("纸团", "个"), "bottle_cap": ("瓶盖", "个"),
    },
}  # fmt: skip
OF_COLOR = {"en": ("{c} things", ""), "zh": ("{c}色的东西", "件")}

NUMBERS = {
    "en": ("none", "one", "two", "three", "four", "five"),
    "zh": ("没有", "一", "两", "三", "四", "五"),
}
YES_NO = {"en": ("yes", "no"), "zh": ("是", "不是")}
THERE = {"en": ("yes", "no"), "zh": ("有", "没有")}
NOTHING = {"en": "nothing", "zh": "什么也没有"}
DONE = {"en": "nothing, all is in place", "zh": "没有了，都已放好"}
IN = {"en": "in the {rec}", "zh": "在{rec}里"}
GRIPPER = {"en": "gripper", "zh": "夹爪"}
# Across the desk, seen from the robot, and how far from it.
SIDES = {
    "en": {"left": "on the left", "middle": "in the middle", "right": "on the right"},
    "zh": {"left": "在左边", "middle": "在中间", "right": "在右边"},
}
DEPTHS = {
    "en": {"near": ", near the robot", "far": ", far from the robot"},
    "zh": {"near": "，离机器人近", "far": "，离机器人远"},
}
ON_DESK = {"en": "on the desk", "zh": "桌上"}
