"""Questions about the desk are true and cover both languages; a trunk learns to answer them; ``vla ask`` asks it."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from PIL import Image

from envs.tidy_desk import phrases_questions
from envs.tidy_desk.goals import COLORS
from envs.tidy_desk.questions import Asker, name, place_of, region_of
from policies.flow_config import FlowConfig
from tests.test_train import StopAt, fake_dataset
from vla import registry
from vla.agent import AgentError, load
from vla.cli import main
from vla.commands.ask import draw
from vla.contracts import VlaError
from vla.contracts.questions import ABSENT, UNSEEN, Told, things_in
from vla.data.stills import Stills
from vla.nn.config import LanguageModelTrunkConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig
from vla.registry import EnvRef
from vla.train.answers import Answers
from vla.train.trainer import train

KINDS = {"caption", "objects", "position", "count", "relation", "yes_no", "next", "gripper", ABSENT}


@pytest.fixture(scope="module")
def env():
    made = registry.make_env("tidy_desk")
    yield made
    made.close()


def scene(env, seed: int, **options: Any):
    env.reset(seed=seed, options=options)
    return env.scene


def asked(env, seed: int, split: str = "train", **options: Any):
    scene(env, seed, **options)
    return env.questions(np.random.default_rng(seed), split)


def test_there_are_all_kinds_in_both_languages_and_each_is_of_the_scene(env) -> None:
    found = [one for seed in range(12) for one in asked(env, seed, stage="midway")]
    assert {one.kind for one in found} == KINDS and {one.language for one in found} == {"en", "zh"}
    for one in found:
        assert one.text and one.answer and "{" not in one.text + one.answer
        assert set(one.points) == set(one.boxes) == {"scene", "wrist"}
        assert all(points.shape == (6,) and points.dtype == np.float32 for points in one.points.values())
        for boxes in one.boxes.values():
            assert boxes.shape[1:] == (4,) and (boxes[:, :2] <= boxes[:, 2:]).all()
            assert (np.abs(boxes) <= 1.0).all()
        assert (one.answer == UNSEEN[one.language]) == (one.kind == ABSENT)


def test_the_same_generator_asks_the_same(env) -> None:
    first, second = asked(env, 5), asked(env, 5)
    assert [(one.text, one.answer) for one in first] == [(one.text, one.answer) for one in second]


def test_words_of_evaluation_are_kept_from_training() -> None:
    for forms in phrases_questions.FORMS.values():
        assert all(one.train and one.heldout and not set(one.train) & set(one.heldout) for one in forms.values())


def test_answers_agree_with_the_simulator(env) -> None:
    """Counts, neighbours, sides, lists and what is held, told anew from the scene by the names in the questions."""
    words, checked = phrases_questions, dict.fromkeys(("count", "nearest", "side", "objects", "there", "gripper"), 0)
    for seed in range(25):
        now = scene(env, seed, stage="midway")
        items, at = [one.item for one in now.placed], now.positions[:, :2]
        for one in Asker(now, env.instruction, np.random.default_rng(seed), "train").all():
            if one.language == "zh" or "Answer" in one.text or "回答" in one.text:
                continue
            known = {name(item.color, item.noun, "en", k): i for i, item in enumerate(items) for k in range(3)}
            named = sorted(
                (i for text, i in known.items() if text in one.text), key=lambda i: _first(one.text, known, i)
            )
            named = list(dict.fromkeys(named))
            if (
                one.kind == "count"
                and " things" in one.text
                and not any(f"{color} things" in one.text for color in COLORS)
            ):
                assert one.answer == words.NUMBERS["en"][len(items)]
                checked["count"] += 1
            elif one.kind == "objects":
                assert len(things_in(one.answer)) == len(items)
                checked["objects"] += 1
            elif one.kind == "relation" and one.answer in ("yes", "no"):
                (left, right), side = named, "left" if "left" in one.text else "right"
                further = at[left][1] > at[right][1]
                assert (one.answer == "yes") == (further == (side == "left"))
                checked["side"] += 1
            elif one.kind == "relation":
                (asked_of,) = named
                others = [i for i in range(len(items)) if i != asked_of]
                nearest = min(others, key=lambda i: float(np.linalg.norm(at[i] - at[asked_of])))
                assert one.answer == name(items[nearest].color, items[nearest].noun, "en", 0, "the")
                checked["nearest"] += 1
            elif one.kind == "yes_no" and any(one.text.startswith(start) for start in ("is there", "do you see")):
                assert (one.answer == "yes") == bool(named)
                checked["there"] += 1
            elif one.kind == "gripper":
                held = now.held
                assert one.answer == (
                    "nothing" if held is None else name(items[held].color, items[held].noun, "en", 0, "the")
                )
                checked["gripper"] += 1
    assert all(checked.values()), checked


def _first(text: str, known: dict[str, int], index: int) -> int:
    return min(text.find(name) for name, i in known.items() if i == index and name in text)


def test_a_thing_that_is_put_away_is_told_to_be_there(env) -> None:
    """By hand: an item is moved into its receptacle, then to the desk's far left."""
    now = scene(env, 3)
    item = now.placed[0].item
    receptacle = now.receptacles[item.category]
    _put(env, item.name, (receptacle.x, receptacle.y, 0.03), receptacle.yaw)
    assert place_of(now, 0) == item.category
    _put(env, item.name, (0.56, 0.25, 0.02))
    assert region_of(now.positions[0]) == ("left", "far")
    assert region_of(np.array([0.45, 0.0, 0.0])) == ("middle", "near")
    assert region_of(np.array([0.45, 0.08, 0.0])) is None


def test_what_is_missing_is_asked_about_where_all_that_is_like_it_is_there(
    env, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kind of thing in two colours, both on the desk, beside another kind in the same colours."""
    now = scene(env, 3)
    two = [one.item for one in now.placed][:2]
    monkeypatch.setattr(
        "envs.tidy_desk.questions.NOUN_COLORS",
        {one.noun: (one.color,) for one in two} | {"cup": ("red",), "lid": ("blue",)},
    )
    asker = Asker(now, env.instruction, np.random.default_rng(0), "train")
    assert {asker._missing() for _ in range(20)} == {("red", "cup"), ("blue", "lid")}


def _put(env, name: str, at: tuple[float, float, float], yaw: float = 0.0) -> None:
    tabletop = env.scene.tabletop
    tabletop.data.joint(name).qpos[:] = (*at, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
    mujoco.mj_forward(tabletop.model, tabletop.data)
    env.scene.look()


# ------------------------------------------------------------------ learning to answer


def recipe(**changes: Any) -> Recipe:
    trunk = LanguageModelTrunkConfig(
        model="tiny", layers=2, vision="test_resnet", pixels=(64, 32), map_dim=16, tokens=4, tune="full"
    )
    made = Recipe(
        name="answers",
        env="tidy_desk",
        policy="flow",
        policy_config=FlowConfig(dim=32, depth=1, trunk=trunk),
        objective="answers",
        data=DataConfig("none", stills=8, stills_batch=2, stills_sentences=2, stills_questions=3),
        optim=OptimConfig(steps=4, batch_size=2, log_every=2, checkpoint_every=2, warmup_steps=1),
        validate=ValidateConfig(every=-1),
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        spec = EnvRef("tidy_desk").spec()
        yield fake_dataset(tmp_path_factory.mktemp("answers") / "data", spec, patch)


@pytest.fixture(scope="module")
def agent(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("answers") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vla.train.cloning.SCENES", 2)
        train(recipe(), data, out)
    return out


def test_it_trains_resumes_and_scores_each_kind(
    data: Path, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla.train.cloning.SCENES", 2)
    lines = [json.loads(line) for line in (agent / "train_log.jsonl").read_text().splitlines()]
    assert {"answer", "grounding", "grounding_accuracy", "loss"} <= lines[0].keys()
    scores = lines[-1]
    assert {"accuracy", "accuracy_en", "accuracy_zh", "accuracy_train_words", "accuracy_heldout_words"} <= scores.keys()
    assert all(0.0 <= value <= 1.0 for name, value in scores.items() if name.startswith("accuracy"))
    parts = tmp_path / "parts"
    with pytest.raises(VlaError):
        train(recipe(), data, parts, on_step=StopAt(2))
    train(recipe(), data, parts, resume=True)
    assert load(parts / "agent", "cpu").hash == load(agent / "agent", "cpu").hash


def test_a_right_answer_becomes_likely(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    objective = Answers(recipe(), data, torch.device("cpu"), 0, 1)
    objective.make(None)
    objective.prepare()
    (batch,) = objective.step(0)
    batch = objective.ready(batch)
    optimiser = torch.optim.Adam([p for p in objective.model.parameters() if p.requires_grad], lr=3e-3)
    first = 0.0
    for _ in range(40):
        losses, parts = objective.loss(batch)
        assert losses.shape == (1,) and {"answer", "grounding", "yaw", "offset"} <= parts.keys()
        first = first or float(parts["answer"])
        optimiser.zero_grad()
        losses.mean().backward()
        optimiser.step()
    assert float(parts["answer"]) < 0.5 * first


def test_what_cannot_be_asked_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(VlaError, match=r"a trunk that speaks: --policy\.trunk\.type language_model"):
        train(replace(recipe(), policy_config=FlowConfig.tiny()), data, tmp_path / "deaf")
    with pytest.raises(VlaError, match=r"--data\.stills_questions must be above 0"):
        train(recipe(data=DataConfig("none", stills=8)), data, tmp_path / "silent")
    with pytest.raises(VlaError, match=r"--data\.stills must be above 0"):
        train(recipe(data=DataConfig("none")), data, tmp_path / "none")
    with pytest.raises(VlaError, match="has no questions, which the objective answers learns from"):
        dots = EnvRef("tests.fake_env:DotEnv")
        Stills.build(dots, dots.spec(), 2, 0, tmp_path, progress=False, questions="train")


def test_cloning_goes_on_asking(data: Path, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.train.cloning.SCENES", 2)
    train(recipe(objective="behaviour_cloning", init=str(agent / "agent")), data, tmp_path / "acting")
    lines = [json.loads(line) for line in (tmp_path / "acting" / "train_log.jsonl").read_text().splitlines()]
    assert {"flow", "answer", "grounding"} <= lines[0].keys() and {"accuracy", "validation_loss"} <= lines[-1].keys()


def test_questions_stand_behind_the_sentences_of_their_scene(data: Path) -> None:
    objective = Answers(recipe(), data, torch.device("cpu"), 0, 1)
    objective.make(None)
    objective.prepare()
    (batch,) = objective.step(0)
    stills = objective.feed._stills
    assert stills is not None and len(batch["answer"]) == 6 and len(batch["instruction"]) == 10
    asked = [batch["instruction"][i] for i in (2, 3, 4, 7, 8, 9)]
    known = {text: row for row, text in enumerate(stills.questions["text"])}
    assert all(one in known for one in asked)
    for place, answer, text in zip((2, 3, 4, 7, 8, 9), batch["answer"], asked, strict=True):
        same = [row for row, one in enumerate(stills.questions["text"]) if one == text]
        assert answer in {stills.questions["answer"][row] for row in same}
        assert any(np.allclose(batch["points.scene"][place], stills.asked_points["scene"][row]) for row in same)


# ------------------------------------------------------------------ vla ask


def test_things_that_an_answer_names() -> None:
    assert things_in("a red pen, a blue block and a white paper ball") == [
        "a red pen",
        "a blue block",
        "a white paper ball",
    ]
    assert things_in("红色的圆珠笔、白色的纸团和积木") == ["红色的圆珠笔", "白色的纸团"]
    assert things_in("two") == things_in("I don't see that") == things_in("yes") == []


def test_a_box_is_drawn_where_it_looked_surely() -> None:
    image = np.full((128, 128, 3), 255, np.uint8)

    def coloured(share: float) -> np.ndarray:
        sheet = draw(image, "scene", "where?", Told("here", [("where?", {"scene": [0.5, -0.5, share]})]))
        with Image.open(io.BytesIO(sheet)) as picture:
            pixels = np.asarray(picture.convert("RGB"))[:768].astype(int)
        return np.argwhere(np.ptp(pixels, axis=2) > 100)

    assert not len(coloured(0.1))
    rows, columns = coloured(0.9).T  # around u 0.5, v -0.5, an eighth of half an image each way
    assert abs(rows.max() - 240) < 5 and abs(columns.min() - 528) < 5


def test_it_is_asked_from_the_command_line(
    agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "told.png"
    words = ["ask", "--agent", str(agent), "--out", str(picture)]
    assert main([*words, "--env", "tidy_desk", "--seed", "7", "--language", "zh", "what is on the desk?"]) == 0
    assert f"picture: {picture}" in capsys.readouterr().out
    with Image.open(picture) as image:
        assert image.width == 768 and image.height > 768

    Image.fromarray(np.full((90, 160, 3), 120, np.uint8)).save(tmp_path / "photo.png")
    monkeypatch.setattr("sys.stdin", io.StringIO("有什么？\nwhere is the red pen?\n"))
    assert main([*words, "--image", str(tmp_path / "photo.png")]) == 0
    assert capsys.readouterr().out.count("picture: ") == 2

    for more, problem in {
        ("--image", str(tmp_path / "none.png"), "x?"): "none.png is no picture that can be read",
        ("--image", str(picture), "--seed", "7", "x?"): "leave out --env, --seed and --env-option",
        (" ",): "the question is empty",
        ("--env", "tests.fake_env:DotEnv", "x?"): "env tests.fake_env:DotEnv do not fit",
    }.items():
        assert main([*words, *more]) == 2
        assert problem in capsys.readouterr().err


def test_an_agent_without_words_says_who_has_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "--agent", "tidy_desk", "what is on the desk?"]) == 2
    assert "train one that can with: vla train tidy_desk_language" in capsys.readouterr().err
    with pytest.raises(AgentError, match="no agent at 'tidy_desk_language'"):
        load("tidy_desk_language")
