"""What the agent sees of a robot: a state vector from its joints, an observation from the newest of everything."""

from __future__ import annotations

import numpy as np

from vla.contracts import Observation
from vla.control.controller import Controller
from vla.control.rotation import matrix_to_6d
from vla.robots.config import RobotConfig
from vla.robots.io import Joints, Picture


class Kinematics:
    """The tool's pose from the joints.

    Args:
        config: the robot.
    """

    def __init__(self, config: RobotConfig) -> None:
        self._controller = Controller(config.arm)

    @property
    def home(self) -> np.ndarray:
        """The home posture, rad, (N,)."""
        return self._controller.home

    def pose(self, q: np.ndarray) -> np.ndarray:
        """Position, m, and 6-D rotation of the tool, base frame, (9,)."""
        self._controller.reset(q, 1.0)
        return np.concatenate((self._controller.position, matrix_to_6d(self._controller.rotation)))

    def state(self, q: np.ndarray, gripper: float) -> np.ndarray:
        """The state as ``RobotConfig.spec`` names it, float32 (10 + N,)."""
        return np.concatenate((self.pose(q), [gripper], q)).astype(np.float32)


def observe(kinematics: Kinematics, joints: Joints, pictures: dict[str, Picture], instruction: str) -> Observation:
    """An observation whose time is that of its oldest picture, ``time.monotonic`` seconds."""
    images = {name: picture.image for name, picture in pictures.items()}
    oldest = min(picture.received for picture in pictures.values())
    return Observation(images, kinematics.state(joints.q, joints.gripper), instruction, oldest)
