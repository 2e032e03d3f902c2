"""Others' datasets that are unusual or broken: read as LeRobot reads them, or refused in one line."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lerobot_data import LENGTHS, make_dataset
from vla.contracts import VlaError
from vla.data.frames import FrameCache
from vla.data.open import open_dataset

pytestmark = pytest.mark.filterwarnings("ignore")  # LeRobot's own imports warn
TOP = "observation.images.top"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images") / "blocks"
    make_dataset(root)
    return root


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos") / "blocks"
    make_dataset(root, videos=True)
    return root


@pytest.fixture
def copy(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images, tmp_path / "blocks"))


@pytest.fixture
def filmed(videos: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(videos, tmp_path / "blocks"))


def edit(root: Path, change: Callable[[Any], Any], table: str = "data") -> None:
    """Change the one parquet file below ``table`` as a data frame."""
    import pandas

    [file] = (root / table).rglob("*.parquet")
    change(pandas.read_parquet(file)).to_parquet(file)


def edit_info(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = root / "meta/info.json"
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))


def put(column: str, row: int, value: Any) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        cells = table[column].tolist()
        cells[row] = value
        return table.assign(**{column: cells})

    return change


def film(path: Path, levels: list[int], times: list[float]) -> None:
    """Write a video whose pictures are plain greys of these levels at these times [s]."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"g": "3", "crf": "5"})
        stream.width = stream.height = 32
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for level, time in zip(levels, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def levels(root: Path) -> np.ndarray:
    return FrameCache.build(root, progress=False).frames["top"].mean((1, 2, 3)).round()


ROWS = sum(LENGTHS)


def test_the_picture_nearest_in_time_is_read_whatever_the_videos_rate(filmed: Path) -> None:
    """A video of 30 pictures a second beside rows of 10, at irregular times, read as LeRobot would."""
    [video] = filmed.rglob("*.mp4")
    film(video, [4 * k for k in range(3 * ROWS)], [k / 30 for k in range(3 * ROWS)])
    assert np.abs(levels(filmed) - 12 * np.arange(ROWS)).max() <= 3
    jitter = np.random.default_rng(0).uniform(-0.012, 0.012, 3 * ROWS)
    jitter[0] = 0
    film(video, [4 * k for k in range(3 * ROWS)], [k / 30 + j for k, j in enumerate(jitter)])
    assert np.abs(levels(filmed) - 12 * np.arange(ROWS)).max() <= 3


def test_a_trimmed_episode_keeps_its_pictures(filmed: Path) -> None:
    """Rows were cut off; the timestamps of the others stay, and so does the video."""
    [video] = filmed.rglob("*.mp4")
    film(video, [10 * k for k in range(ROWS)], [k / 10 for k in range(ROWS)])
    edit(filmed, lambda t: t[t["frame_index"] >= 2].assign(frame_index=t["frame_index"] - 2))
    edit(filmed, lambda t: t.assign(length=t["length"] - 2), "meta/episodes")
    edit_info(filmed, lambda info: info.update(total_frames=ROWS - 6))
    wanted = np.concatenate([start + np.arange(2, length) for start, length in zip((0, 7, 12), LENGTHS, strict=True)])
    assert np.abs(levels(filmed) - 10 * wanted).max() <= 3


def test_episodes_lie_in_their_video_in_any_order(filmed: Path) -> None:
    [video] = filmed.rglob("*.mp4")
    film(video, [10 * k for k in range(ROWS)], [k / 10 for k in range(ROWS)])
    edit(filmed, lambda t: t.assign(**{f"videos/{TOP}/from_timestamp": [1.1, 0.6, 0.0]}), "meta/episodes")
    wanted = np.concatenate([start + np.arange(length) for start, length in zip((11, 6, 0), LENGTHS, strict=True)])
    assert np.abs(levels(filmed) - 10 * wanted).max() <= 3


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([k / 5 for k in range(ROWS)], "10 frames a second, and the video 5"),
        ([k / 10 for k in range(ROWS - 2)], r"no picture for 1\.\d+ s: its nearest is at 1\.500 s"),
        ([k / 10 + 0.3 for k in range(ROWS)], r"no picture for 0\.\d+ s"),
    ],
)
def test_a_video_without_a_picture_for_a_row_is_refused(filmed: Path, times: list[float], message: str) -> None:
    [video] = filmed.rglob("*.mp4")
    film(video, [100] * len(times), times)
    with pytest.raises(VlaError, match=rf"{video.name} has.*{message}") as caught:
        levels(filmed)
    assert "\n" not in str(caught.value)


# --- unusual tables -------------------------------------------------------------------------------------------------


def test_two_dimensional_columns_are_flattened(tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {
        TOP: {"dtype": "image", "shape": (8, 8, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float64", "shape": (2, 3), "names": None},
        "action": {"dtype": "int64", "shape": (2, 2), "names": None},
    }
    data = LeRobotDataset.create("me/arms", fps=10, features=features, root=tmp_path / "arms", use_videos=False)
    for step in range(4):
        picture, number = np.zeros((8, 8, 3), np.uint8), np.arange(6.0).reshape(2, 3) + step
        frame = {TOP: picture, "observation.state": number, "action": np.full((2, 2), step), "task": "fold"}
        data.add_frame(frame)
    data.save_episode()
    data.finalize()
    columns, _ = open_dataset(tmp_path / "arms").columns()
    np.testing.assert_array_equal(columns["state"], np.arange(6.0) + np.arange(4)[:, None])
    np.testing.assert_array_equal(columns["action"], np.arange(4)[:, None] * np.ones(4))
    assert (columns["state"].dtype, columns["action"].dtype) == (np.float32, np.float32)


def paint(root: Path, array: np.ndarray, channels: int) -> None:
    """Make every picture of the dataset this one."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    edit(root, lambda t: t.assign(**{TOP: [{"bytes": file.getvalue(), "path": None}] * len(t)}))
    edit_info(root, lambda info: info["features"][TOP].update(shape=[32, 32, channels]))


def test_grey_pictures_are_read_thrice_and_alpha_is_dropped(copy: Path) -> None:
    ramp = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    paint(copy, ramp, 1)
    assert (FrameCache.build(copy, progress=False).frames["top"][5] == ramp[..., None]).all()
    paint(copy, np.stack((ramp, ramp.T, ramp, 255 - ramp), axis=-1), 4)
    np.testing.assert_array_equal(
        FrameCache.build(copy, progress=False).frames["top"][0], np.stack((ramp, ramp.T, ramp), axis=-1)
    )


def test_pictures_that_are_no_colours_are_refused_or_left_out(copy: Path) -> None:
    paint(copy, np.full((32, 32), 3000, np.uint16), 1)
    with pytest.raises(VlaError, match=r"mode I;16 \(depth\?\), where 8 bits are read"):
        FrameCache.build(copy, progress=False)
    edit_info(copy, lambda info: info["features"][TOP].update(shape=[32, 32, 2]))
    with pytest.raises(VlaError, match=r"lacks a camera \(.*top is none: it has 2 channels, where 1, 3 or 4 are read"):
        open_dataset(copy)
    depth = {"dtype": "image", "shape": [32, 32, 1], "info": {"is_depth_map": True}}
    edit_info(copy, lambda info: info["features"].update({TOP: {"dtype": "image", "shape": [32, 32, 3]}, "far": depth}))
    told = "\n".join(open_dataset(copy).mapping)
    assert "top is camera top" in told and "far (it is a depth map)" in told


def test_pictures_of_mixed_sizes_are_refused(copy: Path) -> None:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 32)).save(file, "PNG")
    edit(copy, put(TOP, 9, {"bytes": file.getvalue(), "path": None}))
    with pytest.raises(VlaError, match=r"32, 16, 3\) \(row 9\).*32, 32, 3"):
        FrameCache.build(copy, progress=False)


def rename(root: Path, names: dict[str, str]) -> None:
    edit(root, lambda t: t.rename(columns=names))
    edit_info(root, lambda i: i.update(features={names.get(key, key): f for key, f in i["features"].items()}))


def test_openpis_names_are_known(copy: Path) -> None:
    rename(copy, {TOP: "wrist_image", "observation.state": "state", "action": "actions"})
    recorded = open_dataset(copy)
    assert [c.name for c in recorded.spec.cameras] == ["wrist_image"] and len(recorded.spec.state) == 3
    assert len(FrameCache.build(copy, progress=False)) == ROWS


def test_a_setting_names_the_columns(copy: Path) -> None:
    rename(copy, {TOP: "cam_high", "observation.state": "qpos", "action": "target"})
    with pytest.raises(VlaError, match=r"lacks the column 'action'.*--data\.columns action=…"):
        open_dataset(copy)
    recorded = open_dataset(copy, ("action=target", "state=qpos", "front=cam_high", "success="))
    assert [c.name for c in recorded.spec.cameras] == ["front"] and recorded.columns()[0]["state"].shape == (ROWS, 3)
    assert recorded.columns()[0]["success"].all()
    assert not open_dataset(copy, ("action=target", "state=")).spec.state
    for wrong, message in (
        ("action=targets", "no column 'targets'; did you mean target"),
        ("target", "takes NAME=COLUMN"),
        ("front=qpos", "no camera: it holds no pictures"),
        ("action=cam_high", "is of images, where numbers are read"),
    ):
        with pytest.raises(VlaError, match=message):
            open_dataset(copy, (wrong,))


# --- broken promises ------------------------------------------------------------------------------------------------


def swap(table: Any) -> Any:
    order = np.arange(ROWS)
    order[[8, 9]] = 9, 8
    return table.iloc[order]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("observation.state", 16, [0, np.nan, 0]), r"'observation.state' dimension 1 \(state_1\) is nan in .*e 4"),
        (put("action", 17, [np.inf, 0.0]), r"'action' dimension 0 \(motor_0\) is inf in episode 2, frame 5"),
        (lambda t: t.assign(action=[np.array([1e300, 0.0])] * len(t)), "'action' dimension 0 .* is inf in episode 0"),
        (put("action", 3, [1.0]), "'action' has cells of 1 and of 2 numbers"),
        (lambda t: t.assign(action=[[1.0, 2.0, 3.0]] * len(t)), "'action' holds 3 numbers, and meta says 2"),
        (lambda t: t.assign(action=[["a", "b"]] * len(t)), "'action' is of type string, where numbers are read"),
        (put("observation.state", 2, None), "'observation.state' lacks 1 value\\(s\\), the first in row 2"),
        (put("next.success", 2, None), "'next.success' lacks 1 value\\(s\\), the first in row 2"),
        (put("task_index", 8, 2), r"episode 1 has the task_index 2, and meta/tasks.parquet has 2 sentences"),
        (put("task_index", 8, -1), "episode 1 has the task_index -1"),
        (put("task_index", 8, None), "'task_index' should hold whole numbers, and holds nan in row 8"),
        (put("frame_index", 9, 5), "frames of episode 1 have a gap or another order: frame_index goes from 1 to 5"),
        (swap, "frames of episode 1 have a gap or another order"),
        (lambda t: t.iloc[::-1], "does not hold the episodes of meta/episodes, one after the other"),
        (put("episode_index", 17, 3), "does not hold the episodes of meta/episodes, one after the other"),
        (lambda t: t.iloc[[0, *range(ROWS - 1)]], "gap or another order|one after the other"),
        (lambda t: t.assign(timestamp=t["timestamp"] / 3), "timestamps are 30 rows a second, and meta.* says 10"),
        (put("timestamp", 9, 0.0), "timestamps of episode 1 do not grow"),
        (lambda t: t.drop(columns="action"), "lacks the column 'action'"),
        (lambda t: t.drop(columns="frame_index"), "lacks the column 'frame_index'"),
    ],
)  # fmt: skip
def test_broken_rows_are_refused(copy: Path, change: Callable[[Any], Any], message: str) -> None:
    edit(copy, change)
    with pytest.raises(VlaError, match=message) as caught:
        FrameCache.build(copy, progress=False)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)
    assert not list(copy.glob(".cache/*"))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("meta/episodes", lambda t: t[:2], "episodes holds 2 episodes, and .*info.json says 3"),
        ("meta/episodes", put("episode_index", 2, 5), "does not number its episodes from 0, each once"),
        ("meta/episodes", put("episode_index", 2, 1), "does not number its episodes from 0, each once"),
        ("meta/episodes", put("length", 1, None), "an episode without a length"),
        ("meta/episodes", put("length", 1, -5), "an episode without a length"),
        ("meta/episodes", put("length", 1, 4), "does not hold the episodes of meta/episodes"),
    ],
)
def test_broken_meta_is_refused(copy: Path, file: str, change: Callable[[Any], Any], message: str) -> None:
    edit(copy, change, file)
    with pytest.raises(VlaError, match=message):
        open_dataset(copy).columns()


def test_a_dataset_without_rows_is_refused(copy: Path) -> None:
    import pyarrow.parquet as pq

    [file] = (copy / "data").rglob("*.parquet")
    pq.write_table(pq.read_table(file).slice(0, 0), file)  # as pandas would not: its types stay
    with pytest.raises(VlaError, match=rf"holds no frames, and meta says {ROWS}"):
        FrameCache.build(copy, progress=False)


@pytest.mark.parametrize("begins", [np.nan, np.inf, "soon"])
def test_a_video_that_begins_at_no_time_is_refused(filmed: Path, begins: Any) -> None:
    edit(filmed, lambda t: t.assign(**{f"videos/{TOP}/from_timestamp": [begins] * len(t)}), "meta/episodes")
    with pytest.raises(VlaError, match=rf"meta/episodes.* has .*videos/{TOP}/from_timestamp"):
        FrameCache.build(filmed, progress=False)


def test_pictures_that_the_tables_do_not_hold_are_refused(filmed: Path) -> None:
    edit_info(filmed, lambda info: info["features"][TOP].update(dtype="image"))
    with pytest.raises(VlaError, match=rf"parquet lacks the column '{TOP}'"):
        FrameCache.build(filmed, progress=False)


@pytest.mark.parametrize("indices", [[0, 0], [0, 5], [-1, 0]])
def test_sentences_that_are_not_numbered_are_refused(copy: Path, indices: list[int]) -> None:
    import pandas

    pandas.DataFrame({"task_index": indices}, index=["a", "b"]).to_parquet(copy / "meta/tasks.parquet")
    with pytest.raises(VlaError, match="does not number its 2 sentences from 0"):
        open_dataset(copy)


@pytest.mark.parametrize("change", [(b"avc1", b"zzzz"), (b"VideoHandler", b"\xe5\xe5deoHandler")])
def test_a_video_with_a_damaged_header_is_refused(filmed: Path, change: tuple[bytes, bytes]) -> None:
    [video] = filmed.rglob("*.mp4")
    film(video, [10 * k for k in range(ROWS)], [k / 10 for k in range(ROWS)])
    assert change[0] in video.read_bytes()
    video.write_bytes(video.read_bytes().replace(*change))
    with pytest.raises(VlaError, match=rf"{video.name} cannot be read"):
        levels(filmed)


@pytest.mark.parametrize("table", ["data", "meta/episodes"])
def test_a_table_whose_names_are_damaged_is_refused(copy: Path, table: str) -> None:
    [file] = (copy / table).rglob("*.parquet")
    file.write_bytes(file.read_bytes().replace(b"episode_index", b"\xbd\xbdisode_index"))
    with pytest.raises(VlaError, match=rf"{file.name} (is damaged|lacks)"):
        FrameCache.build(copy, progress=False)
