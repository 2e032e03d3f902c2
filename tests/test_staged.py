"""A recipe of stages: carried out, interrupted anywhere and gone on with, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.staged_recipe import NAME, recipe
from tests.test_train import StopAt
from vla import registry
from vla.agent import load
from vla.cli import main
from vla.contracts import VlaError
from vla.stages import StagedRecipe, restored_stages, staged_to_dict, with_stage_overrides
from vla.train.optim import learning_rate
from vla.train.staged import AGENT, LOG, Parts, train_staged

ROOT = Path(__file__).parents[1]
ALONE = Parts(workers=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("staged") / "whole"
    train_staged(recipe(), out, False, replace(ALONE, said="vla train staged"))
    return out


def agent_hash(out: Path) -> str:
    return load(out / AGENT, "cpu").hash


def test_it_records_trains_and_says_what_each_part_came_to(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in (whole / LOG).read_text().splitlines()]
    assert [(line["stage"], line.get("recorded")) for line in lines] == [
        *(("grounding", "dots"), ("grounding", None), ("cloning", "mended"), ("cloning", None))
    ]
    assert lines[0]["kept"] == 6 and lines[1]["steps"] == 4 and lines[1]["wall_s"] > 0
    assert {"grounding_accuracy", "yaw_error_deg", "loss"} <= lines[1].keys() and "flow" not in lines[1]
    assert {"flow", "grounding_accuracy", "validation_loss"} <= lines[3].keys()

    agent = load(whole / AGENT, "cpu")
    assert agent.provenance["recipe"]["name"] == "staged.cloning" and agent.provenance["command"] == "vla train staged"
    assert agent.provenance["init"]["recipe"]["objective"] == "grounding"
    facts = json.loads((whole / "data/mended/meta/vla.json").read_text())
    assert facts["recording"]["agent"] == load(whole / "grounding" / AGENT, "cpu").hash

    capsys.readouterr()
    train_staged(recipe(), whole, True, ALONE)
    told = capsys.readouterr().out
    assert told.count("done before") == 2 and "minutes in all" in told and "recording" not in told


def _once(function: Callable[..., Any], when: Callable[..., bool] = lambda *_, **__: True) -> Callable[..., Any]:
    """``function``, which is interrupted at the first call for which ``when`` is true."""
    came = list[int]()

    def interrupted(*arguments: Any, **named: Any) -> Any:
        if not came and when(*arguments, **named):
            came.append(1)
            raise KeyboardInterrupt
        return function(*arguments, **named)

    return interrupted


def _while_recording(patch: pytest.MonkeyPatch, out: str) -> None:
    from vla.data.recording import record

    patch.setattr(record, "assemble", _once(record.assemble, lambda root, *_: Path(root).name == out))


def _while_training(patch: pytest.MonkeyPatch, stage: str) -> None:
    from vla.train import trainer

    plain, stops = trainer.train, [StopAt(2)]

    def train(recipe: Any, *rest: Any) -> Any:
        mine = recipe.name.endswith(stage) and stops
        return plain(recipe, *rest, on_step=stops.pop() if mine else None)

    patch.setattr(trainer, "train", train)


def _before_it_is_noted(patch: pytest.MonkeyPatch, file: str) -> None:
    from vla.train import staged

    patch.setattr(staged, "write_atomically", _once(staged.write_atomically, lambda path, _: str(path).endswith(file)))


@pytest.mark.parametrize(
    ("interrupt", "where"),
    [
        (_before_it_is_noted, "data/dots.json"),
        (_while_training, "grounding"),
        (_before_it_is_noted, "grounding/done.json"),
        (_while_recording, "mended"),
        (_while_training, "cloning"),
    ],
)
def test_interrupted_anywhere_it_goes_on_to_the_same_weights(
    interrupt: Callable[[pytest.MonkeyPatch, str], None], where: str, whole: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, where)
        with pytest.raises((KeyboardInterrupt, VlaError)):
            train_staged(recipe(), tmp_path / "run", False, ALONE)
    with pytest.raises(VlaError, match="already holds a run; go on with it with --resume"):
        train_staged(recipe(), tmp_path / "run", False, ALONE)
    train_staged(recipe(), tmp_path / "run", True, ALONE)
    assert agent_hash(tmp_path / "run") == agent_hash(whole)


def test_a_finished_part_keeps_its_settings(whole: Path) -> None:
    def refused(*words: str) -> str:
        with pytest.raises(VlaError) as error:
            train_staged(with_stage_overrides(recipe(), words), whole, True, ALONE)
        return str(error.value)

    assert "stage cloning in" in refused("--cloning.optim.lr=0.1") and "optim.lr was 0.0003 and is 0.1" in refused(
        "--cloning.optim.lr=0.1"
    )
    assert "seed was 0 and is 1" in refused("--seed=1")
    (whole / "cloning/done.json").rename(whole / "cloning/hidden")
    try:
        assert "mended was recorded with other settings: episodes was 2 and is 3" in refused(
            "--cloning.record.mended.episodes=3"
        )
    finally:
        (whole / "cloning/hidden").rename(whole / "cloning/done.json")


def test_a_stage_that_stays_below_what_it_must_reach_is_trained_longer_and_so_may_the_last_be(tmp_path: Path) -> None:
    out, one = tmp_path / "run", recipe()
    wanted = replace(one.stages[0], least=(("grounding_accuracy", 2.0),))
    with pytest.raises(VlaError, match=r"stage grounding is not good enough to go on: grounding_accuracy is .* and 2"):
        train_staged(replace(one, stages=(wanted, one.stages[1])), out, False, ALONE)
    assert not (out / "data/mended").exists()

    def steps(*words: str) -> int:
        train_staged(with_stage_overrides(recipe(), words), out, True, ALONE)
        return load(out / AGENT, "cpu").provenance["steps"]

    longer = "--grounding.optim.steps=5"
    assert steps(longer) == 4 and steps(longer, "--cloning.optim.steps=6") == 6
    with pytest.raises(VlaError, match="cloning was trained on what an earlier stage would now make anew"):
        steps("--grounding.optim.steps=7", "--cloning.optim.steps=6")


def test_two_processes_end_with_the_one_that_began_them_and_go_on(tmp_path: Path) -> None:
    out, words = tmp_path / "run", ["--processes", "2", "--grounding.optim.steps", "400", "--optim.batch_size", "4"]
    command = [sys.executable, "-m", "vla", "train", "tests.staged_recipe:first", "--out", str(out)]
    log = out / "grounding/train_log.jsonl"
    with (tmp_path / "told").open("w") as told:
        first = subprocess.Popen([*command, *words], cwd=ROOT, stdout=told, stderr=told)
        try:
            deadline = time.monotonic() + 120
            while not log.exists() and first.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    assert log.exists(), (tmp_path / "told").read_text()
    # The two stop after a checkpoint, and let go of the folder.
    rest = [*command, "--resume", "--processes", "2", "--grounding.optim.steps", "6"]
    deadline = time.monotonic() + 60
    while True:
        second = subprocess.run(rest, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
        if "another vla train is at work" not in second.stderr or time.monotonic() > deadline:
            break
    assert second.returncode == 0, second.stdout + second.stderr
    assert "2 process(es)" in second.stdout and "agent written to" in second.stdout
    assert load(out / AGENT, "cpu").replay_golden_trace() < 1e-3


def test_overrides_name_a_stage_or_mean_all_of_them() -> None:
    def changed(*words: str) -> StagedRecipe:
        return with_stage_overrides(recipe(), words)

    one = changed(
        "--cloning.optim.steps", "9", "--optim.batch_size=8", "--seed", "3", "--cloning.record.mended.items=2,3"
    )
    assert [stage.recipe.optim.steps for stage in one.stages] == [4, 9]
    assert {stage.recipe.optim.batch_size for stage in one.stages} == {8} and one.seed == 3
    assert {stage.recipe.seed for stage in one.stages} == {3} and one.stages[1].record[0].items == (2, 3)
    assert one.seed_of("mended") != recipe().seed_of("mended") != recipe().seed_of("dots")
    half = changed("--scale", "0.5")
    assert [stage.recipe.optim.steps for stage in half.stages] == [2, 2] and half.stages[0].record[0].episodes == 3
    assert half.stages[0].recipe.data.stills == 4
    assert restored_stages(recipe(), json.loads(json.dumps(staged_to_dict(one)))) == one

    for words, line in {
        ("--clonin.optim.steps", "9"): "unknown setting --clonin.optim.steps",
        ("--cloning.optim.stepz", "9"): "unknown setting --optim.stepz",
        ("--cloning.record.meded.items=2",): "NAME is one of mended",
        ("--cloning.record.mended.episodes", "none"): "takes a whole number",
        ("--scale", "0"): "above 0",
        ("--init", "x"): "--cloning.init",
    }.items():
        with pytest.raises(VlaError, match=line):
            changed(*words)


def test_a_stage_uses_what_was_made_before_it() -> None:
    one = recipe()
    other = replace(one.stages[0].recipe, data=replace(one.stages[0].recipe.data, path="other"))
    first = replace(one.stages[0], recipe=other, record=(replace(one.stages[0].record[0], name="other"),))
    with pytest.raises(VlaError, match="stage cloning has no recording 'dots'"):
        replace(one, stages=(first, one.stages[1])).check()
    with pytest.raises(VlaError, match="no agent before it"):
        replace(one, stages=one.stages[1:]).check()
    with pytest.raises(VlaError, match="has 'dots' twice"):
        replace(one, stages=(one.stages[0], replace(one.stages[1], record=one.stages[0].record))).check()


def test_from_the_command_line(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", NAME, "--show", "--cloning.optim.steps", "77"]) == 0
    told = capsys.readouterr().out
    assert "stage grounding" in told and "record mended: episodes 2, kind any, in_turns True" in told and "77" in told
    assert main(["train", NAME, "--data", "mine"]) == 2
    assert "records its own data" in capsys.readouterr().err
    assert main(["train", "demonstrations", "--processes", "2"]) == 2
    assert "for a recipe of stages" in capsys.readouterr().err
    assert main(["train", NAME, "--out", str(whole)]) == 2
    assert "go on with it with --resume" in capsys.readouterr().err
    assert main(["train", NAME, "--out", str(whole), "--resume", "--processes", "1"]) == 0
    assert f"--agent {whole}/agent" in capsys.readouterr().out.replace("\n", "")


def test_the_rate_stays_high_until_its_last_share() -> None:
    optim = replace(recipe().stages[0].recipe.optim, steps=100, warmup_steps=10, lr=1.0, decay=0.2)
    assert learning_rate(optim, 4) == 0.5
    assert {learning_rate(optim, step) for step in range(10, 81)} == {1.0}
    assert 0.5 > learning_rate(optim, 91) > learning_rate(optim, 99) == pytest.approx(0.01)
    assert learning_rate(replace(optim, decay=0.0), 99) == 1.0


def test_the_agent_that_ships_has_such_a_recipe() -> None:
    one = registry.load_recipe("tidy_desk")
    assert isinstance(one, StagedRecipe)
    one.check()
    assert restored_stages(one, json.loads(json.dumps(staged_to_dict(one)))) == one
