"""A robot as the control process sees it, whatever the transport; see ``vla.control.driver``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla.control.driver import Reading
from vla.robots.config import RobotConfig
from vla.robots.io import Command, RobotIO


class RobotDriver:
    """``vla.control.driver.Driver`` on a transport.

    Args:
        robot: the transport, which this process alone sends with.
    """

    def __init__(self, robot: RobotIO) -> None:
        self._robot = robot

    def read(self, into: Reading) -> None:
        """See ``Driver``."""
        joints = self._robot.joints()
        into.estop = bool(self._robot.estop())
        into.fault = self._robot.problem()
        if joints is not None:
            into.q[:], into.velocity[:] = joints.q, joints.velocity
            into.gripper, into.received = joints.gripper, joints.received

    def send(self, q: np.ndarray, velocity: np.ndarray, gripper: float) -> None:
        """See ``Driver``."""
        self._robot.send(Command(q, velocity, gripper))

    def close(self) -> None:
        """See ``Driver``."""
        self._robot.close()


def make_ros2_driver(config: RobotConfig) -> RobotDriver:
    """For ``ControlProcess``: a ROS 2 robot, joints alone."""
    from vla.robots.ros2 import Ros2Robot

    return RobotDriver(Ros2Robot(config, sends=True, watches=False))


def make_driver(make_robot: Callable[[], RobotIO]) -> RobotDriver:
    """For ``ControlProcess``: whatever ``make_robot`` makes over there."""
    return RobotDriver(make_robot())
