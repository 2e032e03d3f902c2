"""Two clocks of one policy: which observation System 2 has answered when System 1 acts, as time goes by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vla.contracts import Observation

_SLACK_S = 1e-6


def plan_rate_hz(agent: Any) -> float | None:
    """How often System 2 of an agent of two systems begins a plan, at most; None of any other agent."""
    return getattr(getattr(agent, "config", None), "plan_rate_hz", None)


class Plans:
    """System 2 in time: it takes an observation when it is free, and its plan is there some time later.

    Args:
        rate_hz: how often it begins a plan, at most.
        delay_s: gives how long the next plan takes, seconds.

    Attributes:
        first_s: when the first plan is there [s], on the observations' clock; until then there is nothing to act on.
    """

    def __init__(self, rate_hz: float, delay_s: Callable[[], float]) -> None:
        self._period, self._delay = 1.0 / rate_hz, delay_s
        self._begun: tuple[Observation, float] | None = None
        self._answered: Observation | None = None
        self._last: float | None = None  # when it began a plan last
        self.first_s = float("-inf")

    def look(self, now: Observation) -> Observation:
        """The observation that the newest finished plan answers, at the time of ``now``.

        That one may be begun from it, and be there at once. Before any is finished it is the first that was begun,
        whose plan comes at ``first_s``.
        """
        if self._begun and self._begun[1] <= now.time + _SLACK_S:
            self._answered, self._begun = self._begun[0], None
        if self._begun is None and self._free(now.time):
            ready = now.time + self._delay()
            if self._last is None:
                self.first_s = ready
            self._last = now.time
            if ready <= now.time + _SLACK_S:
                self._answered = now
            else:
                self._begun = (now, ready)
        if self._answered is not None:
            return self._answered
        assert self._begun is not None
        return self._begun[0]

    def _free(self, now: float) -> bool:
        return self._last is None or now - self._last >= self._period - _SLACK_S
