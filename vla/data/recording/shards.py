"""One recorded episode, in memory and as a shard: a single file that is written whole or not at all.

Shards are what makes recording safe to kill: each finished episode becomes one ``.npz`` under a temporary name, is
synced to the disk and then renamed. ``assemble.py`` later joins them into a LeRobot dataset and encodes nothing twice.
"""

from __future__ import annotations

import errno
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.host.files import parse_json, regular, require_keys, write_atomically
from vla.host.pictures import png
from vla.host.video import Mp4

# Full chroma resolution costs no more bytes than 4:2:0 at the same quality factor and keeps the colours of items
# that are a few pixels wide. Every second frame is a key frame, so that any frame is one decode away.
PIXEL_FORMAT = "yuv444p"
VIDEO_OPTIONS = {"crf": "16", "preset": "ultrafast", "g": "2", "bf": "0"}
NAMES = "arrays"  # the shard's list of what is in it
HISTOGRAM_EVERY = 4  # frames between two that enter the image statistics


@dataclass
class Episode:
    """What was seen and done in T steps.

    Attributes:
        facts: JSON types only: seed, options, instruction, language, kind, category, items, success, steps, progress
            (at the end) and final_state; of an episode that raised an error: seed, success and error, what it said.
        arrays: ``state`` (T, S), ``action`` (T, A), ``executed`` (T, A), ``progress`` (T,), ``by_expert``
            (T,; 0 where an agent acted) and ``points.{camera}`` (T, 6), float32.
        sub_instructions: T strings.
        images: camera name to uint8 (T, H, W, 3), RGB.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    sub_instructions: list[str] = field(default_factory=list)
    images: dict[str, np.ndarray] = field(default_factory=dict)


def encode_video(frames: np.ndarray, fps: int) -> bytes:
    """An mp4 (h264) of ``frames``, uint8 (T, H, W, 3); H and W even."""
    video = Mp4(frames.shape[2], frames.shape[1], fps, PIXEL_FORMAT, VIDEO_OPTIONS)
    for frame in frames:
        video.add(frame)
    return video.finish()


def _histogram(frames: np.ndarray) -> np.ndarray:
    """How often each value occurs in each channel of a sample of the frames: int64 (3, 256)."""
    sample = frames[::HISTOGRAM_EVERY]
    return np.stack([np.bincount(sample[..., channel].ravel(), minlength=256) for channel in range(3)])


def packed(episode: Episode, video_format: str, fps: int) -> bytes:
    """An episode as the content of a shard.

    Args:
        episode: an episode without ``arrays`` marks one that was played and dropped.
        video_format: ``h264`` or ``images`` (lossless PNG).
        fps: frames per second, for h264.
    """
    data = {name: np.asarray(value) for name, value in episode.arrays.items()}
    data["facts"] = np.frombuffer(json.dumps(episode.facts).encode(), dtype=np.uint8)
    if episode.arrays:
        data["sub_instructions"] = np.frombuffer(json.dumps(episode.sub_instructions).encode(), dtype=np.uint8)
    for camera, frames in episode.images.items():
        data[f"histogram.{camera}"] = _histogram(frames)
        filmed = video_format == "h264"
        blobs = [encode_video(frames, fps)] if filmed else [png(frame, compress_level=1) for frame in frames]
        data[f"blob.{camera}"] = np.frombuffer(b"".join(blobs), dtype=np.uint8)
        data[f"ends.{camera}"] = np.cumsum([len(blob) for blob in blobs])
    # A damaged directory of the archive can hide an array.
    data = {NAMES: np.frombuffer(json.dumps(sorted(data)).encode(), dtype=np.uint8), **data}
    buffer = io.BytesIO()
    np.savez(buffer, **data)  # type: ignore[arg-type]
    return buffer.getvalue()


def write_shard(path: Path, episode: Episode, video_format: str, fps: int) -> None:
    """Write an episode to one file; see ``packed`` and ``write_packed``."""
    write_packed(path, packed(episode, video_format, fps))


def write_packed(path: Path, content: bytes) -> None:
    """Write a shard's content to one file, atomically; ``path`` is its final name, in a folder that exists.

    Raises VlaError if the disk is full or cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise VlaError(f"cannot write {path}: {error.strerror or error}; finished episodes are kept") from error


class DamagedShardError(VlaError):
    """A shard that cannot be read. ``path`` is its file; its episode can be recorded again."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(f"the episode {path} is damaged: {why}")
        self.path = path


class Shard:
    """A shard opened for reading. Raises DamagedShardError, or VlaError where it is no file or can't be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as data:
            data.zip.read("facts.npy")  # raises where the checksum does not fit
            self.facts: dict[str, Any] = parse_json(bytes(data["facts"]).decode(), str(path))
            self.names = set(data.files)
        wanted: dict[str, Any] = {"seed": int, "success": bool} | ({"steps": int} if self.kept else {})
        require_keys(self.facts, wanted, str(path))

    @property
    def kept(self) -> bool:
        """Whether the episode belongs in the dataset; False for a failure that was dropped."""
        return "state" in self.names

    def read(self) -> dict[str, np.ndarray]:
        """All arrays by name, as ``packed`` made them; each is compared with its checksum."""
        with self._open() as data:
            broken = data.zip.testzip()
            if broken:
                raise zipfile.BadZipFile(f"{broken} does not fit its checksum")
            arrays = {name: data[name] for name in data.files}
            if NAMES in arrays:  # absent from older shards
                lost = set(json.loads(arrays.pop(NAMES).tobytes())) - set(arrays)
                if lost:
                    raise zipfile.BadZipFile(f"it lacks {', '.join(sorted(lost))}")
            return arrays

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            # np.load of a path leaves its file open where the archive is damaged.
            with regular(self.path).open("rb") as file, np.load(file, allow_pickle=False) as data:
                yield data
        except (VlaError, MemoryError):
            raise
        except Exception as error:  # a damaged archive raises whatever the zip module stumbles on
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is an offset out of the file
                raise VlaError(f"the episode {self.path} cannot be read: {error.strerror or error}") from error
            raise DamagedShardError(self.path, error) from error


def blobs(data: dict[str, np.ndarray], camera: str) -> list[bytes]:
    """A camera's mp4 (one entry) or PNG files (one for each frame) out of what ``Shard.read`` gave."""
    whole, ends = data[f"blob.{camera}"].tobytes(), data[f"ends.{camera}"].tolist()
    return [whole[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
