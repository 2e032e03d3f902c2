"""The frame cache and the windows that training draws from it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import vla.frames
from vla.contracts import VlaError
from vla.dataset import Recorded
from vla.frames import FrameCache, Windows
from vla.record import RecordSettings, record


def run(out: Path, episodes: int = 3, video_format: str = "images") -> Path:
    env = "tests.fake_env:DotEnv"
    record(RecordSettings(env, out, episodes, noise=0.01, video_format=video_format, workers=1), show=False)
    return out


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("frames") / "dots", 5)


@pytest.fixture(scope="module")
def cache(dataset: Path) -> FrameCache:
    return FrameCache.build(dataset, progress=False)


def test_frames_are_those_of_the_dataset(dataset: Path, cache: FrameCache) -> None:
    recorded = Recorded.open(dataset)
    columns, _ = recorded.columns()
    assert len(cache) == recorded.frames and cache.spec == recorded.spec
    for name, column in columns.items():
        np.testing.assert_array_equal(cache.columns[name], column)
    for camera in ("scene", "wrist"):
        frames = np.concatenate([list(recorded.read_frames(s, camera)) for s in recorded.sources(camera)])
        np.testing.assert_array_equal(cache.frames[camera], frames)
        assert isinstance(cache.frames[camera], np.memmap)


def test_many_video_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small limit gives several files; each frame must still be at its place."""
    monkeypatch.setattr("vla.assemble.VIDEO_FILE_BYTES", 12_000)
    run(tmp_path, 5, "h264")
    assert len(list((tmp_path / "videos/observation.images.scene").rglob("*.mp4"))) > 1
    video = FrameCache.build(tmp_path, progress=False)
    lossless = FrameCache.build(run(tmp_path / "lossless", 5), progress=False)
    for camera in video.frames:
        error = np.abs(video.frames[camera].astype(int) - lossless.frames[camera])
        assert error.mean((1, 2, 3)).max() < 3


def test_windows(cache: FrameCache) -> None:
    windows, rng = Windows(cache, chunk=8), np.random.default_rng(0)
    assert len(windows) == len(cache)
    last = int(cache.bounds[1]) - 1
    batch = windows.batch(np.array([0, last - 2]), rng)
    assert batch["images.scene"].shape == (2, 32, 32, 3) and batch["actions"].shape == (2, 8, 3)
    np.testing.assert_array_equal(batch["images.wrist"][1].numpy(), cache.frames["wrist"][last - 2])
    np.testing.assert_array_equal(batch["actions"][0].numpy(), cache.columns["action"][:8])
    assert batch["valid"].tolist() == [[True] * 8, [True] * 3 + [False] * 5]
    np.testing.assert_array_equal(batch["actions"][1, 3:].numpy(), np.tile(cache.columns["action"][last], (5, 1)))
    np.testing.assert_array_equal(batch["points.scene"].numpy(), cache.columns["points.scene"][[0, last - 2]])
    assert batch["instruction"][0] == cache.instructions[cache.columns["instruction"][0]]


def test_some_episodes_only(cache: FrameCache) -> None:
    windows = Windows(cache, 4, episodes=[1, 3])
    seen = cache.columns["episode"][windows.starts]
    assert set(seen) == {1, 3} and len(windows) == np.isin(cache.columns["episode"], [1, 3]).sum()
    for wrong in ([], [5], [-1]):
        with pytest.raises(VlaError, match="from 0 to 4"):
            Windows(cache, 4, episodes=wrong)


def test_sub_instructions(cache: FrameCache) -> None:
    indices = np.arange(len(cache))
    subs = [cache.sub_instructions[i] for i in cache.columns["sub_instruction"]]
    wholes = [cache.instructions[i] for i in cache.columns["instruction"]]

    def draw(probability: float, seed: int) -> list[str]:
        return Windows(cache, 2, probability).batch(indices, np.random.default_rng(seed))["instruction"]

    assert draw(0.0, 0) == wholes and draw(1.0, 0) == subs
    assert draw(0.5, 1) == draw(0.5, 1) != draw(0.5, 2)


def test_batches_are_copies(cache: FrameCache) -> None:
    windows, rng = Windows(cache, 4), np.random.default_rng(0)
    first = windows.batch(np.array([0]), rng)
    for value in first.values():
        if hasattr(value, "zero_"):
            value.zero_()
    assert windows.batch(np.array([0]), rng)["images.scene"].any()
    assert cache.columns["action"].any()


def test_the_cache_is_made_once_and_follows_the_dataset(tmp_path: Path) -> None:
    run(tmp_path, 2)
    first = FrameCache.build(tmp_path, progress=False)
    stamp = (first.root / "cache.json").stat().st_mtime_ns
    assert (FrameCache.build(tmp_path, progress=False).root / "cache.json").stat().st_mtime_ns == stamp
    run(tmp_path, 3)
    assert len(FrameCache.build(tmp_path, progress=False)) > len(first)
    assert FrameCache.open(tmp_path / ".cache/frames").fingerprint == Recorded.open(tmp_path).fingerprint()


def test_nothing_half_made_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "data", 2, "h264")
    video = tmp_path / "data/videos/observation.images.scene/chunk-000/file-000.mp4"
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VlaError, match=r"file-000\.mp4"):
        FrameCache.build(tmp_path / "data", tmp_path / "cache", progress=False)
    video.write_bytes(whole)

    def full(file: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(vla.frames, "reserve", full)
        with pytest.raises(VlaError, match="No space left"):
            FrameCache.build(tmp_path / "data", tmp_path / "cache", progress=False)
    assert os.listdir(tmp_path) == ["data"]
    FrameCache.build(tmp_path / "data", tmp_path / "cache", progress=False)


def test_foreign_folders_are_left_alone(tmp_path: Path, dataset: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(VlaError, match="no frame cache"):
        FrameCache.build(dataset, tmp_path, progress=False)
    with pytest.raises(VlaError, match="no frame cache"):
        FrameCache.open(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_damaged_cache_is_made_again(tmp_path: Path, dataset: Path) -> None:
    root = tmp_path / "cache"
    FrameCache.build(dataset, root, progress=False)
    (root / "state.npy").write_bytes(b"")
    with pytest.raises(VlaError, match="damaged"):
        FrameCache.open(root)
    FrameCache.build(dataset, root, progress=False)
    FrameCache.open(root)


def test_a_paraphrase_words_every_window_anew(cache: FrameCache) -> None:
    def shout(text: str, rng: np.random.Generator) -> str:
        return f"{text} {rng.integers(1000)}!"

    windows = Windows(cache, 2, paraphrase=shout)
    first = windows.batch(np.arange(5), np.random.default_rng(1))["instruction"]
    assert all(text.endswith("!") for text in first) and len(set(first)) > 1
    assert first == windows.batch(np.arange(5), np.random.default_rng(1))["instruction"]


def test_frames_after_a_new_sub_instruction_are_drawn_more_often(cache: FrameCache) -> None:
    plain, keen = Windows(cache, 2), Windows(cache, 2, decision_steps=3, decision_repeat=4)
    assert np.array_equal(keen.frames_once, plain.starts)
    count = np.bincount(keen.starts, minlength=len(cache))
    sub, episode = cache.columns["sub_instruction"], cache.columns["episode"]
    begins = [0] + [i for i in range(1, len(sub)) if (sub[i], episode[i]) != (sub[i - 1], episode[i - 1])]
    early = {
        i + k
        for i in begins
        for k in range(3)
        if i + k < len(sub) and (episode[i + k], sub[i + k]) == (episode[i], sub[i])
    }
    assert {int(i) for i in np.flatnonzero(count == 4)} == early
    assert set(count.tolist()) == {1, 4}


def test_windows_begin_in_the_experts_turn_and_end_with_it(dataset: Path, tmp_path: Path) -> None:
    cache = FrameCache.build(dataset, tmp_path / "cache", progress=False)
    actor = cache.columns["by_expert"]
    assert (actor == 1).all()
    actor[2:5] = 0  # the agent acts in steps 2 to 4 of the first episode
    windows = Windows(cache, 6)
    assert not {2, 3, 4} & set(windows.starts.tolist()) and {1, 5} <= set(windows.starts.tolist())
    batch = windows.batch(np.array([0, 1, 2]), np.random.default_rng(0))  # these begin at 0, 1 and 5
    end = int(cache.bounds[1])
    assert batch["valid"].sum(dim=1).tolist() == [2, 1, min(6, end - 5)]
    np.testing.assert_array_equal(batch["actions"][0, 2:].numpy(), np.tile(cache.columns["action"][1], (4, 1)))
