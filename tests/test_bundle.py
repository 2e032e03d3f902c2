"""What a bundle stores: trained tensors, each of its type, the name of a base, and a chunk from before rounding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.fake_env import DotEnv
from vla import agent as agents
from vla.agent import Agent, AgentError, load
from vla.contracts import EnvSpec
from vla.nn.policy import Policy, Sampled
from vla.normalise import Normaliser


@dataclass(frozen=True)
class AdapterConfig:
    base: str = ""
    chunk: int = 2
    execute: int = 1
    scale: float = 1.0


class AdapterPolicy(Policy):
    """A frozen linear base out of a file, a low-rank adapter within it, and a head."""

    def __init__(self, config: AdapterConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.actions = config, len(spec.action)
        self.base = nn.Linear(len(spec.state), 4).requires_grad_(False)
        self.base.load_state_dict(load_file(config.base))
        self.base.adapter = nn.Linear(len(spec.state), 4, bias=False)
        self.head = nn.Linear(4, config.chunk * self.actions)

    def bases(self) -> dict[str, dict[str, str]]:
        return {"base": {"source": self.config.base, "version": "1"}}

    def loss(self, batch: dict) -> tuple[Tensor, dict]:
        raise NotImplementedError

    def sample(self, batch: dict, generators: Sequence[torch.Generator]) -> Sampled:
        state = batch["state"].to(self.base.weight.dtype)
        seen = self.base(state) + self.base.get_submodule("adapter")(state)
        chunk = self.head(seen.to(self.head.weight.dtype)).reshape(-1, self.config.chunk, self.actions)
        return Sampled(self.config.scale * chunk)


POLICY, CONFIG = AdapterPolicy, AdapterConfig


def made(tmp_path: Path, half: bool = True, scale: float = 1.0, kind: torch.dtype = torch.float32) -> Path:
    """A bundle of an AdapterPolicy, whose head is of the type ``kind``."""
    torch.manual_seed(0)
    env, rng = DotEnv(), np.random.default_rng(0)
    env.reset(seed=0)
    save_file({"weight": torch.randn(4, 3), "bias": torch.randn(4)}, tmp_path / "base.safetensors")
    policy = AdapterPolicy(AdapterConfig(str(tmp_path / "base.safetensors"), scale=scale), env.env_spec)
    policy.head.to(kind)
    statistics = Normaliser.fit(rng.normal(size=(9, 3)), rng.normal(size=(9, 2, 3)), env.env_spec)
    agent = Agent(policy, statistics, env.env_spec, "tests.test_bundle:AdapterPolicy")
    return agent.save(tmp_path / "agent", env.observe(), half)


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_ALLOW", "tests.test_bundle:AdapterPolicy")


def test_a_base_is_named_and_not_stored(tmp_path: Path) -> None:
    folder = made(tmp_path)
    stored = {name for name in load_file(folder / "model.safetensors") if name.startswith("policy.")}
    assert stored == {"policy.base.adapter.weight", "policy.head.weight", "policy.head.bias"}
    base = json.loads((folder / "agent.json").read_text(encoding="utf-8"))["base"]["base"]
    assert base["source"].endswith("base.safetensors") and base["version"] == "1" and base["parameters"] == 16
    assert load(folder, "cpu").replay_golden_trace() <= agents.GOLDEN_TOLERANCE


def test_another_base_or_none_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = made(tmp_path)
    save_file({"weight": torch.zeros(4, 3), "bias": torch.zeros(4)}, tmp_path / "base.safetensors")
    with pytest.raises(AgentError, match=r"its base 'base' is .*base.safetensors 1 with the hash \w{16}") as caught:
        load(folder, "cpu")
    assert "\n" not in str(caught.value)
    (tmp_path / "base.safetensors").unlink()
    with pytest.raises(AgentError, match=r"base\.safetensors") as caught:
        load(folder, "cpu")
    assert "\n" not in str(caught.value)


def test_the_golden_chunk_is_from_before_rounding(tmp_path: Path) -> None:
    agent = load(made(tmp_path), "cpu")
    assert 0 < agent.replay_golden_trace() <= agents.GOLDEN_TOLERANCE
    assert agent.policy.head.weight.dtype == torch.float32


def test_what_does_not_bear_rounding_is_stored_as_it_is(tmp_path: Path) -> None:
    folder = made(tmp_path, scale=1e4)
    assert load_file(folder / "model.safetensors")["policy.head.weight"].dtype == torch.float32
    assert load(folder, "cpu").replay_golden_trace() == 0


def test_each_tensor_keeps_its_type(tmp_path: Path) -> None:
    for half in (True, False):
        folder = made(tmp_path, half, kind=torch.bfloat16)
        assert load_file(folder / "model.safetensors")["policy.head.weight"].dtype == torch.bfloat16
        agent = load(folder, "cpu")
        assert agent.policy.head.weight.dtype == torch.bfloat16
        assert agent.policy.base.get_submodule("adapter").weight.dtype == torch.float32
        shutil.rmtree(folder)
