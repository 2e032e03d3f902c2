"""The frame cache: every image of a dataset decoded once, into arrays that training reads straight from the disk.

``<cache>/frames.{camera}.npy`` is uint8 (N, H, W, 3), the other ``.npy`` files are the columns, and ``cache.json``
holds the strings, the EnvSpec and the fingerprint of the dataset that it was made from.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import EnvSpec, VlaError
from vla.dataset import Recorded, Source

FORMAT_VERSION = 1


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
        self.mapping: list[str] = document.get("mapping", [])
        try:
            self.frames = {c.name: mapped(root / f"frames.{c.name}.npy") for c in self.spec.cameras}
            self.columns = {name: np.load(root / f"{name}.npy") for name in document["columns"]}
        except (OSError, ValueError, EOFError) as error:
            raise VlaError(f"the frame cache {root} is damaged ({error}); delete it and it is made again") from error
        self.columns.setdefault("by_expert", np.ones(len(self), np.float32))  # decoded before it was kept
        # Where each episode begins, and one more entry: N. Episodes are numbered from 0, without gaps.
        episode = self.columns["episode"]
        self.bounds = np.concatenate([np.searchsorted(episode, np.arange(episode[-1] + 1)), [len(episode)]])

    def __len__(self) -> int:
        return len(self.columns["episode"])

    @classmethod
    def open(cls, folder: str | Path) -> FrameCache:
        """Open a cache that ``build`` made. Raises VlaError if ``folder`` holds none."""
        root = Path(folder)
        try:
            document = json.loads((root / "cache.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise VlaError(f"{root} holds no frame cache: {error}") from error
        if document.get("format_version") != FORMAT_VERSION:
            raise VlaError(f"the frame cache {root} is of another version; delete it and it is made again")
        return cls(root, document)

    @classmethod
    def build(cls, dataset_dir: str | Path, cache_dir: str | Path | None = None, progress: bool = True) -> FrameCache:
        """The cache of a dataset: opened if it is there and fits, else made.

        Args:
            dataset_dir: a LeRobot v3 dataset, by ``vla record`` or another's.
            cache_dir: where the cache lives; ``dataset_dir/.cache/frames`` if not given.
            progress: show a progress bar while decoding.

        Raises:
            VlaError: if the dataset is damaged (the file is named) or the disk is full.
        """
        recorded = Recorded.open(dataset_dir)
        root = Path(cache_dir) if cache_dir else Path(dataset_dir) / ".cache" / "frames"
        fingerprint = recorded.fingerprint()
        if (root / "cache.json").exists():
            try:
                cache = cls.open(root)
                if cache.fingerprint == fingerprint:
                    return cache
            except VlaError:
                pass  # of another version or damaged: made anew
        elif root.exists() and any(root.iterdir()):
            raise VlaError(f"{root} holds something that is no frame cache; name an empty folder")
        with _made_whole(root) as build:
            _decode(recorded, build, fingerprint, progress)
        return cls.open(root)


@contextmanager
def _made_whole(root: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``root`` if the block ends well, and else leaves nothing behind."""
    build = root.with_name(f"{root.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        yield build
        shutil.rmtree(root, ignore_errors=True)
        build.rename(root)
    except OSError as error:
        raise VlaError(f"cannot write the frame cache {root}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _decode(recorded: Recorded, root: Path, fingerprint: str, progress: bool) -> None:
    columns, sub_instructions = recorded.columns()
    for name, column in columns.items():
        np.save(root / f"{name}.npy", column)
    jobs: list[tuple[str, Source, np.ndarray]] = []
    for camera in recorded.spec.cameras:
        shape = (recorded.frames, camera.height, camera.width, 3)
        file = root / f"frames.{camera.name}.npy"
        frames = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
        reserve(file)
        start = 0
        for source in recorded.sources(camera.name):
            jobs.append((camera.name, source, frames[start : start + source.frames]))
            start += source.frames
    from vla.progress import Progress

    with Progress(disable=not progress) as bar:
        task = bar.add_task("decoding frames", total=recorded.frames * len(recorded.spec.cameras))
        stop = threading.Event()

        def work(job: tuple[str, Source, np.ndarray]) -> None:
            try:
                _fill(recorded, *job, stop, lambda count: bar.advance(task, count))
            except BaseException:
                stop.set()  # the other threads end at their next frame
                raise

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for result in [pool.submit(work, job) for job in jobs]:
                result.result()
    document = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "env_spec": recorded.spec.to_dict(),
        "columns": list(columns),
        "instructions": recorded.instructions,
        "sub_instructions": sub_instructions,
        "mapping": list(recorded.mapping),
    }
    (root / "cache.json").write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")


def _fill(
    recorded: Recorded, camera: str, source: Source, out: np.ndarray, stop: threading.Event, tell: Callable[[int], None]
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
        if row % 64 == 0:
            tell(64)
    tell(row % 64)


def reserve(file: Path) -> None:
    """Take the file's blocks now: writing to a memory map on a full disk would end the process with SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)


class Windows:
    """What training draws from: a frame, and the actions of the ``chunk`` steps that begin there.

    Every frame of every chosen episode at which the expert acted may begin a window; past the end of the expert's
    turn, mostly the episode's end, the last action is repeated and marked invalid.

    Args:
        cache: the frames.
        chunk: actions in a window.
        sub_instruction_probability: how often a window's text is what the expert was doing at that frame, in place
            of the episode's instruction.
        episodes: use these episodes only, by number; all if None.
        paraphrase: called as ``paraphrase(text, rng)``; gives another sentence of the same meaning, so that a sentence
            is hardly ever seen twice. None keeps the recorded ones.
        decision_steps, decision_repeat: windows that begin within ``decision_steps`` frames of a new sub-instruction
            count ``decision_repeat`` times. There the sentence decides where to go; later the arm's own place gives
            it away, and a policy that sees mostly such frames learns to look at the nearest thing, not to read.

    Raises:
        VlaError: if ``episodes`` names one that is not there, or none.
    """

    def __init__(
        self,
        cache: FrameCache,
        chunk: int,
        sub_instruction_probability: float = 0.0,
        episodes: list[int] | None = None,
        paraphrase: Callable[[str, np.random.Generator], str] | None = None,
        decision_steps: int = 0,
        decision_repeat: int = 1,
    ) -> None:
        count = len(cache.bounds) - 1
        chosen = list(range(count)) if episodes is None else list(episodes)
        if not chosen or min(chosen) < 0 or max(chosen) >= count:
            raise VlaError(f"windows need episodes from 0 to {count - 1}, and got {chosen or 'none'}")
        if chunk < 1 or not 0 <= sub_instruction_probability <= 1:
            raise VlaError(
                f"a window needs chunk >= 1 and a probability from 0 to 1, and got {chunk} and "
                f"{sub_instruction_probability}"
            )
        self.cache, self.chunk, self.sub_instruction_probability = cache, chunk, sub_instruction_probability
        self.paraphrase = paraphrase
        rows = np.concatenate([np.arange(cache.bounds[e], cache.bounds[e + 1]) for e in chosen])
        self.frames_once = rows[cache.columns["by_expert"][rows] > 0]
        decisive = self.frames_once[_frames_since_new_task(cache)[self.frames_once] < decision_steps]
        self.starts = np.concatenate((self.frames_once, np.tile(decisive, max(decision_repeat - 1, 0))))
        self.ends = _ends_of_turns(cache)

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        """Gather windows.

        Args:
            indices: int (B,), each from 0 to ``len(self) - 1``.
            rng: decides which windows get their sub-instruction, and how it is worded.

        Returns:
            SI units, nothing normalised: ``images.{camera}`` uint8 (B, H, W, 3), ``state`` float32 (B, S),
            ``actions`` float32 (B, chunk, A) absolute, ``valid`` bool (B, chunk), ``instruction`` a list of B
            strings, ``points.{camera}`` float32 (B, 6).
        """
        import torch

        cache, columns = self.cache, self.cache.columns
        rows = self.starts[np.asarray(indices)]
        steps = rows[:, None] + np.arange(self.chunk)
        ends = self.ends[rows][:, None]
        batch: dict[str, Any] = {f"images.{name}": gather(frames, rows) for name, frames in cache.frames.items()}
        batch["state"] = torch.from_numpy(columns["state"][rows])
        batch["actions"] = torch.from_numpy(columns["action"][np.minimum(steps, ends - 1)])
        batch["valid"] = torch.from_numpy(steps < ends)
        use_sub = rng.random(len(rows)) < self.sub_instruction_probability
        batch["instruction"] = [
            cache.sub_instructions[sub] if use else cache.instructions[whole]
            for use, sub, whole in zip(
                use_sub, columns["sub_instruction"][rows], columns["instruction"][rows], strict=True
            )
        ]
        if self.paraphrase is not None:
            batch["instruction"] = [self.paraphrase(text, rng) for text in batch["instruction"]]
        for name in cache.frames:
            batch[f"points.{name}"] = torch.from_numpy(columns[f"points.{name}"][rows])
        return batch


def _ends_of_turns(cache: FrameCache) -> np.ndarray:
    """For each frame, the row after the last one of its stretch by one actor in one episode, int (N,)."""
    actor, episode = cache.columns["by_expert"], cache.columns["episode"]
    last = np.ones(len(actor), dtype=bool)
    last[:-1] = (actor[1:] != actor[:-1]) | (episode[1:] != episode[:-1])
    ends = np.nonzero(last)[0] + 1
    return ends[np.searchsorted(ends, np.arange(len(actor)), side="right")]


def _frames_since_new_task(cache: FrameCache) -> np.ndarray:
    """For each frame, how many frames ago the sub-instruction, or the expert's turn, began, int (N,)."""
    columns = [cache.columns[name] for name in ("sub_instruction", "episode", "by_expert")]
    rows = np.arange(len(cache))
    begins = np.ones(len(cache), dtype=bool)
    begins[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return rows - np.maximum.accumulate(np.where(begins, rows, 0))


def mapped(file: Path) -> np.ndarray:
    """A memory map of an array that is read here and there.

    Where the data are larger than the memory, reading ahead would bring in megabytes for each image, and drive out
    what is needed next.
    """
    frames = np.load(file, mmap_mode="r")
    if hasattr(mmap, "MADV_RANDOM"):
        frames._mmap.madvise(mmap.MADV_RANDOM)
    return frames


def gather(frames: np.ndarray, rows: np.ndarray) -> Any:
    """Rows of a memory map as a fresh tensor."""
    import torch

    if isinstance(frames, np.memmap) and hasattr(mmap, "MADV_WILLNEED"):
        size = frames[0].nbytes
        for row in rows:  # the disk may fetch them all at once, and Python need not wait for one after the other
            start = frames.offset + int(row) * size
            aligned = start - start % mmap.PAGESIZE
            frames._mmap.madvise(mmap.MADV_WILLNEED, aligned, start + size - aligned)  # type: ignore[attr-defined]
    out = torch.empty((len(rows), *frames.shape[1:]), dtype=torch.uint8)
    np.take(frames, rows, axis=0, out=out.numpy(), mode="clip")  # rows are in range; clip spares numpy a copy
    return out
