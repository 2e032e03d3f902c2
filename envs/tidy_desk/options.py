"""The reset options of tidy_desk: which there are, what they may be, and the goal that an instruction asks for."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.tidy_desk.goals import CATEGORIES, COMPOSED, KINDS, LANGUAGES, SPLITS, Goal, language_of
from envs.tidy_desk.reading import nearest, understand
from vla.contracts import VlaError
from vla.host.files import printable
from vla.perturb import axes as perturb

LONGEST = 300  # characters of an instruction
_OPTIONS = ("split", "language", "items", "kind", "category", "instruction", "stage", "perturb")


def check_options(options: dict[str, Any], perturbations: tuple[str, ...]) -> dict[str, Any]:
    """The reset options with defaults filled in and ``goal`` read from the instruction. Raises VlaError."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise VlaError(f"tidy_desk has no reset option '{unknown[0]}'; it has {', '.join(_OPTIONS)}")
    chosen = {name: options.get(name) for name in _OPTIONS}
    chosen["split"] = chosen["split"] or "train"
    for name, known in (
        ("split", SPLITS),
        ("language", (None, *LANGUAGES)),
        ("kind", (None, *KINDS, "composed")),
        ("category", (None, "", *(COMPOSED if chosen["kind"] == "composed" else CATEGORIES))),
        ("stage", (None, "start", "midway")),
    ):
        if chosen[name] not in known:
            names = ", ".join(k for k in known if k)
            raise VlaError(f"tidy_desk: {name} must be one of {names}, and was '{chosen[name]}'")
    count = chosen["items"]
    if count is not None and (not isinstance(count, (int, np.integer)) or not 2 <= count <= 5):
        raise VlaError(f"tidy_desk: items must be 2 to 5, and was {count}")
    harder = chosen["perturb"] = dict(chosen["perturb"] or {})
    perturb.require(harder, perturbations, "tidy_desk")
    chosen["goal"] = None
    text = chosen["instruction"]
    if text is not None:
        goal = chosen["goal"] = _goal_of(text)
        said = {"language": language_of(text), "kind": goal.kind, "category": goal.category}
        for name, value in said.items():
            given = chosen[name]
            if given not in (None, "", value):
                means = f"'{_line(text)}' means {name} '{value or 'any'}'"
                raise VlaError(f"tidy_desk: {means}, which {name} '{given}' contradicts: leave {name} out")
        chosen["language"] = said["language"]
    return chosen


def _goal_of(text: str) -> Goal:
    if not isinstance(text, str):
        raise VlaError(f"tidy_desk: an instruction is a text, and not {text!r}")
    if len(text) > LONGEST:
        raise VlaError(f"tidy_desk: an instruction has at most {LONGEST} characters, and this one has {len(text)}")
    goal, reason = understand(text)
    if goal is None:
        known = ", ".join(f"'{one}'" for one in nearest(text))
        raise VlaError(f"tidy_desk does not understand '{_line(text)}': {reason}; it understands {known}")
    return goal


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
