"""Where the project's folders are, in a checkout and in an installed wheel.

In a checkout ``configs/`` and ``assets/`` stand beside ``vla/``; in a wheel they travel inside it. ``envs`` and
``policies`` stand beside ``vla`` in both, and nothing else may answer to those names.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from vla.contracts import VlaError

_VLA = Path(__file__).resolve().parent


def packages_dir() -> Path:
    """The folder that holds ``vla``, ``envs`` and ``policies``: the checkout's root, or site-packages."""
    return _VLA.parent


def assets_dir() -> Path:
    """The folder of scenes, arms, textures and shipped agents. Raises VlaError where it is missing."""
    return _folder("assets")


def configs_dir() -> Path:
    """The folder of recipes. Raises VlaError where it is missing."""
    return _folder("configs")


def agents_dir() -> Path:
    """The folder of the agents that ship, one folder for each. It may not exist."""
    return assets_dir() / "agents"


def shipped_agent(name: str) -> Path:
    """The folder of the agent that ships for ``name`` (an env's name). Raises VlaError where there is none."""
    folder = agents_dir() / name
    if Path(name).name == name and (folder / "agent.json").is_file():
        return folder
    known = sorted(path.parent.name for path in agents_dir().glob("*/agent.json"))
    raise VlaError(
        f"no agent ships for '{name}'; shipped: {', '.join(known) or 'none'}. "
        "Train one with `vla train RECIPE` and name it with --agent DIR"
    )


def cache_dir() -> Path:
    """The folder for what can be made again: ``$VLA_CACHE``, or ``vla`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    named = os.environ.get("VLA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named or Path(base) / "vla").expanduser()


def _folder(name: str) -> Path:
    for folder in (_VLA / name, _VLA.parent / name):
        if folder.is_dir():
            return folder
    raise VlaError(
        f"the folder {name}/ is missing: it should be {_VLA.parent / name} (checkout) or {_VLA / name} (wheel)"
    )


def check_packages() -> None:
    """Raise VlaError, naming the intruder, unless ``envs`` and ``policies`` stand beside ``vla``. Imports neither."""
    for name in ("envs", "policies"):
        wanted = packages_dir() / name
        found = _location(name)
        if found is None:
            raise VlaError(
                f"the package '{name}' cannot be imported; it should be {wanted}. "
                "Install the project, or run from the folder that holds vla"
            )
        if found != wanted:
            raise VlaError(
                f"'import {name}' finds {found}, and should find {wanted}, beside vla. "
                f"Uninstall what brought that '{name}', or take its folder off PYTHONPATH"
            )


def _location(name: str) -> Path | None:
    """The folder of a top-level package, found without importing it."""
    if name in sys.modules:
        places = list(getattr(sys.modules[name], "__path__", []))
    else:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    return Path(places[0]).resolve() if places else None


def ensure_configs() -> None:
    """Make ``import configs.NAME`` mean this project's recipes, in a wheel too, whatever else bears that name.

    Raises VlaError where another ``configs`` has already been imported.
    """
    folder = configs_dir()
    if "configs" not in sys.modules:
        module = ModuleType("configs", "The recipes: one function that returns a typed Recipe in each file.")
        module.__path__ = [str(folder)]
        sys.modules["configs"] = module
    elif (found := _location("configs")) != folder:
        raise VlaError(f"another 'configs' was imported, from {found}; the recipes are in {folder}")
