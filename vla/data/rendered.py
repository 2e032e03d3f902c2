"""Pictures that a training renders for itself, once, with what is said of each: a folder that is made in parts.

A folder holds ``frames.npy``, one ``.npy`` for each further column, and ``texts.json``. Workers make rounds of it; an
interrupted run leaves ``FOLDER.part``, and the next one goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from filelock import FileLock

from vla.contracts import VlaError
from vla.data.caches import gather, mapped, reserve
from vla.host.files import write_atomically
from vla.host.parallel import SlotPool, available_cpus
from vla.registry import EnvRef

_ROUND = 8  # groups that a worker makes before it hands them over


class Photographer(Protocol):
    """Makes groups of pictures. Lives in a worker."""

    def shoot(self, seed: int, groups: Sequence[int]) -> dict[str, Any]:
        """``frames``, uint8, ``texts``, JSON types, and further columns, all as long as the groups together."""
        ...

    def close(self) -> None:
        """Free the env."""
        ...


class Rendered(ABC):
    """N rows of such a folder. ``build`` makes it, from an env's own scenes.

    Attributes:
        frames: uint8 (N, …, H, W, 3), a memory map.
        texts: what is said of each.
        fingerprint: of all but the pictures, in hexadecimal.
    """

    WHAT: ClassVar[str]  # in words, e.g. ``captioned scenes``
    NAME: ClassVar[str]  # what its folders' names begin with
    VERSION: ClassVar[int]
    GROUP: ClassVar[int]  # rows that are made together
    COLUMNS: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: Path) -> None:
        try:
            document = json.loads((root / "texts.json").read_text(encoding="utf-8"))
            self.texts: list[Any] = document["texts"]
            self.frames = mapped(root / "frames.npy")
            known = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
            for name in self.COLUMNS:
                column = np.load(root / f"{name}.npy")
                known.update(np.ascontiguousarray(column))
                setattr(self, name, column)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise VlaError(f"the {self.WHAT} {root} are damaged: {error}; delete the folder") from error
        self.fingerprint = known.hexdigest()

    def __len__(self) -> int:
        return len(self.frames)

    def images(self, rows: np.ndarray) -> Any:
        """uint8 (B, …, H, W, 3), a fresh tensor."""
        return gather(self.frames, rows)

    @staticmethod
    @abstractmethod
    def photographer(env: EnvRef, split: str) -> Photographer:
        """Who makes the groups. Raises VlaError where the env cannot do it."""

    @classmethod
    def build(cls, env: EnvRef, count: int, seed: int, home: Path, split: str = "train", progress: bool = True) -> Self:
        """Open them if they are there, else make them.

        Args:
            env: which one; what it must be able to do is in ``vla.contracts.captions``.
            count: rows, rounded up to whole groups.
            seed: the run's seed.
            home: they lie in a folder below, named after all of this; it is made where it is not there.
            split: of scenes and words; ``heldout`` ones show scenes that no others show.
            progress: show a progress bar.

        Raises VlaError where the env cannot do it, or the disk is full.
        """
        groups = -(-count // cls.GROUP)
        identity = {"version": cls.VERSION, "env": env.name, "options": env.options, "groups": groups}
        identity |= {"seed": seed, "split": split}
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        root = home / f"{cls.NAME}-{split}-seed{seed}-{groups * cls.GROUP}-{key}"
        try:
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(root.with_name(f"{root.name}.lock")):  # of two runs one waits for the other
                if not root.exists():
                    _make(cls.WHAT, partial(cls.photographer, env, split), identity, root, progress)
        except OSError as error:
            raise VlaError(f"cannot write the {cls.WHAT} {root}: {error.strerror or error}") from error
        return cls(root)


def _make(
    what: str, photographer: Callable[[], Photographer], identity: dict[str, Any], root: Path, progress: bool
) -> None:
    """Make the folder ``root``. What an interrupted run has made is taken up again."""
    from vla.host.progress import Progress

    part, groups = root.with_name(f"{root.name}.part"), identity["groups"]
    part.mkdir(exist_ok=True)
    rounds = {part / f"round_{i:06d}.npz": list(range(i, min(i + _ROUND, groups))) for i in range(0, groups, _ROUND)}
    todo, workers = [file for file in rounds if not file.is_file()], min(available_cpus(), len(rounds))
    with Progress(disable=not progress) as bar, SlotPool(photographer, workers, workers) as pool:
        task = bar.add_task(what, total=len(rounds), completed=len(rounds) - len(todo))
        for first in range(0, len(todo), workers):
            asked = dict(enumerate(todo[first : first + workers]))
            answers = pool.call({slot: ("shoot", identity["seed"], rounds[file]) for slot, file in asked.items()})
            for slot, file in asked.items():
                whole = file.with_name("unfinished.npz")
                told = json.dumps(answers[slot].pop("texts"), ensure_ascii=False)
                np.savez(whole, texts=np.array(told), **answers[slot])
                whole.rename(file)
                bar.advance(task)
    _assemble(part, list(rounds), identity)
    for file in rounds:
        file.unlink()
    shutil.rmtree(root, ignore_errors=True)
    part.rename(root)


def _assemble(part: Path, rounds: list[Path], identity: dict[str, Any]) -> None:
    texts, columns = list[Any](), dict[str, list[np.ndarray]]()
    for file in rounds:
        with np.load(file) as shot:
            texts += json.loads(str(shot["texts"]))
            for name in set(shot.files) - {"texts", "frames"}:
                columns.setdefault(name, []).append(shot[name])
    shape = np.load(rounds[0])["frames"].shape[1:]
    frames = np.lib.format.open_memmap(part / "frames.npy", "w+", np.uint8, (len(texts), *shape))
    reserve(part / "frames.npy")
    row = 0
    for file in rounds:
        with np.load(file) as shot:
            frames[row : row + len(shot["frames"])] = shot["frames"]
            row += len(shot["frames"])
    frames.flush()
    for name, values in columns.items():
        np.save(part / f"{name}.npy", np.concatenate(values))
    write_atomically(part / "texts.json", json.dumps({"identity": identity, "texts": texts}, ensure_ascii=False))
