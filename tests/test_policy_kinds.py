"""What a policy may be: without noise, looking back, preparing its batches, with tensors that come from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fake_env import DotEnv
from tests.test_train import TinyConfig, TinyPolicy, fake_dataset, tiny
from vla.agent import Agent, load
from vla.contracts import EnvSpec, Observation, VlaError
from vla.control.history import History, observation_steps
from vla.data.frames import FrameCache
from vla.data.windows import Windows
from vla.nn.policy import Sampled
from vla.rollout.loop import EpisodeRequest, run_episodes
from vla.runner import Runner
from vla.train.checkpoint import load_newest
from vla.train.trainer import train

ENV, HERE = "tests.fake_env:DotEnv", "tests.test_policy_kinds"


@dataclass(frozen=True)
class LookingBack(TinyConfig):
    observation_steps: tuple[int, ...] = (-1, 0)


class Velocity(TinyPolicy):
    """It sees the last two observations, answers without noise, counts letters ahead, and keeps quantiles."""

    seen: list[np.ndarray]

    def __init__(self, config: LookingBack, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        self.inner = torch.nn.Linear(2 * len(spec.state) + 1, config.width)
        self.register_buffer("quantiles", torch.zeros(3, self.action_dim))
        self.seen = []

    def prepare(self, batch: dict) -> dict:
        return {**batch, "letters": torch.tensor([len(text) for text in batch["instruction"]])}

    def fit(self, state: Tensor, actions: Tensor) -> None:
        assert state.shape[1:] == (self.inner.in_features // 2,) and abs(float(actions.mean())) < 0.1, "normalised"
        self.quantiles.copy_(actions.flatten(0, 1).quantile(torch.tensor([0.01, 0.5, 0.99]), dim=0))

    def _forward(self, batch: dict) -> Tensor:
        assert all(batch[f"images.{name}"].shape[1:3] == (2, 3) for name in self.cameras)
        hidden = torch.cat([batch["state"].flatten(1), batch["letters"][:, None] / 20], dim=1)
        return self.outer(torch.relu(self.inner(hidden))).reshape(len(hidden), self.config.chunk, self.action_dim)

    def sample(self, batch: dict, generators: Sequence[torch.Generator]) -> Sampled:
        self.seen.extend(batch["state"].numpy())
        assert len(generators) == len(batch["state"])
        low, _, high = self.quantiles
        return Sampled(self._forward(batch).clamp(low, high), words=["hm"] * len(generators))


POLICY, CONFIG = Velocity, LookingBack


def test_a_policy_that_looks_back_is_trained_and_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_ALLOW", f"{HERE}:Velocity")
    data = fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)
    recipe = replace(tiny(policy=f"{HERE}:Velocity"), policy_config=LookingBack())
    train(recipe, data, tmp_path / "run")
    agent = load(tmp_path / "run")
    assert isinstance(agent, Agent) and agent.observation_steps == (-1, 0)
    fitted = agent.policy.quantiles
    assert (fitted[0] < fitted[1]).all() and (fitted[1] < fitted[2]).all()
    found = load_newest(tmp_path / "run" / "checkpoints", print)
    assert found is not None
    torch.testing.assert_close(found[0]["model"]["quantiles"], fitted, rtol=1e-3, atol=1e-3)  # half in the bundle

    played: list[np.ndarray] = []
    play = DotEnv.play

    def noted(self, action: np.ndarray):
        result = play(self, action)
        played.append(self.observe().state)
        return result

    monkeypatch.setattr(DotEnv, "play", noted)
    (result,) = run_episodes(ENV, agent, [EpisodeRequest(0, 5)], execute=3)
    assert result.error is None and result.steps == len(played) == 60
    assert len(agent.policy.seen) == result.decisions == 20

    def raw(seen: np.ndarray) -> np.ndarray:
        return seen * agent.normaliser.state_std.numpy() + agent.normaliser.state_mean.numpy()

    first = raw(agent.policy.seen[0])
    assert np.array_equal(first[0], first[1]), "before the begin there is the first observation again"
    for number, seen in enumerate(agent.policy.seen[1:], 1):  # one step ago, however many are played of each chunk
        np.testing.assert_allclose(raw(seen), played[3 * number - 2 : 3 * number], atol=1e-5)
    env = DotEnv()
    env.reset(seed=5)
    in_loop, agent.policy.seen = agent.policy.seen, []
    assert len(list(Runner(agent, 5, execute=3).play(env))) == 60
    np.testing.assert_array_equal(agent.policy.seen, in_loop)


def test_windows_look_back_no_farther_than_their_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)
    cache = FrameCache.build(data)
    windows = Windows(cache, 4, observation_steps=(-2, -1, 0))
    batch = windows.batch(np.array([0, 1, 5, 6, 8]), np.random.default_rng(0))  # the second episode begins at 6
    rows = [[0, 0, 0], [0, 0, 1], [3, 4, 5], [6, 6, 6], [6, 7, 8]]
    assert np.array_equal(batch["state"].numpy(), cache.columns["state"][rows])
    assert np.array_equal(batch["images.scene"].numpy(), np.asarray(cache.frames["scene"])[rows])


def test_a_history_is_that_of_its_steps() -> None:
    class Config:
        observation_steps = (0, -1)

    with pytest.raises(VlaError, match="ascend to 0"):
        observation_steps(Config())
    assert observation_steps(TinyConfig()) == (0,)
    history = History((-3, -1, 0))
    seen = [history.add(Observation({}, np.zeros(1), "", float(step))) for step in range(6)]
    assert [[one.time for one in now.past] for now in seen] == [[0, 0], [0, 0], [0, 1], [0, 2], [1, 3], [2, 4]]
