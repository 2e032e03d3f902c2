"""The adapter for gymnasium envs: how it reads them, what it refuses, and an evaluation from end to end."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.gymnasium.env import GymnasiumEnv
from policies.flow import FlowPolicy
from policies.flow_config import FlowConfig
from tests import tiny_gym
from vla import registry
from vla.agent import Agent
from vla.cli import main
from vla.contracts import EnvSpec, MissingExtraError, SpecMismatchError, VlaError
from vla.eval.identity import identity
from vla.nn.config import TrunkConfig
from vla.normalise import Normaliser

DOT = "gymnasium:tests.tiny_gym:tiny/Dot-v0"


def random_agent(spec: EnvSpec) -> Agent:
    """A tiny flow policy with random weights that fits ``spec``."""
    rng = np.random.default_rng(0)
    state, actions = rng.normal(size=(50, len(spec.state))), rng.normal(size=(50, 4, len(spec.action)))
    torch.manual_seed(0)
    trunk = TrunkConfig(vision="test_resnet", pixels=(32,), map_dim=8)
    policy = FlowPolicy(FlowConfig(chunk=4, execute=2, trunk=trunk, dim=16, depth=1, heads=2, sample_steps=1), spec)
    return Agent(policy, Normaliser.fit(state, actions, spec), spec, "flow")


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_gymnasium_env_is_read_as_it_describes_itself() -> None:
    env = registry.make_env(DOT)
    raw, info = env.reset(seed=3)
    spec = env.env_spec
    assert [(c.name, c.height, c.width) for c in spec.cameras] == [("top", 24, 24)]
    assert spec.state == ("state_0", "state_1"), "agent_pos alone: where the goal is must be seen"
    assert spec.action == ("action_0", "action_1") and spec.relative == ()
    assert (spec.dt, spec.episode_steps, spec.name) == (0.1, 30, "tiny/Dot-v0")
    inner = tiny_gym.Dot()
    theirs, _ = inner.reset(seed=3)
    assert (raw["top"] == theirs["pixels"]["top"]).all() and (raw["state"] == np.float32(theirs["agent_pos"])).all()
    assert info["split"] == "train" and info["category"] == "tiny/Dot-v0"
    action = np.array([0.5, -1.0], np.float32)
    for step in range(1, 4):
        theirs, reward, *_ = inner.step(action)
        result = env.play(action)
        seen = env.observe()
        assert (seen.images["top"] == theirs["pixels"]["top"]).all() and result.reward == reward
        assert (seen.state == np.float32(theirs["agent_pos"])).all() and seen.time == pytest.approx(0.1 * step)


def test_success_is_the_envs_own_and_ends_the_episode() -> None:
    env = GymnasiumEnv("tests.tiny_gym:tiny/Dot-v0")
    env.reset(seed=0)
    inner = env._inner.unwrapped
    for _ in range(30):
        result = env.play(np.clip(5 * (inner.goal - inner.dot), -1, 1))
        if result.terminated:
            break
    assert result.info == {"success": True, "progress": 1.0, "reward_terms": {"reward": 1.0}}
    env.reset(seed=0)
    ends = [env.play(np.zeros(2)) for _ in range(30)]
    assert [one.truncated for one in ends] == [False] * 29 + [True] and not ends[-1].info["success"]


def test_success_from_the_return() -> None:
    env = registry.make_env("gymnasium:tiny/Quiet-v0", kind="both")
    env.reset(seed=0)
    for _ in range(29):
        assert not env.play(np.zeros(2)).info["success"]
    with pytest.raises(VlaError, match=r"neither is_success nor success.*reward_threshold=100"):
        env.play(np.zeros(2))
    env = registry.make_env("gymnasium:tiny/Quiet-v0", reward_threshold=2)
    env.reset(seed=0)
    env._inner.unwrapped.dot = env._inner.unwrapped.goal + 0.01  # each step there is worth 1
    results = [env.play(np.zeros(2)) for _ in range(2)]
    assert [one.info["success"] for one in results] == [False, True]
    assert [one.info["progress"] for one in results] == [0.5, 1.0]


def test_a_bare_picture_and_a_picture_from_render() -> None:
    bare = registry.make_env("gymnasium:tests.tiny_gym:tiny/Dot-v0", kind="picture")
    raw, _ = bare.reset(seed=1)
    assert [c.name for c in bare.env_spec.cameras] == ["image"] and raw["state"].shape == (0,)
    assert raw in bare.observation_space
    drawn = registry.make_env("gymnasium:tests.tiny_gym:tiny/Dot-v0", kind="state")
    also, _ = drawn.reset(seed=1)
    assert [c.name for c in drawn.env_spec.cameras] == ["render"] and also["state"].shape == (4,)
    assert (also["render"] == raw["image"]).all() and also in drawn.observation_space


def test_names_and_words_can_be_given() -> None:
    env = registry.make_env(DOT, state="x,y", action="u,v", instruction="go there", dt=0.2, episode_steps=7)
    spec = env.env_spec
    assert (spec.state, spec.action, spec.dt, spec.episode_steps) == (("x", "y"), ("u", "v"), 0.2, 7)
    assert env.reset(seed=0)[1]["instruction"] == "go there"
    assert env.reset(seed=0, options={"instruction": "come back"})[0]["instruction"] == "come back"
    ends = [env.play(np.zeros(2)).truncated for _ in range(7)]
    assert ends == [False] * 6 + [True]


# --- refusing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gymnasium", {}, r"which gymnasium env\?.*gymnasium:gym_pusht/PushT-v0"),
        (
            "gymnasium:tiny/Counter-v0",
            {},
            r"tiny/Counter-v0 has no pixels: no picture in its observation Box.*rgb_array$",
        ),
        ("gymnasium:tiny/Buttons-v0", {}, r"takes actions of Discrete\(3\); .*a box of numbers$"),
        ("gymnasium:tiny/Endless-v0", {}, r"no end of its own.*episode_steps=300$"),
        ("gymnasium:tiny/Dto-v0", {}, r"no env 'tiny/Dto-v0'; the nearest are tiny/Dot-v0"),
        ("gymnasium:nothing_like_it", {}, r"knows no env 'nothing_like_it'"),
        ("gymnasium:no_such_module:Env-v0", {}, r"knows no env 'Env-v0'"),
        (DOT, {"speed": 3}, r"tiny/Dot-v0 does not take .*'speed': 3.*unexpected keyword argument 'speed'"),
        (DOT, {"state": "x,y,z"}, r"state names 3 dimensions, and there are 2: x,y,z$"),
    ],
)
def test_what_cannot_be_played_says_why(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(VlaError, match=message) as caught:
        registry.make_env(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["pusht", "aloha"])
def test_a_missing_package_says_how_to_install_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.import_module

    def absent(name: str, *rest: Any) -> Any:
        if name == f"gym_{package}":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return find(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    name = {"pusht": "gym_pusht/PushT-v0", "aloha": "gym_aloha/AlohaInsertion-v0"}[package]
    monkeypatch.delitem(__import__("gymnasium").registry, name, raising=False)
    with pytest.raises(MissingExtraError, match=rf"uv sync --extra {package}$"):
        registry.make_env(f"gymnasium:{name}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": 2}, "no reset option 'items'; it has split, language, instruction"),
        ({"language": "zh"}, "language must be one of en"),
        ({"split": "test"}, "split must be one of train, heldout"),
    ],
)
def test_bad_options_say_what_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(VlaError, match=message):
        registry.make_env(DOT).reset(seed=0, options=options)


def test_nothing_can_be_recorded_without_an_expert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--env", DOT, "--episodes", "1", "--out", str(tmp_path / "data"), "--workers", "1"]) == 2
    assert "tiny/Dot-v0 has no scripted expert" in capsys.readouterr().err


# --- from end to end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["both", "picture"])
def test_evaluation_is_the_same_with_two_workers(kind: str, tmp_path: Path) -> None:
    env = registry.make_env(DOT, kind=kind)
    env.reset(seed=0)
    random_agent(env.env_spec).save(tmp_path / "agent", env.observe())
    found = []
    for workers in ("1", "2") if kind == "both" else ("1",):
        out = tmp_path / f"eval_{workers}"
        words = [
            "--episodes",
            "4",
            "--workers",
            workers,
            "--slots",
            "2",
            "--videos",
            "1",
            "--env-option",
            f"kind={kind}",
        ]
        assert main(["eval", "--env", DOT, "--agent", str(tmp_path / "agent"), "--out", str(out), *words]) == 0
        results = json.loads((out / "results.json").read_text())
        assert results["episodes"] == 4 and (out / "report.html").is_file() and len(results["videos"]) == 1
        found.append([(e["seed"], e["steps"], e["success"], e["reward_terms"]) for e in results["episodes_detail"]])
    assert all(one == found[0] for one in found)


def test_the_hash_of_the_code_covers_the_env_that_is_adapted() -> None:
    named = registry.EnvRef(DOT), registry.EnvRef("gymnasium", {"env_id": DOT.partition(":")[2]})
    assert [one.modules() for one in named] == [("envs.gymnasium.env", "tests.tiny_gym")] * 2
    assert registry.EnvRef("gymnasium:CartPole-v1").modules() == ("envs.gymnasium.env",)
    assert registry.EnvRef("gymnasium:no/Such-v0").modules() == ("envs.gymnasium.env",)
    agent = random_agent(named[0].spec())
    found = [identity(one, agent) for one in (*named, registry.EnvRef("gymnasium:CartPole-v1"))]
    assert found[0] == found[1] and found[0]["code_hash"] != found[2]["code_hash"]
    assert found[0]["env_code_hash"] == found[2]["env_code_hash"]


def test_an_agent_of_another_env_is_explained_side_by_side(tmp_path: Path) -> None:
    env = registry.make_env(DOT, state="x,y")
    env.reset(seed=0)
    other = registry.make_env(DOT)
    with pytest.raises(SpecMismatchError, match=r"(?s)state:\n.*x, y\n.*state_0, state_1"):
        env.env_spec.require(other.env_spec, "agent", "env")
