"""What the arm may do: joint range, velocity and acceleration, and the workspace of the end effector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Limits:
    """Limits of a seven-joint arm. The defaults are Franka's data sheet, with velocity and acceleration derated.

    Attributes:
        velocity: the largest joint speeds, rad/s.
        acceleration: the largest joint accelerations, rad/s^2.
        workspace_low, workspace_high: the box that the tool centre point stays in, metres, base frame.
        gripper_speed: the largest change of the gripper's opening (0 closed, 1 open), 1/s.
    """

    velocity: tuple[float, ...] = (2.1, 2.1, 2.1, 2.1, 2.5, 2.5, 2.5)
    acceleration: tuple[float, ...] = (12.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0)
    workspace_low: tuple[float, float, float] = (0.25, -0.45, 0.004)
    workspace_high: tuple[float, float, float] = (0.80, 0.45, 0.60)
    gripper_speed: float = 4.0


class JointLimiter:
    """Clips joint velocities so that range, velocity and acceleration limits hold at every tick.

    Args:
        limits: the limits.
        low, high: joint range, rad, (7,).
        dt: seconds between two ticks.
    """

    def __init__(self, limits: Limits, low: np.ndarray, high: np.ndarray, dt: float) -> None:
        self.low, self.high, self.dt = low, high, dt
        self.max_velocity = np.asarray(limits.velocity)
        self.max_acceleration = np.asarray(limits.acceleration)

    def clip(self, q: np.ndarray, velocity: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The velocity nearest to ``wanted`` that the joints may have now.

        Args:
            q: joint positions, rad, (7,).
            velocity: joint velocities of the last tick, rad/s, (7,).
            wanted: joint velocities asked for, rad/s, (7,).

        Returns:
            Joint velocities, rad/s, (7,).
        """
        # One factor for all joints keeps the direction of motion, so the tool slows down and does not swerve.
        excess = np.max(np.abs(wanted) / self.max_velocity)
        if excess > 1.0:
            wanted = wanted / excess
        step = self.max_acceleration * self.dt
        wanted = np.minimum(np.maximum(wanted, velocity - step), velocity + step)
        # A joint that nears the end of its range may go no faster than it can still brake: v^2 = 2 a s.
        up = np.sqrt(2.0 * self.max_acceleration * np.maximum(self.high - q, 0.0))
        down = np.sqrt(2.0 * self.max_acceleration * np.maximum(q - self.low, 0.0))
        return np.minimum(np.maximum(wanted, -down), up)
