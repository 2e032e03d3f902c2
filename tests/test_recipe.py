"""Recipes: overrides are checked against the types, and what a user mistypes is named."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest

from tests.staged_recipe import every_training
from vla.contracts import VlaError
from vla.recipe import (
    DataConfig,
    OptimConfig,
    Recipe,
    describe,
    explained,
    recipe_to_dict,
    restored,
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
        (["--seed", "3"], "seed", 3),
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
        (["--optm.lr", "1"], ["did you mean --optim.lr?", "env, data, optim, validate, init, init_share, trunk_from"]),
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
        (["--seed", "-3"], ["--seed -3 is impossible", "0"]),
        (["--optim.lr", "0"], ["--optim.lr 0 is impossible"]),
        (["--optim.lr", "nan"], ["--optim.lr nan is impossible"]),
        (["--optim.betas", "0.9,1"], ["--optim.betas 0.9,1 is impossible"]),
        (["--optim.batch_size=0"], ["--optim.batch_size 0 is impossible"]),
        (["--validate.episodes", "0"], ["--validate.episodes 0 is impossible"]),
        (["--data.corrections_share", "1.5"], ["--data.corrections_share 1.5 is impossible"]),
        (["--optim.log_every", "0"], ["--optim.log_every 0 is impossible"]),
        (["stray"], ["'stray' is not an override"]),
    ],
)
def test_mistakes_are_named(words: list[str], parts: list[str]) -> None:
    with pytest.raises(VlaError) as caught:
        with_overrides(recipe(), words)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("--policy.dim=255", "--policy.dim 255 must be a multiple of --policy.heads, which is 4"),
        ("--policy.dim=255 --policy.heads=5", "--policy.dim 255 must be a multiple of 4"),
        ("--policy.chunk=15", "--policy.chunk 15 must be a multiple of --policy.actions_per_token, which is 2"),
        ("--policy.chunk=2", "--policy.execute 4 must be --policy.chunk, 2, at most"),
        ("--policy.trunk.pixels=", "--policy.trunk.pixels needs a number"),
        ("--policy.trunk.glimpse=9", "--policy.trunk.glimpse 9 must be a multiple of 4"),
        ("--init_share=0.5", "--init_share 0.5 must be 0 without --init"),
        ("--env=", "--validate.every 0 needs an env"),
        ("--env= --validate.every=-1", "--data.stills 20000 needs an env"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_any_work(
    words: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from vla.cli import main

    assert main(["train", "demonstrations", *words.split(), "--data", "no/such"]) == 2
    told = capsys.readouterr().err
    assert part in told and told.count("\n") == 1


@pytest.mark.parametrize("name", every_training())
def test_every_setting_of_every_recipe_is_explained_and_survives_a_file(name: str) -> None:
    one = every_training()[name]
    one.check()
    meanings = explained(one)
    assert [key for key, _ in settings(one) if not meanings.get(key)] == []
    assert not any("\n" in text for text in meanings.values())
    plain = json.loads(json.dumps(recipe_to_dict(one)))
    other = replace(one, seed=9, init="elsewhere", optim=OptimConfig(), data=DataConfig("x"))
    assert restored(other, plain) == one


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


def test_a_run_of_before_goes_on_with_steps_where_recipes_say_seconds() -> None:
    from vla.recipe import recipe_to_dict, restored
    from vla.registry import load_recipe
    from vla.train.run_folder import changes

    recipe = load_recipe("demonstrations")
    assert recipe.data.decision_s == 1.2
    before = recipe_to_dict(recipe)
    del before["data"]["decision_s"]
    before["data"]["decision_steps"] = 12
    again = restored(recipe, before)
    assert (again.data.decision_s, again.data.decision_steps) == (0.0, 12)
    again.check()
    assert changes(before, recipe_to_dict(again)) == []
    with pytest.raises(VlaError, match="must be 0 beside"):
        with_overrides(recipe, ["--data.decision_steps=12"]).check()
