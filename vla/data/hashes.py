"""Hashes of a dataset's files: written when it is recorded, checked when every byte is read anyway, for its frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vla.contracts import VlaError
from vla.host.provenance import file_sha256

SEAL = "sha256"


def stamps(root: Path) -> dict[str, list[int]]:
    """Size [bytes] and time of change [ns] of each file of a dataset, by its path below ``root``."""
    return {name: [file.stat().st_size, file.stat().st_mtime_ns] for name, file in _files(root)}


def hash_files(root: Path) -> dict[str, str]:
    """SHA-256 of each file of a dataset, by its path below ``root``. Raises VlaError where one cannot be read."""
    hashes = {}
    for name, file in _files(root):
        try:
            hashes[name] = file_sha256(file)
        except OSError as error:
            raise VlaError(f"{file} cannot be read: {error.strerror or error}") from error
    return hashes


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """``document``, JSON types only, with a hash of itself."""
    return document | {SEAL: _digest(document)}


def intact(document: dict[str, Any]) -> bool:
    """Whether a document is as ``sealed`` made it; one without a hash counts so too."""
    return SEAL not in document or document[SEAL] == _digest(document)


def require_promised(root: Path, facts: dict[str, Any], name: str, found: dict[str, str]) -> None:
    """Raise VlaError unless a dataset's files are those that were recorded.

    Args:
        root: the dataset.
        facts: what its file ``name`` holds; without ``files``, recorded before hashes were kept, all is taken as it is.
        found: what ``hash_files`` gave.
    """
    if not intact(facts):
        raise VlaError(
            f"{root / name} is not as it was written: its hash differs; restore it, or, if the change was meant, "
            f"delete its entry '{SEAL}'"
        )
    for file, promised in facts.get("files", {}).items():
        if file not in found:
            raise VlaError(f"{root / file} is missing, and {root / name} lists it")
        if found[file] != promised:
            raise VlaError(
                f"{root / file} is damaged: it is not what was recorded (its SHA-256 differs from that in {name}); "
                "restore it from a copy, or record the dataset anew"
            )


def _digest(document: dict[str, Any]) -> str:
    rest = {key: value for key, value in document.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in ("data", "meta", "videos"):
        for file in sorted((root / folder).rglob("*")):
            if file.is_file():
                yield file.relative_to(root).as_posix(), file
