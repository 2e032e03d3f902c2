"""System 2 of an agent of two systems, on a thread of its own beside a robot: it looks, plans, and looks again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from vla.agent import Agent
from vla.contracts import Observation, Plan
from vla.contracts.errors import one_line

_POLL_S = 0.005


class Planning:
    """Plans at its own pace, from what ``look`` shows it, until it is stopped.

    Args:
        agent: of a policy of two systems.
        look: the newest observation; None where there is nothing good to see.

    Attributes:
        problem: why it has ended by itself, one line; empty as long as it has not.
        seconds: how long the latest plan took; NaN before the first.
    """

    def __init__(self, agent: Agent, look: Callable[[], Observation | None]) -> None:
        self._agent, self._look, self._period = agent, look, 1.0 / agent.config.plan_rate_hz
        self._longest_s = 2.0 * agent.config.plan_steps * agent.spec.dt + 1.0
        self._newest: Plan | None = None
        self.problem, self.seconds = "", float("nan")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plans", daemon=True)

    def start(self) -> None:
        """Begin to plan."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present plan."""
        self._over.set()
        self._thread.join(5.0)

    def newest(self, now: float) -> Plan | None:
        """The newest plan; None before the first, and where it is of so long ago that nothing was trained for it.

        ``now`` is on the observations' clock, seconds.
        """
        plan = self._newest
        return plan if plan is not None and now - plan.time < self._longest_s else None

    def _run(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            seen = self._look()
            if seen is None:
                time.sleep(_POLL_S)
                continue
            try:
                self._newest = self._agent.plan(seen)
            except Exception as error:
                self.problem = f"System 2 failed: {one_line(error)}"
                return
            self.seconds = time.monotonic() - begun
            self._over.wait(max(0.0, self._period - self.seconds))
