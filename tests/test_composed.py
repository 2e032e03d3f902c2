"""Composed requests on the desk: written, read, drawn so that they can be met, and judged by where things end up."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from envs.tidy_desk.composed import random_composed, sample_composed
from envs.tidy_desk.demand import demand_of
from envs.tidy_desk.goals import COMPOSED, LANGUAGES, SPLITS, Goal, is_meant, language_of
from envs.tidy_desk.instructions import all_sentences, paraphrase, write
from envs.tidy_desk.options import check_options
from envs.tidy_desk.reading import parse, understand
from envs.tidy_desk.task import TidyDesk
from envs.tidy_desk.widening import widen
from vla.contracts import VlaError, episode_seed

RED_PEN, BLUE_BLOCK, PAPER = ("red", "pen"), ("blue", "block"), ("", "paper_ball")
PENS, BLOCKS, WASTE = ("", "pens"), ("", "blocks"), ("", "waste")


def goal(sort: str, *things: tuple[str, str], **more: Any) -> Goal:
    return Goal("composed", sort, things=things, **more)


@pytest.mark.parametrize("sort", COMPOSED)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_what_is_written_is_understood(sort: str, language: str, split: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        wanted = random_composed("composed", sort, rng)
        sentence = write(wanted, language, split, rng)
        assert parse(sentence) == wanted, sentence
        assert language_of(sentence) == language and "{" not in sentence and "  " not in sentence, sentence


@pytest.mark.parametrize("sort", COMPOSED)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_splits_never_meet(sort: str, language: str) -> None:
    rng = np.random.default_rng(1)
    wanted = random_composed("composed", sort, rng)
    while len(wanted.things) > 2:  # three have some hundred thousand sentences
        wanted = random_composed("composed", sort, rng)
    train = {s.lower().rstrip(".。") for s in all_sentences(wanted, language, "train")}
    heldout = {s.lower().rstrip(".。") for s in islice(all_sentences(wanted, language, "heldout"), 20_000)}
    assert len(train) >= 5 and len(heldout) >= 5 and not train & heldout
    said = {write(wanted, language, split, rng).lower().rstrip(".。") for split in ("train",) for _ in range(100)}
    assert said <= train


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("Put the red pen and the blue block away!", goal("several", RED_PEN, BLUE_BLOCK)),
        ("put the pens and the blocks away", goal("several", PENS, BLOCKS)),
        ("put the red pen and the blue marker in the tray", goal("several", RED_PEN, ("blue", "marker"))),
        ("把红色的笔和蓝色的积木收好", goal("several", RED_PEN, BLUE_BLOCK)),
        ("everything except the red pen", goal("except", RED_PEN)),
        ("tidy everything except the pens", goal("except", PENS)),
        ("tidy up but leave the red pen alone, the rest must go", goal("except", RED_PEN)),
        ("除了笔都收好", goal("except", PENS)),
        ("first the paper, then the pens", goal("order", PAPER, PENS)),
        ("the blue block, but only after the red pen", goal("order", RED_PEN, BLUE_BLOCK)),
        ("先扔垃圾，再收笔", goal("order", WASTE, PENS)),
        ("the block nearest the bin", goal("relation", ("", "block"), place="waste", relation="nearest")),
        ("put the block nearest to the bin in the box",
         goal("relation", ("", "block"), place="waste", relation="nearest")),
        ("the pen left of the eraser", goal("relation", ("", "pen"), ("", "eraser"), relation="left")),
        ("把橡皮右边的笔收好", goal("relation", ("", "pen"), ("", "eraser"), relation="right")),
        ("把离垃圾桶最远的积木收好", goal("relation", ("", "block"), place="waste", relation="farthest")),
        ("two of the pens", goal("quantity", ("", "pen"), count=2)),
        ("clear two pens please", goal("quantity", ("", "pen"), count=2)),
        ("收两支笔", goal("quantity", ("", "pen"), count=2)),
        ("put the pen in the box", goal("place", ("", "pen"), place="blocks")),
        ("red pen -> bin", goal("place", RED_PEN, place="waste")),
        ("把红色的笔扔进垃圾桶", goal("place", RED_PEN, place="waste")),
        ("is there any rubbish? then throw it away", goal("question", WASTE)),
        ("if there are any pens put them away, otherwise put the blocks away", goal("question", PENS, BLOCKS)),
        ("有垃圾吗？有的话就扔掉", goal("question", WASTE)),
    ],
)  # fmt: skip
def test_what_people_type_is_understood(sentence: str, wanted: Goal) -> None:
    assert understand(sentence) == (wanted, "")
    assert check_options({"instruction": sentence, "kind": "composed"}, ())["goal"] == wanted


@pytest.mark.parametrize(
    "sentence",
    [
        "don't touch the red pen", "不要动红色的笔", "put all the pens in the bin", "two of the brown pens",
        "everything except the red pen and the blue block", "put the red pen, blue pen, green pen and pink cap away",
        "is there any rubbish?  then put it in the tray", "throw the red pen and the blue block away",
        "put two of the pens in the cupboard", "give me the block nearest the bin",
    ],
)  # fmt: skip
def test_what_no_goal_holds_is_refused(sentence: str) -> None:
    found = parse(sentence)
    assert found is None, found


@pytest.mark.parametrize(
    "parts",
    [
        ("order", RED_PEN), ("several", RED_PEN), ("several", RED_PEN, RED_PEN), ("place", RED_PEN), ("quantity", PENS),
        ("relation", ("", "pen")), ("sing", RED_PEN), ("except", ("red", "spoon")),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused(parts: tuple) -> None:
    with pytest.raises(VlaError):
        goal(*parts)
    with pytest.raises(VlaError):
        Goal("all", things=(RED_PEN,))


def test_training_words_a_composed_request_anew() -> None:
    rng = np.random.default_rng(0)
    for asked in ("first the paper, then the pens", "two of the pens", "is there any paper? then throw it away"):
        assert {parse(paraphrase(asked, rng)) for _ in range(30)} == {parse(asked)}
        assert len({widen(asked, rng) for _ in range(40)}) > 25


@pytest.mark.parametrize("sort", COMPOSED)
def test_every_draw_can_be_met_and_leaves_no_doubt(sort: str) -> None:
    rng = np.random.default_rng(2)
    for count in (2, 3, 4, 5):
        for _ in range(6):
            wanted = random_composed("composed", sort, rng)
            receptacles, placed = sample_composed(wanted, count, "train", rng)
            demand = demand_of(wanted, placed, receptacles)
            asked = [one.item for one, is_asked in zip(placed, demand.asked, strict=True) if is_asked]
            assert 1 <= demand.count <= len(asked) <= 5 and len(placed) >= count
            named = [sum(is_meant(thing, one.item.color, one.item.noun) for one in placed) for thing in wanted.things]
            if sort in ("several", "order", "place"):
                assert all(named) and all(n == 1 for n, (color, _) in zip(named, wanted.things, strict=True) if color)
            if sort == "relation":
                assert len(asked) == 1 and named[0] == 2 and named[1:] in ([], [1])
            if sort == "quantity":
                assert len(asked) > demand.count
            if sort == "except":
                assert len(asked) + named[0] == len(placed) and named[0]
            if sort == "order":
                assert set(demand.turns) == {0, 1}


@pytest.fixture(scope="module")
def desk() -> Iterator[TidyDesk]:
    env = TidyDesk(cameras_px=32)
    yield env
    env.close()


def begin(desk: TidyDesk, sentence: str, items: int = 4) -> None:
    desk.reset(seed=episode_seed("record", 5, 1), options={"instruction": sentence, "items": items})


def put(desk: TidyDesk, index: int, category: str, place: int = 0) -> Any:
    """Lay an item in a receptacle, wait, and tell what the task says of it."""
    receptacle, item = desk.scene.receptacles[category], desk.scene.placed[index].item
    at = desk.tabletop.data.joint(item.name).qpos
    turn = receptacle.lengthwise[0]
    at[:] = (
        *receptacle.world(*receptacle.places[place]),
        item.size[2] + 0.002,
        np.cos(turn / 2),
        0,
        0,
        np.sin(turn / 2),
    )
    return wait(desk)


def wait(desk: TidyDesk) -> Any:
    action = np.concatenate((desk.tabletop.position, [1, 0, 0, 0, -1, 0, 1]))
    for _ in range(6):
        result = desk.play(action)
    return result


def of(desk: TidyDesk, asked: bool) -> list[int]:
    return [index for index, one in enumerate(desk.scene.asked) if one is asked]


def test_several_needs_each_and_nothing_else(desk: TidyDesk) -> None:
    begin(desk, "put the red pen and the blue block away")
    assert put(desk, 0, "pens").info["progress"] == 0.5
    assert "blue block was never touched" in desk.shortfall().detail
    assert put(desk, 1, "blocks").info["success"]
    begin(desk, "put the red pen and the blue block away")
    other = of(desk, False)[0]
    put(desk, 0, "pens"), put(desk, 1, "blocks")
    assert not put(desk, other, desk.scene.placed[other].item.category, 1).info["success"]
    assert desk.shortfall().reason == "touched something else"


def test_except_spares_what_was_excepted(desk: TidyDesk) -> None:
    begin(desk, "everything except the red pen")
    kept = of(desk, False)
    assert [desk.scene.placed[i].item.name for i in kept] == ["red pen"]
    slots = dict.fromkeys(("pens", "blocks", "waste"), 0)
    for index in of(desk, True):
        category = desk.scene.placed[index].item.category
        result = put(desk, index, category, slots[category])
        slots[category] += 1
    assert result.info["success"]
    assert not put(desk, kept[0], "pens", slots["pens"]).info["success"]


def test_order_is_kept_or_lost_for_good(desk: TidyDesk) -> None:
    asked = "first the red pen, then the blue block"
    begin(desk, asked)
    assert desk.scene.target == 0 and desk.doing().startswith("next: put the red pen")
    put(desk, 0, "pens")
    assert put(desk, 1, "blocks").info["success"]
    begin(desk, asked)
    put(desk, 1, "blocks")
    assert not put(desk, 0, "pens").info["success"]
    assert desk.shortfall().reason == "wrong order" and "blue block" in desk.shortfall().detail


def test_a_relation_means_one_of_two(desk: TidyDesk) -> None:
    for sentence in ("the block nearest the bin", "the pen left of the eraser"):
        begin(desk, sentence)
        (right,) = of(desk, True)
        noun = desk.scene.placed[right].item.noun
        wrong = next(i for i in of(desk, False) if desk.scene.placed[i].item.noun == noun)
        scene = desk.scene
        if noun == "pen":
            mark = next(one for one in scene.placed if one.item.noun == "eraser")
            assert scene.placed[right].y > mark.y > scene.placed[wrong].y
        assert not put(desk, wrong, scene.placed[wrong].item.category).info["success"]
        assert desk.shortfall().reason == "touched something else"
        begin(desk, sentence)
        assert put(desk, right, scene.placed[right].item.category).info["success"]


def test_two_are_two_and_not_three(desk: TidyDesk) -> None:
    begin(desk, "two of the pens")
    pens = of(desk, True)
    assert len(pens) == 3
    assert put(desk, pens[2], "pens").info["progress"] == 0.5
    assert put(desk, pens[0], "pens", 1).info["success"] and desk.scene.target is None
    assert not put(desk, pens[1], "pens", 2).info["success"]
    assert desk.shortfall().reason == "one too many"


def test_a_place_is_another_than_its_own(desk: TidyDesk) -> None:
    begin(desk, "put the red pen in the box")
    assert not put(desk, 0, "pens").info["success"]
    assert desk.shortfall().reason == "wrong place" and "pen tray" in desk.shortfall().detail
    assert put(desk, 0, "blocks").info["success"]
    begin(desk, "put the red pen in the box")
    assert desk.expert().act().sub_instruction == "put the red pen in the block box"
    put(desk, 0, "blocks")
    desk.scene.resting[0], desk.scene.held = False, 0  # there, and not let go
    assert not desk.scene.done and desk.shortfall().detail == "the red pen was still in the grip"


def test_a_question_is_answered_by_what_lies_there(desk: TidyDesk) -> None:
    asked = "if there is any rubbish throw it away, otherwise put the blocks away"
    answers = set()
    for seed in range(8):
        desk.reset(seed=seed, options={"instruction": asked, "items": 3})
        names = [desk.scene.placed[i].item.category for i in of(desk, True)]
        there = any(one.item.category == "waste" for one in desk.scene.placed)
        assert set(names) == {"waste" if there else "blocks"}
        answers.add(there)
    assert answers == {True, False}
    for index in of(desk, True):
        result = put(desk, index, desk.scene.placed[index].item.category, index % 3)
    assert result.info["success"]


@pytest.mark.parametrize("sort", COMPOSED)
def test_the_expert_does_it_and_the_report_tells_the_sorts_apart(desk: TidyDesk, sort: str) -> None:
    seen, info = desk.reset(
        seed=COMPOSED.index(sort), options={"kind": "composed", "category": sort, "split": "heldout"}
    )
    assert (info["kind"], info["category"]) == ("composed", sort) and parse(seen["instruction"]) == desk.goal
    expert = desk.expert()
    for _ in range(desk.limit):
        step = expert.act()
        assert parse(step.sub_instruction) is not None
        result = desk.play(step.action)
        if result.terminated:
            break
    assert result.info["success"], desk.shortfall()


def test_composed_goals_are_asked_for_by_name_alone(desk: TidyDesk) -> None:
    for seed in range(12):
        assert desk.reset(seed=seed, options={"items": 2})[1]["kind"] != "composed"
    with pytest.raises(VlaError, match="category must be one of several"):
        check_options({"kind": "composed", "category": "pens"}, ())
    desk.reset(seed=1, options={"kind": "composed", "stage": "midway", "perturb": {"language": "strong"}})
    assert desk.scene.target is not None
