"""From one command a tick to what a robot's own controller listens to, whatever carries it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from vla.contracts import VlaError
from vla.robots.config import GripperConfig, RobotConfig
from vla.robots.io import Command, Joints
from vla.robots.messages import Floats, Message, Point, Trajectory

_REPEAT = 100  # commands after which the gripper is told again


class Adapter(Protocol):
    """What a robot's controller wants to hear."""

    def messages(self, command: Command, joints: Joints | None) -> list[Message]:
        """For one command of the arm, given the newest state."""
        ...

    def rest(self, joints: Joints | None) -> list[Message]:
        """Which bring the arm to rest, given the newest state; sent on every way out."""
        ...


class TrajectoryAdapter:
    """For joint_trajectory_controller: each message is a short trajectory that ends at rest.

    Two points: where the arm is to be one period from now, with its velocity, then where it comes to rest if it brakes
    from there as hard as its limits allow. Between two points the controller draws a cubic, and braking evenly is one.
    The next message takes the place of this one; if none comes, the arm brakes by itself.

    Args:
        robot: whose arm.
        period: seconds between two commands.
    """

    def __init__(self, robot: RobotConfig, period: float) -> None:
        self._topic, self._joints, self._period = robot.command.topic, robot.joints, period
        self._brake = np.array(robot.limits.acceleration)

    def messages(self, command: Command, joints: Joints | None) -> list[Message]:
        """See ``Adapter.messages``."""
        seconds = float(np.max(np.abs(command.velocity) / self._brake, initial=0.0))
        first = Point(tuple(command.q), tuple(command.velocity), self._period)
        if seconds < 1e-4:
            return [
                Trajectory(self._topic, self._joints, (Point(first.positions, (0.0,) * len(command.q), self._period),))
            ]
        end = command.q + command.velocity * (seconds / 2)
        last = Point(tuple(end), (0.0,) * len(command.q), self._period + seconds)
        return [Trajectory(self._topic, self._joints, (first, last))]

    def rest(self, joints: Joints | None) -> list[Message]:
        """Nothing: what was sent last ends at rest, and is shorter than whatever could be computed from old news."""
        return []


class PositionAdapter:
    """For forward_command_controller on positions. It has no watchdog, and stays where it was sent last.

    Args:
        robot: whose arm.
    """

    def __init__(self, robot: RobotConfig) -> None:
        self._topic = robot.command.topic

    def messages(self, command: Command, joints: Joints | None) -> list[Message]:
        """See ``Adapter.messages``."""
        return [Floats(self._topic, tuple(command.q))]

    def rest(self, joints: Joints | None) -> list[Message]:
        """Nothing: the arm stays at the last position."""
        return []


class VelocityAdapter:
    """For forward_command_controller on velocities. **It has no watchdog**: the arm runs on with the last command.

    Zeros are sent on every way out; a robot that is driven so needs a watchdog of its own against a dead cable.

    Args:
        robot: whose arm.
    """

    def __init__(self, robot: RobotConfig) -> None:
        self._topic, self._gain = robot.command.topic, robot.command.gain
        self._most = np.array(robot.limits.velocity)

    def messages(self, command: Command, joints: Joints | None) -> list[Message]:
        """See ``Adapter.messages``. Without a measured state it asks for rest: it could not know where it drifts."""
        if joints is None:
            return self.rest(None)
        wanted = command.velocity + self._gain * (command.q - joints.q)
        return [Floats(self._topic, tuple(np.clip(wanted, -self._most, self._most)))]

    def rest(self, joints: Joints | None) -> list[Message]:
        """Zeros."""
        return [Floats(self._topic, (0.0,) * len(self._most))]


class GripperAdapter:
    """Sends a gripper's opening where it changed, and twice a second, in case a message was lost.

    Args:
        gripper: which.
        speed: openings a second, for the time that a trajectory takes.
    """

    def __init__(self, gripper: GripperConfig, speed: float) -> None:
        self._gripper, self._speed = gripper, speed
        self._last, self._quiet = np.nan, 0

    def messages(self, command: Command, joints: Joints | None) -> list[Message]:
        """See ``Adapter.messages``."""
        self._quiet += 1
        if abs(command.gripper - self._last) < 1e-4 and self._quiet < _REPEAT:
            return []
        self._last, self._quiet = command.gripper, 0
        g = self._gripper
        position = g.closed + command.gripper * (g.open - g.closed)
        if g.adapter == "forward_position":
            return [Floats(g.topic, (position,))]
        return [Trajectory(g.topic, (g.command_joint or g.joint,), (Point((position,), (0.0,), 0.01),))]

    def rest(self, joints: Joints | None) -> list[Message]:
        """Nothing: an arm that stops keeps hold of what it has."""
        return []


def adapters_of(robot: RobotConfig) -> list[Adapter]:
    """What a robot needs: its arm's, and its gripper's."""
    period = 1.0 / robot.command.rate_hz
    arms: dict[str, Callable[[], Adapter]] = {
        "joint_trajectory": lambda: TrajectoryAdapter(robot, period),
        "forward_position": lambda: PositionAdapter(robot),
        "forward_velocity": lambda: VelocityAdapter(robot),
    }
    found = [arms[robot.command.adapter]()]
    if robot.gripper:
        found.append(GripperAdapter(robot.gripper, robot.limits.gripper_speed))
    return found


def require_finite(command: Command) -> None:
    """Raise VlaError unless all numbers of a command are finite."""
    if not (np.isfinite(command.q).all() and np.isfinite(command.velocity).all() and np.isfinite(command.gripper)):
        raise VlaError(f"a command must be finite, and was {command}; nothing was sent")
