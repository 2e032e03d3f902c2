"""Commands as messages, before any transport has made its own of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A point of a trajectory: positions rad (N,), velocities rad/s (N,), seconds from its start."""

    positions: tuple[float, ...]
    velocities: tuple[float, ...]
    time: float


@dataclass(frozen=True)
class Trajectory:
    """A trajectory_msgs/JointTrajectory that starts now (its stamp is 0)."""

    topic: str
    joints: tuple[str, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Floats:
    """A std_msgs/Float64MultiArray."""

    topic: str
    data: tuple[float, ...]


Message = Trajectory | Floats
