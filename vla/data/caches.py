"""Caches on the disk: where they are kept, made whole or not at all, and arrays that are larger than the memory."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.host.files import LOCK, regular
from vla.paths import cache_dir

VARIABLE = "VLA_CACHE"


def cache_homes(dataset: Path) -> list[Path]:
    """Where what is made from a dataset may lie, the place to write last.

    That is the dataset's own ``.cache``; where that cannot be written, or VLA_CACHE names a folder, one of its own in
    ``$VLA_CACHE`` or ``~/.cache/vla``, by the dataset's path.
    """
    own, named = dataset / ".cache", os.environ.get(VARIABLE)
    if not named and os.access(own if own.exists() else dataset, os.W_OK):
        return [own]
    place = dataset.resolve()
    key = hashlib.sha256(str(place).encode(errors="surrogateescape")).hexdigest()[:12]
    return [own, cache_dir() / f"{place.name}-{key}"]


@contextmanager
def made_whole(root: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``root`` if the block ends well, and else leaves nothing behind.

    What processes that were killed left beside ``root`` is removed first. Raises VlaError where it cannot be written.
    """
    from filelock import FileLock

    build = root.with_name(f"{root.name}.{os.getpid()}.tmp")
    lock = FileLock(build / LOCK)
    try:
        sweep(root)
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        with lock:
            yield build
            (build / LOCK).unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            build.rename(root)
    except OSError as error:
        raise VlaError(
            f"cannot write the cache {root}: {error.strerror or error}; the variable {VARIABLE} names another folder "
            "for caches"
        ) from error
    finally:
        shutil.rmtree(build, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove the temporary folders beside ``root`` whose processes no longer live: they hold no lock."""
    from filelock import FileLock, Timeout

    for left in root.parent.glob(f"{root.name}.*.tmp"):
        with suppress(OSError, Timeout):
            with FileLock(left / LOCK, timeout=0):
                shutil.rmtree(left, ignore_errors=True)
            shutil.rmtree(left, ignore_errors=True)


def reserve(file: Path) -> None:
    """Take the file's blocks now: writing to a memory map on a full disk would end the process with SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)


def mapped(file: Path) -> np.ndarray:
    """A memory map of an array that is read here and there.

    Where the data are larger than the memory, reading ahead would bring in megabytes for each image, and drive out
    what is needed next.
    """
    frames = np.load(regular(file), mmap_mode="r")
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
    out = np.empty((len(rows), *frames.shape[1:]), frames.dtype)
    np.take(frames, rows, axis=0, out=out, mode="clip")  # rows are in range; clip spares numpy a copy
    return torch.from_numpy(out)
