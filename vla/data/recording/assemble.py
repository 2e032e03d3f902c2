"""Joins recorded episodes into one LeRobot v3 dataset."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla.contracts import EnvSpec, VlaError
from vla.data.dataset import ARRAYS, EPISODES_JSONL, FORMAT_VERSION, VLA_JSON
from vla.data.hashes import hash_files, sealed
from vla.data.recording.features import features, frames_per_second
from vla.data.recording.shards import DamagedShardError, Shard, blobs
from vla.data.statistics import from_array, from_histogram
from vla.host.files import sync_file, sync_folder

if TYPE_CHECKING:
    import pyarrow

BUILD = ".assembling"
FILE = "chunk-{:03d}/file-{:03d}"
FILES_PER_CHUNK = 1000
VIDEO_FILE_BYTES = 32 * 2**20  # a reader that opens a file for one frame parses its whole index


def assemble(
    root: Path,
    shards: list[Shard],
    spec: EnvSpec,
    video_format: str,
    facts: dict[str, Any],
    on_episode: Callable[[], None] | None = None,
) -> None:
    """Join shards, in the order given, into one LeRobot v3 dataset under ``root``, replacing what was there.

    Videos are joined packet by packet: nothing is encoded again.

    Args:
        root: the dataset's folder. Everything is written below ``root/.assembling`` and moved at the end.
        shards: the episodes; those that are not ``kept`` are left out.
        spec: the env's spec.
        video_format: ``h264`` or ``images``.
        facts: goes into ``meta/vla.json``.
        on_episode: called without arguments after each shard.

    Raises:
        VlaError: if no episode is kept, a shard is damaged, or the disk is full.
    """
    kept = [shard for shard in shards if shard.kept]
    if not kept:
        raise VlaError(f"none of the {len(shards)} episodes succeeded, so there is no dataset; see --keep-failures")
    build = root / BUILD
    try:
        shutil.rmtree(build, ignore_errors=True)
        (build / "meta").mkdir(parents=True)
        _Assembly(build, spec, video_format).run(kept, facts, on_episode)
        for path in build.rglob("*"):  # what vla.json vouches for is on the disk before it
            sync_folder(path) if path.is_dir() else sync_file(path)
        # From here to the last line the folder holds no vla.json and so counts as unfinished.
        for name in ("meta", "data", "videos"):
            shutil.rmtree(root / name, ignore_errors=True)
        for name in ("data", "videos", "meta"):
            if (build / name).exists():
                (build / name).rename(root / name)
            sync_folder(root)
        build.rmdir()
    except OSError as error:
        shutil.rmtree(build, ignore_errors=True)  # as large as the dataset, and the disk may be full
        raise VlaError(f"cannot write the dataset {root}: {error.strerror or error}; its episodes are kept") from error


class _Assembly:
    """One run of ``assemble``."""

    def __init__(self, root: Path, spec: EnvSpec, video_format: str) -> None:
        self._root, self._spec, self._format = root, spec, video_format
        self._fps = frames_per_second(spec)
        self._features = features(spec, video_format)
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []
        self._columns: dict[str, list[np.ndarray]] = {}
        self._histograms: dict[str, np.ndarray] = {}
        self._frames = 0

    def run(self, shards: list[Shard], facts: dict[str, Any], on_episode: Callable[[], None] | None) -> None:
        import pyarrow.parquet as pq

        cameras = [camera.name for camera in self._spec.cameras]
        joiners = {c: _VideoJoiner(self._root, c, self._fps) for c in cameras} if self._format == "h264" else {}
        data = self._root / "data" / f"{FILE.format(0, 0)}.parquet"
        data.parent.mkdir(parents=True)
        writer = None
        try:
            for number, shard in enumerate(shards):
                arrays = shard.read()
                table, row = self._episode(number, shard.facts, arrays)
                for camera, joiner in joiners.items():
                    row |= joiner.append(blobs(arrays, camera)[0], len(arrays["state"]), shard.path)
                writer = writer or pq.ParquetWriter(data, table.schema, write_page_checksum=True)
                writer.write_table(table)
                self._rows.append(row)
                self._lines.append({"episode_index": number, **shard.facts})
                if on_episode:
                    on_episode()
        finally:
            if writer:
                writer.close()
            for joiner in joiners.values():
                joiner.close()
        self._write_meta(facts)

    def _episode(self, number: int, facts: dict, arrays: dict[str, np.ndarray]) -> tuple[pyarrow.Table, dict]:
        """An episode's rows for ``data/`` and its row for ``meta/episodes/``."""
        import pyarrow as pa

        steps = len(arrays["state"])
        task = self._tasks.setdefault(facts["instruction"], len(self._tasks))
        arrays.setdefault("by_expert", np.ones(steps, np.float32))  # a shard from before it was kept
        columns: dict[str, np.ndarray] = {key: arrays[name] for key, name in ARRAYS.items()}
        columns |= {name: array for name, array in arrays.items() if name.startswith("points.")}
        columns["success"] = np.full(steps, facts["success"])
        columns["seed"] = np.full(steps, facts["seed"], dtype=np.int64)
        columns["timestamp"] = (np.arange(steps) / self._fps).astype(np.float32)
        columns["frame_index"] = np.arange(steps)
        columns["episode_index"] = np.full(steps, number)
        columns["index"] = np.arange(self._frames, self._frames + steps)
        columns["task_index"] = np.full(steps, task)
        stats = {name: from_array(values) for name, values in columns.items()}
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        cells: dict[str, Any] = {name: _cells(values) for name, values in columns.items()}
        cells["sub_instruction"] = pa.array(json.loads(arrays["sub_instructions"].tobytes()), pa.string())
        for camera in self._spec.cameras:
            key, counts = f"observation.images.{camera.name}", arrays[f"histogram.{camera.name}"]
            stats[key] = from_histogram(counts)
            self._histograms[key] = self._histograms.get(key, 0) + counts
            if self._format == "images":
                pngs = [{"bytes": png, "path": None} for png in blobs(arrays, camera.name)]
                cells[key] = pa.array(pngs, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        order = [key for key in self._features if key in cells]
        row = {"episode_index": number, "tasks": [facts["instruction"]], "length": steps}
        row |= {"data/chunk_index": 0, "data/file_index": 0}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + steps}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        row |= {f"stats/{key}/{name}": value for key, table in stats.items() for name, value in table.items()}
        self._frames += steps
        return pa.table({key: cells[key] for key in order}), row

    def _write_meta(self, facts: dict[str, Any]) -> None:
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        meta = self._root / "meta"
        table = pa.Table.from_pylist(self._rows)
        file = meta / "episodes" / f"{FILE.format(0, 0)}.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(table, file, write_page_checksum=True)
        tasks = pd.DataFrame({"task_index": range(len(self._tasks))}, index=pd.Index(list(self._tasks), name="task"))
        tasks.to_parquet(meta / "tasks.parquet", write_page_checksum=True)
        stats = {name: from_array(np.concatenate(parts)) for name, parts in self._columns.items()}
        stats |= {name: from_histogram(counts) for name, counts in self._histograms.items()}
        _write_json(meta / "stats.json", stats)
        info = {
            "codebase_version": "v3.0",
            "fps": self._fps,
            "features": self._features,
            "total_episodes": len(self._rows),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": VIDEO_FILE_BYTES >> 20,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
            if self._format == "h264"
            else None,
            "robot_type": self._spec.name,
            "splits": {"train": f"0:{len(self._rows)}"},
        }
        _write_json(meta / "info.json", info)
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines]
        (self._root / EPISODES_JSONL).write_text("".join(lines), encoding="utf-8")
        document = {"format_version": FORMAT_VERSION, "env_spec": self._spec.to_dict(), **facts}
        _write_json(self._root / VLA_JSON, sealed(document | {"files": hash_files(self._root)}))


class _VideoJoiner:
    """Appends the packets of one-episode mp4s to a camera's video files, and begins a new file when one is large."""

    def __init__(self, root: Path, camera: str, fps: int) -> None:
        self._key, self._fps = f"observation.images.{camera}", fps
        self._folder = root / "videos" / self._key
        self._file, self._frames, self._bytes = -1, 0, 0
        self._container: Any = None
        self._stream: Any = None

    def append(self, mp4: bytes, frames: int, origin: Path) -> dict[str, Any]:
        """Add an episode; returns its columns for ``meta/episodes/``."""
        import av

        try:
            with av.open(io.BytesIO(mp4)) as source:
                stream = source.streams.video[0]
                if self._container is None or self._bytes + len(mp4) > VIDEO_FILE_BYTES or not self._fits(stream):
                    self._next_file(stream)
                assert stream.time_base is not None
                offset = round(self._frames / self._fps / stream.time_base)
                for packet in source.demux(stream):
                    if packet.dts is not None and packet.pts is not None:  # the last packet is an empty one
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = self._stream
                        self._container.mux(packet)
        except (av.FFmpegError, IndexError) as error:
            if isinstance(error, OSError):  # the disk's fault
                raise
            raise DamagedShardError(origin, error) from error
        start, self._frames, self._bytes = self._frames, self._frames + frames, self._bytes + len(mp4)
        chunk, file = divmod(self._file, FILES_PER_CHUNK)
        values: dict[str, Any] = {"chunk_index": chunk, "file_index": file}
        values |= {"from_timestamp": start / self._fps, "to_timestamp": self._frames / self._fps}
        return {f"videos/{self._key}/{name}": value for name, value in values.items()}

    def _fits(self, stream: Any) -> bool:
        return stream.codec_context.extradata == self._stream.codec_context.extradata

    def _next_file(self, template: Any) -> None:
        import av

        self.close()
        self._file += 1
        path = self._folder / f"{FILE.format(*divmod(self._file, FILES_PER_CHUNK))}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w")
        self._stream = self._container.add_stream_from_template(template)
        self._frames, self._bytes = 0, 0

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


def _cells(values: np.ndarray) -> pyarrow.Array:
    """An array (T,) or (T, D) as a parquet column of scalars or of lists of fixed length."""
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
