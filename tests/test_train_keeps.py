"""What a training keeps: whatever ends it, from another folder's changes, and what ``--resume`` takes from its own."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
import torch

from tests.fake_env import DotEnv
from tests.test_train import StopAt, TinyPolicy, assert_same_files, fake_dataset, tiny
from vla.cli import main
from vla.contracts import VlaError
from vla.data.frames import FrameCache
from vla.host.files import claimed
from vla.recipe import Recipe
from vla.train import checkpoint, run_folder
from vla.train.checkpoint import load_newest
from vla.train.feed import Feed
from vla.train.log import TrainLog
from vla.train.trainer import TrainingStopped, train


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)


def recipe() -> Recipe:
    """For the command line: ``tests.test_train_keeps:recipe``."""
    return tiny()


NAME = "tests.test_train_keeps:recipe"


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_each_signal_stops_with_a_checkpoint(name: str, data: Path, tmp_path: Path) -> None:
    def at_step_3(step: int, _: float) -> None:
        if step == 3:
            os.kill(os.getpid(), getattr(signal, name))

    with pytest.raises(TrainingStopped, match=f"{name} at step 3") as stopped:
        train(tiny(), data, tmp_path / "run", on_step=at_step_3)
    assert stopped.value.signal == getattr(signal, name)
    assert checkpoint.newest_step(tmp_path / "run/checkpoints") == 3


@pytest.mark.parametrize("file", ["optimizer.safetensors", "state.json"])
def test_a_disk_that_fills_up_costs_nothing(
    file: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole, write = tmp_path / "run", StopAt(), checkpoint.write_atomically
    train(tiny(), data, tmp_path / "whole", on_step=whole)

    def full(path: Path, content: bytes | str) -> None:
        if path.parent.name == "step_000004.tmp" and path.name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full)
        assert main(["train", NAME, "--data", str(data), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert f"no space left on the disk ({out}/checkpoints/step_000004.tmp/{file}); free some and --resume" in told
    assert told.count("\n") == 1
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_000002"]
    train(tiny(), data, out, resume=True)
    assert_same_files(tmp_path / "whole/checkpoints/step_000006", out / "checkpoints/step_000006")


def test_a_log_on_a_full_disk_ends_in_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "run/train_log.jsonl"))

    monkeypatch.setattr(TrainLog, "write", full)
    monkeypatch.setattr(TrainLog, "plot", full)
    with pytest.raises(VlaError, match=r"no space left on the disk \(.*train_log.jsonl\); free some and --resume"):
        train(tiny(), data, tmp_path / "run")


def test_of_two_trainings_in_a_folder_the_second_is_refused(data: Path, tmp_path: Path) -> None:
    with claimed(tmp_path / "run", "vla train"):
        for resume in (False, True):
            with pytest.raises(VlaError, match=r"another vla train is at work in .*run"):
                train(tiny(), data, tmp_path / "run", resume=resume)
    assert train(tiny(), data, tmp_path / "run").steps == 6


def test_data_that_turn_out_damaged_cost_no_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Feed.step

    def damaged(feed: Feed, number: int) -> Any:
        if number == 5:
            raise VlaError("frames.scene.npy is damaged")
        return step(feed, number)

    with monkeypatch.context() as patch:
        patch.setattr(Feed, "step", damaged)
        with pytest.raises(VlaError, match="is damaged"):
            train(tiny("--optim.checkpoint_every=100"), data, tmp_path / "run")
    assert checkpoint.newest_step(tmp_path / "run/checkpoints") == 5


def test_an_env_that_fails_in_validation_costs_no_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise VlaError("the simulator has gone")

    monkeypatch.setattr("vla.train.cloning.closed_loop", fails)
    with pytest.raises(VlaError, match="has gone"):
        train(tiny("--validate.every=3", "--optim.checkpoint_every=100"), data, tmp_path / "run")
    assert checkpoint.newest_step(tmp_path / "run/checkpoints") == 3


def test_after_a_loss_of_nan_a_lower_rate_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls, loss = 0, TinyPolicy.loss

    def exploding(self: TinyPolicy, batch: dict) -> Any:
        nonlocal calls
        calls += 1
        value, parts = loss(self, batch)
        return value * (float("nan") if calls == 6 else 1.0), parts

    monkeypatch.setattr(TinyPolicy, "loss", exploding)
    with pytest.raises(VlaError, match=r"lower --optim.lr .*--resume: the checkpoint of step 4 is kept"):
        train(tiny("--data.holdout=0"), data, tmp_path / "run")
    assert train(tiny("--data.holdout=0", "--optim.lr=1e-3"), data, tmp_path / "run", resume=True).steps == 6
    assert "optim.lr was 0.01 and is 0.001 from here on" in capsys.readouterr().out
    calls = 5
    with pytest.raises(VlaError, match="there is no checkpoint yet"):
        train(tiny("--data.holdout=0"), data, tmp_path / "other")


def test_a_run_needs_nothing_of_the_agent_that_it_began_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statistics, its weights (for the init share) and its provenance are in the checkpoint."""
    monkeypatch.setenv("VLA_ALLOW", "tests.test_train:TinyPolicy")
    train(tiny(), data, tmp_path / "first")
    agent, words = tmp_path / "first/agent", (f"--init={tmp_path / 'first'}", "--init_share=0.5", "--seed=3")
    train(tiny(*words), data, tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        train(tiny(*words), data, tmp_path / "parts", on_step=StopAt(3))
    shutil.rmtree(agent)
    train(tiny(*words), data, tmp_path / "parts", resume=True)
    assert_same_files(tmp_path / "whole/checkpoints/step_000006", tmp_path / "parts/checkpoints/step_000006")
    whole, parts = (json.loads((tmp_path / run / "agent/agent.json").read_text()) for run in ("whole", "parts"))
    assert whole["sha256"] == parts["sha256"]
    assert whole["provenance"]["init"] == parts["provenance"]["init"]
    tensors = load_newest(tmp_path / "parts/checkpoints", pytest.fail)[0]  # type: ignore[index]
    assert set(tensors["statistics"]) == {"state_mean", "state_std", "action_mean", "action_std"}


# ------------------------------------------------------------------ --resume


def stopped_run(data: Path, out: Path, *words: str) -> None:
    with pytest.raises(TrainingStopped):
        train(replace(tiny(*words), data=replace(tiny().data, path=str(data))), data, out, on_step=StopAt(2))


def test_resume_takes_the_settings_from_the_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped_run(data, tmp_path / "run", "--policy.width=16", "--optim.steps=4")
    assert main(["train", NAME, "--resume", "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "resuming at step 2" in printed and "4 steps in" in printed
    assert main(["train", NAME, "--resume", "--out", str(tmp_path / "run"), "--optim.steps", "6", "--show"]) == 0
    shown = capsys.readouterr().out
    assert any(line.split()[:2] == ["policy.width", "16"] for line in shown.splitlines())
    assert any(line.split()[:2] == ["optim.steps", "6"] for line in shown.splitlines())
    assert main(["train", NAME, "--resume", "--out", str(tmp_path / "run"), "--optim.steps", "6"]) == 0
    assert json.loads((tmp_path / "run/recipe.json").read_text())["optim"]["steps"] == 6


def test_what_a_resumed_run_may_not_change_is_refused_before_any_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped_run(data, tmp_path / "run")
    monkeypatch.setattr(FrameCache, "build", lambda *_, **__: pytest.fail("it has begun to work"))
    assert main(["train", NAME, "--resume", "--out", str(tmp_path / "run"), "--policy.width", "9"]) == 2
    told = capsys.readouterr().err
    assert "policy.width was 8 and is 9" in told and told.count("\n") == 1


def test_resume_without_a_name_takes_it_from_the_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vla.registry import load_recipe

    (tmp_path / "run").mkdir()
    run_folder.begin(tmp_path / "run", replace(load_recipe("lerobot_flow"), seed=7))
    assert (
        main(["train", "--resume", "--optim.lr", "0.5", "--out", str(tmp_path / "run"), "--env", "dot", "--show"]) == 0
    )
    shown = capsys.readouterr().out
    assert "0.5" in shown  # which argparse would have taken for the recipe's name
    assert "recipe lerobot_flow" in shown and any(line.split()[:2] == ["seed", "7"] for line in shown.splitlines())
    run_folder.begin(tmp_path / "run", replace(load_recipe("lerobot_flow"), name="os.path:join"))
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--show"]) == 2
    assert "name the one to go on with" in capsys.readouterr().err
    for content in ("{", '{"policy": "flow"', '{"policy": "flow", "name": "lerobot_flow", "seed": []}'):
        (tmp_path / "run/recipe.json").write_text(content)
        assert main(["train", "lerobot_flow", "--resume", "--out", str(tmp_path / "run"), "--show"]) == 2
        told = capsys.readouterr().err
        assert "recipe.json" in told and told.count("\n") == 1


def test_data_and_data_path_are_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("vla.data.hub.find_dataset", lambda name: (asked.append(name), data)[1])
    for number, words in enumerate((["--data", "owner/name"], ["--data.path", "owner/name"])):
        out = tmp_path / str(number)
        assert main(["train", NAME, *words, "--out", str(out)]) == 0
        provenance = json.loads((out / "agent/agent.json").read_text())["provenance"]
        assert provenance["recipe"]["data"]["path"] == "owner/name"
    assert asked == ["owner/name"] * 2
    monkeypatch.chdir(tmp_path)
    assert main(["train", NAME, "--out", str(tmp_path / "none")]) == 2  # the recipe's own folder is none of the hub
    assert "vla record --env dot --out data/dot" in capsys.readouterr().err and asked == ["owner/name"] * 2


# ------------------------------------------------------------------ what else it takes from the data


def test_stills_validation_and_the_advice_use_the_options_of_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fake_dataset(tmp_path / "data", DotEnv(cameras_px=16).env_spec, monkeypatch)
    facts = {"env": "tests.fake_env:DotEnv", "recording": {"env_options": {"cameras_px": 16}}}
    (data / "meta/vla.json").write_text(json.dumps(facts))
    words = ("--data.stills=3", "--data.stills_batch=2", "--validate.every=0", "--validate.episodes=1")
    trained = train(tiny(*words), data, tmp_path / "run")
    assert trained.scores["success"]["n"] == 1
    assert "--env tests.fake_env:DotEnv --env-option cameras_px=16 --agent" in trained.advice
    (data / "meta/vla.json").write_text(json.dumps(facts | {"env": "tests.acting:Other"}))
    assert Feed(tiny(), data, 0, 1, torch.device("cpu")).env.options == {}


def test_the_plot_has_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k))[1]
    )
    for number, losses in enumerate(((0.5, 0.45), (2.0, 0.2), (1.0, 0.7, 0.3), (90.0, 0.01), (0.0004, 0.0003))):
        log = TrainLog(tmp_path, 0, 2, {})
        log.lines = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
        log.plot()
        log._board.close()
        axes = figures[number].axes[0]
        low, high = axes.get_ylim()
        shown = [t for t in axes.yaxis.get_ticklabels() if t.get_text() and low <= t.get_position()[1] <= high]
        assert len(shown) >= 4, losses


def test_a_device_that_is_not_there_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", NAME, "--data", str(data), "--out", str(tmp_path / "run"), "--device"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for device, part in (("cuda:1", "this machine has 1"), ("gpu", "is none that is known"), ("cpu:x", "none that")):
        assert main([*words, device]) == 2
        told = capsys.readouterr().err
        assert f"--device {device}" in told and part in told and told.count("\n") == 1
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "")
    assert main([*words, "cpu"]) == 0


def test_damaged_lines_of_a_log_are_left_out_with_a_word(tmp_path, capsys):
    file = tmp_path / "train_log.jsonl"
    good = b'{"step": 1, "loss": 2.0}\n{"step": 2, "success": 0.5}\n'
    file.write_bytes(b'\xff{"step": 1}\n[1]\n{"loss": 1.0}\n{"step": 1, "loss": "x"}\n' + good + b'{"step": 2, "lo')
    log = TrainLog(tmp_path, 2, 4, {})
    log.plot()
    assert file.read_bytes() == good
    said = capsys.readouterr().out
    assert all(f"line {number} of" in said for number in (1, 2, 3, 4)) and "line 7" not in said
    log._board.close()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(VlaError, match="should be a file"):
        TrainLog(tmp_path, 2, 4, {})
