"""Two systems: when plans are there, what System 1 makes of them, the words, and agents played late."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.flow import FlowPolicy
from policies.flow_config import FlowConfig
from policies.hierarchical import HierarchicalPolicy
from policies.hierarchical_config import HierarchicalConfig
from tests.fake_env import DotEnv
from tests.test_heads import trained
from tests.test_policies import SPEC, normaliser, raw_batch
from tests.test_train import fake_dataset
from vla.agent import Agent
from vla.cli import main
from vla.contracts import Chunk, Observation, Plan, VlaError
from vla.control.plans import Plans
from vla.data.frames import FrameCache
from vla.data.windows import Windows
from vla.nn.config import LanguageModelTrunkConfig
from vla.nn.context import Context
from vla.nn.flow import integrate
from vla.nn.speech import Speech
from vla.robots.planning import Planning
from vla.runner import Runner

TINY = HierarchicalConfig.tiny()


def looks(plans: Plans, count: int = 10) -> list[float]:
    """How old what System 2 has answered is, at looks 0.1 s apart."""
    times = [place * 0.1 for place in range(count)]
    return [round(at - plans.look(Observation({}, np.zeros(1), "", at)).time, 3) for at in times]


def test_a_plan_is_as_old_as_its_making_and_its_period_take() -> None:
    assert looks(Plans(10.0, lambda: 0.0)) == [0.0] * 10
    assert looks(Plans(8.0, lambda: 0.0))[:6] == [0.0, 0.1, 0.0, 0.1, 0.0, 0.1], "an eighth of a second is over at 0.2"
    late = Plans(8.0, lambda: 0.3)
    assert looks(late) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.3, 0.4, 0.5, 0.3] and late.first_s == pytest.approx(0.3)


class Slow:
    """Stands still, and notes which observation it was shown beside the present."""

    name, spec, execute, observation_steps = "slow", SPEC, 1, (-1, 0)
    config = replace(TINY, plan_rate_hz=10.0)

    def __init__(self) -> None:
        self.ages: list[float] = []

    def begin(self):
        return self

    def act_batch(self, observations, noise_seeds):
        self.ages += [round(one.time - one.past[0].time, 3) for one in observations]
        return [Chunk(np.full((4, 3), 7.0, np.float32), 0.1, one.time, words="go") for one in observations]


def test_the_arm_rests_until_the_first_plan_and_then_acts_on_what_is_there() -> None:
    agent = Slow()
    runner = Runner(agent, latency_s=0.2)
    images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in SPEC.cameras}
    played = []
    for step in range(6):
        seen = Observation(images, np.array([0.5, 0.5, 1.0], np.float32), "go on", 0.1 * step)
        played.append(float(runner.act(seen)[0, 0]))
    assert played == [0.5, 0.5, 7.0, 7.0, 7.0, 7.0]
    assert agent.ages == [0.0, 0.1, 0.2, 0.3, 0.2, 0.3]
    assert runner.said == [(0.0, "go")]


def two_moments() -> dict:
    """A normalised batch of two observations each."""
    raw = raw_batch()
    encoded = normaliser(raw).encode(raw)
    seen = [key for key in encoded if key == "state" or key.startswith("images.")]
    return {**encoded, **{key: torch.stack((encoded[key].flip(0), encoded[key]), dim=1) for key in seen}}


def test_it_begins_as_the_flow_policy_asked_once() -> None:
    torch.manual_seed(0)
    flow = FlowPolicy(replace(FlowConfig.tiny(), sample_steps=0, noise_scale=0.0), SPEC).eval()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.05 * torch.randn_like(p))
    policy = HierarchicalPolicy(TINY, SPEC).eval()
    policy.take_over(flow)
    batch = two_moments()
    now = {key: value[:, -1] if key == "state" or key.startswith("images.") else value for key, value in batch.items()}
    noise = torch.zeros(4, 16, 3)
    wanted = integrate(flow._field(flow.trunk.encode(now), 4, 0), noise, 0)
    answer = policy.sample(batch, [torch.Generator()] * 4)
    assert torch.allclose(answer.actions, wanted, atol=1e-5) and answer.words is None
    with pytest.raises(VlaError, match="it has the depth 1"):
        policy.take_over(FlowPolicy(replace(FlowConfig.tiny(), depth=1), SPEC))
    with pytest.raises(VlaError, match="does not begin from"):
        flow.take_over(policy)


def test_system_2s_moment_reaches_the_actions_through_the_latent_alone() -> None:
    torch.manual_seed(0)
    policy, batch = HierarchicalPolicy(TINY, SPEC).eval(), two_moments()
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05 * torch.randn_like(p))
    other = {**batch, "state": torch.cat((batch["state"][:, :1] + 1.0, batch["state"][:, 1:]), dim=1)}
    first, second = (policy.sample(one, [torch.Generator()] * 4).actions for one in (batch, other))
    assert not torch.allclose(first, second, atol=1e-4)
    with torch.no_grad():
        policy.latent.out.weight.zero_()
    first, second = (policy.sample(one, [torch.Generator()] * 4).actions for one in (batch, other))
    assert torch.equal(first, second)


def test_a_language_model_can_be_system_2() -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vision": "tiny", "pixels": (64, 32), "map_dim": 16, "glimpse": 8}
    trunk = LanguageModelTrunkConfig(model="tiny", layers=2, tokens=4, **sizes)
    policy, batch = HierarchicalPolicy(replace(TINY, trunk=trunk, follow_words=True), SPEC), two_moments()
    policy.loss(batch)[0].mean().backward()
    assert any(p.grad is not None and p.grad.any() for p in policy.latent.parameters())
    answer = policy.eval().sample(batch, [torch.Generator()] * 4)
    assert answer.actions.shape == (4, 16, 3) and answer.words is not None and len(answer.words) == 4


def test_the_head_acts_on_newer_joints_than_the_images() -> None:
    policy, batch = HierarchicalPolicy(TINY, SPEC).eval(), raw_batch()
    encoded = normaliser(batch).encode(batch)
    with torch.no_grad():
        policy.head.out.weight.normal_()
        for block in policy.head.blocks:
            block.modulation.weight.normal_(std=0.1)
        context = policy.perceive(encoded, torch.zeros(4, 32), encoded["instruction"])
        features, state = policy.features(context), encoded["state"]
        assert torch.allclose(policy.decide(context), policy.tick(context, features, state), atol=1e-6)
        assert not torch.allclose(policy.decide(context), policy.tick(context, features, state + 1.0), atol=1e-3)


def test_words_are_learnt_in_two_scripts_and_said_again() -> None:
    torch.manual_seed(0)
    speech, context = Speech(32, 1, 4), Context(torch.randn(2, 3, 32))
    sentences = ["red pen", "把纸团扔"]
    optimiser = torch.optim.AdamW(speech.parameters(), lr=1e-2)
    for _ in range(40):
        loss = speech.loss(context, sentences, 2)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert speech.eval().say(context, ["put it away", "收拾"]) == sentences
    speech.requires_grad_(False)
    alone = [speech.loss(Context(context.tokens[i : i + 1]), sentences[i : i + 1], 1) for i in range(2)]
    bytes_of = [len(text.encode()) + 1 for text in sentences]
    mean = sum(float(one) * count for one, count in zip(alone, bytes_of, strict=True)) / sum(bytes_of)
    assert float(speech.loss(context, sentences, 2)) == pytest.approx(mean, rel=1e-4)


def test_a_plan_asked_apart_is_the_one_within() -> None:
    torch.manual_seed(0)
    policy, raw = HierarchicalPolicy(replace(TINY, follow_words=True), SPEC), raw_batch()
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05 * torch.randn_like(p))
    agent = Agent(policy, normaliser(raw), SPEC, "hierarchical")
    before, now = (
        Observation({c.name: raw[f"images.{c.name}"][i].numpy() for c in SPEC.cameras}, raw["state"][i].numpy(), "tidy")
        for i in range(2)
    )
    whole = agent.act(replace(now, past=(before,)), 0)
    apart = agent.act(replace(now, plan=agent.plan(before)), 0)
    assert np.allclose(whole.actions, apart.actions, atol=1e-5) and whole.words == apart.words
    assert not np.allclose(whole.actions, agent.act(replace(now, plan=agent.plan(now)), 0).actions, atol=1e-5)
    flow = FlowPolicy(FlowConfig.tiny(), SPEC)
    with pytest.raises(VlaError, match="not of two systems"):
        Agent(flow, normaliser(raw), SPEC, "flow").plan(now)


class Planner:
    """Plans at once, and fails when it is told to."""

    config, spec, fails = replace(TINY, plan_rate_hz=100.0), SPEC, False

    def plan(self, observation: Observation) -> Plan:
        if self.fails:
            raise ValueError("no\nmore")
        return Plan(np.zeros(2, np.float32), "go", observation.time)


def test_plans_beside_a_robot_are_the_newest_or_none() -> None:
    agent, seen = Planner(), Observation({}, np.zeros(1), "", 1.0)
    shown: list[Observation | None] = [None]
    planning = Planning(agent, lambda: shown[0])  # type: ignore[arg-type]
    planning.start()
    assert planning.newest(1.0) is None
    for time_s in (1.0, 2.0):
        shown[0] = replace(seen, time=time_s)
        until = time.monotonic() + 20.0
        while (plan := planning.newest(time_s)) is None or plan.time != time_s:
            assert time.monotonic() < until
            time.sleep(0.002)
    assert plan.words == "go" and planning.seconds < 5.0 and not planning.problem
    assert planning.newest(2.0 + 2 * 12 * 0.1 + 1.1) is None, "nothing was trained on a plan that old"
    agent.fails = True
    until = time.monotonic() + 20.0
    while not planning.problem and time.monotonic() < until:
        time.sleep(0.002)
    assert planning.problem.startswith("System 2 failed: ValueError: no more") and "\n" not in planning.problem
    planning.stop()


def test_words_come_in_the_script_that_was_asked_in() -> None:
    torch.manual_seed(0)
    speech, same = Speech(32, 1, 4), Context(torch.randn(1, 3, 32).expand(2, -1, -1))
    optimiser = torch.optim.AdamW(speech.parameters(), lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        speech.loss(same, ["pen", "笔"], 2).backward()
        optimiser.step()
    assert speech.eval().say(same, ["tidy, “please” – née", "整理 desk"]) == ["pen", "笔"]


@pytest.fixture
def dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)


def test_windows_hold_a_moment_before_of_the_same_episode(dots: Path) -> None:
    cache = FrameCache.build(dots)
    windows = Windows(cache, 4, plan_steps=3)
    indices, found = np.arange(len(windows)), set()
    for seed in range(4):
        batch = windows.batch(indices, np.random.default_rng(seed))
        rows = windows.starts
        states = cache.columns["state"]
        assert np.array_equal(batch["state"][:, 1].numpy(), states[rows])
        for place, row in enumerate(rows):
            ages = [
                age for age in range(4)
                if row - age >= 0 and np.array_equal(batch["state"][place, 0].numpy(), states[row - age])
            ]  # fmt: skip
            assert ages and cache.columns["episode"][row - ages[0]] == cache.columns["episode"][row]
            found.add(ages[0])
        assert len(batch["doing"]) == len(rows) and batch["images.scene"].shape[:2] == (len(rows), 2)
    assert found == {0, 1, 2, 3}


def test_late_agents_side_by_side(dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(dots, tmp_path / "flow")
    agent = str(tmp_path / "flow")
    words = ["bench", "delay", "--env", "tests.fake_env:DotEnv", agent, f"{agent}@receding", "--delays", "0,200"]
    words += ["--episodes", "2", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    told = json.loads((tmp_path / "out/delay.json").read_text())
    assert [row["label"] for row in told["rows"]] == [agent, f"{agent}@receding"] and told["episodes"] == 2
    for row in told["rows"]:
        first, second = row["cells"]
        assert (first["delay_ms"], second["delay_ms"]) == (0, 200)
        assert first["difference"] is None and second["difference"]["n"] == 2
        assert "latency=200ms" in second["command"] and "latency" not in first["command"]
    assert (tmp_path / "out/delay.png").read_bytes()[:4] == b"\x89PNG"
    assert "200 ms" in capsys.readouterr().out
    assert main([*words[:4], agent, "--delays", "soon"]) == 2
    assert "--delays takes milliseconds" in capsys.readouterr().err
