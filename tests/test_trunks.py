"""Trunks: a policy's config holds one of several, and its tag goes wherever a config goes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import nn

from policies.flow_config import FlowConfig
from tests.fake_env import DotEnv
from tests.test_policies import SPEC, generators, normaliser, raw_batch
from tests.test_train import StopAt, fake_dataset, tiny
from vla import registry
from vla.agent import GOLDEN_TOLERANCE, load
from vla.config import from_dict, settled
from vla.contracts import EnvSpec, VlaError
from vla.eval.identity import agent_hashes
from vla.nn.config import PooledTrunkConfig, TrunkConfig
from vla.nn.context import Context, Trunk
from vla.nn.trunk import make_trunk
from vla.recipe import Recipe, describe, recipe_to_dict, restored, settings, with_overrides
from vla.train.checks import require_fits
from vla.train.result import TrainingStopped
from vla.train.run_folder import begun_with, changes
from vla.train.trainer import train

POOLED = ("--policy.trunk.type", "pooled", "--policy.trunk.vision", "tiny", "--policy.trunk.map_dim=8")


@dataclass(frozen=True)
class StateTrunkConfig:
    """A trunk of one row of numbers, of another house."""

    type: Literal["state"] = "state"
    points: ClassVar[bool] = False
    tokens: int = 3


@make_trunk.register(StateTrunkConfig)
class StateTrunk(Trunk):
    def __init__(self, config: StateTrunkConfig, dim: int, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.embed = config, nn.Linear(len(spec.state), config.tokens * dim)

    def encode(self, batch: dict[str, Any]) -> Context:
        tokens = self.embed(batch["state"]).unflatten(1, (self.config.tokens, -1))
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        mask[1:, -1] = False
        return Context(tokens, mask)


@dataclass(frozen=True)
class OthersConfig(FlowConfig):
    trunk: TrunkConfig | PooledTrunkConfig | StateTrunkConfig = field(default_factory=TrunkConfig)  # type: ignore[assignment]


def flow(*words: str) -> Recipe:
    recipe = replace(tiny("--optim.steps=2", "--optim.checkpoint_every=1"), policy="flow", policy_config=FlowConfig())
    return with_overrides(recipe, ["--policy.dim=16", "--policy.depth=1", *words])


def test_a_pooled_trunk_is_trained_saved_loaded_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)
    recipe, both, stop = flow(*POOLED), StopAt(), StopAt(1)
    recipe.check()
    agent = load(train(recipe, data, tmp_path / "whole", on_step=both).agent_dir, "cpu")
    assert agent.config == recipe.policy_config and type(agent.config.trunk) is PooledTrunkConfig
    assert agent.provenance["recipe"]["policy_config"]["trunk"]["type"] == "pooled"
    assert agent.replay_golden_trace() < GOLDEN_TOLERANCE
    with pytest.raises(TrainingStopped):
        train(recipe, data, tmp_path / "parts", on_step=stop)
    again = begun_with(flow(), tmp_path / "parts")  # as `vla train --resume` takes it up
    assert again == recipe
    train(again, data, tmp_path / "parts", resume=True, on_step=stop)
    assert stop.losses == both.losses and len(both.losses) == 2
    with pytest.raises(VlaError, match=r"trunk\.type was pooled and is None"):
        train(flow(), data, tmp_path / "parts", resume=True)
    require_fits(agent, recipe, agent.spec)  # another run may start from it
    with pytest.raises(VlaError, match=r"--policy\.trunk\.type None, not pooled"):
        require_fits(agent, flow(), agent.spec)


def test_the_usual_tag_is_stored_nowhere() -> None:
    """Published agents are told apart by the hash of their config: a tag in it would change every one."""
    recipe = flow()
    assert "type" not in recipe_to_dict(recipe)["policy_config"]["trunk"]
    agent = load("tidy_desk", "cpu")
    file = json.loads((registry.paths.agents_dir() / "tidy_desk" / "agent.json").read_text(encoding="utf-8"))
    assert "type" not in file["config"]["trunk"] and settled(agent.config).keys() == file["config"].keys()
    text = json.dumps(["flow", settled(agent.config)], sort_keys=True)
    assert agent_hashes(agent)["agent_config_hash"] == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert '"type"' not in text
    later = dataclasses.replace(agent.config, prefix=4)  # a setting that came after it counts where it is used
    assert settled(later) == settled(agent.config) | {"prefix": 4}
    for tagged in ({}, {"type": "compact"}):
        assert from_dict(FlowConfig, {"trunk": tagged}) == FlowConfig()
    assert from_dict(FlowConfig, {"trunk": {"type": "pooled"}}).trunk == PooledTrunkConfig()


@pytest.mark.parametrize("words", [(), POOLED])
@pytest.mark.parametrize("base", [(), ("--policy.trunk.type=pooled",), ("--policy.trunk.slots=9",)])
def test_each_trunk_survives_a_file_whatever_the_recipe_has(words: tuple[str, ...], base: tuple[str, ...]) -> None:
    recipe = flow(*words)
    again = restored(flow(*base), json.loads(json.dumps(recipe_to_dict(recipe))))
    assert again.policy_config.trunk == recipe.policy_config.trunk or ("slots" in str(base) and not words)
    assert type(again.policy_config.trunk) is type(recipe.policy_config.trunk)


def test_a_type_brings_its_defaults_and_is_shown_with_the_others() -> None:
    recipe = flow("--policy.trunk.map_dim=8", "--policy.trunk.type=pooled")
    assert recipe.policy_config.trunk == PooledTrunkConfig()
    assert with_overrides(recipe, ["--policy.trunk.type=compact"]).policy_config.trunk == TrunkConfig()
    same = flow("--policy.trunk.map_dim=8", "--policy.trunk.type=compact")  # which it is: nothing changes
    assert same.policy_config.trunk == TrunkConfig(map_dim=8)
    assert dict(settings(recipe))["policy.trunk.type"] == "pooled"
    assert "policy.trunk.slots" not in dict(settings(recipe))
    row = next(line.split(maxsplit=2) for line in describe(recipe).splitlines() if "policy.trunk.type" in line)
    assert row == ["policy.trunk.type", "pooled", "one of compact, pooled, language_model"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["--policy.trunk.type", "poled"],
            ["one of compact, pooled, language_model", "'poled'", "did you mean pooled?"],
        ),
        (["--policy.trunk.type"], ["--policy.trunk.type needs a value, e.g. --policy.trunk.type compact"]),
        (["--policy.trunk", "pooled"], ["--policy.trunk is a section", "type, vision"]),
        (["--policy.trunk.typ=pooled"], ["unknown setting", "did you mean --policy.trunk.type?"]),
        ([*POOLED, "--policy.trunk.slots=3"], ["unknown setting --policy.trunk.slots", "--policy.trunk.type compact"]),
        ([*POOLED, "--policy.trunk.slot=3"], ["--policy.trunk.type compact has slots", "type, vision, pretrained"]),
        ([*POOLED, "--policy.trunk.pixel=3"], ["did you mean --policy.trunk.pixels?"]),
        (["--policy.type", "x"], ["unknown setting --policy.type"]),
    ],
)
def test_mistakes_with_types_are_named(words: list[str], parts: list[str]) -> None:
    with pytest.raises(VlaError) as caught:
        flow(*words)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("tag", ["resnet", 3, None, ["pooled"], {"a": 1}])
def test_an_unknown_type_in_a_file_is_named(tag: object) -> None:
    with pytest.raises(VlaError, match=r"'trunk' of FlowConfig has the type .*; there are compact, pooled"):
        from_dict(FlowConfig, {"trunk": {"type": tag}})
    with pytest.raises(VlaError, match="PooledTrunkConfig has no field 'slots'"):
        from_dict(FlowConfig, {"trunk": {"type": "pooled", "slots": 3}})


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--data.stills=8"], "--data.stills 8 must be 0"),
        (["--policy.insulated=true"], "--policy.insulated would leave nothing to learn"),
        (["--policy.trunk.pixels="], "--policy.trunk.pixels needs a number"),
    ],
)
def test_what_a_trunk_that_does_not_point_cannot_do_is_refused(words: list[str], part: str) -> None:
    with pytest.raises(VlaError, match=part):
        flow(*POOLED, *words).check()


def test_a_run_that_was_begun_with_the_usual_trunk_is_not_mixed_with_another() -> None:
    usual, other = recipe_to_dict(flow()), recipe_to_dict(flow("--policy.trunk.type=pooled"))
    for before, now in ((usual, other), (other, usual)):
        with pytest.raises(VlaError, match=r"trunk\.type was"):
            changes(before, now)


def test_a_trunk_of_another_house_with_a_mask() -> None:
    """Tokens that are masked change nothing, in training and in acting."""
    config = from_dict(OthersConfig, {"trunk": {"type": "state", "tokens": 3}, "dim": 16, "depth": 1, "chunk": 16})
    assert type(config.trunk) is StateTrunkConfig and from_dict(OthersConfig, dataclasses.asdict(config)) == config
    torch.manual_seed(0)
    policy = registry.load_policy("flow")(config, SPEC)
    with torch.no_grad():
        for parameter in policy.parameters():  # gates and outputs start at zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = normaliser(raw_batch()).encode(raw_batch())
    loss, _ = policy.loss(batch)
    loss.mean().backward()
    assert policy.trunk.embed.weight.grad.abs().sum() > 0
    before = policy.sample(batch, generators()).actions
    with torch.no_grad():
        policy.trunk.embed.bias[-16:] += 1.0  # the last token, which the first row alone may look at
    after = policy.sample(batch, generators()).actions
    assert torch.equal(before[1:], after[1:]) and not torch.allclose(before[0], after[0])
