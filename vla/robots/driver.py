"""A robot as the control process sees it, whatever the transport; see ``vla.control.driver``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla.contracts import VlaError
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


TRANSPORTS = ("ros2", "ros1", "rosbridge")


def make_transport(name: str, config: RobotConfig, sends: bool = False, watches: bool = True) -> RobotIO:
    """A robot that is reached by ``name``, one of ``TRANSPORTS``.

    Args:
        name: of the transport, whose libraries are imported here alone.
        config: the robot.
        sends: whether this process commands it.
        watches: whether it receives pictures.

    Raises MissingExtraError where the transport's library is missing, VlaError where nobody answers.
    """
    if name == "ros2":
        from vla.robots.ros2 import Ros2Robot

        return Ros2Robot(config, sends, watches)
    if name == "ros1":
        from vla.robots.ros1 import Ros1Robot

        return Ros1Robot(config, sends, watches)
    if name == "rosbridge":
        from vla.robots.rosbridge import RosbridgeRobot

        return RosbridgeRobot(config, sends, watches)
    raise VlaError(f"there is no transport '{name}'; there are {', '.join(TRANSPORTS)}")


def make_transport_driver(name: str, config: RobotConfig) -> RobotDriver:
    """For ``ControlProcess``: a robot that is reached by ``name``, joints alone."""
    return RobotDriver(make_transport(name, config, sends=True, watches=False))


def make_driver(make_robot: Callable[[], RobotIO]) -> RobotDriver:
    """For ``ControlProcess``: whatever ``make_robot`` makes over there."""
    return RobotDriver(make_robot())
