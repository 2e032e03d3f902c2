"""Simulated time: envs of different speed side by side, and none waits for another."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from vla.registry import EnvRef
from vla.rollout.player import EpisodeRequest, EpisodeResult


@dataclass(frozen=True)
class Lane:
    """An env that plays episodes one after the other, on a clock of its own.

    Attributes:
        env: which one.
        episodes: what it plays, in order.
        execute: actions to play of each chunk; None takes ``agent.execute`` or 8.
        latency_s: simulated seconds from an observation to its answer; see ``vla.runner.Runner``.
        earlier: results of an earlier run of the same episodes that was cut short. They are not played again, and the
            others come out as they would have there.
    """

    env: EnvRef
    episodes: Sequence[EpisodeRequest]
    execute: int | None = None
    latency_s: float = 0.0
    earlier: Sequence[EpisodeResult] = ()


class Clock:
    """Who looks next: lanes with a pace each, in the order of simulated time.

    What a lane does between two looks ends before its next one: an episode that begins in between waits for it, and
    so does one whose first picture was stale. So lanes of one pace always look together, in lock step.

    Args:
        paces: seconds from a lane's look to its next one, by lane.
    """

    def __init__(self, paces: Sequence[float]) -> None:
        self._paces, self._looks = paces, [0] * len(paces)
        self._due = [(0.0, lane) for lane in range(len(paces))]

    def next(self) -> tuple[float, dict[int, int]]:
        """The time of the next look [s], and who looks then: lane, in order, to its number of looks before."""
        time, lanes = self._due[0][0], dict[int, int]()
        while self._due and self._due[0][0] == time:
            lane = heapq.heappop(self._due)[1]
            lanes[lane] = self._looks[lane]
        return time, lanes

    def again(self, lane: int) -> None:
        """Have a lane that looked just now look again after its pace."""
        self._looks[lane] += 1
        # To the microsecond, or 3 * 0.1 would come after 0.3, and with the wrong neighbours.
        heapq.heappush(self._due, (round(self._looks[lane] * self._paces[lane], 6), lane))
