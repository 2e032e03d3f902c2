"""The desk's words as people write them: patterns for things, kinds and colours, and the bare sentence."""

from __future__ import annotations

import re
import unicodedata

import envs.tidy_desk.phrases as phrases
from envs.tidy_desk.goals import language_of

NOUN_PATTERNS: dict[str, str] = {
    "marker": r"\bmarkers?(?: pens?)?\b|\bfelt tips?(?: pens?)?\b|\bhighlighters?\b|记号笔|马克笔|白板笔|荧光笔",
    "eraser": r"\b(?:pencil )?(?:eraser|rubber)s?\b|橡皮擦?",
    "pen": r"\b(?:ball ?point )?(?:pen|pencil)s?\b|\bball ?points?\b|圆珠笔|签字笔|钢笔|水笔|铅笔|笔",
    "block": r"\b(?:(?:toy|building|wooden) )?(?:block|cube|brick)s?\b|积木块?|方块|木块",
    "paper_ball": r"\b(?:balls?|wads?) of paper\b|\b(?:crumpled |waste |scrap )?papers?(?: (?:ball|wad)s?)?\b"
    r"|废?纸团|废?纸球|废纸",
    "bottle_cap": r"\b(?:bottle )?(?:cap|lid)s?\b|\bbottle tops?\b|瓶盖子?|盖子",
}
NOUN = re.compile("|".join(f"(?P<{noun}>{pattern})" for noun, pattern in NOUN_PATTERNS.items()))
COLOR = re.compile(
    r"\b(?P<en>red|green|blue|yellow|orange|purple|violet|white|black|pink)\b"
    r"|(?P<zh>[红绿蓝黄橙橘紫白黑粉])(?=颜?色|的|⟨)"
)  # fmt: skip
COLOR_ALIASES = {word: color for color, word in phrases.COLOR_WORDS["zh"].items()} | {
    "橘": "orange",
    "violet": "purple",
}
# Colours that nothing on the desk has.
OTHER_COLOR = re.compile(
    r"\b(?:brown|gr[ae]y|gold(?:en)?|silver|cyan|turquoise|teal|magenta|beige|maroon)\b|[棕褐灰金银青](?=颜?色|⟨)|咖啡色"
)
CATEGORY: dict[str, re.Pattern[str]] = {
    "pens": re.compile(r"\bwriting (?:tools?|things|utensils?|instruments?)\b|\bstationery\b|文具|书写工具"),
    "waste": re.compile(r"\b(?:trash|rubbish|garbage|waste|litter|junk)\b|垃圾|废物|废品"),
}
MANY_WORDS = re.compile(r"\b(?:all|every|each|any)\b|所有|全部|每|各种|都|一切")


def clean_text(text: str) -> str:
    """The sentence in small letters, without punctuation, and in Chinese without spaces."""
    clean = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")
    clean = " ".join(re.sub(r"[^\w\u3400-\u9fff]+|_", " ", clean).split())
    return re.sub(r"(?<=[\u3400-\u9fff]) (?=[\u3400-\u9fff])", "", clean) if language_of(clean) == "zh" else clean


def color_of(match: re.Match[str]) -> str:
    """The colour that a match of COLOR, or of a pattern with its groups ``en`` and ``zh``, names."""
    word = match.group("en") or match.group("zh")
    return COLOR_ALIASES.get(word, word)
