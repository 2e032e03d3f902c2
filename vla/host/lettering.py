"""Text in pictures, in both scripts: DejaVu Sans, which matplotlib brings, and Noto Sans SC from a package of fonts."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from vla.host.files import printable

_LATIN = ("matplotlib", "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
_CHINESE = ("justmytype_intl_cjk", "fonts", "ofl", "notosanssc", "NotoSansSC[wght].ttf")


def is_chinese(char: str) -> bool:
    """Whether a character is drawn with the Chinese font: ideographs, kana, and their punctuation."""
    return "\u2e80" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or "\uff00" <= char <= "\uffef"


@lru_cache(maxsize=16)
def _font(chinese: bool, size: int) -> Any:
    from PIL import ImageFont

    package, *way = _CHINESE if chinese else _LATIN
    spec = importlib.util.find_spec(package)  # which imports nothing
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent.joinpath(*way)
    font = ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)
    if chinese:
        font.set_variation_by_axes([450])  # its weight, thin by itself
    return font


@lru_cache(maxsize=4096)
def _advance(char: str, size: int) -> float:
    return float(_font(is_chinese(char), size).getlength(char))


def one_line(text: str) -> str:
    """``text`` without line breaks, with escape sequences and the like shown instead of obeyed."""
    return printable(" ".join(text.split()))


def wrap(text: str, width: int, size: int, most: int) -> list[str]:
    """``text`` in at most ``most`` lines of up to ``width`` pixels, broken at spaces and beside Chinese characters.

    What does not fit ends in an ellipsis. An empty text is one empty line.
    """
    lines, line, room = [], "", float(width)
    for word in _words(one_line(text)):
        long = sum(_advance(char, size) for char in word.rstrip())
        if line and long > room:
            lines.append(line.rstrip())
            line, room = "", float(width)
        for char in word if long > width else (word,):  # a word longer than a line is broken anywhere
            wide = sum(_advance(one, size) for one in char)
            if line and len(char) == 1 and wide > room:
                lines.append(line)
                line, room = "", float(width)
            line, room = line + char, room - wide
    lines.append(line.rstrip())
    if len(lines) > most:
        last = lines[most - 1]
        while last and sum(_advance(char, size) for char in last + "…") > width:
            last = last[:-1]
        lines = [*lines[: most - 1], last + "…"]
    return lines


def _words(text: str) -> list[str]:
    """Pieces between which a line may break, each with the spaces after it."""
    found: list[str] = []
    for before, char in zip(" " + text, text, strict=False):
        stays = char in " ，。！？、；：”’）》,.!?;:" or not (before == " " or is_chinese(before) or is_chinese(char))
        if found and stays:
            found[-1] += char
        else:
            found.append(char)
    return found


def draw(picture: Any, x: int, y: int, text: str, size: int, colour: tuple[int, int, int]) -> int:
    """Write one line on a PIL draw object, its baseline ``size`` pixels below ``y``; returns the x after it."""
    run, at = "", float(x)
    for char in [*text, ""]:
        if run and (not char or is_chinese(char) != is_chinese(run[0])):
            picture.text((at, y + size), run, font=_font(is_chinese(run[0]), size), fill=colour, anchor="ls")
            at += sum(_advance(one, size) for one in run)
            run = ""
        run += char
    return round(at)


def width_of(text: str, size: int) -> int:
    """How many pixels wide a line is."""
    return round(sum(_advance(char, size) for char in text))
