"""The reset options of tidy_desk: which there are, what they may be, and the goal that an instruction asks for."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs import instructions
from vla import perturb
from vla.contracts import VlaError

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
        ("split", instructions.SPLITS),
        ("language", (None, *instructions.LANGUAGES)),
        ("kind", (None, *instructions.KINDS)),
        ("category", (None, "", *instructions.CATEGORIES)),
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
        if len(text) > LONGEST:
            raise VlaError(f"tidy_desk: an instruction has at most {LONGEST} characters, and this one has {len(text)}")
        chosen["goal"] = instructions.parse(text)
        if chosen["goal"] is None:
            raise VlaError(
                f"tidy_desk does not understand '{text}'; it tidies everything, one category or one named item, "
                "e.g. 'tidy the desk', 'put all pens in the tray', 'put the red pen in the tray', '把纸团扔进垃圾桶'"
            )
        chosen["language"] = chosen["language"] or instructions.language_of(text)
    return chosen
