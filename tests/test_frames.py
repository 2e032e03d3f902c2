"""The frame cache and the windows that training draws from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vla.data.frames
from tests.fake_env import DotEnv
from vla.contracts import VlaError
from vla.data.caches import sweep
from vla.data.files import read_parquet, read_texts
from vla.data.frames import FrameCache
from vla.data.open import open_dataset
from vla.data.recording.record import RecordSettings, record
from vla.data.windows import Windows


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
    recorded = open_dataset(dataset)
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
    monkeypatch.setattr("vla.data.recording.assemble.VIDEO_FILE_BYTES", 12_000)
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
    assert FrameCache.open(tmp_path / ".cache/frames").fingerprint == open_dataset(tmp_path).fingerprint()


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
        patch.setattr(vla.data.frames, "reserve", full)
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


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = run(tmp_path_factory.mktemp("filmed") / "dots", 2, "h264")
    FrameCache.build(root, progress=False)
    return root


def flip(file: Path, share: float) -> None:
    """Change one bit of a file, that far into it."""
    data = bytearray(file.read_bytes())
    data[min(int(len(data) * share), len(data) - 1)] ^= 4
    file.write_bytes(data)


DAMAGED = [
    ("data/chunk-000/file-000.parquet", 0.3),
    ("videos/observation.images.scene/chunk-000/file-000.mp4", 0.5),
    ("meta/episodes/chunk-000/file-000.parquet", 0.5),
    ("meta/tasks.parquet", 0.1),
    ("meta/stats.json", 0.5),
]


@pytest.mark.parametrize(("name", "share"), DAMAGED)
def test_one_changed_bit_of_a_recording_is_found(name: str, share: float, filmed: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(filmed, tmp_path / "dots"))
    flip(copy / name, share)
    with pytest.raises(VlaError, match=rf"{Path(name).name}.*damaged") as caught:
        FrameCache.build(copy, progress=False)
    assert "\n" not in str(caught.value)


def test_what_vla_json_says_is_sealed(filmed: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(filmed, tmp_path / "dots"))
    file = copy / "meta/vla.json"
    file.write_text(file.read_text().replace('"dt": 0.1', '"dt": 0.2'))
    with pytest.raises(VlaError, match=r"vla\.json is not as it was written: its hash differs"):
        FrameCache.build(copy, progress=False)


def test_a_recording_from_before_hashes_loads(filmed: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(filmed, tmp_path / "dots"))
    file = copy / "meta/vla.json"
    facts = json.loads(file.read_text())
    del facts["files"], facts["sha256"]
    file.write_text(json.dumps(facts))
    before = FrameCache.build(copy, progress=False)
    flip(copy / "meta/stats.json", 0.5)
    assert FrameCache.build(copy, progress=False).fingerprint != before.fingerprint


def test_pages_of_parquet_have_checksums(filmed: Path, tmp_path: Path) -> None:
    """Where only the table is read, without the hashes: a bit in any page is seen."""
    import pyarrow.parquet as pq

    source = filmed / "data/chunk-000/file-000.parquet"
    group = pq.read_metadata(source).row_group(0)
    copy = tmp_path / "data.parquet"
    for number in range(group.num_columns):
        column = group.column(number)
        shutil.copy(source, copy)
        data = bytearray(copy.read_bytes())
        data[column.data_page_offset + column.total_compressed_size // 2] ^= 4
        copy.write_bytes(data)
        try:
            assert read_parquet(copy) == read_parquet(source), "a bit that no value depends on, or it is told"
        except VlaError as error:
            assert "damaged" in str(error)


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "cache.json").unlink(),
        lambda root: (root / "cache.json").write_text('{"format_version": 2}'),
        lambda root: (root / "cache.json").write_bytes(b"\xff" + (root / "cache.json").read_bytes()),
        lambda root: flip(root / "cache.json", 0.5),
        lambda root: (root / "episode.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'\x1e" + bytes(200)),
        lambda root: flip(root / "state.npy", 0.9),
        lambda root: flip(root / "action.npy", 0.02),
        lambda root: (root / "progress.npy").unlink(),
        lambda root: flip(root / "frames.scene.npy", 0.5),
        lambda root: shutil.copy(root / "frames.wrist.npy", root / "frames.scene.npy"),
        lambda root: (root / "frames.wrist.npy").write_bytes((root / "frames.wrist.npy").read_bytes()[:-9]),
        lambda root: fifo(root / "progress.npy"),
        lambda root: fifo(root / "frames.scene.npy"),
    ],
)
def test_a_broken_cache_is_made_anew(
    damage: Callable[[Path], Any], filmed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(filmed, tmp_path / "dots"))
    damage(copy / ".cache/frames")
    there = (copy / ".cache/frames/cache.json").exists()
    made, right = FrameCache.build(copy), FrameCache.open(filmed / ".cache/frames")
    for name in right.frames:
        np.testing.assert_array_equal(made.frames[name], right.frames[name])
    for name in right.columns:
        np.testing.assert_array_equal(made.columns[name], right.columns[name])
    assert ("decoded anew" in capsys.readouterr().err) == there
    assert not list(copy.glob(".cache/*.tmp"))


def test_a_picture_that_changes_later_is_not_trained_on(filmed: Path, tmp_path: Path) -> None:
    """As where a disk loses a bit: the file's time of change does not tell."""
    root = Path(shutil.copytree(filmed, tmp_path / "dots")) / ".cache/frames"
    file, windows = root / "frames.scene.npy", Windows(FrameCache.open(root), 2)
    before = file.stat()
    flip(file, 0.5)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(VlaError, match=r"frames\.scene\.npy is damaged: picture \d+ .*--resume"):
        for number in range(len(windows)):
            windows.batch(np.array([number]), np.random.default_rng(0))
    assert FrameCache.build(tmp_path / "dots", progress=False).pictures("scene", np.arange(len(windows))).any()


def test_another_dataset_of_the_same_size_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.lerobot_data import make_dataset

    root = tmp_path / "blocks"
    make_dataset(root)
    first = FrameCache.build(root, progress=False)
    [file] = (root / "data").rglob("*.parquet")
    shutil.copytree(root, tmp_path / "copied")
    assert FrameCache.build(tmp_path / "copied").fingerprint == first.fingerprint
    assert "decod" not in capsys.readouterr().err, "a copy is the same dataset"
    import pandas

    table = pandas.read_parquet(file)
    table.assign(action=[-row for row in table["action"]]).to_parquet(file)
    second = FrameCache.build(root)
    np.testing.assert_array_equal(second.columns["action"], -first.columns["action"])
    assert second.fingerprint != first.fingerprint and "decoded anew" in capsys.readouterr().err


def test_what_a_killed_decode_left_is_removed(filmed: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    copy = Path(shutil.copytree(filmed, tmp_path / "dots"))
    shutil.rmtree(copy / ".cache/frames")
    dead, alive = copy / ".cache/frames.1.tmp", copy / ".cache/frames.2.tmp"
    for left in (dead, alive):
        left.mkdir()
        (left / "frames.scene.npy").write_bytes(bytes(1000))
    with FileLock(alive / ".lock"):
        FrameCache.build(copy, progress=False)
        assert not dead.exists() and (alive / "frames.scene.npy").exists()
    sweep(copy / ".cache/frames")
    assert sorted(path.name for path in (copy / ".cache").iterdir()) == ["frames"]


def test_a_dataset_that_cannot_be_written_keeps_its_frames_elsewhere(
    filmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    copy = Path(shutil.copytree(filmed, tmp_path / "dots"))
    can = os.access
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith(str(copy)) and can(path, mode))
    assert FrameCache.build(copy).root == copy / ".cache/frames", "what is there and fits is read"
    shutil.rmtree(copy / ".cache")
    cache = FrameCache.build(copy)
    assert cache.root.parent.parent == tmp_path / "home/vla" and not (copy / ".cache").exists()
    assert f"are kept in {cache.root}" in capsys.readouterr().err
    assert FrameCache.build(copy).root == cache.root and "kept" not in capsys.readouterr().err
    monkeypatch.setenv("VLA_CACHE", str(tmp_path / "named"))
    assert FrameCache.build(copy, progress=False).root.parent.parent == tmp_path / "named"


# --- pictures and rows ----------------------------------------------------------------------------------------------


def test_pictures_of_a_recording_belong_to_their_rows(tmp_path: Path) -> None:
    """Each row's actions are played again, and what the env then shows is what the row holds."""
    cache = FrameCache.build(run(tmp_path, 3, "h264"), progress=False)
    facts, env = open_dataset(tmp_path).episodes, DotEnv()
    for row in range(len(cache)):
        episode = int(cache.columns["episode"][row])
        if cache.columns["frame"][row] == 0:
            env.reset(seed=facts[episode]["seed"], options=facts[episode]["options"])
        seen = env.observe()
        np.testing.assert_array_equal(cache.columns["state"][row], seen.state)
        assert cache.instructions[cache.columns["instruction"][row]] == facts[episode]["instruction"]
        for camera in ("scene", "wrist"):
            error = np.abs(cache.frames[camera][row].astype(int) - seen.images[camera])
            assert error.mean() < 3 and (error.max(-1) > 60).mean() < 0.01
        env.play(cache.columns["executed"][row])


def test_two_datasets_keep_their_own_sub_instructions(cache: FrameCache, tmp_path: Path) -> None:
    """Their indices differ; each window's sentence is that of its own dataset."""
    env = "tests.fake_env:DotEnv"
    record(RecordSettings(env, tmp_path, 4, seed=7, video_format="images", workers=1), show=False)
    other = FrameCache.build(tmp_path, progress=False)
    assert other.sub_instructions != cache.sub_instructions
    for one, root in ((cache, cache.root.parent.parent), (other, tmp_path)):
        texts = read_texts(sorted(root.glob("data/*/*.parquet")), "sub_instruction")
        drawn = Windows(one, 2, 1.0).batch(np.arange(len(one)), np.random.default_rng(0))["instruction"]
        assert drawn == texts
