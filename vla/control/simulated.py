"""A simulated arm for the control process: servos that lag a little, in plain numpy, on the wall clock.

For trying the process out without a robot: its timing, and what it does when something fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from vla.control.driver import Reading


class SimulatedArm:
    """Joints that follow their commands as critically damped servos do.

    Args:
        q: where they are at first, rad, (N,).
        stiffness_hz: of the servos; at 8 Hz they are 40 ms behind.
        blocked: joints that do not move, by place.
        silent_after_s: from when on nothing is measured any more; infinite for never.
        clock: tells seconds.
    """

    def __init__(
        self,
        q: tuple[float, ...],
        stiffness_hz: float = 8.0,
        blocked: tuple[int, ...] = (),
        silent_after_s: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._q, self._velocity = np.array(q, float), np.zeros(len(q))
        self._target, self._gripper, self._wanted = self._q.copy(), 1.0, 1.0
        self._w, self._blocked, self._clock = 2.0 * np.pi * stiffness_hz, list(blocked), clock
        self._time = clock()
        self._silent_at = self._time + silent_after_s
        self.sent = 0

    def read(self, into: Reading) -> None:
        """See ``Driver``."""
        now = self._clock()
        if now >= self._silent_at:
            return
        self._move(now)
        into.q[:], into.velocity[:] = self._q, self._velocity
        into.gripper, into.gripper_force, into.received = self._gripper, 0.0, now

    def _move(self, now: float) -> None:
        """The exact motion of a critically damped servo towards a target that stands still."""
        t, self._time = now - self._time, now
        off = self._q - self._target
        rate = self._velocity + self._w * off
        fading = np.exp(-self._w * t)
        q = self._target + (off + rate * t) * fading
        velocity = (rate - self._w * (off + rate * t)) * fading
        q[self._blocked], velocity[self._blocked] = self._q[self._blocked], 0.0
        self._q, self._velocity = q, velocity
        self._gripper += float(np.clip(self._wanted - self._gripper, -4.0 * t, 4.0 * t))

    def send(self, q: np.ndarray, velocity: np.ndarray, gripper: float) -> None:
        """See ``Driver``."""
        self._move(self._clock())
        self._target, self._wanted = q.copy(), gripper
        self.sent += 1

    def close(self) -> None:
        """See ``Driver``."""
