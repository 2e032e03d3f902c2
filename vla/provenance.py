"""Where a figure or a file comes from: the commit, the machine, the libraries."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
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


def source_sha256(module: str) -> str | None:
    """The SHA-256 of a module's code, in hexadecimal: of its file and of the files that it imports from its package.

    It tells whether an env's own code has changed, whatever else the commit changed. Nothing is imported. None where
    there is no source.
    """
    package = module.partition(".")[0]
    found = importlib.util.find_spec(package)
    if found is None:
        return None
    folder = Path(found.submodule_search_locations[0]) if found.submodule_search_locations else None
    files: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _source_file(name, folder, found.origin)
        if name in files or file is None:
            continue
        files[name] = file.read_bytes()
        for node in ast.walk(ast.parse(files[name])):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names if alias.name.partition(".")[0] == package]
            elif isinstance(node, ast.ImportFrom):
                inside = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
                parts = inside[: len(inside) + 1 - node.level] if node.level else []
                base = ".".join([*parts, *filter(None, [node.module])])
                if base.partition(".")[0] == package:
                    # `from package import module` and `from package.module import thing` look alike: try both.
                    waiting += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return hashlib.sha256(b"".join(n.encode() + files[n] for n in sorted(files))).hexdigest() if files else None


def _source_file(name: str, folder: Path | None, origin: str | None) -> Path | None:
    """The file of a module, given its top-level package's folder, or the file of a package that is a single file."""
    if folder is None:
        return Path(origin) if origin and origin.endswith(".py") and "." not in name else None
    place = folder.joinpath(*name.split(".")[1:])
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def commit() -> str | None:
    """The checkout's commit, with ``+`` if files were changed or Python added since; None outside a checkout."""
    root = Path(vla.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        options: dict[str, Any] = {"cwd": root, "capture_output": True, "text": True, "timeout": 10}
        head = subprocess.run(["git", "rev-parse", "HEAD"], **options)
        if head.returncode == 0:
            status = subprocess.run(["git", "status", "--porcelain", "--untracked-files=all"], **options)
            lines = status.stdout.splitlines()
            # A new env or policy is one file that git need not know yet.
            changed = any(not line.startswith("??") or line.endswith((".py", '.py"')) for line in lines)
            return head.stdout.strip()[:12] + ("+" if changed else "")
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
    found = {"python": platform.python_version(), "vla": vla.__version__}
    for name in ("torch", "mujoco", "numpy", "gymnasium", "timm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
