"""The errors that a user can act on."""

from __future__ import annotations


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
