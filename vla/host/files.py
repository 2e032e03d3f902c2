"""Files that survive a kill, a full disk and a second process: written whole, read with one clear error, locked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vla.contracts import VlaError

LOCK = ".lock"


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, sync to the disk, then rename: a reader sees the old file or the new one.

    Raises OSError, with ``path`` as its ``filename``, where that fails; the old file is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # no hint at a name that is gone by then
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


class NoFileError(VlaError, OSError):
    """Where a file should be there is something else."""


def regular(path: Path) -> Path:
    """``path``, if it is a file or nothing. Raises NoFileError for a FIFO, which would be waited for, and the like."""
    if path.exists() and not path.is_file():
        raise NoFileError(f"{path} should be a file, and is a folder or a device")
    return path


def sync_file(path: Path) -> None:
    """Have a file that somebody else wrote on the disk before this returns."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk before this returns, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill in, which takes the place of ``folder`` once the block has ended, unless that fails."""
    temporary, old = (folder.with_name(f"{folder.name}.{what}") for what in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def read_text(path: Path) -> str:
    """A UTF-8 text file, whatever the locale. Raises VlaError, naming it, where it cannot be read."""
    try:
        return regular(path).read_text(encoding="utf-8")
    except NoFileError:
        raise
    except FileNotFoundError as error:
        raise VlaError(f"{path} is missing") from error
    except UnicodeDecodeError as error:
        raise VlaError(f"{path} is damaged: it is no UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise VlaError(f"{path} cannot be read: {error.strerror or error}") from error


def parse_json(text: str, name: str) -> dict[str, Any]:
    """The object that ``text`` holds. Raises VlaError, with ``name`` as what is damaged, unless it holds one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise VlaError(f"{name} is damaged: {reason}") from error
    if not isinstance(found, dict):
        raise VlaError(f"{name} is damaged: it should hold an object, and holds a {type(found).__name__}")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises VlaError, naming the file, where it is missing or damaged."""
    return parse_json(read_text(path), str(path))


def require_keys(data: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]], name: str) -> None:
    """Raise VlaError unless ``data``, read from the file ``name``, has all ``kinds``: key to the type it must have.

    A bool is no int here.
    """
    for key, kind in kinds.items():
        value = data.get(key)
        wanted = kind if isinstance(kind, tuple) else (kind,)
        if key not in data:
            raise VlaError(f"{name} is damaged: it lacks '{key}'")
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            names = " or ".join(one.__name__ for one in wanted)
            raise VlaError(f"{name} is damaged: '{key}' should be {names}, and is {type(value).__name__}")


@contextmanager
def claimed(folder: Path, doing: str) -> Iterator[None]:
    """Make ``folder``, and let no other process write there until the block ends; the lock lies in ``.lock``.

    Raises VlaError where another process holds it (``doing`` says what this one wants, e.g. ``vla eval``) or the
    folder cannot be made.
    """
    from filelock import FileLock, Timeout

    from vla.host.parallel import require_guarded_main

    require_guarded_main()
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise VlaError(f"another {doing} is at work in {folder}; wait for it, or name another folder") from None
    except OSError as error:
        raise VlaError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is missing, or has nothing in it but locks and leftovers of writes that were cut short."""
    if not folder.exists():
        return True
    return all(path.name == LOCK or path.name.endswith((".tmp", ".lock")) for path in folder.iterdir())


def require_room(folder: Path, least: int = 2**20) -> None:
    """Raise VlaError unless ``folder`` can be made and takes ``least`` bytes: told before the work, not after it."""
    probe = folder / f".room.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(probe, "wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, least)
                else:
                    file.write(b"\0" * least)
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
    except OSError as error:
        size = f"{least / 2**20:.0f} MB are needed at least" if least >= 2**20 else f"{least} bytes are needed at least"
        raise VlaError(f"{folder} can't be written: {error.strerror or error} ({size})") from error


def printable(text: str) -> str:
    """``text`` of a file or a dataset, safe to print: control characters, escape sequences among them, are shown."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
