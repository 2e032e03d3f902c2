"""Meta-World's fifty tasks, compared step by step with LeRobot's own wrapper, whose protocol they claim to keep."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from envs.metaworld.env import CAMERA, MetaWorld
from envs.metaworld.tasks import INSTRUCTIONS, TASKS, TIERS, instruction_of, tier_of
from vla import registry
from vla.contracts import MissingExtraError, VlaError, episode_seed
from vla.data.open import open_dataset
from vla.data.recording.demonstrate import noisy_dims, play_episode
from vla.data.recording.record import RecordSettings, record
from vla.data.recording.replay import replay

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None, reason="metaworld is not installed: uv sync --extra metaworld"
)
COMPARED = (
    ("reach-v3", 1000), ("peg-unplug-side-v3", 1001), ("push-wall-v3", 1002), ("hammer-v3", 1003),
    ("push-back-v3", 1004), ("assembly-v3", 1005), ("stick-pull-v3", 1006), ("shelf-place-v3", 1007),
)  # fmt: skip


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rendering: a task's textures and meshes take half a second to upload."""
    monkeypatch.setattr(MetaWorld, "_image", lambda env: np.zeros((env.cameras_px, env.cameras_px, 3), np.uint8))


def _official(task: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """LeRobot's env, with one layout drawn at the start in place of fifty: each reset draws its own."""
    import metaworld as package
    from lerobot.envs.metaworld import MetaworldEnv

    monkeypatch.setattr(package, "_N_GOALS", 1)
    official = MetaworldEnv(task, obs_type="pixels_agent_pos")
    official._ensure_env()
    return official


@pytest.fixture
def reach() -> Iterator[MetaWorld]:
    made = MetaWorld("reach-v3")
    yield made
    made.close()


# --- names: no package needed --------------------------------------------------------------------------------------


def test_tiers_hold_fifty_tasks() -> None:
    assert [len(INSTRUCTIONS[tier]) for tier in TIERS] == [28, 11, 6, 5]
    assert len(set(TASKS)) == 50 and len({instruction_of(task) for task in TASKS}) == 49


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("pick-place", r"no task 'pick-place'; the nearest are .*pick-place-v3"),
        ("very-hard", r"the nearest are very_hard"),
        ("9", r"a task is written like button-press-v3; tiers: easy, medium, hard, very_hard; or all"),
    ],
)
def test_unknown_task_lists_the_nearest(task: str, message: str) -> None:
    with pytest.raises(VlaError, match=message):
        registry.make_env(f"metaworld:{task}")


@needs_package
def test_several_tasks_and_tiers_are_one_env_with_each_task_once() -> None:
    made = MetaWorld("stick-push-v3,hard,push-v3")
    assert made.tasks == ("stick-push-v3", *INSTRUCTIONS["hard"])
    with pytest.raises(VlaError, match=r"no task 'reach'; the nearest are .*reach-v3"):
        MetaWorld("push-v3,reach")


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "metaworld" else find(name))
    with pytest.raises(MissingExtraError, match=r"uv sync --extra metaworld$"):
        registry.make_env("metaworld:reach-v3")


# --- the protocol --------------------------------------------------------------------------------------------------


@needs_package
def test_tasks_tiers_sentences_and_experts_are_lerobots() -> None:
    from lerobot.envs import metaworld as official
    from metaworld.policies import ENV_POLICY_MAP

    assert {tier: list(tasks) for tier, tasks in INSTRUCTIONS.items()} == official.DIFFICULTY_TO_TASKS
    assert {task: instruction_of(task) for task in TASKS} == official.TASK_DESCRIPTIONS
    assert {task: ENV_POLICY_MAP[task] for task in TASKS} == official.TASK_POLICY_MAPPING


@needs_package
@pytest.mark.parametrize(("task", "seed"), COMPARED)
def test_state_reward_and_end_are_lerobots(task: str, seed: int, blind: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = MetaWorld(task), _official(task, monkeypatch)
    monkeypatch.setattr(theirs._env, "render", lambda: np.zeros((1, 1, 3), np.uint8))
    rng = np.random.default_rng(seed)
    ends = []
    for episode in (seed, seed + 100):  # the second follows an episode that is over, or was left in the middle
        first, info = ours.reset(seed=episode)
        expected, _ = theirs.reset(seed=episode)
        assert (first["state"] == expected["agent_pos"].astype(np.float32)).all()
        assert info["instruction"] == first["instruction"] == theirs.task_description
        expert = ours.expert()
        for step in range(180):
            action = expert.act().action if step > 4 else rng.uniform(-1.2, 1.2, 4).astype(np.float32)
            expected, reward, terminated, truncated, facts = theirs.step(action)
            result = ours.play(action)
            assert (ours.observe().state == expected["agent_pos"].astype(np.float32)).all()
            assert (result.reward, result.terminated, result.truncated) == (reward, terminated, truncated)
            assert result.info["success"] == facts["is_success"]
            if terminated:
                break
        ends.append(terminated)
    assert any(ends), "no episode reached success, so its end was not compared"
    ours.close()
    theirs.close()


@needs_package
@pytest.mark.parametrize("task", ["reach-v3", "soccer-v3", "pick-place-v3", "stick-push-v3"])
def test_pictures_are_lerobots(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, exact, theirs = MetaWorld(task), MetaWorld(task, 480, "reference"), _official(task, monkeypatch)
    first, _ = fast.reset(seed=1010)
    same, _ = exact.reset(seed=1010)
    expected = theirs.reset(seed=1010)[0]["pixels"]
    assert (same[CAMERA] == expected).all(), "the first picture, with the scene before the last draw"
    _require_alike(first[CAMERA], expected)
    monkeypatch.setattr(theirs._env, "render", lambda: np.zeros((1, 1, 3), np.uint8))
    expert = fast.expert()
    for _ in range(30):
        action = expert.act().action
        fast.play(action)
        exact.play(action)
        theirs.step(action)
    monkeypatch.undo()
    expected = theirs.render()
    assert (exact.observe().images[CAMERA] == expected).all()
    _require_alike(fast.observe().images[CAMERA], expected)
    for env in (fast, exact, theirs):
        env.close()


def _require_alike(image: np.ndarray, reference: np.ndarray) -> None:
    """Without shadows and smoothing a picture is a little darker and harder, and shows the same at the same place."""
    small = Image.fromarray(np.ascontiguousarray(reference)).resize(image.shape[1::-1], Image.Resampling.BOX)
    one, two = image.astype(float), np.asarray(small).astype(float)
    assert np.abs(one - two).mean() < 12.0
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.95


@needs_package
def test_fresh_mends_the_first_picture_and_nothing_else(reach: MetaWorld) -> None:
    fresh = MetaWorld("reach-v3", fresh=True)
    (stale_first, stale), (fresh_first, info) = reach.reset(seed=1003), fresh.reset(seed=1003)
    assert stale["stale"] and not info["stale"]
    assert (stale_first[CAMERA] != fresh_first[CAMERA]).any()
    before = fresh_first[CAMERA]
    fresh._sim.model.site("goal").rgba[3] = 0
    changed = np.argwhere((fresh.observe().images[CAMERA] != before).any(axis=-1))
    fresh._sim.model.site("goal").rgba[3] = 1
    row, column = changed.mean(axis=0) + 0.5
    u, v, visible = fresh.points()[CAMERA][3:]
    assert len(changed) > 4 and visible == 1.0
    half = fresh.cameras_px / 2
    off = abs((u + 1) * half - column), abs((v + 1) * half - row)
    assert max(off) < half / 42, "the goal point lies on the marker"
    action = reach.expert().act().action
    for _ in range(20):
        assert reach.play(action).reward == fresh.play(action).reward
    assert (reach.raw_state == fresh.raw_state).all()
    assert (reach.observe().images[CAMERA] == fresh.observe().images[CAMERA]).all()
    fresh.close()


@needs_package
def test_reference_pictures_scale_to_the_size_asked_for() -> None:
    env = MetaWorld("reach-v3", 96, render="reference")
    image = env.reset(seed=0)[0][CAMERA]
    assert image.shape == (96, 96, 3) and image.dtype == np.uint8 and env.env_spec.cameras[0].width == 96
    env.close()


@needs_package
@pytest.mark.parametrize(("protocol", "steps"), [("lerobot", 500), ("evo1", 400)])
def test_an_episode_ends_when_its_time_is_up(protocol: str, steps: int, blind: None) -> None:
    env = MetaWorld("push-v3", protocol=protocol)
    env.reset(seed=0)
    results = [env.play(np.zeros(4)) for _ in range(steps)]
    assert [result.truncated for result in results] == [False] * (steps - 1) + [True]
    assert env.env_spec.episode_steps == steps
    env.play(np.zeros(4))  # recording plays on for a moment
    env.close()


# --- all tasks -------------------------------------------------------------------------------------------------------


@needs_package
def test_consecutive_seeds_go_round_every_task(blind: None) -> None:
    env = MetaWorld()
    seen = []
    for index in range(50):
        first, info = env.reset(seed=episode_seed("evaluate", 3, index))
        assert first["state"].shape == (4,) and info["kind"] == tier_of(info["category"])
        result = env.play(env.expert().act().action)
        assert result.info["reward_terms"].keys() == {"metaworld"} and 0 <= result.info["progress"] <= 1
        points = env.points()[CAMERA]
        assert points.shape == (6,) and (np.abs(points) <= 1).all() and points[2] == 1.0
        seen.append(info["category"])
    assert sorted(seen) == sorted(TASKS)
    env.close()


@needs_package
@pytest.mark.parametrize("task", ["door-open-v3", "basketball-v3", "push-v3", "disassemble-v3"])
def test_expert_succeeds(task: str, blind: None) -> None:
    env = registry.make_env(f"metaworld:{tier_of(task)}")
    _, info = env.reset(seed=1000, options={"task": task})
    assert info["category"] == task
    expert = env.expert()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            step = expert.act()
            assert step.action in env.action_space and step.sub_instruction == info["instruction"]
            result = env.play(step.action)
            if result.terminated:
                break
    assert result.info["success"] and result.info["progress"] == 1.0
    again = env.play(-step.action)
    assert again.info["success"], "success at any step is success"
    env.close()


@needs_package
def test_midway_scenes_say_where_the_goal_is(reach: MetaWorld) -> None:
    hands, goals = [], []
    for seed in range(8):
        _, info = reach.reset(seed=seed, options={"stage": "midway"})
        assert not info["stale"]
        (expression,) = reach.referring_expressions()
        to_item, to_goal = expression.offsets.reshape(2, 3)
        assert expression.text == reach.instruction and not expression.yaws.any()
        np.testing.assert_array_equal(expression.points[CAMERA], reach.points()[CAMERA])
        assert np.linalg.norm(to_item) < 0.06, "what reaches is the hand itself"
        hands.append(reach.observe().state[:3])
        goals.append(hands[-1] + to_goal)
        reach.reset(seed=seed)
        np.testing.assert_allclose(goals[-1], reach._sim._target_pos, atol=1e-6)
        assert np.linalg.norm(hands[-1] - reach.observe().state[:3]) > 0.005
    assert np.std(hands, axis=0).min() > 0.03 and np.std(goals, axis=0).min() > 0.01


@needs_package
def test_in_some_midway_scenes_things_have_been_moved() -> None:
    env = MetaWorld("coffee-push-v3", cameras_px=32, fresh=True)
    moved = []
    for seed in range(16):
        env.reset(seed=seed)
        before = env._places()[0].copy()
        env.reset(seed=seed, options={"stage": "midway"})
        moved.append(np.linalg.norm(env._places()[0] - before))
    env.close()
    assert 2 <= np.sum(np.array(moved) > 0.01) <= 8, moved


@needs_package
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "push-v3"}, "'push-v3' is not one of this env's: reach-v3"),
        ({"task": "raech-v3"}, "the nearest are reach-v3"),
        ({"language": "zh"}, "language must be one of en"),
        ({"split": "test"}, "split must be one of train, heldout"),
        ({"items": 2}, "no reset option 'items'; it has split, language, task, stage"),
        ({"stage": "end"}, "stage must be one of start, midway"),
    ],
)
def test_bad_options_say_what_is_wrong(reach: MetaWorld, options: dict[str, Any], message: str) -> None:
    with pytest.raises(VlaError, match=message):
        reach.reset(seed=0, options=options)


@needs_package
def test_bad_arguments_say_what_is_wrong() -> None:
    for name, value in (("render", "slow"), ("protocol", "mine")):
        with pytest.raises(VlaError, match=f"{name} must be one of"):
            MetaWorld(**{name: value})
    with pytest.raises(VlaError, match="call reset"):
        MetaWorld().play(np.zeros(4))


@needs_package
def test_recording_goes_round_the_tasks_and_replays(tmp_path: Path, blind: None) -> None:
    options = {"cameras_px": 16, "fresh": True}
    settings = RecordSettings("metaworld:very_hard", tmp_path, 1, video_format="images", workers=1, env_options=options)
    summary = record(settings, show=False)
    assert summary.kept == 5 and not summary.unfilled
    recorded = open_dataset(tmp_path)
    assert {facts["category"] for facts in recorded.episodes} == set(INSTRUCTIONS["very_hard"])
    assert recorded.spec.dt == 0.0125 and recorded.spec.cameras[0].width == 16
    assert all(row["same"] for row in replay(tmp_path))


@needs_package
def test_noise_pushes_the_hand_and_leaves_the_gripper_alone(reach: MetaWorld, blind: None) -> None:
    arrays = play_episode(reach, 3, {}, noise=0.02).arrays
    pushed = arrays["executed"] - arrays["action"]
    assert (np.abs(pushed[:, :3]).max(axis=0) > 0.1).all() and not pushed[:, 3].any()
    assert reach.play(np.zeros(4)).info["success"], "the expert sees where it was pushed"


@needs_package
def test_noise_is_in_metres_whatever_actions_are_in() -> None:
    spec = MetaWorld("reach-v3").env_spec
    dims, per_metre = noisy_dims(spec)
    assert dims == [0, 1, 2] and per_metre.tolist() == [100.0] * 3
    dims, per_metre = noisy_dims(replace(spec, relative=((1, 0),)))
    assert dims == [1] and per_metre.tolist() == [1.0], "where the spec lists what is relative, that"
    assert noisy_dims(replace(spec, action=("torque [N m]", "grip [-1..1]"), action_groups=()))[0] == []


@needs_package
def test_playing_renders_nothing(reach: MetaWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    reach.reset(seed=0)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("play rendered")

    monkeypatch.setattr(reach, "_picture", refuse)
    reach.play(np.ones(4))
    with pytest.raises(AssertionError, match="play rendered"):
        reach.observe()


@needs_package
def test_physics_that_diverges_is_an_error(
    reach: MetaWorld, blind: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo keeps a log of it in the working folder
    reach.reset(seed=0)
    reach._sim.data.qvel[0] = np.inf
    with pytest.raises(VlaError, match="metaworld: the physics diverged"):
        reach.play(np.zeros(4, np.float32))
    reach.reset(seed=0)
    reach.play(np.zeros(4, np.float32))
