"""Distillation: a head learns its teacher's chunks in one call, is kept and resumed like any training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.flow import FlowPolicy
from policies.flow_config import FlowConfig
from tests.fake_env import DotEnv
from tests.test_train import StopAt, assert_same_files, fake_dataset, log_of
from vla.agent import Agent, load
from vla.contracts import Observation, VlaError
from vla.data.frames import FrameCache
from vla.data.windows import Windows
from vla.normalise import Normaliser
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig, with_overrides
from vla.train.trainer import TrainingStopped, train

SPEC = DotEnv().env_spec


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_dataset(tmp_path / "data", SPEC, monkeypatch)


def config() -> FlowConfig:
    tiny = FlowConfig.tiny()
    trunk = replace(tiny.trunk, pixels=(32,), glimpse=0)
    return replace(tiny, trunk=trunk, chunk=4, execute=2, depth=1, noise_scale=0.5)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return made(tmp_path / "teacher", 0)


def made(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    policy, rng = FlowPolicy(config(), SPEC), np.random.default_rng(0)
    with torch.no_grad():
        for p in policy.parameters():  # gates and outputs start at zero
            p.add_(0.1 * torch.randn_like(p))
    state, actions = rng.normal(size=(9, len(SPEC.state))), rng.normal(size=(9, 4, len(SPEC.action)))
    env = DotEnv()
    env.reset(seed=0)
    return Agent(policy, Normaliser.fit(state, actions, SPEC), SPEC, "flow").save(folder, env.observe())


def recipe(teacher: Path, *words: str) -> Recipe:
    optim = OptimConfig(steps=6, batch_size=4, warmup_steps=2, log_every=1, checkpoint_every=2, lr=3e-3, ema_decay=0.5)
    student = replace(config(), sample_steps=0, draws=2)
    data = DataConfig("data/dot", colour_jitter=0.1, holdout=0.2)
    made = Recipe(
        "distil", "", "flow", student, data, optim, ValidateConfig(-1), str(teacher), objective="distillation"
    )
    return with_overrides(made, words)


def test_the_student_comes_near_its_teacher_in_one_call(data: Path, teacher: Path, tmp_path: Path) -> None:
    result = train(recipe(teacher, "--optim.steps=60", "--optim.batch_size=16"), data, tmp_path / "run")
    log = [line["loss"] for line in log_of(tmp_path / "run") if "loss" in line]
    assert np.mean(log[-5:]) < 0.5 * np.mean(log[:5])
    assert {"validation_loss", "error_to_teacher", "error", "error_of_teacher"} <= set(result.scores)

    agent, old = load(result.agent_dir, "cpu"), load(teacher, "cpu")
    calls: list[int] = []
    agent.policy.head.out.register_forward_hook(lambda *_: calls.append(1))
    rng = np.random.default_rng(1)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in SPEC.cameras}
    agent.act(Observation(images, rng.normal(size=len(SPEC.state)).astype(np.float32), "red to the left"), 0)
    assert len(calls) == 1
    assert agent.config.sample_steps == 0, "the bundle says how often it asks"
    assert agent.provenance["init"]["hash"] == old.hash
    for name, tensor in old.policy.trunk.state_dict().items():
        assert torch.equal(tensor, agent.policy.trunk.state_dict()[name]), name
    assert not torch.equal(old.policy.head.out.weight, agent.policy.head.out.weight)


def test_it_is_resumed_bit_for_bit(data: Path, teacher: Path, tmp_path: Path) -> None:
    whole, first, rest = StopAt(), StopAt(3), StopAt()
    wanted = train(recipe(teacher), data, tmp_path / "whole", on_step=whole)
    with pytest.raises(TrainingStopped, match="SIGTERM at step 3"):
        train(recipe(teacher), data, tmp_path / "run", on_step=first)
    result = train(recipe(teacher), data, tmp_path / "run", resume=True, on_step=rest)
    assert first.losses + rest.losses == whole.losses and len(whole.losses) == 6
    assert result.scores == wanted.scores
    last = "checkpoints/step_000006"
    assert_same_files(tmp_path / "whole" / last, tmp_path / "run" / last)
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")


def test_it_goes_on_with_no_other_teacher(data: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped):
        train(recipe(teacher), data, tmp_path / "run", on_step=StopAt(3))
    made(teacher, 1)
    with pytest.raises(VlaError, match="is another than when this run began"):
        train(recipe(teacher), data, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--init="], "needs a teacher; name the agent with --init"),
        (["--init_share=0.5"], "--init_share 0.5 must be 0 for distillation"),
        (["--policy.depth=2"], "has another config; the recipe has --policy.depth 2, not 1"),
        (["--policy.noise_scale=1"], "the recipe has --policy.noise_scale 1.0, not 0.5"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], wrong: str, data: Path, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(VlaError, match=wrong):
        train(recipe(teacher, *words), data, tmp_path / "run")


def test_frames_of_an_agents_turn_count_too(data: Path) -> None:
    cache = FrameCache.build(data)
    cache.columns["by_expert"] = np.where(np.arange(len(cache)) % 2, 0.0, 1.0)
    assert len(Windows(cache, 4, whoever=True)) == len(cache) > len(Windows(cache, 4))
