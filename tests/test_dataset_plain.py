"""LeRobot datasets that LeRobot itself wrote: how they are read, trained on, and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lerobot_data import LENGTHS, make_dataset
from vla.agent import load
from vla.cli import main
from vla.contracts import VlaError
from vla.data import hub
from vla.data.frames import FrameCache
from vla.data.open import open_dataset
from vla.data.recording.replay import replay
from vla.registry import load_recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # LeRobot's own imports warn
SMALL = (
    "--policy.trunk.vision=test_resnet", "--policy.trunk.map_dim=16", "--policy.trunk.pixels=32", "--policy.dim=32",
    "--policy.depth=1", "--optim.steps=2", "--optim.batch_size=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    root = tmp_path_factory.mktemp("images") / "blocks"
    return root, make_dataset(root)


@pytest.fixture
def copy(images: tuple[Path, Any], tmp_path: Path) -> Path:
    return Path(shutil.copytree(images[0], tmp_path / "blocks"))


def edit_info(root: Path, change: dict[str, Any]) -> None:
    file = root / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def test_features_become_a_spec(images: tuple[Path, Any]) -> None:
    recorded = open_dataset(images[0])
    spec = recorded.spec
    assert [(c.name, c.height, c.width) for c in spec.cameras] == [("top", 32, 32)]
    assert spec.state == ("state_0", "state_1", "state_2") and spec.action == ("motor_0", "motor_1")
    assert (spec.dt, spec.episode_steps, spec.relative, spec.languages) == (0.1, 7, (), ("zh",))
    told = "\n".join(recorded.mapping)
    for part in (
        "top, 32x32",
        "motor_0, motor_1",
        "dt 0.1 s",
        "push the block",
        "next.success tells",
        "not used: next.reward",
    ):
        assert part in told


@pytest.mark.parametrize("videos", [False, True])
def test_frames_and_columns_are_lerobots(videos: bool, images: tuple[Path, Any], tmp_path: Path) -> None:
    root, frames = (tmp_path / "blocks", make_dataset(tmp_path / "blocks", videos=True)) if videos else images
    cache = FrameCache.build(root, tmp_path / "cache", progress=False)
    assert len(cache) == len(frames) == sum(LENGTHS) and cache.mapping
    for row, frame in enumerate(frames):
        difference = np.abs(cache.frames["top"][row].astype(int) - frame["observation.images.top"])
        assert difference.mean() < 6 if videos else difference.max() == 0
        np.testing.assert_array_equal(cache.columns["state"][row], frame["observation.state"])
        np.testing.assert_array_equal(cache.columns["action"][row], frame["action"])
        assert cache.instructions[cache.columns["instruction"][row]] == frame["task"]
        assert cache.sub_instructions[cache.columns["sub_instruction"][row]] == frame["task"]
        assert (cache.columns["episode"][row], cache.columns["frame"][row]) == (frame["episode"], frame["step"])
        assert cache.columns["success"][row] == (frame["episode"] != 1)
    assert (cache.columns["by_expert"] == 1).all() and not cache.columns["points.top"].any()


def test_training_shows_the_mapping_and_gives_an_agent(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pandas

    out, long = copy.parent / "run", "push " * 30
    pandas.DataFrame({"task_index": [0, 1]}, index=[long + "left", long + "right"]).to_parquet(
        copy / "meta/tasks.parquet"
    )
    assert main(["train", "lerobot_flow", "--data", str(copy), "--out", str(out), *SMALL]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "observation.images.top is camera top, 32x32" in printed and "2 steps" in printed
    assert "warning: 2 of 2 instructions are longer than 28 words" in printed
    agent = load(out / "agent", "cpu")
    assert agent.spec == open_dataset(copy).spec and agent.replay_golden_trace() < 1e-3


def test_a_dataset_without_a_state_trains(tmp_path: Path) -> None:
    make_dataset(tmp_path / "blocks", state=None, camera="image")
    assert open_dataset(tmp_path / "blocks").spec.cameras[0].name == "image"
    words = ["--data", str(tmp_path / "blocks"), "--out", str(tmp_path / "run"), *SMALL]
    assert main(["train", "lerobot_flow", *words]) == 0
    assert load(tmp_path / "run", "cpu").spec.state == ()


def test_what_does_not_fit_the_env_is_shown_side_by_side(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--env",
        "gymnasium:tests.tiny_gym:tiny/Dot-v0",
        "--validate.every",
        "0",
        "--out",
        str(copy.parent / "run"),
    ]
    assert main(["train", "lerobot_flow", "--data", str(copy), *words, *SMALL]) == 2
    said = capsys.readouterr().err
    assert "top 32x32" in said and "top 24x24" in said and "motor_0, motor_1" in said and "action_0, action_1" in said


def test_a_video_may_hold_more_than_its_episodes(tmp_path: Path) -> None:
    """As after episodes were cut out: the times in the table of episodes say which frames count."""
    import pandas

    make_dataset(tmp_path / "blocks", videos=True)
    whole = FrameCache.build(tmp_path / "blocks", tmp_path / "whole", progress=False)
    [table] = (tmp_path / "blocks/meta/episodes").rglob("*.parquet")
    [data] = (tmp_path / "blocks/data").rglob("*.parquet")
    rows = pandas.read_parquet(table)[1:].assign(episode_index=[0, 1])
    frames = pandas.read_parquet(data)[LENGTHS[0] :]
    rows.to_parquet(table)
    frames.assign(episode_index=frames["episode_index"] - 1).to_parquet(data)
    edit_info(tmp_path / "blocks", {"total_frames": sum(LENGTHS[1:]), "total_episodes": 2})
    cut = FrameCache.build(tmp_path / "blocks", tmp_path / "cut", progress=False)
    np.testing.assert_array_equal(cut.frames["top"], whole.frames["top"][LENGTHS[0] :])


# --- refusing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"codebase_version": "v2.1"},
            r"of version v2\.1, and this program reads v3\.0; convert it: python -m lerobot",
        ),
        ({"features": {"observation.state": {"dtype": "float32", "shape": [3]}}}, "lacks the column 'action'"),
        ({"features": {"action": {"dtype": "float32", "shape": [2]}}}, r"lacks a camera.*action float32 \[2\]"),
    ],
)
def test_what_cannot_be_read_says_why(copy: Path, change: dict[str, Any], message: str) -> None:
    edit_info(copy, change)
    with pytest.raises(VlaError, match=message) as caught:
        open_dataset(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("data/*/*.parquet", "data holds no parquet file"),
        ("meta/tasks.parquet", "tasks.parquet is missing"),
        ("meta/episodes/*/*.parquet", "episodes holds no parquet file"),
    ],
)
def test_missing_files_are_named(copy: Path, pattern: str, message: str) -> None:
    for file in copy.glob(pattern):
        file.unlink()
    with pytest.raises(VlaError, match=message):
        open_dataset(copy).columns()


def test_frames_that_meta_does_not_know(copy: Path) -> None:
    edit_info(copy, {"total_frames": 99})
    with pytest.raises(VlaError, match="holds 18 frames, and meta says 99"):
        open_dataset(copy).columns()


def test_anothers_dataset_cannot_be_replayed(images: tuple[Path, Any]) -> None:
    with pytest.raises(VlaError, match="no seeds to replay"):
        next(replay(images[0]))


def test_a_conversion_that_is_advised_exists() -> None:
    import importlib.util

    assert importlib.util.find_spec("lerobot.scripts.convert_dataset_v21_to_v30")


# --- by name --------------------------------------------------------------------------------------------------------


def test_a_name_is_looked_up_where_lerobot_keeps_it(
    images: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lerobot.utils.constants.HF_LEROBOT_HOME", tmp_path / "home")
    monkeypatch.setattr("lerobot.utils.constants.HF_LEROBOT_HUB_CACHE", tmp_path / "home/hub")
    with pytest.raises(VlaError, match=r"no folder somebody/blocks, .*the hub cannot be asked") as caught:
        hub.find_dataset("somebody/blocks")
    assert "\n" not in str(caught.value)
    shutil.copytree(images[0], tmp_path / "home/somebody/blocks")
    assert hub.find_dataset("somebody/blocks") == tmp_path / "home/somebody/blocks"
    (tmp_path / "data").mkdir()
    assert hub.find_dataset("data/mine") == Path("data/mine"), "a folder that is not there, not a name"
    with pytest.raises(VlaError, match="name one with --data"):
        from vla.train.trainer import train

        train(load_recipe("lerobot_flow"), tmp_path / "data/mine", tmp_path / "run")


def test_what_is_not_there_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from huggingface_hub.errors import RevisionNotFoundError

    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []

    def fetch(name: str, **details: Any) -> str:
        asked.append((name, details["repo_type"], details["revision"]))
        if name == "somebody/old":
            raise RevisionNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "")))
        return str(tmp_path / "fetched")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert hub.find_dataset("somebody/new") == tmp_path / "fetched"
    assert asked == [("somebody/new", "dataset", "v3.0")]
    with pytest.raises(VlaError, match=r"not in LeRobot's format v3\.0"):
        hub.find_dataset("somebody/old")
