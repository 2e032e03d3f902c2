"""The frame cache: every image of a dataset decoded once, into arrays that training reads straight from the disk.

``<cache>/frames.{camera}.npy`` is uint8 (N, H, W, 3), the other ``.npy`` files are the columns, and
``sums.{camera}.npy`` a checksum of each picture. ``cache.json`` holds the strings, the EnvSpec, hashes of the dataset's
files and of the arrays, and one of itself: what is damaged, or another dataset's, is made anew and not trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import EnvSpec, VlaError
from vla.data.caches import cache_homes, gather, made_whole, mapped, reserve
from vla.data.dataset import VLA_JSON, Recorded, Source
from vla.data.hashes import hash_files, intact, require_promised, sealed, stamps
from vla.data.open import open_dataset
from vla.host.files import read_json, require_keys, write_atomically
from vla.host.provenance import file_sha256

FORMAT_VERSION = 2
CACHE_JSON = "cache.json"
_KEYS: dict[str, Any] = dict.fromkeys(("env_spec", "arrays", "written", "stamps", "files"), dict)
_KEYS |= dict.fromkeys(("instructions", "sub_instructions", "mapping", "columns"), list)
_KEYS |= {"fingerprint": str, "sha256": str}


class FrameCache:
    """All frames of a dataset, N of them, in order. ``FrameCache.build`` or ``FrameCache.open`` makes one.

    Attributes:
        root: the cache's folder.
        spec: the EnvSpec of the env that the dataset was recorded in.
        frames: camera name to uint8 (N, H, W, 3), a memory map.
        columns: name to array, SI units. float32: ``state`` (N, S), ``action`` (N, A), ``executed`` (N, A),
            ``progress`` (N,), ``by_expert`` (N,; 0 where an agent acted), ``points.{camera}`` (N, 6).
            int64 (N,): ``episode``, ``frame``, ``seed``, ``instruction``, ``sub_instruction``. bool (N,): ``success``.
        instructions: the strings that column ``instruction`` points into.
        sub_instructions: the strings that column ``sub_instruction`` points into.
        fingerprint: the dataset's, as ``Recorded.fingerprint`` gives it.
        mapping: lines that tell how another's dataset was read, see ``Recorded``.
    """

    def __init__(self, root: Path, document: dict[str, Any]) -> None:
        self.root = root
        self.spec = EnvSpec.from_dict(document["env_spec"])
        self.instructions: list[str] = document["instructions"]
        self.sub_instructions: list[str] = document["sub_instructions"]
        self.fingerprint: str = document["fingerprint"]
        self.mapping: list[str] = document["mapping"]
        try:
            small = {name: _checked(root / f"{name}.npy", digest) for name, digest in document["arrays"].items()}
            self.frames = {c.name: mapped(root / f"frames.{c.name}.npy") for c in self.spec.cameras}
        except (OSError, ValueError, EOFError, SyntaxError) as error:  # numpy reads a header as Python
            raise VlaError(f"the frame cache {root} is damaged ({error}); delete it and it is made again") from error
        self.columns = {name: array for name, array in small.items() if not name.startswith("sums.")}
        self._sums = {c.name: small[f"sums.{c.name}"] for c in self.spec.cameras}
        self._sound = {c.name: np.zeros(len(self), dtype=bool) for c in self.spec.cameras}  # pictures seen to be intact
        for camera in self.spec.cameras:
            frames, shape = self.frames[camera.name], (len(self), camera.height, camera.width, 3)
            if frames.shape != shape or frames.dtype != np.uint8:
                raise VlaError(f"the frame cache {root} is damaged: frames.{camera.name}.npy is not of shape {shape}")
        # Where each episode begins, and one more entry: N. Episodes are numbered from 0, without gaps.
        episode = self.columns["episode"]
        self.bounds = np.concatenate([np.searchsorted(episode, np.arange(episode[-1] + 1)), [len(episode)]])

    def __len__(self) -> int:
        return len(self.columns["episode"])

    @classmethod
    def open(cls, folder: str | Path) -> FrameCache:
        """Open a cache that ``build`` made. Raises VlaError if ``folder`` holds none, or a damaged one."""
        root = Path(folder)
        if not (root / CACHE_JSON).exists():
            raise VlaError(f"{root} holds no frame cache: it has no {CACHE_JSON}")
        document = read_json(root / CACHE_JSON)
        if document.get("format_version") != FORMAT_VERSION:
            raise VlaError(f"the frame cache {root} is of another version; delete it and it is made again")
        require_keys(document, _KEYS, str(root / CACHE_JSON))
        if not intact(document):
            raise VlaError(f"the frame cache {root} is damaged: {CACHE_JSON} is not as it was written")
        cache = cls(root, document)
        written = _written(root)
        if written != document["written"]:  # copied, touched or damaged
            for name in cache.frames:
                for start in range(0, len(cache), 256):
                    rows = np.arange(start, min(start + 256, len(cache)))
                    cache._require_sound(name, rows, gather(cache.frames[name], rows), "")
            _write_document(root, document | {"written": written})
        return cache

    @classmethod
    def build(
        cls,
        dataset_dir: str | Path,
        cache_dir: str | Path | None = None,
        progress: bool = True,
        columns: Sequence[str] = (),
    ) -> FrameCache:
        """The cache of a dataset: opened if it is there, whole and the dataset's, else made.

        Args:
            dataset_dir: a LeRobot v3 dataset, by ``vla record`` or another's.
            cache_dir: where the cache lives; if not given, as ``vla.data.caches.cache_homes`` says.
            progress: show a progress bar while decoding, and say why it is done again.
            columns: which columns of another's dataset are what, see ``vla.data.columns``.

        Raises:
            VlaError: if the dataset is damaged or not what was recorded (the file is named), or the disk is full.
        """
        recorded = open_dataset(dataset_dir, columns)
        roots = [Path(cache_dir)] if cache_dir else [home / "frames" for home in cache_homes(Path(dataset_dir))]
        wanted, files, notes = (
            {"stamps": stamps(recorded.root), "columns": list(columns)},
            dict[str, str](),
            list[str](),
        )
        for root in roots:
            if not (root / CACHE_JSON).exists():
                continue
            try:
                cache, document = cls.open(root), read_json(root / CACHE_JSON)
                if document["columns"] == wanted["columns"]:
                    if document["stamps"] == wanted["stamps"]:
                        return cache
                    files = files or hash_files(recorded.root)
                    if document["files"] == files:  # copied or touched
                        _write_document(root, document | wanted)
                        return cache
                notes.append(f"{recorded.root} is not what its frame cache was made from: its frames are decoded anew")
            except VlaError as error:
                notes.append(f"{error}: its frames are decoded anew")
        root = roots[-1]
        if cache_dir and root.exists() and any(p.name != CACHE_JSON and p.suffix != ".npy" for p in root.iterdir()):
            raise VlaError(f"{root} holds something that is no frame cache; name an empty folder")
        if len(roots) > 1:
            notes.append(f"the frames of {recorded.root} are kept in {root}")
        for note in notes if progress else ():
            print(f"vla: {note}", file=sys.stderr)
        files = files or hash_files(recorded.root)
        require_promised(recorded.root, recorded.facts, VLA_JSON, files)
        with made_whole(root) as build:
            _decode(recorded, build, wanted | {"files": files}, progress)
        return cls.open(root)

    def pictures(self, camera: str, rows: np.ndarray) -> Any:
        """Frames ``rows``, int (B,), of a camera as a fresh tensor, uint8 (B, H, W, 3).

        Raises VlaError where one is not what was decoded; the next ``build`` then makes the cache anew.
        """
        images = gather(self.frames[camera], rows)
        self._require_sound(camera, rows, images, "; the next run makes the cache anew (training: with --resume)")
        return images

    def _require_sound(self, camera: str, rows: np.ndarray, images: Any, advice: str) -> None:
        """Raise VlaError unless ``images`` are frames ``rows``; each is compared when it is read for the first time."""
        sound = self._sound[camera]
        for image, row in zip(images.numpy(), rows, strict=True):
            if not sound[row] and zlib.crc32(image) != self._sums[camera][row]:
                with suppress(OSError):
                    (self.root / CACHE_JSON).unlink(missing_ok=True)
                file = self.root / f"frames.{camera}.npy"
                raise VlaError(f"{file} is damaged: picture {row} is not what was decoded{advice}")
            sound[row] = True


def _checked(file: Path, digest: str) -> np.ndarray:
    """An array whose file has this SHA-256. Raises ValueError where it has another."""
    if file_sha256(file) != digest:
        raise ValueError(f"{file.name} is not as it was written")
    return np.load(file)


def _written(root: Path) -> dict[str, list[int]]:
    """Size and time of change of the arrays that are too large to be hashed each time."""
    return {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(root.glob("frames.*.npy"))}


def _write_document(root: Path, document: dict[str, Any]) -> None:
    """Write ``cache.json``, if the folder can be written."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    with suppress(OSError):
        write_atomically(root / CACHE_JSON, json.dumps(sealed(rest), ensure_ascii=False, indent=1))


def _decode(recorded: Recorded, root: Path, origin: dict[str, Any], progress: bool) -> None:
    columns, sub_instructions = recorded.columns()
    jobs: list[tuple[str, Source, np.ndarray, np.ndarray]] = []
    arrays, opened = dict(columns), list[Any]()
    for camera in recorded.spec.cameras:
        shape = (recorded.frames, camera.height, camera.width, 3)
        file = root / f"frames.{camera.name}.npy"
        frames = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
        opened.append(frames)
        reserve(file)
        sums = arrays[f"sums.{camera.name}"] = np.zeros(recorded.frames, np.uint32)
        start = 0
        for source in recorded.sources(camera.name):
            part = slice(start, start + source.frames)
            jobs.append((camera.name, source, frames[part], sums[part]))
            start += source.frames
        if start != recorded.frames:
            raise VlaError(f"{recorded.root} has {recorded.frames} frames, and {start} pictures of {camera.name}")
    from vla.host.progress import Progress

    with Progress(disable=not progress) as bar:
        task = bar.add_task("decoding frames", total=recorded.frames * len(recorded.spec.cameras))
        stop = threading.Event()

        def work(job: tuple[str, Source, np.ndarray, np.ndarray]) -> None:
            try:
                _fill(recorded, *job, stop, lambda count: bar.advance(task, count))
            except BaseException:
                stop.set()  # the other threads end at their next frame
                raise

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for result in [pool.submit(work, job) for job in jobs]:
                result.result()
    for frames in opened:
        frames.flush()  # which also sets the time of change
    digests = {}
    for name, array in arrays.items():
        np.save(root / f"{name}.npy", array)
        digests[name] = file_sha256(root / f"{name}.npy")
    fingerprint = recorded.fingerprint()
    if "files" not in recorded.facts or origin["columns"]:  # whose meta does not say what the files hold
        rest = json.dumps([fingerprint, origin["files"], origin["columns"]], sort_keys=True)
        fingerprint = hashlib.sha256(rest.encode()).hexdigest()
    document = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "env_spec": recorded.spec.to_dict(),
        "instructions": recorded.instructions,
        "sub_instructions": sub_instructions,
        "mapping": list(recorded.mapping),
        "arrays": digests,
        "written": _written(root),
        **origin,
    }
    write_atomically(root / CACHE_JSON, json.dumps(sealed(document), ensure_ascii=False, indent=1))


def _fill(
    recorded: Recorded,
    camera: str,
    source: Source,
    out: np.ndarray,
    sums: np.ndarray,
    stop: threading.Event,
    tell: Callable[[int], None],
) -> None:
    row = 0
    for row, frame in enumerate(recorded.read_frames(source, camera), 1):
        if stop.is_set():
            return
        if frame.shape != out.shape[1:]:
            raise VlaError(
                f"{source.path} holds a picture of {frame.shape} (row {row - 1}), and the dataset's spec says "
                f"{out.shape[1:]}"
            )
        out[row - 1] = frame
        sums[row - 1] = zlib.crc32(np.ascontiguousarray(frame))
        if row % 64 == 0:
            tell(64)
    tell(row % 64)
