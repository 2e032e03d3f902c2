"""Where a figure or a file comes from: the commit, the machine, the libraries."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import vla
from vla.parallel import available_cpus


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, then rename: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def commit() -> str | None:
    """The checkout's commit, with ``+`` if files were changed since; None outside a checkout."""
    root = Path(vla.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        options: dict[str, Any] = {"cwd": root, "capture_output": True, "text": True, "timeout": 10}
        head = subprocess.run(["git", "rev-parse", "HEAD"], **options)
        if head.returncode == 0:
            changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **options)
            return head.stdout.strip()[:12] + ("+" if changed.stdout.strip() else "")
    return None


def machine() -> dict[str, Any]:
    """What the speed figures depend on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    facts: dict[str, Any] = {"platform": platform.platform(), "cpu": cpu, "cpus": available_cpus()}
    if "torch" in sys.modules:
        import torch

        facts["torch_threads"] = torch.get_num_threads()
        facts["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return facts


def versions() -> dict[str, str]:
    """Versions of what the figures depend on; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in ("vla", "torch", "mujoco", "numpy", "gymnasium", "timm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
