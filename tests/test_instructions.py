"""The grammar: what it writes it understands, and evaluation never repeats a training sentence."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from envs.tidy_desk.goals import (
    CATEGORIES,
    COLORS,
    LANGUAGES,
    NOUN_COLORS,
    NOUNS,
    SPLITS,
    Goal,
    language_of,
    sub_instruction,
)
from envs.tidy_desk.instructions import all_sentences, paraphrase, write
from envs.tidy_desk.options import check_options
from envs.tidy_desk.reading import nearest, parse, understand
from vla import cli
from vla.contracts import VlaError

ITEMS = [Goal("named", item=(color, noun)) for noun in NOUNS for color in ("", *NOUN_COLORS[noun])]
GOALS = [Goal("all"), *(Goal("category", category) for category in CATEGORIES), *ITEMS]
# One goal of each kind and of each noun, small enough to enumerate.
SOME = [*GOALS[:4], *(Goal("named", item=("yellow", noun)) for noun in NOUNS), Goal("named", item=("", "pen"))]


def plain(sentence: str) -> str:
    return sentence.lower().rstrip(".。")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_what_is_written_is_understood(language: str, split: str) -> None:
    rng = np.random.default_rng(0)
    for goal in GOALS:
        for _ in range(40):
            sentence = write(goal, language, split, rng)
            assert parse(sentence) == goal, sentence
            assert language_of(sentence) == language, sentence
            assert "{" not in sentence and "  " not in sentence and sentence == sentence.strip(), sentence


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("goal", SOME, ids=str)
def test_every_sentence_is_understood_and_the_splits_never_meet(goal: Goal, language: str) -> None:
    sentences = {split: list(dict.fromkeys(map(plain, all_sentences(goal, language, split)))) for split in SPLITS}
    assert not set(sentences["train"]) & set(sentences["heldout"])
    for split in SPLITS:
        assert len(sentences[split]) > 500, f"only {len(sentences[split])} sentences for {split}"
        for sentence in itertools.islice(sentences[split], 0, None, 29):
            assert parse(sentence) == goal, sentence


@pytest.mark.parametrize("language", LANGUAGES)
def test_write_gives_only_listed_sentences(language: str) -> None:
    rng = np.random.default_rng(1)
    for goal, split in itertools.product((GOALS[0], GOALS[3], ITEMS[1]), SPLITS):
        listed = set(map(plain, all_sentences(goal, language, split)))
        assert {plain(write(goal, language, split, rng)) for _ in range(200)} <= listed


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("put the red pen in the tray", Goal("named", item=("red", "pen"))),
        ("把纸团扔进垃圾桶", Goal("named", item=("", "paper_ball"))),
        ("请整理桌面", Goal("all")),
        ("tidy the desk", Goal("all")),
    ],
)
def test_the_readme_sentences_are_trained_on(sentence: str, goal: Goal) -> None:
    assert sentence in set(all_sentences(goal, language_of(sentence), "train"))
    assert parse(sentence) == goal


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_colour_and_noun_is_told_apart(language: str) -> None:
    for goal in ITEMS:
        color, noun = goal.item or ("", "")
        if color:
            assert parse(sub_instruction(color, noun, language)) == goal
    assert sub_instruction("red", "pen", "en") == "put the red pen in the pen tray"
    assert sub_instruction("red", "pen", "zh") == "把红色的笔放进笔盘"
    assert set(itertools.chain(*NOUN_COLORS.values())) <= set(COLORS)


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("  PUT the   Red PEN, in the tray!!", Goal("named", item=("red", "pen"))),
        ("yo, chuck that green cube into the box mate", Goal("named", item=("green", "block"))),
        ("把那个蓝色方块儿放盒子里", Goal("named", item=("blue", "block"))),
        ("把 red pen 放进 tray", Goal("named", item=("red", "pen"))),
        ("throw the white paper out", Goal("named", item=("white", "paper_ball"))),
        ("the erasers", Goal("named", item=("", "eraser"))),
        ("把那支笔收好", Goal("named", item=("", "pen"))),
        ("把笔都收好", Goal("category", "pens")),
        ("put every pen away", Goal("category", "pens")),
        ("把垃圾倒进垃圾桶", Goal("category", "waste")),
        ("put the rubbish in the garbage", Goal("category", "waste")),
        ("TIDY UP!", Goal("all")),
        ("整理一下", Goal("all")),
    ],
)
def test_free_wording_is_understood(sentence: str, goal: Goal) -> None:
    assert parse(sentence) == goal


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "hello",
        "fly to the moon",
        "put the red one away",
        "don't touch the red pen",
        "不要动红色的笔",
        "tidy everything except the pens and the blocks",
        "今天天气很好",
    ],
)
def test_what_a_goal_cannot_hold_is_refused(sentence: str) -> None:
    assert parse(sentence) is None


def test_the_same_generator_gives_the_same_sentence() -> None:
    first, second = ([write(g, "zh", "train", np.random.default_rng(3)) for g in GOALS] for _ in range(2))
    assert first == second


def test_goals_that_make_no_sense_are_refused() -> None:
    for arguments in (("all", "pens"), ("category", ""), ("category", "cups"), ("named",), ("sing",)):
        with pytest.raises(VlaError):
            Goal(*arguments)
    with pytest.raises(VlaError, match="nouns: pen"):
        Goal("named", item=("red", "spoon"))
    with pytest.raises(VlaError, match="'fr'"):
        write(Goal("all"), "fr", "train", np.random.default_rng(0))


def test_a_paraphrase_asks_for_the_same_and_comes_from_the_training_sentences() -> None:
    rng = np.random.default_rng(0)
    train = {plain(s) for lang in LANGUAGES for s in all_sentences(Goal("all"), lang, "train")}
    said = {paraphrase("tidy the desk", rng) for _ in range(60)}
    assert len(said) > 30 and {language_of(s) for s in said} == set(LANGUAGES)
    assert all(parse(s) == Goal("all") for s in said)
    assert {plain(s) for s in said} <= train
    goal = parse("put the red pen in the pen tray")
    assert all(parse(paraphrase("put the red pen in the pen tray", rng)) == goal for _ in range(60))
    assert paraphrase("make tea", rng) == "make tea"


@pytest.mark.parametrize(
    ("sentence", "reason", "instead"),
    [
        (
            "put the pens in the bin",
            "pens go in the pen tray, and not in the waste bin",
            "put all the pens in the pen tray",
        ),
        ("把笔扔进垃圾桶", "pens go in the pen tray", "把所有的笔放进笔盘"),
        ("pens -> bin", "not in the waste bin", "put all the pens in the pen tray"),
        ("throw the green block away", "are not thrown away", "put the green block in the block box"),
        ("put the blue pen on the floor", "and nowhere else", "put the blue pen in the pen tray"),
        ("把笔放到地上", "and nowhere else", "把所有的笔放进笔盘"),
        ("take the red pen out of the tray", "not out of it", "put the red pen in the pen tray"),
        ("put the tray in the pen", "stay where they are", "put the pen in the pen tray"),
        ("put the box on the red block", "stay where they are", "put the red block in the block box"),
        ("把笔盘放进红色的笔里", "stay where they are", "把红色的笔放进笔盘"),
        ("give me the red pen", "hands nothing over", "put the red pen in the pen tray"),
        ("put the brown pen in the tray", "nothing here is brown", "put the pen in the pen tray"),
        ("put everything in the bin", "everything goes by its kind", "tidy the desk"),
        ("pens in the box, blocks in the tray, trash in the bin", "by its kind", "put all the pens in the pen tray"),
        ("put all the apples in the box", "everything goes by its kind", "tidy the desk"),
        ("clean the kitchen", "nothing that can be tidied here", "tidy the desk"),
        ("把苹果收拾好", "nothing that can be tidied here", "请整理桌面"),
        ("everything but pens and blocks", "exceptions", "throw all the trash in the waste bin"),
        ("red pen, red cap, red block, red marker", "more than one thing", "put the red block in the block box"),
        ("put the red one away", "which thing is red", "put the red marker in the pen tray"),
        (" \n", "no words", "tidy the desk"),
        ("🙂🗑️", "no words", "tidy the desk"),
    ],
)
def test_what_means_nothing_or_contradicts_the_desk_is_refused(sentence: str, reason: str, instead: str) -> None:
    goal, why = understand(sentence)
    assert goal is None and reason in why
    offered = nearest(sentence)
    assert any(instead in one for one in offered) and all(parse(one) is not None for one in offered)
    assert {language_of(one) for one in offered} == {language_of(sentence)}
    with pytest.raises(VlaError) as caught:
        check_options({"instruction": sentence}, ())
    assert reason in str(caught.value) and offered[0] in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("the box is full, put the red pen in the tray", Goal("named", item=("red", "pen"))),
        ("put the red pen that is in the box into the tray", Goal("named", item=("red", "pen"))),
        ("把盒子里的笔放进笔盘", Goal("category", "pens")),
        ("can we please put the red pen in the pencil case", Goal("named", item=("red", "pen"))),
        ("put the red pen away in the afternoon", Goal("named", item=("red", "pen"))),
        ("[/red] 🙂 put the red pen\x1b[31m in the tray", Goal("named", item=("red", "pen"))),
        ("sort everything into the tray, the box and the bin", Goal("all")),
        ("get rid of the mess", Goal("all")),
        ("给我把桌子收拾干净", Goal("all")),
    ],
)
def test_what_contradicts_only_at_first_sight_is_understood(sentence: str, goal: Goal) -> None:
    assert understand(sentence) == (goal, "")


@pytest.mark.parametrize("option", [{"kind": "all"}, {"language": "zh"}, {"category": "waste"}])
def test_options_that_contradict_the_instruction_are_refused(option: dict[str, str]) -> None:
    with pytest.raises(VlaError, match="contradicts: leave"):
        check_options({"instruction": "put the red pen in the tray", **option}, ())


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "--instruction", "put the pens in the bin"],
        ["eval", "--instruction", "put the pens\nin the\x1b[31m bin"],
        ["eval", "--instruction", ""],
        ["eval", "--instruction", "\udcff"],
        ["eval", "--instruction", "tidy the desk", "--kind", "named"],
        ["eval", "--items", "9"],
        ["record", "--items", "2-9", "--out", "{out}"],
    ],
)
def test_an_impossible_episode_is_refused_before_anything_is_loaded(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("vla.agent.load", "vla.registry.make_env"):
        monkeypatch.setattr(place, lambda *_, **__: pytest.fail("loaded"))
    filled = [word.format(out=tmp_path / "out") for word in arguments]
    assert cli.main([*filled, "--env", "tidy_desk"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("vla: error: ") and told.count("\n") == 1 and "\x1b" not in told
    assert not (tmp_path / "out").exists()
