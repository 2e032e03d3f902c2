"""What is to be done when: a policy's chunks, placed in time, and read at any moment.

A policy owns no queue: it answers, and its answers lie on a timeline. Whoever carries them out (the rollout loop, a
server, a robot) asks for the target at a time, as often and as finely as it likes, and never waits for an answer.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass

import numpy as np

from vla.contracts import Chunk

_SLACK = 1e-6  # of a step: times are sums of floats


@dataclass(frozen=True)
class Target:
    """What is to be done at one moment.

    Attributes:
        action: float32 (A,), SI units.
        age: seconds since the observation that it answers; infinite for what is held before the first chunk.
        ended: whether the chunk is over, and its last action is held.
        until: until when the action is due [s]; infinite where it is held.
    """

    action: np.ndarray
    age: float
    ended: bool
    until: float = math.inf


@dataclass(frozen=True)
class _Plan:
    chunk: Chunk
    begin: float  # of its first action [s]
    arrival: float  # from when on it may be played [s]

    @property
    def end(self) -> float:
        return self.begin + len(self.chunk.actions) * self.chunk.dt

    def usable(self, t: float) -> bool:
        return max(self.begin, self.arrival) <= t + _SLACK * self.chunk.dt

    def covers(self, t: float) -> bool:
        return self.usable(t) and t + _SLACK * self.chunk.dt < self.end

    def action(self, t: float) -> np.ndarray:
        return self.chunk.actions[min(self._place(t), len(self.chunk.actions) - 1)]

    def until(self, t: float) -> float:
        return self.begin + (self._place(t) + 1) * self.chunk.dt if self.covers(t) else math.inf

    def _place(self, t: float) -> int:
        return int((t - self.begin) / self.chunk.dt + _SLACK)


class Timeline:
    """Chunks in time; the newest one that has begun is played, from its beginning on: receding horizon.

    One thread may push while another reads.

    Args:
        hold: the action (A,) to be played before the first chunk arrives; None where nothing is known to keep the
            robot where it is. Then the first chunk is never late.
    """

    def __init__(self, hold: np.ndarray | None = None) -> None:
        self.hold = hold
        self._plans: list[_Plan] = []  # the newest observation's last

    def push(self, chunk: Chunk, begin: float | None = None, arrival: float | None = None) -> None:
        """Place a chunk. One that answers an earlier observation than another that has begun is never played.

        Args:
            chunk: its time is that of the observation that it answers.
            begin: the time of its first action [s]; None for ``chunk.time``.
            arrival: when it comes [s]: until then the earlier one goes on, and then it begins in its middle. None for
                ``begin``.
        """
        begin = chunk.time if begin is None else begin
        if self.hold is None and not self._plans:
            begin, arrival = chunk.time, None
        plans = list(self._plans)
        insort(plans, _Plan(chunk, begin, begin if arrival is None else arrival), key=lambda plan: plan.chunk.time)
        now = plans[-1].chunk.time
        played = max((place for place, plan in enumerate(plans) if plan.usable(now)), default=0)
        self._plans = [plan for place, plan in enumerate(plans) if place == played or plan.end > now]

    def at(self, t: float, arrived: float = math.inf) -> Target | None:
        """The target at time ``t`` [s], not earlier than the newest chunk's; None where there is none to play yet.

        With ``arrived``, as it is known at that earlier time: of the chunks that had come by then.
        """
        usable = [plan for plan in self._plans if plan.usable(t) and plan.arrival <= arrived + _SLACK * plan.chunk.dt]
        if not usable:
            return None if self.hold is None else Target(self.hold, math.inf, False)
        newest = usable[-1]
        return Target(self._action(usable, t), t - newest.chunk.time, not newest.covers(t), newest.until(t))

    def actions(self, start: float, count: int, dt: float) -> np.ndarray:
        """What an env plays that takes an action every ``dt`` seconds, from ``start`` on: float32 (count, A).

        Raises ValueError where there is nothing to play yet.
        """
        targets = [self.at(start + step * dt) for step in range(count)]
        known = [target.action for target in targets if target is not None]
        if len(known) < count:
            raise ValueError("nothing has been pushed, and nothing is known to hold")
        return np.stack(known).astype(np.float32, copy=False)

    def _action(self, usable: list[_Plan], t: float) -> np.ndarray:
        return usable[-1].action(t)


class TemporalEnsemble(Timeline):
    """Averages what all chunks say about each moment that they cover (ACT, arXiv 2304.13705, algorithm 2).

    Weights are exp(-decay * i), where i = 0 is the oldest chunk that covers the moment: a larger ``decay`` trusts
    old plans more, 0 trusts all alike. Rotation columns are averaged as they are; the controller
    makes them orthonormal again.

    Args:
        decay: m in the paper's w_i = exp(-m * i).
        hold: see ``Timeline``.
    """

    def __init__(self, decay: float = 0.01, hold: np.ndarray | None = None) -> None:
        super().__init__(hold)
        self.decay = decay

    def _action(self, usable: list[_Plan], t: float) -> np.ndarray:
        opinions = [plan.action(t) for plan in usable if plan.covers(t)]
        if not opinions:
            return super()._action(usable, t)
        weights = np.exp(-self.decay * np.arange(len(opinions)))
        return np.average(opinions, axis=0, weights=weights).astype(np.float32)
