"""The errors that a user can act on."""

from __future__ import annotations

import traceback
from pathlib import Path


class VlaError(Exception):
    """An error that a user can act on. The command line prints its message alone, without a traceback."""


class MissingExtraError(VlaError):
    """Something needs an optional extra that is not installed. The message holds the line that installs it."""


class NoExpertError(VlaError):
    """The env has no scripted expert, so nothing can be demonstrated in it."""


class SpecMismatchError(VlaError):
    """Two parts that should fit do not: an agent and an env, a dataset and a recipe."""


class BadObservationError(VlaError):
    """An observation lacks a camera, has the wrong shape or type, or holds NaN or infinity."""


def one_line(error: BaseException) -> str:
    """An exception on one line: what it says, and where it was raised unless it is meant for the user."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else text[:299] + "…"
    if isinstance(error, VlaError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"
