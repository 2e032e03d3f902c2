"""The env and the policy that stand in CONTRIBUTING.md, as modules, so that the batteries play them as outside code."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).resolve().parent.parent / "CONTRIBUTING.md"


def _module(name: str, line: str) -> None:
    """Import the page's one block of Python that holds ``line`` as the module ``name``."""
    found = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (source,) = [block for block in found if f"\n{line}\n" in block]
    module = sys.modules[name] = ModuleType(name)
    exec(compile(source, f"{PAGE}: {line}", "exec"), module.__dict__)


_module("contributing_env", "ENV = Reach")
_module("contributing_policy", "POLICY = MeanPolicy")
ENV, POLICY = "contributing_env:Reach", "contributing_policy:MeanPolicy"
