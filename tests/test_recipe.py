"""Recipes: overrides are checked against the types, and what a user mistypes is named."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from vla.contracts import VlaError
from vla.recipe import (
    DataConfig,
    Recipe,
    describe,
    recipe_to_dict,
    settings,
    with_overrides,
)


@dataclass(frozen=True)
class Trunk:
    name: str = "small"
    pixels: tuple[int, ...] = (128, 64)


@dataclass(frozen=True)
class Config:
    dim: int = 128
    chunk: int = 16
    dropout: float | None = None
    pretrained: bool = False
    trunk: Trunk = field(default_factory=Trunk)


def recipe() -> Recipe:
    return Recipe("demo", "dot", "tiny", Config(), DataConfig("data/dot"))


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--policy.dim", "256"], "policy.dim", 256),
        (["--policy.dim=256"], "policy.dim", 256),
        (["--policy.dim=1_024"], "policy.dim", 1024),
        (["--policy.dropout", "0.1"], "policy.dropout", 0.1),
        (["--policy.dropout=0.1", "--policy.dropout", "none"], "policy.dropout", None),
        (["--policy.pretrained", "true"], "policy.pretrained", True),
        (["--policy.trunk.pixels", "96,48,32"], "policy.trunk.pixels", (96, 48, 32)),
        (["--policy.trunk.name=resnet18"], "policy.trunk.name", "resnet18"),
        (["--optim.betas", "0.8,0.99"], "optim.betas", (0.8, 0.99)),
        (["--optim.lr", "1e-4"], "optim.lr", 1e-4),
        (["--optim.precision", "bf16"], "optim.precision", "bf16"),
        (["--validate.every", "-1"], "validate.every", -1),
        (["--data.path=some/where=else"], "data.path", "some/where=else"),
        (["--seed", "-3"], "seed", -3),
        (["--env", "tests.fake_env:DotEnv"], "env", "tests.fake_env:DotEnv"),
    ],
)
def test_override(words: list[str], key: str, value: object) -> None:
    before, changed = recipe(), dict(settings(with_overrides(recipe(), words)))
    assert changed[key] == value and type(changed[key]) is type(value)
    assert {k: v for k, v in changed.items() if k != key} == {k: v for k, v in settings(before) if k != key}
    assert before == recipe()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--policy.dmi", "3"], ["--policy.dmi", "did you mean --policy.dim?", "dim, chunk, dropout"]),
        (["--policy.trunk.pixel", "3"], ["did you mean --policy.trunk.pixels?", "name, pixels"]),
        (["--steps", "100"], ["--steps", "did you mean --optim.steps?"]),
        (["--optm.lr", "1"], ["did you mean --optim.lr?", "env, data, optim, validate, init, init_share, seed"]),
        (["--policy.dim", "wide"], ["--policy.dim", "a whole number", "'wide'"]),
        (["--policy.dim", "1.5"], ["a whole number"]),
        (["--policy.pretrained", "maybe"], ["true or false"]),
        (["--optim.betas", "0.9"], ["2 values", "'0.9'"]),
        (["--optim.precision", "fp8"], ["one of auto, fp32, bf16"]),
        (["--policy.dropout", "much"], ["a number or none"]),
        (["--policy.dim"], ["--policy.dim needs a value", "--policy.dim 128"]),
        (["--policy", "diffusion"], ["--policy is a section", "dim, chunk"]),
        (["--seed.x", "1"], ["--seed is a single value"]),
        (["--name", "x"], ["unknown setting --name"]),
        (["stray"], ["'stray' is not an override"]),
    ],
)
def test_mistakes_are_named(words: list[str], parts: list[str]) -> None:
    with pytest.raises(VlaError) as caught:
        with_overrides(recipe(), words)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_recipe_as_a_dict_is_plain_json() -> None:
    changed = with_overrides(recipe(), ["--policy.trunk.pixels", "7,8", "--optim.betas=0.5,0.6"])
    plain = recipe_to_dict(changed)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["policy_config"]["trunk"]["pixels"] == [7, 8] and plain["optim"]["betas"] == [0.5, 0.6]


def test_describe_shows_every_setting() -> None:
    text = describe(recipe())
    for key, _ in settings(recipe()):
        assert f"  {key} " in text
    assert "0.9,0.95" in text


def test_recipes_are_frozen_and_cheap_to_import() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe().seed = 1  # type: ignore[misc]
    code = "import sys, vla.recipe; print(sorted({'torch', 'mujoco'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
