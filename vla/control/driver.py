"""What the control process drives: a robot's own side of the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass
class Reading:
    """The newest measurement of an arm with N joints, filled in by ``Driver.read``.

    Attributes:
        q: joint positions in the order of ``ArmSpec.joints``, rad, (N,).
        velocity: joint velocities, rad/s, (N,); NaN where the robot does not tell.
        gripper: opening, 0 closed to 1 open; NaN where it does not tell.
        gripper_force: newtons; NaN where it does not tell.
        received: when the joints came here, ``time.monotonic`` seconds; -inf before the first. Not the robot's stamp.
        estop: whether the robot's own emergency stop is pressed, or its heartbeat is missing.
        fault: why the robot can't be driven at present, in words; empty where it can.
    """

    q: np.ndarray
    velocity: np.ndarray
    gripper: float = float("nan")
    gripper_force: float = float("nan")
    received: float = float("-inf")
    estop: bool = False
    fault: str = field(default="")

    @classmethod
    def of(cls, joints: int) -> Reading:
        """An empty one for an arm with so many joints."""
        return cls(np.full(joints, np.nan), np.full(joints, np.nan))


class Driver(Protocol):
    """A robot, or a simulated one, as the control process sees it. Lives in that process, which alone calls it.

    ``ControlProcess`` takes a function that makes one, and calls it over there: what it needs must pickle, and the
    robot's libraries are imported there alone. No method may wait: receiving belongs in a thread of the driver's own.
    """

    def read(self, into: Reading) -> None:
        """Copy the newest measurement into ``into``; leave it as it is if none has come since."""
        ...

    def send(self, q: np.ndarray, velocity: np.ndarray, gripper: float) -> None:
        """Pass on one command, 200 a second. Only the supervisor calls this.

        Args:
            q: joint positions to be at one control period from now, rad, (N,). The array is used again after the call.
            velocity: joint velocities then, rad/s, (N,); zeros at rest.
            gripper: opening to go to, 0 closed to 1 open.
        """
        ...

    def close(self) -> None:
        """Leave the robot at rest whatever else is wrong (zero velocities, goals cancelled), then let go of it.

        Called on every way out of the process, after the last ``send``; that was at rest unless the tick itself failed.
        """
        ...
