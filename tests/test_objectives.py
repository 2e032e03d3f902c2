"""What a training is for: the trainer trains, resumes and saves what is no behaviour cloning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import toy_objective
from tests.fake_env import DotEnv
from tests.test_train import StopAt, assert_same_files, fake_dataset, log_of, tiny
from vla import registry
from vla.cli import main
from vla.contracts import VlaError
from vla.recipe import of_today, recipe_to_dict, with_overrides
from vla.train.cloning import BehaviourCloning
from vla.train.known import load_objective
from vla.train.run_folder import changes
from vla.train.trainer import TrainingStopped, train

NAME = "tests.toy_objective:recipe"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)


def test_another_objective_is_trained_and_resumed_bit_for_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla.train.cloning.BehaviourCloning.__init__", lambda *_: pytest.fail("it has no part in this"))
    whole, first, rest = StopAt(), StopAt(3), StopAt()
    wanted = train(toy_objective.recipe(), data, tmp_path / "whole", on_step=whole)
    with pytest.raises(TrainingStopped, match="SIGTERM at step 3"):
        train(toy_objective.recipe(), data, tmp_path / "run", on_step=first)
    result = train(toy_objective.recipe(), data, tmp_path / "run", resume=True, on_step=rest)

    assert first.losses + rest.losses == whole.losses and len(whole.losses) == 6
    assert result.scores == wanted.scores and set(result.scores) == {"validation_loss", "validation_found"}
    last = "checkpoints/step_000006"
    assert_same_files(tmp_path / "whole" / last, tmp_path / "run" / last)
    assert sorted(path.name for path in (tmp_path / "run" / last).iterdir()) == [
        *("colours.safetensors", "ema.safetensors", "model.safetensors", "optimizer.safetensors", "state.json")
    ]
    assert json.loads((tmp_path / "run" / last / "state.json").read_text())["fitted"] == 1, "from the data, once"
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    assert "found" in log_of(tmp_path / "run")[0]

    assert result.agent_dir == tmp_path / "run/encoder" and not (tmp_path / "run/agent").exists()
    weights, average = (
        load_file(result.agent_dir / "clip.safetensors"),
        load_file(tmp_path / "run" / last / "ema.safetensors"),
    )
    assert average.keys() == weights.keys() - {"mean"} and all(torch.equal(weights[k], average[k]) for k in average)
    images = {"image": torch.rand(2, 3, 4, 4), "letters": torch.zeros(2, 7, dtype=torch.long)}
    assert toy_objective.load(result.agent_dir)(images).shape == (2, 2)
    provenance = json.loads((result.agent_dir / "provenance.json").read_text())
    assert provenance["steps"] == 6 and provenance["recipe"]["objective"] == "tests.toy_objective:Contrast"


def test_another_objective_from_the_command_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its artefact is tried out where ``validate.every`` wants it."""
    words = ["train", NAME, "--data", str(data), "--out", str(tmp_path / "run"), "--policy.dim", "4"]
    assert main([*words, "--show"]) == 0
    assert "objective tests.toy_objective:Contrast" in capsys.readouterr().out
    assert main([*words, "--env", "tests.fake_env:DotEnv", "--validate.every", "4"]) == 0
    told = capsys.readouterr().out
    assert "tests.toy_objective:Contrast with 0.00 M trainable parameters, 34 frames, cpu" in told
    assert "step 4: weights of size" in told and "step 6: weights of size" in told
    assert f"encoder written to {tmp_path}/run/encoder" in told.replace("\n", "")
    assert told.rstrip().endswith(f"look at it in {tmp_path}/run/encoder") and "vla eval" not in told


def test_its_data_and_its_objective_stay_those_of_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(toy_objective.recipe(), data, tmp_path / "run")
    with pytest.raises(VlaError, match=r"objective was tests\.toy_objective:Contrast and is behaviour_cloning"):
        train(replace(toy_objective.recipe(), objective="behaviour_cloning"), data, tmp_path / "run", resume=True)
    monkeypatch.setattr("tests.toy_objective.Contrast.fingerprint", lambda *_: "other")
    with pytest.raises(VlaError, match="the dataset has changed since this run began"):
        train(toy_objective.recipe(), data, tmp_path / "run", resume=True)


def test_a_recipe_from_before_is_of_behaviour_cloning() -> None:
    before = recipe_to_dict(tiny())
    del before["objective"]
    assert of_today(before)["objective"] == "behaviour_cloning"
    assert load_objective(tiny().objective) is BehaviourCloning
    assert changes(before, recipe_to_dict(tiny())) == []
    with pytest.raises(VlaError, match="objective was behaviour_cloning and is other"):
        changes(before, recipe_to_dict(replace(tiny(), objective="other")))


def test_the_recipes_code_alone_names_an_objective(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(VlaError, match="unknown setting --objective"):
        with_overrides(tiny(), ["--objective=tests.toy_objective:Contrast"])
    with registry.only_typed(["train"]), pytest.raises(VlaError, match="outside code"):
        load_objective("tests.toy_objective:Contrast")
    with pytest.raises(
        VlaError, match=r"no objective 'cloning'; known: .*behaviour_cloning, .*or write package\.module:Cl"
    ):
        load_objective("cloning")
    with pytest.raises(VlaError, match=r"subprocess:Popen is no subclass of vla\.train\.objectives\.Objective"):
        load_objective("subprocess:Popen")

    # What the run's recipe.json says is not imported: the recipe's own objective goes on, or nothing does.
    run = tmp_path / "run"
    words = ["train", NAME, "--data", str(data), "--out", str(run)]
    assert main(words) == 0
    text = (run / "recipe.json").read_text(encoding="utf-8")
    (run / "recipe.json").write_text(text.replace("tests.toy_objective:Contrast", "antigravity:Evil"), encoding="utf-8")
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    assert "objective was antigravity:Evil and is tests.toy_objective:Contrast" in capsys.readouterr().err
