"""Outside envs that break gymnasium's promises, or keep them in unusual ways: taken as they are meant, or one line."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.gymnasium.layout import Layout
from tests.test_gymnasium import DOT, random_agent
from vla import registry
from vla.cli import main
from vla.contracts import BadObservationError, VlaError

BROKEN = "gymnasium:tests.tiny_gym:tiny/Broken-v0"
STILL = np.zeros(2, np.float32)


def broken(how: str = "", **options: Any) -> Any:
    return registry.make_env(BROKEN, how=how, **options)


# --- refused before the first episode ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "bare reset"}, r"reset\(\) of .* gave a dict where \(observation, info\) was wanted: gym's old"),
        ({"how": "four values"}, r"step\(\) of tiny/Broken-v0 raised ValueError: .*unpack.*gym's old interface"),
        ({"how": "info is a list"}, r"gave a list as info, where a dict was wanted$"),
        ({"how": "no observation"}, r"step\(\) of tiny/Broken-v0 gave no observation, but None$"),
        ({"how": "no reward"}, r"gave None as reward, where a finite number was wanted$"),
        ({"how": "NaN reward"}, r"gave nan as reward"),
        ({"how": "two rewards"}, r"gave float64 \(2,\) from 1 to 1 as reward"),
        ({"how": "two ends"}, r"terminated was bool \(2,\).*, where true or false was wanted$"),
        ({"how": "raises"}, r"step\(\) of tiny/Broken-v0 raised RuntimeError: mjWARN_BADQACC, in a trial"),
        ({"how": "NaN"}, r"tiny/Broken-v0: agent_pos holds NaN or infinity: \[nan, nan\]$"),
        ({"how": "three numbers"}, r"agent_pos was float64 \(3,\) from 0 to 0 where Box.* was promised$"),
        ({"how": "a word"}, r"agent_pos was 'here' where Box"),
        ({"how": "no state"}, r"the observation has no agent_pos, which it promised$"),
        ({"how": "no picture"}, r"pixels/top gave None where a picture \(24, 24, 3\) was wanted$"),
        ({"how": "small picture"}, r"pixels/top gave uint8 \(9, 24, 3\).* where a picture \(24, 24, 3\) was wanted$"),
        ({"how": "None", "kind": "state"}, r"render\(\) of .* gave None where a picture \(height, width, 3\) was"),
        ({"how": "list", "kind": "state"}, r"render\(\) of tiny/Broken-v0 gave a list where"),
        ({"how": "list of frames", "kind": "state"}, r"render\(\) of tiny/Broken-v0 gave a list where"),
        (
            {"how": "beyond", "kind": "state"},
            r"gave float64 .* to 306 where a picture from 0 to 255 was wanted$",
        ),
        ({"how": "below", "kind": "state"}, r"from -0.5 to 0.5 where a picture from 0 to 1 was wanted$"),
        ({"how": "NaN pixels", "kind": "state"}, r"from nan to nan where a picture from 0 to"),
        ({"how": "two channels", "kind": "state"}, r"gave uint8 \(24, 24, 2\).* where a picture"),
        ({"how": "words", "kind": "state"}, r"gave <U3 \(24, 24, 3\) where a picture"),
        ({"box": spaces.Discrete(3)}, r"takes actions of Discrete\(3\); what can be played is a box of numbers$"),
        ({"box": spaces.MultiDiscrete([2, 2])}, r"takes actions of MultiDiscrete.*a box of numbers$"),
        ({"box": spaces.Dict({"a": spaces.Box(0, 1, (2,))})}, r"takes actions of Dict.*a box of numbers$"),
        ({"box": spaces.MultiBinary(2)}, r"takes actions of MultiBinary.*a box of numbers$"),
        ({"dt": 0}, r"--env-option dt must be a number above 0, and is 0$"),
        ({"dt": "fast"}, r"dt must be a number above 0, and is 'fast'$"),
        ({"episode_steps": 1.5}, r"episode_steps must be a whole number above 0, and is 1.5$"),
        ({"episode_steps": -1}, r"episode_steps must be a whole number above 0, and is -1$"),
        ({"reward_threshold": "much"}, r"reward_threshold must be a number, and is 'much'$"),
        ({"parts": "pixels/up"}, r"parts: the observation has no 'pixels/up'; it has .*pixels/top"),
    ],
)
def test_what_breaks_a_promise_from_the_start_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(VlaError, match=message) as caught:
        registry.make_env(BROKEN, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("VectorOnly", "tiny/VectorOnly-v0 cannot be made: "), ("NoEnv", "tiny/NoEnv-v0 cannot be made: |does not take")],
)
def test_what_is_no_env_is_refused(name: str, message: str) -> None:
    with pytest.raises(VlaError, match=message) as caught:
        registry.make_env(f"gymnasium:tests.tiny_gym:tiny/{name}-v0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0, None, -5, "ten", float("nan")])
def test_an_env_without_a_rate_asks_for_one(rate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.tiny_gym.Broken.metadata", {"render_modes": ["rgb_array"], "render_fps": rate})
    with pytest.raises(VlaError, match=r"does not say how fast it runs \(render_fps is .*--env-option dt=0.1$"):
        broken()
    assert broken(dt=0.5).env_spec.dt == 0.5
    monkeypatch.setattr("tests.tiny_gym.Broken.metadata", None)
    with pytest.raises(VlaError, match=r"cannot be made with .*metadata to be dict"):
        broken()


# --- what comes later is an error of its episode ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "NaN reward"}, "nan as reward"),
        ({"how": "success is a word"}, r"info\['is_success'\] was 'yes', where true or false was wanted"),
        ({"how": "NaN"}, "agent_pos holds NaN"),
        ({"how": "three numbers"}, "agent_pos was float64"),
        ({"how": "no picture"}, "gave None where a picture"),
        ({"how": "grows", "kind": "state"}, r" gave uint8 \(25, 24, 3\)"),
    ],
)
def test_what_breaks_a_promise_later_ends_that_step_alone(options: dict[str, Any], message: str) -> None:
    env = registry.make_env(BROKEN, since=3, **options)
    for _ in range(2):
        env.reset(seed=1)
        for _ in range(2):
            env.step(STILL)
        with pytest.raises(VlaError, match=rf"tiny/Broken-v0.*{message}"):
            env.step(STILL)
    env.reset(seed=1)


def test_a_bad_observation_is_told_as_such() -> None:
    env = broken("NaN", since=2)
    env.reset(seed=0)
    env.play(STILL)
    env.play(STILL)
    with pytest.raises(BadObservationError, match="tiny/Broken-v0: agent_pos holds NaN"):
        env.observe()


# --- taken as it is meant ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["grey", "grey matrix", "alpha", "channels first", "floats to 1", "floats to 255", "int64"]
)
def test_pictures_of_other_forms_become_ours(how: str) -> None:
    odd, usual = broken(how, kind="state"), broken(kind="state")
    for env in (odd, usual):
        env.reset(seed=4)
    found, wanted = odd.observe().images["render"], usual.observe().images["render"]
    if how.startswith("grey"):
        wanted = np.repeat(wanted[..., :1], 3, axis=2)
    assert found.dtype == np.uint8 and (found == wanted).all() and found.flags["C_CONTIGUOUS"]
    assert not np.shares_memory(found, odd.observe().images["render"])


@pytest.mark.parametrize("how", ["no info", "array reward", "close raises", "small seeds", "same array"])
def test_small_oddities_are_no_matter(how: str) -> None:
    odd, usual = broken(how, reward_threshold=100), broken(reward_threshold=100)
    for env in (odd, usual):
        env.reset(seed=3)
    first = odd.observe()
    kept = first.state.copy()
    for _ in range(8):
        one, other = (env.step(np.float32([0.3, -0.5])) for env in (odd, usual))
        assert one[1:4] == other[1:4] and type(one[2]) is type(one[3]) is bool
        assert all(np.array_equal(one[0][key], other[0][key]) for key in one[0])
    assert (first.state == kept).all(), "what was observed is not changed by what comes later"
    odd.close()


def test_a_seed_that_an_env_cannot_take_is_made_smaller() -> None:
    odd, usual = broken("small seeds"), broken()
    one, other = odd.reset(seed=2**31 + 5)[0], usual.reset(seed=5)[0]
    assert (one["state"] == other["state"]).all()


def test_actions_of_other_shapes() -> None:
    whole = broken(box=spaces.Box(-3, 3, (2, 2), np.int32))
    assert len(whole.env_spec.action) == 4 and whole.action_space.shape == (4,)
    whole.reset(seed=0)
    whole.play(np.array([0.6, -1.4, 2.0, 9.0]))
    given = whole._inner.unwrapped.given
    assert given.dtype == np.int32 and given.tolist() == [[1, -1], [2, 3]]
    free = broken(box=spaces.Box(-np.inf, np.inf, (2,), np.float64))
    free.reset(seed=0)
    free.play(np.array([1e6, -1e6]))
    assert free._inner.unwrapped.given.tolist() == [1e6, -1e6]


# --- success ----------------------------------------------------------------------------------------------------------


def test_success_may_be_told_at_the_end_alone() -> None:
    env = broken("success at the end")
    env.reset(seed=0)
    results = [env.play(STILL) for _ in range(5)]
    assert [one.info["success"] for one in results] == [False] * 4 + [True] and results[-1].terminated


def test_no_word_of_success_in_a_whole_episode_is_an_error_at_its_end() -> None:
    env = broken("success unknown")
    env.reset(seed=0)
    for _ in range(7):
        assert not env.play(STILL).info["success"]
    with pytest.raises(VlaError, match=r"neither is_success nor success in a whole episode; .*reward_threshold=100$"):
        env.play(STILL)


# --- what is used of an observation -----------------------------------------------------------------------------------


NESTED = spaces.Dict(
    {
        "agentview_image": spaces.Box(0, 255, (3, 24, 24), np.uint8),
        "wrist": spaces.Box(0.0, 1.0, (16, 20, 3), np.float32),
        "robot": spaces.Dict({"pose": spaces.Box(-1.0, 1.0, (1, 2), np.float32), "phase": spaces.Discrete(3, start=1)}),
        "gripper": spaces.Box(0.0, 1.0, (), np.float32),
        "touch": spaces.MultiBinary(2),
        "pair": spaces.Tuple([spaces.Box(-9.0, 9.0, (1,), np.float64), spaces.MultiDiscrete([2, 3])]),
        "task": spaces.Text(10),
        "depth": spaces.Box(0.0, np.inf, (64, 64, 1), np.float32),
        "stack": spaces.Box(0, 255, (4, 24, 24), np.uint8),
    }
)


def test_each_part_of_an_observation_is_used_or_told() -> None:
    layout = Layout.of(NESTED)
    assert [(c.name, c.height, c.width) for c in layout.cameras] == [("agentview_image", 24, 24), ("wrist", 16, 20)]
    assert [leaf.name for leaf in layout.vectors] == ["gripper", "pair/0", "robot/pose", "touch"]
    assert layout.unused == ("depth", "pair/1", "robot/phase", "stack", "task")
    assert str(layout) == (
        "camera agentview_image (24 x 24) from agentview_image; camera wrist (16 x 20) from wrist; state from "
        "gripper (1), pair/0 (1), robot/pose (2), touch (2); not used: depth, pair/1, robot/phase, stack, task"
    )
    NESTED.seed(0)
    seen = NESTED.sample()
    state = layout.read_state(seen, "odd")
    assert state.dtype == np.float32 and (layout.low <= state).all() and (state <= layout.high).all()
    parts = [seen["gripper"], seen["pair"][0], seen["robot"]["pose"], seen["touch"]]
    assert state.tolist() == pytest.approx(np.concatenate([np.ravel(part) for part in parts]).tolist())
    images = layout.read_images(seen, "odd")
    assert (images["agentview_image"] == seen["agentview_image"].transpose(1, 2, 0)).all()
    assert (images["wrist"] == np.rint(seen["wrist"] * 255)).all() and images["wrist"].dtype == np.uint8


def test_parts_can_be_chosen() -> None:
    layout = Layout.of(NESTED, "robot/phase, gripper,wrist,pair/1")
    assert [camera.name for camera in layout.cameras] == ["wrist"] and len(layout.low) == 3 + 1 + 2 + 3
    seen = {"robot": {"phase": 2}, "gripper": np.float32(0.5), "pair": (0, np.array([1, 0]))}
    assert layout.read_state(seen, "odd").tolist() == [0, 1, 0, 0.5, 0, 1, 1, 0, 0]
    with pytest.raises(BadObservationError, match=r"odd: robot/phase was 7 where Discrete"):
        layout.read_state({**seen, "robot": {"phase": 7}}, "odd")
    with pytest.raises(VlaError, match="'task' is neither a picture nor numbers"):
        Layout.of(NESTED, "task")


def test_names_of_cameras_meet_nothing_else() -> None:
    picture = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    both = spaces.Dict({"state": picture, "views": spaces.Tuple([picture, picture]), "a/b": picture})
    assert [camera.name for camera in Layout.of(both).cameras] == ["a_b", "image_state", "image_0", "image_1"]


def test_the_reading_is_told() -> None:
    env = registry.make_env(DOT)
    assert env.reading == "tiny/Dot-v0: camera top (24 x 24) from pixels/top; state from agent_pos (2); not used: goal"
    drawn = registry.make_env(DOT, kind="state")
    assert drawn.reading == "tiny/Dot-v0: camera render from render(); state from goal (2), place (2)"


# --- chance -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def outside() -> Iterator[list[Any]]:
    """The global generators' next draws, which no env may change."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    wanted = [random.random(), np.random.random(), float(torch.rand(()))]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    yield wanted


def test_global_draws_come_from_the_seed_alone(outside: list[Any]) -> None:
    one, other = broken("global draws"), broken("global draws")
    first, _ = one.reset(seed=7)
    later = [one.step(STILL)[0]["state"] for _ in range(3)]
    other.reset(seed=8)
    again, _ = other.reset(seed=7)
    assert (first["state"] == again["state"]).all() and (first["state"] != one.reset(seed=8)[0]["state"]).any()
    for state in later:
        one.step(STILL)  # a neighbour in the same process draws too
        assert (other.step(STILL)[0]["state"] == state).all()
    assert [random.random(), np.random.random(), float(torch.rand(()))] == outside


def test_an_env_that_draws_globally_is_the_same_with_two_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = broken("global draws")
    env.reset(seed=0)
    random_agent(env.env_spec).save(tmp_path / "agent", env.observe())
    found = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        words = ["--episodes", "3", "--workers", workers, "--slots", "2", "--videos", "0", "--env-option"]
        words += ["how=global draws", "--agent", str(tmp_path / "agent"), "--out", str(out)]
        assert main(["eval", "--env", BROKEN, *words]) == 0
        episodes = json.loads((out / "results.json").read_text())["episodes_detail"]
        assert capsys.readouterr().out.count("state from agent_pos (2); not used: goal") == 1
        found.append([(one["seed"], one["steps"], one["success"], one["progress"]) for one in episodes])
    assert found[0] == found[1]
