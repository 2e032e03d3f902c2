"""A head that learns on another agent's trunk: the trunk stays as it is, and its contexts are worked out once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.flow_config import FlowConfig
from policies.tokens_config import TokensConfig
from tests.fake_env import DotEnv
from tests.test_train import StopAt, assert_same_files, fake_dataset
from vla.agent import load
from vla.contracts import VlaError
from vla.nn.config import PooledTrunkConfig, TrunkConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig, with_overrides
from vla.train.cloning import BehaviourCloning
from vla.train.sampling import batch_rng
from vla.train.trainer import TrainingStopped, train

TRUNK = TrunkConfig(vision="tiny", pixels=(32,), map_dim=8)
OPTIM = OptimConfig(steps=6, batch_size=4, warmup_steps=2, log_every=2, checkpoint_every=2, lr=1e-2, ema_decay=0.9)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)


def recipe(policy: str, config, *words: str, name: str = "head") -> Recipe:
    made = Recipe(name, "tests.fake_env:DotEnv", policy, config, DataConfig("data"), OPTIM, ValidateConfig(-1))
    return with_overrides(made, words)


def flow(trunk=TRUNK) -> FlowConfig:
    return FlowConfig(chunk=4, execute=2, trunk=trunk, dim=32, depth=1, actions_per_token=1)


def tokens(trunk=TRUNK) -> TokensConfig:
    return TokensConfig(chunk=4, execute=2, trunk=trunk, dim=32, depth=1, decoding="parallel")


def trained(data: Path, out: Path, trunk=TRUNK) -> Path:
    return train(recipe("flow", flow(trunk), name="first"), data, out).agent_dir


@pytest.mark.parametrize("trunk", [TRUNK, PooledTrunkConfig(vision="tiny", pixels=(32,), map_dim=8)])
def test_a_head_learns_on_the_trunk_of_another_policy(data: Path, tmp_path: Path, trunk) -> None:
    first = trained(data, tmp_path / "first", trunk)
    words = (f"--trunk_from={first}", "--data.context_sentences=2")
    result = train(recipe("tokens", tokens(trunk), *words), data, tmp_path / "head")
    before, after = load(first, "cpu"), load(result.agent_dir, "cpu")
    theirs, ours = before.policy.trunk.state_dict(), after.policy.trunk.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert torch.equal(before.normaliser.state_mean, after.normaliser.state_mean)
    assert after.provenance["trunk"]["hash"] == before.hash and "init" not in after.provenance
    assert (after.policy.tokeniser.quantiles.high < 2.9).any(), "what the head takes from the data is fitted"


def test_the_contexts_are_what_the_trunk_gives(data: Path, tmp_path: Path) -> None:
    first = trained(data, tmp_path / "first")
    words = (f"--trunk_from={first}", "--data.context_sentences=3", "--data.sub_instruction_probability=0.5")
    objective = BehaviourCloning(recipe("tokens", tokens(), *words), data, torch.device("cpu"), 0, 1)
    torch.manual_seed(0)
    objective.make(None)
    assert not any(p.requires_grad for p in objective.model.trunk.parameters())
    objective.prepare()
    batch = objective.ready(objective.step(0)[0])
    assert "images.scene" not in batch and batch["context"].tokens.shape[0] == 4
    assert batch["context"].text.tolist() == [False] * 4 + [True, False]
    feed, rows = objective.feed, objective.feed.windows.frames_once
    raw = feed.windows.batch(np.arange(len(rows)), batch_rng(0, 0, 0))
    encoded = objective.normaliser.encode(raw)
    kept = feed._parts[0].windows._tokens
    assert kept.shape[:2] == (len(rows), 3)
    texts = ("tidy up", "请整理桌面", "move it")
    with torch.no_grad():
        trunk = objective.model.eval().trunk
        possible = torch.stack([trunk.encode({**encoded, "instruction": [text] * len(rows)}).tokens for text in texts])
    apart = (
        (torch.from_numpy(kept.copy()).float()[None] - possible[:, :, None]).abs().amax(dim=(3, 4))
    )  # texts, rows, draws
    assert float(apart.min(dim=0).values.max()) < 0.01, "each is the context of one of the sentences"
    assert (apart.argmin(dim=0) == 2).any() and (apart.argmin(dim=0) < 2).any()
    place = torch.as_tensor(np.searchsorted(rows, feed.windows.starts[feed._parts[0].order.take(0, 4)]))
    wanted = torch.from_numpy(kept.copy()).float()[place]
    assert (wanted - batch["context"].tokens[:, None]).abs().amax(dim=(2, 3)).min(dim=1).values.max() == 0.0
    torch.testing.assert_close(batch["actions"], encoded["actions"][place])
    again = feed._parts[0].windows._tokens.filename
    other = BehaviourCloning(recipe("flow", flow(), *words), data, torch.device("cpu"), 0, 1)
    other.make(None)
    other.prepare()
    assert other.feed._parts[0].windows._tokens.filename == again, "another head finds them"


def test_a_head_resumes_bit_for_bit(data: Path, tmp_path: Path) -> None:
    made = recipe("tokens", tokens(), f"--trunk_from={trained(data, tmp_path / 'first')}")
    whole, first, rest = StopAt(), StopAt(3), StopAt()
    train(made, data, tmp_path / "whole", on_step=whole)
    with pytest.raises(TrainingStopped):
        train(made, data, tmp_path / "run", on_step=first)
    train(made, data, tmp_path / "run", resume=True, on_step=rest)
    assert first.losses + rest.losses == whole.losses
    assert_same_files(tmp_path / "whole/checkpoints/step_000006", tmp_path / "run/checkpoints/step_000006")


def test_a_trunk_that_does_not_fit_is_refused(data: Path, tmp_path: Path) -> None:
    first = trained(data, tmp_path / "first")
    other = replace(tokens(), trunk=replace(TRUNK, map_dim=16))
    with pytest.raises(VlaError, match=r"has the trunk .*map_dim=8.*and the recipe .*map_dim=16"):
        train(recipe("tokens", other, f"--trunk_from={first}"), data, tmp_path / "a")
    with pytest.raises(VlaError, match="has the dim 32, and the recipe 64"):
        train(recipe("tokens", replace(tokens(), dim=64), f"--trunk_from={first}"), data, tmp_path / "b")


@pytest.mark.parametrize("word", ["--init=x", "--data.colour_jitter=0.1", "--data.stills=10"])
def test_what_asks_for_a_trunk_that_learns_does_not_go_with_it(word: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(VlaError, match=word.partition("=")[0]):
        train(recipe("tokens", tokens(), "--trunk_from=x", word), data, tmp_path / "run")
