"""What the arm may do: joint range, velocity and acceleration, and the workspace of the end effector."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Limits:
    """Limits of an arm with N joints.

    Attributes:
        velocity: the largest joint speeds, rad/s, (N,).
        acceleration: the largest joint accelerations, rad/s^2, (N,).
        workspace_low, workspace_high: the box that the tool centre point stays in, metres, base frame.
        gripper_speed: the largest change of the gripper's opening (0 closed, 1 open), 1/s.
        tracking_error: how far a measured joint may be from where it was commanded, rad; one that is farther off for
            ``tracking_time`` seconds is blocked, or its servo does not follow, and the arm stops.
        tracking_time: seconds.
        jerk: the largest joint jerks, rad/s^3, (N,); empty where only ``acceleration`` bounds the motion.
        gripper_force: newtons; a gripper that measures more opens a little.
        table: the height above which the arm's links stay, metres, base frame; None where there is nothing below. The
            fingers may go lower: ``workspace_low`` bounds them.
        clearance: metres that links keep from each other and from the table.
        position_low, position_high: joint range, rad, (N,), in place of the model's; empty for the model's.
    """

    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    workspace_low: tuple[float, float, float]
    workspace_high: tuple[float, float, float]
    gripper_speed: float = 4.0
    tracking_error: float = 0.2
    tracking_time: float = 0.05
    jerk: tuple[float, ...] = ()
    gripper_force: float = math.inf
    table: float | None = None
    clearance: float = 0.005
    position_low: tuple[float, ...] = ()
    position_high: tuple[float, ...] = ()


class JointLimiter:
    """Clips joint velocities so that range, velocity and acceleration limits hold at every tick.

    Args:
        limits: the limits.
        low, high: joint range, rad, (N,).
        dt: seconds between two ticks.
    """

    def __init__(self, limits: Limits, low: np.ndarray, high: np.ndarray, dt: float) -> None:
        self.low, self.high, self.dt = low, high, dt
        self.max_velocity = np.asarray(limits.velocity)
        self.max_acceleration = np.asarray(limits.acceleration)

    def clip(self, q: np.ndarray, velocity: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The velocity nearest to ``wanted`` that the joints may have now.

        Args:
            q: joint positions, rad, (N,).
            velocity: joint velocities of the last tick, rad/s, (N,).
            wanted: joint velocities asked for, rad/s, (N,).

        Returns:
            Joint velocities, rad/s, (N,).
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
