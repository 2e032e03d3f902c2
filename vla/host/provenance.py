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
from collections.abc import Collection, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import vla
from vla.host.files import regular
from vla.host.parallel import available_cpus
from vla.paths import assets_dir


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_sha256(module: str) -> str | None:
    """The SHA-256 of a module's code, in hexadecimal: of its file and of the files that it imports from its package.

    It tells whether an env's own code has changed, whatever else the commit changed. Nothing is imported. None where
    there is no source.
    """
    files = _sources([module], {module.partition(".")[0]})
    return _digest(files) if files else None


@cache
def code_sha256(*modules: str) -> str:
    """The SHA-256 of all that decides what these modules do, in hexadecimal, as it was when first asked for.

    That is their code, what it imports from their packages and from ``vla``, and the arms' models. It tells two states
    of a checkout apart that have the same commit, and finds two commits alike that changed something else.
    """
    files = _sources(modules, {"vla", *(module.partition(".")[0] for module in modules)})
    for file in sorted((assets_dir() / "arms").rglob("*")):
        if file.is_file():
            files[f"arms/{file.name}"] = file.read_bytes()
    return _digest(files)


def _digest(files: dict[str, bytes]) -> str:
    return hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()


def _sources(modules: Sequence[str], packages: Collection[str]) -> dict[str, bytes]:
    """The source of the modules and of what they import from the packages, by name. Nothing is imported."""
    files: dict[str, bytes] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = _source_file(name) if name.partition(".")[0] in packages and name not in files else None
        if file is None:
            continue
        files[name] = file.read_bytes()
        for node in ast.walk(ast.parse(files[name])):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                inside = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
                parts = inside[: len(inside) + 1 - node.level] if node.level else []
                base = ".".join([*parts, *filter(None, [node.module])])
                # `from package import module` and `from package.module import thing` look alike: try both.
                waiting += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return files


@cache
def _package(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # __main__ has none
        return None


def _source_file(name: str) -> Path | None:
    """The file of a module, which may be a package; None where there is no source."""
    package, _, rest = name.partition(".")
    found = _package(package)
    if found is None:
        return None
    if not found.submodule_search_locations:  # a package that is a single file
        return Path(found.origin) if found.origin and found.origin.endswith(".py") and not rest else None
    place = Path(found.submodule_search_locations[0]).joinpath(*rest.split("."))
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
