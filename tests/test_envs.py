"""One battery for every env of the registry, then what is particular to tidy_desk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.tidy_desk import goals, items, phrases, reading
from envs.tidy_desk import layout as tidy_layout
from envs.tidy_desk.goals import Goal
from envs.tidy_desk.task import TidyDesk
from tests import contributing
from vla import registry
from vla.contracts import Env, Expert, ExpertStep, MissingExtraError, NoExpertError, VlaError, as_observation
from vla.perturb import axes as perturb

# An env that is nothing without an argument stands here with those that the battery plays.
EXAMPLES = {
    "gymnasium": [
        "gymnasium:tests.tiny_gym:tiny/Dot-v0",
        "gymnasium:gym_pusht/PushT-v0",
        "gymnasium:gym_aloha/AlohaTransferCube-v0",
    ]
}
NAMES = [example for name in registry.names("env") for example in EXAMPLES.get(name, [name])] + [contributing.ENV]


def _make(name: str) -> Any:
    try:
        return registry.make_env(name)
    except MissingExtraError as error:
        pytest.skip(str(error))


def _expert(env: Any, seed: int = 0) -> Expert:
    """The env's expert, or one that acts at random."""
    try:
        return env.expert()
    except NoExpertError:
        return RandomExpert(env.action_space, seed)


class RandomExpert:
    def __init__(self, space: Any, seed: int) -> None:
        self._space = space
        self._space.seed(seed)

    def act(self) -> ExpertStep:
        return ExpertStep(self._space.sample(), "anything")


@pytest.fixture(scope="module", params=NAMES)
def env(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = _make(request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def desk() -> Iterator[TidyDesk]:
    made = TidyDesk()
    yield made
    made.close()


def _play_out(env: Any, seed: int, noise: float = 0.0, **options: Any) -> Any:
    env.reset(seed=seed, options=options)
    expert, rng = env.expert(), np.random.default_rng(seed)
    while True:
        action = expert.act().action.copy()
        action[:3] += noise * rng.normal(size=len(action[:3]))
        result = env.play(action)
        if result.terminated or result.truncated:
            return result


# --- every env ---------------------------------------------------------------------------------------------------


def test_tidy_desk_is_listed() -> None:
    assert "tidy_desk" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_checker(name: str) -> None:
    base, argument = registry.split_argument(name)
    found = registry.load_env(name)
    _make(name).close()
    ids = [spec.id for spec in gymnasium.registry.values() if spec.entry_point == f"envs.{base}:{found.__name__}"]
    arguments = {} if argument is None else {found.ARGUMENT: argument}  # type: ignore[attr-defined]
    # Without an id nothing says that it renders, and how.
    made: Any = gymnasium.make(ids[0], render_mode="rgb_array", **arguments).unwrapped if ids else _make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if base == "gymnasium":  # another package's range of actions is its own
            warnings.filterwarnings("ignore", ".*recommend using a symmetric and normalized space")
        if not ids:
            warnings.filterwarnings("ignore", ".*was not created with `gym.make`")
        check_env(made, skip_render_check=not ids)


def test_contract(env: Any) -> None:
    assert isinstance(env, Env)
    raw, info = env.reset(seed=3)
    assert raw in env.observation_space
    assert {"instruction", "language", "kind", "category"} <= set(info)
    as_observation(raw, env.env_spec).check(env.env_spec)
    assert len(env.env_spec.action) == env.action_space.shape[0]
    assert all(0 <= a < len(env.env_spec.action) and 0 <= s < len(env.env_spec.state) for a, s in env.env_spec.relative)
    expert = _expert(env)
    assert isinstance(expert, Expert)
    step = expert.act()
    assert step.action in env.action_space and step.sub_instruction


def test_same_seed_and_actions_give_the_same_bytes(env: Any) -> None:
    def history() -> list[bytes]:
        first, _ = env.reset(seed=11, options={"split": "heldout"})
        expert, seen = _expert(env, seed=1), [first]
        rewards = []
        for _ in range(12):
            observation, reward, *_ = env.step(expert.act().action)
            seen.append(observation)
            rewards.append(reward)
        arrays = [value for one in seen for value in one.values() if isinstance(value, np.ndarray)]
        return [a.tobytes() for a in arrays] + [np.array(rewards).tobytes(), first["instruction"].encode()]

    assert history() == history()


def test_another_seed_gives_another_start(env: Any) -> None:
    one, two = env.reset(seed=1)[0], env.reset(seed=2)[0]
    assert all((one[camera.name] != two[camera.name]).any() for camera in env.env_spec.cameras)


def test_no_memory_is_shared_between_steps(env: Any) -> None:
    first, _ = env.reset(seed=5)
    copies = {key: np.copy(value) for key, value in first.items() if isinstance(value, np.ndarray)}
    action = _expert(env).act().action
    second, *_ = env.step(action)
    third = env.observe()
    for key, copy in copies.items():
        assert (first[key] == copy).all()
        later = third.images.get(key, third.state)
        assert not np.shares_memory(first[key], second[key]) and not np.shares_memory(second[key], later)


def test_no_observation_is_constant(env: Any) -> None:
    first, _ = env.reset(seed=6)
    expert = _expert(env)
    for _ in range(10):
        last, *_ = env.step(expert.act().action)
    assert all((first[key] != last[key]).any() for key in first if isinstance(first[key], np.ndarray))


def test_a_bad_action_moves_nothing(env: Any) -> None:
    env.reset(seed=7)
    before = env.observe()
    action = _expert(env).act().action.copy()
    action[0] = np.nan
    with pytest.raises(VlaError, match="finite"):
        env.play(action)
    with pytest.raises(VlaError):
        env.play(action[:-1])
    after = env.observe()
    assert (before.state == after.state).all() and before.time == after.time


def test_expert_succeeds(env: Any) -> None:
    env.reset(seed=21)
    try:
        env.expert()
    except NoExpertError:
        pytest.skip("this env has no expert")
    results = [_play_out(env, seed) for seed in (21, 22, 23, 24)]
    assert all(result.info["success"] and result.terminated and not result.truncated for result in results)
    assert all(result.info["progress"] == 1.0 for result in results)


def test_reward_is_the_sum_of_named_terms(env: Any) -> None:
    env.reset(seed=8)
    expert = _expert(env)
    for _ in range(5):
        result = env.play(expert.act().action)
        assert result.reward == pytest.approx(sum(result.info["reward_terms"].values()))
        assert np.isfinite(list(result.info["reward_terms"].values())).all()
        assert 0 <= result.info["progress"] <= 1


def test_points_are_in_range(env: Any) -> None:
    env.reset(seed=9)
    points = env.points()
    assert set(points) == {camera.name for camera in env.env_spec.cameras}
    for values in points.values():
        assert values.shape == (6,) and values.dtype == np.float32 and (np.abs(values) <= 1).all()
        assert set(values[[2, 5]]) <= {0.0, 1.0}


def test_referring_expressions_name_things_in_view(env: Any) -> None:
    if not hasattr(env, "referring_expressions"):
        pytest.skip("this env refers to nothing")
    for seed in range(6):
        env.reset(seed=seed, options={"stage": "midway"})
        found = env.referring_expressions()
        assert found and len({expression.text for expression in found}) == len(found)
        for expression in found:
            assert set(expression.points) == {camera.name for camera in env.env_spec.cameras}
            for values in expression.points.values():
                assert values.shape == (6,) and values.dtype == np.float32 and (np.abs(values) <= 1).all()


def _bytes(env: Any, seed: int, **options: Any) -> list[bytes]:
    """An episode's first observation, and that after a few of the expert's steps."""
    first, _ = env.reset(seed=seed, options=options)
    expert = _expert(env, seed)
    for _ in range(3):
        last, *_ = env.step(expert.act().action)
    return [np.asarray(one[key]).tobytes() for one in (first, last) for key in sorted(one)]


def test_each_perturbation_changes_the_episode_and_leaves_others_alone(env: Any) -> None:
    calm = _bytes(env, 14)
    for axis in getattr(env, "PERTURBATIONS", ()):
        harder = [_bytes(env, 14, perturb={axis: strength}) for strength in perturb.STRENGTHS]
        assert all(one != calm for one in harder), axis
        assert harder[0] != harder[1] != harder[2], axis
        assert _bytes(env, 14, perturb={axis: "strong"}) == harder[2], axis
        as_observation(env.reset(seed=14, options={"perturb": {axis: "strong"}})[0], env.env_spec).check(env.env_spec)
    assert _bytes(env, 14) == calm, "what was perturbed before leaves no trace"
    if hasattr(env, "PERTURBATIONS"):
        assert _bytes(env, 14, perturb={}) == calm


def test_a_perturbation_that_it_cannot_do_is_refused(env: Any) -> None:
    assert set(getattr(env, "PERTURBATIONS", ())) <= set(perturb.AXES) - set(perturb.ANYWHERE)
    with pytest.raises(VlaError, match="perturb"):
        env.reset(seed=0, options={"perturb": {"noise": "mild"}})


def test_unknown_option_is_refused(env: Any) -> None:
    with pytest.raises(VlaError, match="no_such"):
        env.reset(seed=0, options={"no_such": 1})


# --- tidy_desk ---------------------------------------------------------------------------------------------------


def test_registered_with_gymnasium() -> None:
    made = gymnasium.make("vla/TidyDesk-v0", cameras_px=32)
    observation, _ = made.reset(seed=0)
    assert observation["scene"].shape == (32, 32, 3)
    made.close()


@pytest.mark.parametrize("split", goals.SPLITS)
def test_instruction_parses_to_its_goal(desk: TidyDesk, split: str) -> None:
    for seed in range(30):
        _, info = desk.reset(seed=seed, options={"split": split, "items": 2 + seed % 4})
        goal = reading.parse(info["instruction"])
        assert goal is not None and goal.kind == info["kind"] == desk.goal.kind
        assert goal.category == info["category"]
        assert goals.language_of(info["instruction"]) == info["language"]
        asked = [item for item in info["items"] if item["asked"]]
        assert asked and all(info["category"] in ("", item["category"]) for item in asked)
        assert len({item["name"] for item in info["items"]}) == len(info["items"]) == 2 + seed % 4
        if goal.item is not None:
            assert [item["name"] for item in asked] == [f"{goal.item[0]} {goal.item[1].replace('_', ' ')}"]


def test_own_instruction_brings_the_item_it_names(desk: TidyDesk) -> None:
    for text, name, language in (
        ("put the green pen in the tray", "green pen", "en"),
        ("把红色的积木放进积木盒", "red block", "zh"),
    ):
        _, info = desk.reset(seed=1, options={"instruction": text})
        assert info["instruction"] == text and info["language"] == language
        assert [item["name"] for item in info["items"] if item["asked"]] == [name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instruction": "sing a song"}, "does not understand"),
        ({"items": 9}, "2 to 5"),
        ({"kind": "some"}, "kind"),
        ({"category": "cups"}, "category"),
        ({"split": "test"}, "split"),
        ({"language": "fr"}, "language"),
        ({"kind": "all", "category": "pens"}, "category"),
    ],
)
def test_bad_options_say_what_is_wrong(desk: TidyDesk, options: dict[str, Any], message: str) -> None:
    with pytest.raises(VlaError, match=message):
        desk.reset(seed=0, options=options)


def test_splits_share_no_layout_and_no_shade() -> None:
    rng = np.random.default_rng(0)
    orders: dict[str, set] = {"train": set(), "heldout": set()}
    for split, seen in orders.items():
        for _ in range(40):
            receptacles, _ = tidy_layout.sample_layout([("pen", "red")], split, rng)
            seen.add(tuple(sorted(receptacles, key=lambda c: -receptacles[c].y)))
    assert not orders["train"] & orders["heldout"]
    assert len(orders["train"]) == 4 and len(orders["heldout"]) == 2
    for train, held in items._HUES.values():
        assert train[1] < held[0] or held[1] < train[0]


def test_each_episode_starts_from_another_pose(desk: TidyDesk) -> None:
    one, two = desk.reset(seed=1)[0], desk.reset(seed=2)[0]
    assert (one["state"] != two["state"]).any()


def test_no_reward_term_outweighs_the_others(desk: TidyDesk) -> None:
    desk.reset(seed=8)
    expert = desk.expert()
    for _ in range(5):
        assert all(-1 <= value <= 1 for value in desk.play(expert.act().action).info["reward_terms"].values())


def test_physics_that_diverges_is_an_error_and_no_silent_fresh_start(
    desk: TidyDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo keeps a log of it in the working folder
    desk.reset(seed=3)
    action = desk.expert().act().action
    desk.tabletop.data.qvel[-1] = np.inf
    with pytest.raises(VlaError, match=r"the physics diverged \(BADQVEL"):
        desk.play(action)
    desk.reset(seed=3)
    desk.play(action)


def test_things_lie_apart(desk: TidyDesk) -> None:
    for seed in range(10):
        desk.reset(seed=seed, options={"items": 5, "kind": "all"})
        assert not any(desk.scene.inside) and desk.scene.held is None
        assert np.abs(desk.scene.positions[:, 2] - [p.item.size[2] for p in desk.scene.placed]).max() < 0.003
        drift = [
            np.hypot(at[0] - p.x, at[1] - p.y) for at, p in zip(desk.scene.positions, desk.scene.placed, strict=True)
        ]
        assert max(drift) < 0.003


def test_the_smallest_item_spans_six_pixels(desk: TidyDesk) -> None:
    desk.reset(seed=0)
    rng, far = np.random.default_rng(0), tidy_layout.AREA_LOW[0]  # the far edge, where a metre is fewest pixels
    for noun in goals.NOUNS:
        for _ in range(50):
            length, width, height = items.make_item(noun, "yellow", "train", rng).size
            corners = np.array([(x, y, z) for x in (-width, width) for y in (-length, length) for z in (0, 2 * height)])
            seen = np.array([desk.tabletop.project("scene", corner + (far, 0, 0))[:2] for corner in corners])
            assert np.ptp(seen, axis=0).max() / 2 * desk.tabletop.cameras_px >= 6, noun
    for x in (tidy_layout.AREA_LOW[0], tidy_layout.AREA_HIGH[0]):
        for y in (tidy_layout.AREA_LOW[1], tidy_layout.AREA_HIGH[1]):
            assert desk.tabletop.project("scene", np.array([x, y, 0.0]))[2] == 1.0


def test_moving_another_item_spoils_success(desk: TidyDesk) -> None:
    desk.reset(seed=4, options={"kind": "named"})
    other = desk.scene.asked.index(False)
    joint = desk.tabletop.model.joint(desk.scene.placed[other].item.name)
    desk.tabletop.data.qpos[joint.qposadr[0]] += 0.06
    expert = desk.expert()
    result = desk.play(expert.act().action)
    assert result.info["disturbed"] and result.info["reward_terms"]["disturbed"] == -1.0
    assert not result.info["success"]


def test_success_needs_release_and_the_right_place(desk: TidyDesk) -> None:
    desk.reset(seed=12, options={"kind": "named", "category": "blocks"})
    target = desk.scene.target
    assert target is not None
    data, joint = desk.tabletop.data, desk.tabletop.model.joint(desk.scene.placed[target].item.name)
    at = joint.qposadr[0]

    def put(category: str) -> Any:
        receptacle = desk.scene.receptacles[category]
        data.qpos[at : at + 3] = (receptacle.x, receptacle.y, 0.03)
        action = np.concatenate((desk.tabletop.position, [1, 0, 0, 0, -1, 0, 1]))
        for _ in range(8):
            result = desk.play(action)
        return result

    assert not put("waste").info["success"]
    right = put("blocks")
    assert right.info["success"] and right.info["items"][desk.scene.placed[target].item.name]


def test_expert_recovers_from_noise_and_a_moved_item(desk: TidyDesk) -> None:
    assert _play_out(desk, 31, noise=0.006).info["success"]
    desk.reset(seed=32, options={"kind": "named", "category": "waste"})
    expert, moved = desk.expert(), False
    for _ in range(200):
        result = desk.play(expert.act().action)
        if not moved and desk.scene.held is not None and desk.tabletop.position[2] > 0.08:
            moved = True  # it slips: back to where it lay
            at = desk.tabletop.model.joint(desk.scene.placed[desk.scene.held].item.name).qposadr[0]
            desk.tabletop.data.qpos[at : at + 3] = desk.scene._start[desk.scene.held]
        if result.terminated:
            break
    assert moved and result.info["success"]


def test_sub_instruction_names_the_item_being_moved(desk: TidyDesk) -> None:
    desk.reset(seed=40, options={"kind": "all", "language": "zh"})
    expert, said = desk.expert(), set()
    for _ in range(300):
        step = expert.act()
        said.add(step.sub_instruction)
        if desk.play(step.action).terminated:
            break
    wanted = {goals.sub_instruction(p.item.color, p.item.noun, "zh") for p in desk.scene.placed}
    assert said == wanted


def test_wrist_camera_sees_what_is_held(desk: TidyDesk) -> None:
    desk.reset(seed=13, options={"kind": "named"})
    expert, seen = desk.expert(), []
    for _ in range(80):
        result = desk.play(expert.act().action)
        if desk.scene.held is not None and desk.scene.held == desk.scene.target:
            seen.append(desk.points()["wrist"])
        if result.terminated:
            break
    assert seen and all(one[2] == 1.0 and abs(one[0]) < 0.4 for one in seen)


def test_expert_finds_a_grasp_beside_a_wall(desk: TidyDesk) -> None:
    """Items right beside a wall of a receptacle where they don't belong: fingers that open wide would meet the wall."""
    for seed, category in ((3, "waste"), (5, "blocks"), (8, "pens"), (9, "blocks")):
        desk.reset(seed=seed, options={"kind": "named", "category": category})
        item = desk.scene.placed[0].item
        box = desk.scene.receptacles["blocks" if item.category != "blocks" else "waste"]
        x, y = box.world(box.half[0] - item.size[1] - 0.026, 0.0)
        yaw = box.yaw + math.pi / 2  # along the wall
        joint = desk.tabletop.data.joint(item.name)
        joint.qpos[:] = (x, y, item.size[2] + 0.001, math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))
        desk.tabletop.settle(0.3)
        desk.scene.look()
        expert = desk.expert()
        for _ in range(100):
            result = desk.play(expert.act().action)
            if result.terminated:
                break
        assert result.info["success"], item.name


def test_midway_scenes_are_as_in_the_middle_of_an_episode(desk: TidyDesk) -> None:
    inside, astray, held, close, tools, counts = 0, 0, 0, 0, [], set()
    for seed in range(24):
        desk.reset(seed=seed, options={"stage": "midway"})
        counts.add(len(desk.scene.placed))
        tools.append(desk.tabletop.position)
        nearest = float(np.linalg.norm((desk.scene.positions - tools[-1])[:, :2], axis=1).min())
        close += tools[-1][2] < 0.16 and nearest < 0.09 and desk.scene.held is None
        inside += sum(desk.scene.inside)
        held += desk.scene.held is not None and desk.scene.held == desk.scene.target and desk.tabletop.gripper < 0.9
        astray += sum(
            receptacle.contains(desk.scene.positions[i][None]) and category != placed.item.category
            for category, receptacle in desk.scene.receptacles.items()
            for i, placed in enumerate(desk.scene.placed)
        )
        found = desk.referring_expressions()
        for index, expression in enumerate(found[: len(desk.scene.placed)]):
            goal, item = reading.parse(expression.text), desk.scene.placed[index].item
            assert goal is not None and goal.item == (item.color, item.noun)
            np.testing.assert_allclose(expression.points["scene"], desk.scene.points_of(index)["scene"])
            yaw, symmetry, place, place_symmetry = expression.yaws
            axis = desk.scene.rotations[index][:, 0]
            if symmetry == np.float32(math.pi) and abs(axis[2]) < 0.01:  # a long item that lies flat
                np.testing.assert_allclose(abs(math.cos(yaw) * axis[0] + math.sin(yaw) * axis[1]), 1.0, atol=1e-3)
            assert symmetry == 0.0 or symmetry == np.float32(item.symmetry)
            receptacle = desk.scene.receptacles[item.category]
            assert place == np.float32(receptacle.yaw) and place_symmetry == np.float32(receptacle.symmetry)
            to_item, to_place = expression.offsets.reshape(2, 3) + desk.tabletop.position
            np.testing.assert_allclose(to_item, desk.scene.positions[index], atol=1e-6)
            np.testing.assert_allclose(to_place[:2], receptacle.world(0.0, 0.0), atol=1e-6)
            if desk.scene.inside[index]:
                apart = expression.points["scene"][:2] - expression.points["scene"][3:5]
                assert np.linalg.norm(apart) < 0.25  # its receptacle is where it lies
        meant = [reading.parse(expression.text) for expression in found]
        by_color = [expression for expression, goal in zip(found, meant, strict=True) if goal is None]
        colors = [placed.item.color for placed in desk.scene.placed]
        alone = [index for index, color in enumerate(colors) if colors.count(color) == 1]
        for index, expression in zip(alone, by_color, strict=True):
            word = phrases.COLOR_WORDS[desk.language][colors[index]]
            assert word in expression.text and desk.scene.placed[index].item.noun not in expression.text
            np.testing.assert_allclose(expression.points["scene"], desk.scene.points_of(index)["scene"])
        for expression, goal in list(zip(found, meant, strict=True))[len(desk.scene.placed) :]:
            if goal is None:
                continue
            assert goal.kind in ("all", "category")
            rest = [i for i, p in enumerate(desk.scene.placed) if goal.category in ("", p.item.category)]
            places = [
                desk.scene.points_of(i)["scene"] for i in rest if i == desk.scene.held or not desk.scene.inside[i]
            ]
            assert any(np.allclose(expression.points["scene"], place) for place in places)
    assert inside >= 6 and astray >= 3 and held >= 4 and close >= 4 and counts == {2, 3, 4, 5}
    assert np.std(tools, axis=0)[:2].min() > 0.05 and min(tool[2] for tool in tools) > 0.05
    desk.reset(seed=3)
    assert not any(desk.scene.inside)
    always = TidyDesk(cameras_px=32, stage="midway")
    always.reset(seed=23)
    np.testing.assert_allclose(always.tabletop.position, tools[23])
    always.close()
    with pytest.raises(VlaError, match="stage must be one of start, midway"):
        TidyDesk(stage="end")


def test_goal_of_any_colour_is_met_by_the_only_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        things = tidy_layout.choose_things(Goal("named", item=("", "pen")), 4, rng)
        assert [noun for noun, _ in things].count("pen") == 1 and things[0][0] == "pen"


def test_video_frame_differs_from_the_fast_one(desk: TidyDesk) -> None:
    desk.reset(seed=2)
    nice, fast = desk.frame(160, 120), desk.frame(160, 120, quality="fast")
    assert nice.shape == fast.shape == (120, 160, 3) and (nice != fast).any()
    with pytest.raises(VlaError, match="overview"):
        desk.frame(32, 32, camera="nowhere")
