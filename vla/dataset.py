"""Recorded demonstrations on disk, in LeRobot's v3 layout: what is in them, and how to read them back.

What ``vla record`` wrote has, beside LeRobot's own files, ``meta/vla.json`` (EnvSpec, how it was recorded, versions)
and ``meta/vla_episodes.jsonl`` (a line for each episode). ``meta/vla.json`` arrives last: a folder that has it is
complete.
Any other LeRobot v3 dataset is read by ``vla.dataset_plain``, which makes its EnvSpec from LeRobot's features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import EnvSpec, VlaError
from vla.dataset_files import as_array, count_rows, png_frames, read_parquet
from vla.episodes import PIXEL_FORMAT, decode_video
from vla.files import read_json, read_text

FORMAT_VERSION = 1
VLA_JSON = "meta/vla.json"
EPISODES_JSONL = "meta/vla_episodes.jsonl"
# LeRobot's column on the left, the name in this project's code on the right.
ARRAYS = {
    "observation.state": "state",
    "action": "action",
    "action.executed": "executed",
    "progress": "progress",
    "by_expert": "by_expert",
}


def frames_per_second(spec: EnvSpec) -> int:
    """1 / dt, which LeRobot needs as a whole number. Raises VlaError otherwise."""
    fps = round(1 / spec.dt)
    if fps < 1 or abs(fps * spec.dt - 1) > 1e-6:
        raise VlaError(f"LeRobot's format needs a whole number of steps a second, and dt is {spec.dt} s")
    return fps


def features(spec: EnvSpec, video_format: str) -> dict[str, dict[str, Any]]:
    """LeRobot's ``features`` for an env: dtype, shape and names of each column."""

    def column(dtype: str, names: list[str] | None, size: int = 1) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [size], "names": names}

    fps = frames_per_second(spec)
    table: dict[str, dict[str, Any]] = {}
    for camera in spec.cameras:
        image = {"shape": [camera.height, camera.width, 3], "names": ["height", "width", "channels"]}
        if video_format == "h264":
            size = {"video.height": camera.height, "video.width": camera.width, "video.fps": fps, "video.channels": 3}
            kind = {"video.codec": "h264", "video.pix_fmt": PIXEL_FORMAT, "has_audio": False, "is_depth_map": False}
            table[f"observation.images.{camera.name}"] = {"dtype": "video", **image, "info": {**size, **kind}}
        else:
            table[f"observation.images.{camera.name}"] = {"dtype": "image", **image}
    table["observation.state"] = column("float32", list(spec.state), len(spec.state))
    table["action"] = column("float32", list(spec.action), len(spec.action))
    table["action.executed"] = column("float32", list(spec.action), len(spec.action))
    names = [f"{what}_{axis}" for what in ("item", "place") for axis in ("u", "v", "visible")]
    table.update({f"points.{camera.name}": column("float32", names, 6) for camera in spec.cameras})
    table["progress"] = column("float32", None)
    table["by_expert"] = column("float32", None)
    table["success"] = column("bool", None)
    table["seed"] = column("int64", None)
    table["sub_instruction"] = column("string", None)
    table["timestamp"] = column("float32", None)
    table.update({name: column("int64", None) for name in ("frame_index", "episode_index", "index", "task_index")})
    return table


@dataclass
class Source:
    """A file that holds frames of one camera, in the order of the dataset.

    Attributes:
        path: an mp4, or a parquet file with PNG images.
        frames: how many of the dataset's frames it holds.
        rows: which of the file's frames these are, ascending; None means all.
    """

    path: Path
    frames: int
    rows: np.ndarray | None = None


class Recorded:
    """Recorded demonstrations. ``Recorded.open`` makes one.

    Attributes:
        root: its folder.
        spec: the EnvSpec of the env that it was recorded in.
        facts: the whole of ``meta/vla.json``; of another's dataset ``env_spec`` alone.
        episodes: a dict for each episode: episode_index, seed, options, instruction, language, kind, category, items,
            success, steps, progress, final_state.
        instructions: the instructions, by instruction index.
        mapping: lines that tell how another's dataset was read; none for what ``vla record`` wrote.
    """

    mapping: tuple[str, ...] = ()

    def __init__(self, root: Path, facts: dict[str, Any], info: dict[str, Any], episodes: list[dict]) -> None:
        self.root, self.facts, self.episodes, self._info = root, facts, episodes, info
        self.spec = EnvSpec.from_dict(facts["env_spec"])
        self.instructions: list[str] = _read_tasks(root / "meta/tasks.parquet")

    @classmethod
    def open(cls, folder: str | Path) -> Recorded:
        """Open a dataset.

        Raises:
            VlaError: if ``folder`` holds none, an unfinished one, one of another format, or one that lacks a file; the
                file is named. SpecMismatchError: if another's dataset has no actions or no camera.
        """
        root = Path(folder)
        shards = (root / ".episodes").exists()
        needed = ("meta/info.json", VLA_JSON) if shards else ("meta/info.json",)
        for name in needed:
            if not (root / name).exists():
                hint = "a recording that did not finish: run its command again" if shards else "no LeRobot v3 dataset"
                raise VlaError(f"{root} is {hint} ({name} is missing)")
        recorded = cls._open_own(root) if (root / VLA_JSON).exists() else _open_plain(root)
        for camera in recorded.spec.cameras:
            for source in recorded.sources(camera.name):
                if not source.path.exists():
                    raise VlaError(f"{source.path} is missing from the dataset {root}")
        return recorded

    @classmethod
    def _open_own(cls, root: Path) -> Recorded:
        facts, info = read_json(root / VLA_JSON), read_json(root / "meta/info.json")
        version = facts.get("format_version")
        if version != FORMAT_VERSION:
            raise VlaError(f"{root / VLA_JSON} has format version {version}; this program reads {FORMAT_VERSION}")
        lines = read_text(root / EPISODES_JSONL).splitlines()
        return cls(root, facts, info, [json.loads(line) for line in lines])

    def image_key(self, camera: str) -> str:
        """LeRobot's name for a camera's column."""
        return f"observation.images.{camera}"

    @property
    def frames(self) -> int:
        """How many frames all episodes have together."""
        return int(self._info["total_frames"])

    def fingerprint(self) -> str:
        """A hash of everything in ``meta/`` and of the sizes of all data and video files."""
        digest = hashlib.sha256()
        for file in sorted((self.root / "meta").rglob("*")):
            if file.is_file():
                digest.update(file.name.encode() + file.read_bytes())
        for folder in ("data", "videos"):
            for file in sorted((self.root / folder).rglob("*.*")):
                digest.update(f"{file.relative_to(self.root)} {file.stat().st_size}\n".encode())
        return digest.hexdigest()

    def columns(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """All columns but images, in the order of the dataset, N frames long.

        Returns:
            name to array, and the sub-instructions by index. float32: ``state`` (N, S), ``action`` (N, A: what the
            expert wanted), ``executed`` (N, A: what was played), ``progress`` (N,), ``by_expert`` (N,),
            ``points.{camera}`` (N, 6).
            int64 (N,): ``seed``, ``episode``, ``frame``, ``instruction``, ``sub_instruction``. bool (N,): ``success``.

        Raises:
            VlaError: if a file is damaged or too short; it is named.
        """
        wanted = dict(ARRAYS) | {f"points.{c.name}": f"points.{c.name}" for c in self.spec.cameras}
        wanted |= {"success": "success", "seed": "seed", "episode_index": "episode", "frame_index": "frame"}
        wanted |= {"task_index": "instruction"}
        if "by_expert" not in self._info["features"]:
            del wanted["by_expert"]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in [*wanted.values(), "sub_instruction"]}
        table_of: dict[str, int] = {}
        for file in self._data_files():
            table = read_parquet(file, [*wanted, "sub_instruction"])
            for key, name in wanted.items():
                parts[name].append(as_array(table.column(key)))
            texts = table.column("sub_instruction").to_pylist()
            parts["sub_instruction"].append(
                np.array([table_of.setdefault(text, len(table_of)) for text in texts], dtype=np.int64)
            )
        columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        columns.setdefault("by_expert", np.ones(len(columns["state"]), np.float32))  # recorded before it was kept
        if len(columns["state"]) != self.frames:
            raise VlaError(f"{self.root / 'data'} holds {len(columns['state'])} frames, and meta says {self.frames}")
        return columns, list(table_of)

    def sources(self, camera: str) -> list[Source]:
        """The files that hold a camera's frames, in order."""
        key = self.image_key(camera)
        if self._info["features"][key]["dtype"] == "image":
            return [Source(file, count_rows(file)) for file in self._data_files()]
        names = [f"videos/{key}/chunk_index", f"videos/{key}/file_index"]
        table = self._episode_table(["episode_index", "length", *names]).sort_by("episode_index")
        sources: list[Source] = []
        for length, chunk, file in zip(*(table.column(n).to_pylist() for n in ("length", *names)), strict=True):
            path = self._video_file(key, chunk, file)
            if not sources or sources[-1].path != path:
                sources.append(Source(path, 0))
            sources[-1].frames += length
        return sources

    def read_frames(self, source: Source, camera: str) -> Iterator[np.ndarray]:
        """The frames of one source, uint8 (H, W, 3). Raises VlaError, naming the file, if it is damaged or short."""
        count, path = 0, source.path
        frames = png_frames(path, self.image_key(camera)) if path.suffix == ".parquet" else decode_video(path)
        for number, frame in enumerate(frames):
            if source.rows is not None:
                if count == source.frames:
                    break
                if source.rows[count] != number:
                    continue
            count += 1
            if count > source.frames:
                break
            yield frame
        if count != source.frames:
            raise VlaError(f"{path} should hold {source.frames} frames, and holds {count}")

    def _video_file(self, key: str, chunk: int, file: int) -> Path:
        return self.root / self._info["video_path"].format(video_key=key, chunk_index=chunk, file_index=file)

    def _episode_table(self, columns: list[str]) -> Any:
        """Columns of LeRobot's table of episodes, all its files together."""
        import pyarrow as pa

        files = sorted((self.root / "meta/episodes").glob("*/*.parquet"))
        if not files:
            raise VlaError(f"{self.root / 'meta/episodes'} holds no parquet file")
        return pa.concat_tables([read_parquet(file, columns) for file in files])

    def _data_files(self) -> list[Path]:
        files = sorted((self.root / "data").glob("*/*.parquet"))
        if not files:
            raise VlaError(f"{self.root / 'data'} holds no parquet file")
        return files


def _open_plain(root: Path) -> Recorded:
    from vla.dataset_plain import PlainDataset

    return PlainDataset(root)


def _read_tasks(path: Path) -> list[str]:
    """The instructions by task index."""
    table = read_parquet(path)
    # LeRobot keeps the sentences in the index of a data frame, whose column has a name of pandas' choice.
    column = "task" if "task" in table.column_names else next(n for n in table.column_names if n != "task_index")
    indices = table.column("task_index").to_pylist()
    texts = [""] * (max(indices, default=-1) + 1)
    for index, text in zip(indices, table.column(column).to_pylist(), strict=True):
        texts[index] = text
    return texts
