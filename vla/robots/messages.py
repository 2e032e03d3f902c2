"""Commands as messages, before any transport has made its own of them, and what ROS calls them."""

from __future__ import annotations

from dataclasses import dataclass

# The kinds of message that a robot and a command need, and the package of each.
PACKAGES = {
    "JointState": "sensor_msgs",
    "Image": "sensor_msgs",
    "CameraInfo": "sensor_msgs",
    "CompressedImage": "sensor_msgs",
    "JointTrajectory": "trajectory_msgs",
    "JointTrajectoryPoint": "trajectory_msgs",
    "Float64MultiArray": "std_msgs",
    "Bool": "std_msgs",
    "String": "std_msgs",
}
COMMAND_KINDS = {  # by adapter
    "joint_trajectory": "JointTrajectory",
    "forward_position": "Float64MultiArray",
    "forward_velocity": "Float64MultiArray",
}


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
