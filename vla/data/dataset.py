"""Recorded demonstrations on disk, in LeRobot's v3 layout: what is in them, and how to read them back.

What ``vla record`` wrote has, beside LeRobot's own files, ``meta/vla.json`` (EnvSpec, how it was recorded, versions)
and ``meta/vla_episodes.jsonl`` (a line for each episode). ``meta/vla.json`` arrives last: a folder that has it is
complete.
Any other LeRobot v3 dataset is read by ``vla.data.lerobot``, which makes its EnvSpec from LeRobot's features.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import EnvSpec, VlaError
from vla.data.checks import require_finite, require_order, require_sentences, require_times
from vla.data.files import count_rows, numbered, png_frames, read_columns, read_parquet, read_texts, video_frames
from vla.data.meta import video_file

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


@dataclass
class Source:
    """A file that holds frames of one camera, in the order of the dataset.

    Attributes:
        path: a video, or a parquet file with pictures.
        frames: how many of the dataset's frames it holds.
        times: of a video, when in it these frames are [s], ascending.
    """

    path: Path
    frames: int
    times: np.ndarray | None = None


class Recorded:
    """Recorded demonstrations. ``vla.data.open.open_dataset`` makes one.

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

    def check(self) -> None:
        """Raise VlaError where ``meta/`` does not agree with itself on the episodes, or a file is missing."""
        info, lengths = self.root / "meta/info.json", [length for length, *_ in self._episode_rows([])]
        counts = {self.root / "meta/episodes": len(lengths)}
        if (self.root / VLA_JSON).exists():
            counts[self.root / EPISODES_JSONL] = len(self.episodes)
        for place, count in counts.items():
            if count != self._info["total_episodes"]:
                raise VlaError(f"{place} holds {count} episodes, and {info} says {self._info['total_episodes']}")
        for number, (facts, length) in enumerate(zip(self.episodes, lengths, strict=True)):
            if (facts.get("episode_index"), facts.get("steps")) != (number, length):
                raise VlaError(f"{self.root / EPISODES_JSONL} and meta/episodes differ on episode {number}")
        for camera in self.spec.cameras:
            for path in self.files(camera.name):
                if not path.is_file():
                    raise VlaError(f"{path} is missing from the dataset {self.root}")

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
                if file.is_file():  # and no link that leads nowhere
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
        files = self._data_files()
        found = read_columns(files, [*wanted, "timestamp"])
        times = found.pop("timestamp")
        columns = {wanted[key]: array for key, array in found.items()}
        sub_instructions: dict[str, int] = {}
        indices = [sub_instructions.setdefault(t, len(sub_instructions)) for t in read_texts(files, "sub_instruction")]
        columns["sub_instruction"] = np.array(indices, dtype=np.int64)
        columns.setdefault("by_expert", np.ones(len(columns["state"]), np.float32))  # recorded before it was kept
        self._check(columns, times, {"state": "observation.state", "executed": "action.executed"})
        return columns, list(sub_instructions)

    def _check(self, columns: dict[str, np.ndarray], times: np.ndarray, shown: dict[str, str]) -> None:
        """Raise VlaError where the rows are not what ``meta/`` promises; ``shown`` has the columns' names on disk."""
        data, lengths = self.root / "data", [length for length, *_ in self._episode_rows([])]
        episode, frame, count = columns["episode"], columns["frame"], len(columns["episode"])
        if count != self.frames or not count:
            raise VlaError(f"{data} holds {count} frames, and meta says {self.frames}")
        require_order(data, episode, frame, lengths)
        require_times(data, times, episode, self.spec.dt)
        require_sentences(data, columns["instruction"], self.instructions, episode)
        names = {"state": self.spec.state, "action": self.spec.action, "executed": self.spec.action}
        for name, values in columns.items():
            if name in names and values[0].size != len(names[name]):
                raise VlaError(
                    f"{data}: the column '{shown.get(name, name)}' holds {values[0].size} numbers, and meta says "
                    f"{len(names[name])}"
                )
            if values.dtype.kind == "f":
                require_finite(data, shown.get(name, name), values, names.get(name, ()), episode, frame)

    def files(self, camera: str) -> list[Path]:
        """The files that should hold a camera's frames, each once."""
        key = self.image_key(camera)
        if key not in self._info["features"]:
            raise VlaError(f"{self.root / 'meta/info.json'} lacks the feature '{key}' of the camera '{camera}'")
        if self._info["features"][key]["dtype"] == "image":
            return self._data_files()
        return list(dict.fromkeys(path for _, path, _ in self._video_rows(key)))

    def sources(self, camera: str) -> list[Source]:
        """The files that hold a camera's frames, in order.

        A video's frames are those nearest in time to the rows: an episode begins in its video at LeRobot's
        ``from_timestamp``, and a row lies at its ``timestamp`` after that.
        """
        key = self.image_key(camera)
        if self._info["features"][key]["dtype"] == "image":
            return [Source(file, count_rows(file)) for file in self._data_files()]
        times, row, sources = self._times(), 0, list[Source]()
        for length, path, begins in self._video_rows(key):
            wanted = begins + times[row : row + length]
            row += length
            last = sources[-1] if sources else None
            if last is not None and last.path == path and last.times is not None and wanted[0] > last.times[-1]:
                last.frames, last.times = last.frames + length, np.concatenate((last.times, wanted))
            elif length:
                sources.append(Source(path, length, wanted))
        return sources

    def read_frames(self, source: Source, camera: str) -> Iterator[np.ndarray]:
        """The frames of one source, uint8 (H, W, 3). Raises VlaError, naming the file, if it is damaged or short."""
        if source.times is not None:
            yield from video_frames(source.path, source.times, self.spec.dt)
            return
        count = 0
        for count, frame in enumerate(png_frames(source.path, self.image_key(camera)), 1):  # noqa: B007
            yield frame
        if count != source.frames:
            raise VlaError(f"{source.path} should hold {source.frames} frames, and holds {count}")

    def _times(self) -> np.ndarray:
        """When in its episode each row is [s], float64 (N,)."""
        if "timestamp" not in self._info["features"]:
            return read_columns(self._data_files(), ["frame_index"])["frame_index"] * self.spec.dt
        return read_columns(self._data_files(), ["timestamp"])["timestamp"].reshape(-1).astype(np.float64)

    def _video_rows(self, key: str) -> Iterator[tuple[int, Path, float]]:
        """For each episode its length, its video file of a camera, and when it begins there [s]."""
        names = [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        for number, (length, chunk, file, begins) in enumerate(self._episode_rows(names)):
            if not isinstance(begins, int | float) or not math.isfinite(begins):
                raise VlaError(f"{self.root / 'meta/episodes'}: episode {number} has the {names[2]} {begins}")
            yield length, self._video_file(key, chunk, file), begins

    def _episode_rows(self, columns: list[str]) -> list[tuple]:
        """For each episode, in order, its length and further columns of LeRobot's table of episodes."""
        import pyarrow as pa

        try:
            table = self._episode_table(["episode_index", "length", *columns]).sort_by("episode_index")
        except pa.ArrowException as error:  # files or columns of another kind
            raise VlaError(f"{self.root / 'meta/episodes'} is damaged: {str(error).splitlines()[0]}") from error
        if table.column("episode_index").to_pylist() != list(range(len(table))):
            raise VlaError(f"{self.root / 'meta/episodes'} does not number its episodes from 0, each once")
        rows = list(zip(*(table.column(name).to_pylist() for name in ("length", *columns)), strict=True))
        if any(value is None for row in rows for value in row) or any(
            type(row[0]) is not int or row[0] < 1 for row in rows
        ):
            raise VlaError(f"{self.root / 'meta/episodes'} has an episode without a length, or without {columns}")
        return rows

    def _video_file(self, key: str, chunk: int, file: int) -> Path:
        return video_file(self.root, self._info, key, chunk, file)

    def _episode_table(self, columns: list[str]) -> Any:
        """Columns of LeRobot's table of episodes, all its files together."""
        import pyarrow as pa

        files = numbered(self.root / "meta/episodes")
        return pa.concat_tables([read_parquet(file, columns) for file in files])

    def _data_files(self) -> list[Path]:
        return numbered(self.root / "data")


def _read_tasks(path: Path) -> list[str]:
    """The instructions by task index. Raises VlaError where an index has none, or two."""
    table = read_parquet(path)
    # LeRobot keeps the sentences in the index of a data frame, whose column has a name of pandas' choice.
    named = [n for n in table.column_names if n != "task_index"]
    if "task_index" not in table.column_names or not named:
        raise VlaError(f"{path} lacks the column '{'task' if named == [] else 'task_index'}'")
    indices = table.column("task_index").to_pylist()
    texts = read_texts([path], "task" if "task" in named else named[0])
    if sorted(indices, key=str) != sorted(range(len(indices)), key=str):
        raise VlaError(f"{path} does not number its {len(indices)} sentences from 0, each once")
    return [text for _, text in sorted(zip(indices, texts, strict=True))]
