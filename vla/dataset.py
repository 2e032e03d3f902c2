"""Recorded demonstrations on disk, in LeRobot's v3 layout: what is in them, and how to read them back.

Beside LeRobot's own files there are ``meta/vla.json`` (EnvSpec, how it was recorded, versions) and
``meta/vla_episodes.jsonl`` (a line for each episode). ``meta/vla.json`` is what makes a folder readable here, and
it arrives last: a folder that has it is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import EnvSpec, VlaError
from vla.episodes import PIXEL_FORMAT, decode_video

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
    """

    path: Path
    frames: int


class Recorded:
    """A dataset that ``vla record`` wrote. ``Recorded.open`` makes one.

    Attributes:
        root: its folder.
        spec: the EnvSpec of the env that it was recorded in.
        facts: the whole of ``meta/vla.json``.
        episodes: a dict for each episode: episode_index, seed, options, instruction, language, kind, category, items,
            success, steps, progress, final_state.
        instructions: the instructions, by instruction index.
    """

    def __init__(self, root: Path, facts: dict[str, Any], info: dict[str, Any], episodes: list[dict]) -> None:
        self.root, self.facts, self.episodes, self._info = root, facts, episodes, info
        self.spec = EnvSpec.from_dict(facts["env_spec"])
        tasks = _read_parquet(root / "meta/tasks.parquet").sort_by("task_index")
        self.instructions: list[str] = tasks.column("task").to_pylist()

    @classmethod
    def open(cls, folder: str | Path) -> Recorded:
        """Open a dataset.

        Raises:
            VlaError: if ``folder`` holds none, one without ``meta/vla.json``, an unfinished one, one of a newer
                format, or one that lacks a file; the file is named.
        """
        root = Path(folder)
        if not (root / "meta/info.json").exists():
            unfinished = (root / ".episodes").exists()
            hint = "a recording that did not finish: run its command again" if unfinished else "no LeRobot v3 dataset"
            raise VlaError(f"{root} is {hint} (meta/info.json is missing)")
        if not (root / VLA_JSON).exists():
            raise VlaError(
                f"{root / VLA_JSON} is missing: this LeRobot dataset does not say which cameras, units and dt it was "
                "recorded with; datasets by `vla record` do"
            )
        facts, info = _read_json(root / VLA_JSON), _read_json(root / "meta/info.json")
        version = facts.get("format_version")
        if version != FORMAT_VERSION:
            raise VlaError(f"{root / VLA_JSON} has format version {version}; this program reads {FORMAT_VERSION}")
        lines = _read_text(root / EPISODES_JSONL).splitlines()
        recorded = cls(root, facts, info, [json.loads(line) for line in lines])
        for camera in recorded.spec.cameras:
            for source in recorded.sources(camera.name):
                if not source.path.exists():
                    raise VlaError(f"{source.path} is missing from the dataset {root}")
        return recorded

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
            table = _read_parquet(file, [*wanted, "sub_instruction"])
            for key, name in wanted.items():
                parts[name].append(_array(table.column(key)))
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
        key = f"observation.images.{camera}"
        if self._info["features"][key]["dtype"] == "image":
            return [Source(file, _rows(file)) for file in self._data_files()]
        names = [f"videos/{key}/chunk_index", f"videos/{key}/file_index"]
        table = _read_parquet(self._episode_file(), ["episode_index", "length", *names]).sort_by("episode_index")
        sources: list[Source] = []
        for length, chunk, file in zip(*(table.column(n).to_pylist() for n in ("length", *names)), strict=True):
            name = self._info["video_path"].format(video_key=key, chunk_index=chunk, file_index=file)
            if not sources or sources[-1].path != self.root / name:
                sources.append(Source(self.root / name, 0))
            sources[-1].frames += length
        return sources

    def read_frames(self, source: Source, camera: str) -> Iterator[np.ndarray]:
        """The frames of one source, uint8 (H, W, 3). Raises VlaError, naming the file, if it is damaged or short."""
        count = 0
        frames = _png_frames(source.path, camera) if source.path.suffix == ".parquet" else decode_video(source.path)
        for frame in frames:
            count += 1
            if count > source.frames:
                break
            yield frame
        if count != source.frames:
            raise VlaError(f"{source.path} should hold {source.frames} frames, and holds {count}")

    def _data_files(self) -> list[Path]:
        files = sorted((self.root / "data").glob("*/*.parquet"))
        if not files:
            raise VlaError(f"{self.root / 'data'} holds no parquet file")
        return files

    def _episode_file(self) -> Path:
        return self.root / "meta/episodes/chunk-000/file-000.parquet"


def _png_frames(path: Path, camera: str) -> Iterator[np.ndarray]:
    import pyarrow.parquet as pq
    from PIL import Image

    try:
        for batch in pq.ParquetFile(path).iter_batches(256, columns=[f"observation.images.{camera}"]):
            for cell in batch.column(0).to_pylist():
                yield np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))
    except (OSError, ValueError) as error:
        raise VlaError(f"{path} is damaged: {error}") from error


def _read_parquet(path: Path, columns: list[str] | None = None) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read(columns)
    except FileNotFoundError as error:
        raise VlaError(f"{path} is missing") from error
    except (pa.ArrowException, OSError) as error:
        raise VlaError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def _rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError) as error:
        raise VlaError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def _array(column: Any) -> np.ndarray:
    """A parquet column of scalars or of lists of fixed length as an array (N,) or (N, D)."""
    whole = column.combine_chunks()
    if not hasattr(whole.type, "value_type"):
        return whole.to_numpy(zero_copy_only=False)
    return whole.flatten().to_numpy(zero_copy_only=False).reshape(len(whole), -1)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VlaError(f"{path} cannot be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise VlaError(f"{path} is damaged: {error}") from error
