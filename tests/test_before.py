"""What was written before still works: ``tests/data/before`` was made at commit 717c6a3.

``vla record`` of two episodes, ``vla train`` of a flow policy (two steps, its agent kept) and of ``LinearPolicy`` below
(its checkpoint kept), ``vla eval`` of the flow policy's agent. Never make them anew: that would prove nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.fake_env import DotEnv
from vla import agent as agents
from vla import cli
from vla.contracts import EnvSpec, Group
from vla.data.open import open_dataset
from vla.eval.repeat import read_recording, require_same
from vla.nn.policy import Policy, Sampled
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig
from vla.train.trainer import train

BEFORE = Path("tests/data/before")
ENV = "tests.fake_env:DotEnv"


@dataclass(frozen=True)
class LinearConfig:
    chunk: int = 4
    execute: int = 2


class LinearPolicy(Policy):
    """From the state alone. Its parameters keep their names, which the checkpoint has."""

    def __init__(self, config: LinearConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.action_dim = config, len(spec.action)
        self.out = nn.Linear(len(spec.state), config.chunk * self.action_dim)

    def _forward(self, batch: dict) -> Tensor:
        return self.out(batch["state"]).reshape(-1, self.config.chunk, self.action_dim)

    def loss(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        error = (self._forward(batch) - batch["actions"]).square().mean(dim=(1, 2))
        return error, {"error": error.detach().mean()}

    def sample(self, batch: dict, generators: Sequence[torch.Generator]) -> Sampled:
        return Sampled(self._forward(batch))


POLICY, CONFIG = LinearPolicy, LinearConfig


def linear_recipe(steps: int) -> Recipe:
    optim, data = OptimConfig(steps=steps, batch_size=4), DataConfig("tests/data/before/dataset")
    return Recipe("linear", "", "tests.test_before:LinearPolicy", LinearConfig(), data, optim, ValidateConfig(every=-1))


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(BEFORE, tmp_path / "before"))


def test_the_agent_acts_as_it_did() -> None:
    agent = agents.load(BEFORE / "agent", "cpu")
    assert agent.replay_golden_trace() < 1e-5  # of weights that were rounded already
    env = DotEnv(cameras_px=16)
    env.reset(seed=1)
    agent.spec.require(env.env_spec, "the agent", "the env")
    assert agent.act(env.observe()).actions.shape == (16, 3)
    assert agent.config.trunk.vision == "test_efficientnet"


def test_the_evaluation_repeats_and_compares(before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", "--repeat", f"{BEFORE}/eval", "--env", ENV, "--out", str(tmp_path / "again")]) == 0
    assert "3 of 3 episodes came out the same" in capsys.readouterr().out
    assert cli.main(["compare", str(before / "eval"), str(tmp_path / "again"), "--out", str(tmp_path / "it.html")]) == 0


def test_an_env_that_has_got_groups_since_is_still_the_same(
    before: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = DotEnv.__init__

    def with_groups(self: DotEnv, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        groups = Group("tool", 0, 2, "position", "m", "world"), Group("gripper", 2, 3, "gripper", "1")
        self.env_spec = replace(self.env_spec, state_groups=groups, action_groups=groups)

    monkeypatch.setattr(DotEnv, "__init__", with_groups)
    require_same(read_recording(before / "eval", env=ENV), agents.load(before / "agent", "cpu"), ENV)
    record = ["record", "--env", ENV, "--env-option", "cameras_px=16", "--items", "2", "--format", "images"]
    assert cli.main([*record, "--workers", "1", "--episodes", "2", "--out", str(before / "dataset")]) == 0


def test_the_recording_goes_on(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = before / "dataset"
    assert len(open_dataset(dataset).facts["shards"]) == 2
    record = ["record", "--env", ENV, "--env-option", "cameras_px=16", "--items", "2", "--format", "images"]
    record += ["--workers", "1", "--out", str(dataset)]
    kept = (dataset / ".episodes/000001.npz").read_bytes()
    assert cli.main([*record, "--episodes", "3"]) == 0
    assert "1 episodes are new" in capsys.readouterr().out
    assert len(open_dataset(dataset).facts["shards"]) == 3
    assert (dataset / ".episodes/000001.npz").read_bytes() == kept
    assert cli.main([*record, "--episodes", "3", "--seed", "1"]) == 2


def test_the_checkpoint_is_trained_on(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(linear_recipe(3), before / "dataset", before / "run", resume=True)
    assert result.steps == 3 and "resuming at step 2" in capsys.readouterr().out
    lines = (before / "run" / "train_log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines][:1] == [2] and json.loads(lines[-1])["step"] == 3
    assert torch.isfinite(torch.tensor(result.loss))


def test_a_new_run_begins_from_the_agent_on_the_dataset(before: Path) -> None:
    found = agents.load(BEFORE / "agent", "cpu")
    recipe = replace(linear_recipe(1), policy="flow", policy_config=found.config, init=str(before / "agent"))
    assert train(recipe, before / "dataset", before / "new").steps == 1
