"""What ROS 2 and ROS 1 share: the messages have the same names and fields in Python, but for how a time is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any, Protocol

from vla.robots.config import RobotConfig
from vla.robots.messages import COMMAND_KINDS, PACKAGES, Floats, Message
from vla.robots.pictures import from_compressed, from_message
from vla.robots.topics import Listeners, TopicRobot


@cache
def kind(name: str) -> Any:
    """The class of a message, of whichever ROS this Python has; e.g. ``JointState``."""
    return getattr(import_module(f"{PACKAGES[name]}.msg"), name)


class RosNode(Protocol):
    """A node of either ROS, with a thread of its own that calls back."""

    def start(self) -> None:
        """Begin to receive."""
        ...

    def publisher(self, name: str, topic: str, reliable: bool = True, depth: int = 1) -> Any:
        """What has ``publish(message)``, for messages of the kind ``name``."""
        ...

    def subscribe(
        self,
        name: str,
        topic: str,
        callback: Callable[[Any], None],
        depth: int = 5,
        reliable: bool = False,
        latched: bool = False,
    ) -> Any:
        """Have ``callback`` called with each message; returns what ``unsubscribe`` takes."""
        ...

    def unsubscribe(self, subscription: Any) -> None:
        """Listen no more."""
        ...

    def listeners(self, topic: str) -> int:
        """How many listen on a topic that this node publishes."""
        ...

    def unfit(self, topic: str) -> str:
        """Why one who listens there does not get what this node sends; empty where all do."""
        ...

    def time(self, seconds: float) -> Any:
        """A stamp of these seconds since 1970."""
        ...

    def duration(self, seconds: float) -> Any:
        """So many seconds."""
        ...

    def octets(self, data: bytes) -> Any:
        """Bytes as a message's field takes them."""
        ...

    def close(self) -> None:
        """Leave ROS."""
        ...


def seconds_of(stamp: Any) -> float:
    """Of a time or a duration of either ROS."""
    if hasattr(stamp, "nanosec"):
        return stamp.sec + 1e-9 * stamp.nanosec
    return stamp.secs + 1e-9 * stamp.nsecs


def message_of(message: Message, node: RosNode) -> Any:
    """What is published for a command."""
    if isinstance(message, Floats):
        return kind("Float64MultiArray")(data=message.data)
    points = [
        kind("JointTrajectoryPoint")(
            positions=point.positions, velocities=point.velocities, time_from_start=node.duration(point.time)
        )
        for point in message.points
    ]
    return kind("JointTrajectory")(joint_names=message.joints, points=points)


class RosRobot(TopicRobot):
    """See ``RobotIO``.

    Args:
        config: the robot.
        node: of either ROS, which has not begun to receive.
        sends: whether this process commands it; see ``TopicRobot``.
        watches: whether it receives pictures.
    """

    def __init__(self, config: RobotConfig, node: RosNode, sends: bool, watches: bool) -> None:
        super().__init__(config, sends)
        self._node, self._publishers = node, dict[str, Any]()
        node.subscribe("JointState", config.state.topic, self._take_joints, depth=10)
        if config.estop:
            node.subscribe("Bool", config.estop.topic, self._take_estop)
        for name, camera in config.cameras.items() if watches else ():
            compressed = camera.topic.endswith("/compressed")
            take = self._take_compressed if compressed else self._take_image
            image = "CompressedImage" if compressed else "Image"
            node.subscribe(image, camera.topic, partial(take, name), depth=1)
        for topic, adapter in self._spoken.items():
            self._publishers[topic] = node.publisher(COMMAND_KINDS[adapter], topic)
        # One that watches publishes little, and yet sees who listens where the graph is open to all: see ``Node``.
        self._listeners = Listeners(config.command_topics, node.listeners, node.unfit)
        node.start()

    def _take_joints(self, message: Any) -> None:
        now, stamp = time.monotonic(), seconds_of(message.header.stamp)
        self.inbox.take_joints(message.name, message.position, message.velocity, stamp, now)

    def _take_estop(self, message: Any) -> None:
        self.inbox.take_estop(bool(message.data), time.monotonic())

    def _take_image(self, name: str, m: Any) -> None:
        decode = lambda: from_message(m.data, m.encoding, m.height, m.width, m.step)
        self._take_picture(name, seconds_of(m.header.stamp), decode)

    def _take_compressed(self, name: str, message: Any) -> None:
        self._take_picture(name, seconds_of(message.header.stamp), lambda: from_compressed(message.data))

    def _publish(self, message: Message) -> None:
        self._publishers[message.topic].publish(message_of(message, self._node))

    def _unheard(self) -> str:
        return self._listeners.problem()

    def _leave(self) -> None:
        if self._publishers:
            time.sleep(0.05)  # what was sent last leaves before the node does
        self._node.close()
