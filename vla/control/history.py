"""What a policy sees of the past: ``observation_steps`` of its config, e.g. (-1, 0) for the last two observations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vla.contracts import Observation, VlaError

PRESENT = (0,)


def observation_steps(config: Any) -> tuple[int, ...]:
    """The steps, counted from now, whose observations a policy with this config sees; (0,) where it does not say.

    Raises VlaError unless they ascend to 0.
    """
    steps = tuple(getattr(config, "observation_steps", PRESENT))
    if not steps or steps[-1] != 0 or list(steps) != sorted({int(step) for step in steps}):
        raise VlaError(f"observation_steps must ascend to 0, e.g. (-1, 0), and are {steps}")
    return steps


class History:
    """The latest observations of an episode, one a step. Before its begin there is its first one, again and again.

    Args:
        steps: as ``observation_steps`` gives them.

    Attributes:
        looks_back: whether it needs each step's observation, and not only those of the decisions.
    """

    def __init__(self, steps: tuple[int, ...] = PRESENT) -> None:
        self.steps, self.looks_back = steps, len(steps) > 1
        self._kept: deque[Observation] = deque(maxlen=1 - steps[0])

    def add(self, observation: Observation) -> Observation:
        """Take a step's observation; returns it with its ``past``."""
        self._kept.append(observation)
        newest = len(self._kept) - 1
        return replace(observation, past=tuple(self._kept[max(0, newest + step)] for step in self.steps[:-1]))


def everywhere(change: Callable[[Observation], Observation], observation: Observation) -> Observation:
    """``change`` of an observation and of its past."""
    if not observation.past:
        return change(observation)
    return replace(change(observation), past=tuple(change(one) for one in observation.past))
