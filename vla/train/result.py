"""How a training ends: done, stopped by a signal, or with a loss that is no longer finite."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla.contracts import VlaError


class TrainingStopped(VlaError):
    """A run was asked to stop and wrote a checkpoint first. ``signal`` is the number of what asked."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


@dataclass
class TrainResult:
    """How a run ended.

    Attributes:
        steps: optimiser steps done, those before a resume included.
        loss: the last step's loss.
        agent_dir: the agent bundle, or the artefact of another objective.
        scores: ``validation_loss``, and from the closed loop ``success`` (rate, low, high, n) and ``progress``.
        wall_s: seconds of training, those before a resume included.
        advice: a line on what to do with the artefact; may be empty.
    """

    steps: int
    loss: float
    agent_dir: Path
    scores: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    advice: str = ""


class Diverged(VlaError):
    """The loss, or the gradient's norm, is no longer finite."""
