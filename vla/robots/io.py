"""What the stack needs of a robot, whatever carries it: its newest state and pictures, a place to send, a way to stop.

All times of receiving are of ``time.monotonic``; what a robot stamps its messages with is its own clock, and is used
only to tell new from old.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla.robots.config import RobotConfig


@dataclass(frozen=True)
class Joints:
    """What the arm reported last, every joint of it.

    Attributes:
        q: positions, rad, (N,), in the order of ``RobotConfig.joints``.
        velocity: rad/s, (N,); NaN for a joint whose message had none.
        gripper: its opening, 0 closed to 1 open; 1 where the robot has none.
        received: when the oldest of these numbers came, ``time.monotonic`` seconds.
        stamp: the robot's own time of the newest, seconds; 0 where it does not tell.
    """

    q: np.ndarray
    velocity: np.ndarray
    gripper: float
    received: float
    stamp: float = 0.0


@dataclass(frozen=True)
class Picture:
    """A camera's newest image.

    Attributes:
        image: uint8 (height, width, 3), RGB, as the agent gets it.
        received: when it came, ``time.monotonic`` seconds; earlier by what it was longer under way than others.
        stamp: the robot's own time, seconds; 0 where it does not tell.
    """

    image: np.ndarray
    received: float
    stamp: float = 0.0


@dataclass(frozen=True)
class Command:
    """Where the arm is to be at the next tick of the controller.

    Attributes:
        q: joint positions, rad, (N,).
        velocity: rad/s, (N,).
        gripper: opening, 0 closed to 1 open.
    """

    q: np.ndarray
    velocity: np.ndarray
    gripper: float


class Counter:
    """How often each topic spoke since the counting began, and its longest silence."""

    def __init__(self) -> None:
        self._first = dict[str, float]()
        self._last = dict[str, float]()
        self._number = dict[str, int]()
        self.gap = dict[str, float]()  # the longest silence, seconds

    def tick(self, topic: str, now: float) -> None:
        """A message came."""
        if topic in self._last:
            self.gap[topic] = max(self.gap.get(topic, 0.0), now - self._last[topic])
        self._first.setdefault(topic, now)
        self._last[topic] = now
        self._number[topic] = self._number.get(topic, 0) + 1

    def rate(self, topic: str) -> float:
        """Messages a second; 0 of a topic that spoke less than twice."""
        spoken = self._number.get(topic, 0)
        return (spoken - 1) / max(1e-9, self._last[topic] - self._first[topic]) if spoken > 1 else 0.0


@dataclass(frozen=True)
class Capabilities:
    """What a transport can do.

    Attributes:
        name: e.g. ``ros2``.
        moves: whether ``send`` moves anything: a recording does not.
        real_time: whether it goes on by itself, and does not wait for who asks.
    """

    name: str
    moves: bool = True
    real_time: bool = True


class RobotIO(Protocol):
    """One robot, from one process. Several may watch it; only the supervisor's process sends.

    Who watches may call ``stop`` once that process is gone.
    """

    config: RobotConfig
    capabilities: Capabilities

    def joints(self) -> Joints | None:
        """The newest state; None until every joint was reported once. Never waits."""
        ...

    def pictures(self) -> dict[str, Picture]:
        """The newest image of each camera that has sent one. Never waits."""
        ...

    def send(self, command: Command) -> None:
        """Have the arm follow; never waits. Raises VlaError for a command that is not finite, and sends nothing."""
        ...

    def stop(self) -> None:
        """Bring the arm to rest with what the transport has, without a controller: the last thing on every way out."""
        ...

    def problem(self) -> str:
        """Why the robot can't be driven now (nobody listens, its clock jumped, …); empty where it can."""
        ...

    def estop(self) -> str:
        """Why its emergency stop counts as pressed; empty where it does not."""
        ...

    def missing(self, since: float = -math.inf) -> list[str]:
        """The joints that were not reported after ``since``, ``time.monotonic`` seconds; by default, never."""
        ...

    def watch(self) -> Counter:
        """Start counting what comes, for pre-flight."""
        ...

    def close(self) -> None:
        """Stop, and let go of the connection."""
        ...
