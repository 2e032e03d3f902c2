"""Outside envs that leave the program, or its working folder: one line, and everything lands where it was asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.acting import DotAgent
from tests.fake_env import DotEnv
from vla.cli import main
from vla.commands import eval as eval_command
from vla.data.recording.record import SHARDS


class Ending(DotEnv):
    """Raises ``SystemExit`` or another error while it is made, or as it is closed."""

    def __init__(self, where: str = "made", error: str = "SystemExit") -> None:
        self.where = where
        self.error = {"SystemExit": SystemExit, "ValueError": ValueError}[error]("no licence")
        if where == "made":
            raise self.error
        super().__init__()

    def close(self) -> None:
        raise self.error


class Wanderer(DotEnv):
    """Goes to a folder of its own when it is made, and to another at each reset."""

    def __init__(self, home: str = "") -> None:
        super().__init__()
        os.chdir(home)

    def reset(self, **given: Any) -> Any:
        assert os.path.isdir("assets"), "it is where it went"
        return super().reset(**given)


@pytest.fixture(autouse=True)
def agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_command, "_load_agent", lambda *_: DotAgent())


def words(command: str, env: type, option: str, *more: str) -> list[str]:
    name = f"{__name__}:{env.__name__}"
    videos = ["--videos", "1"] if command == "eval" else []
    return [command, "--env", name, "--env-option", option, "--episodes", "2", "--workers", "1", *videos, *more]


@pytest.mark.parametrize("command", ["eval", "record"])
@pytest.mark.parametrize("error", ["SystemExit", "ValueError"])
def test_an_env_that_cannot_be_made_is_one_line(
    command: str, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(command, Ending, f"error={error}", "--out", str(tmp_path / "out"))) == 2
    said = capsys.readouterr().err
    assert f"Ending can't be made: {error}: no licence (test_outside_env.py:" in said and said.count("\n") == 1


@pytest.mark.parametrize("command", ["eval", "record"])
def test_an_env_that_cannot_be_closed_costs_nothing(command: str, tmp_path: Path) -> None:
    assert main(words(command, Ending, "where=closed", "--out", str(tmp_path / "out"))) == 0


def test_an_env_may_go_to_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    (home / "assets").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(words("record", Wanderer, f"home={home}", "--out", "data")) == 0
    assert main(words("eval", Wanderer, f"home={home}", "--out", "one")) == 0
    assert main(words("eval", Wanderer, f"home={home}", "--out", "two", "--against", "one")) == 0
    assert main(words("eval", Wanderer, f"home={home}", "--out", "drawn", "--preview", "--perturb", "noise")) == 0
    assert Path.cwd() == here and {path.name for path in home.iterdir()} == {"assets"}
    assert (here / "data/meta/vla.json").is_file() and len(list((here / "data" / SHARDS).glob("*.npz"))) == 2
    assert all((here / name / "results.json").is_file() for name in ("one", "two"))
    assert list((here / "one/videos").glob("*.mp4")) and (here / "drawn/preview.png").is_file()
