"""A robot on ROS 1, by rospy. The only file that knows rospy.

A process has one rospy node, whatever is made of it here, and its signals stay ours. rospy calls back from a thread for
each connection. There is no QoS: a queue of one keeps the newest.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

from vla.contracts import VlaError
from vla.contracts.errors import MissingExtraError
from vla.robots.config import RobotConfig
from vla.robots.io import Capabilities
from vla.robots.ros import RosRobot, kind

_ANSWER_S = 2.0  # within which a master is to take a connection


def import_rospy() -> Any:
    """Rospy. Raises MissingExtraError, with what to do, where there is none."""
    try:
        import rospy
    except ImportError as error:
        raise MissingExtraError(
            f"no rospy for this Python ({error}): install it (Debian: `apt install python3-rospy "
            "python3-sensor-msgs python3-trajectory-msgs`) and let this environment see it; see docs/robots.md"
        ) from error
    return rospy


def require_master() -> None:
    """Raise VlaError unless a master answers: rospy would wait for one for ever."""
    uri = os.environ.get("ROS_MASTER_URI", "http://localhost:11311")
    where = urlparse(uri)
    try:
        if where.hostname is None:
            raise OSError("that names no host")
        socket.create_connection((where.hostname, where.port or 11311), _ANSWER_S).close()
    except (OSError, ValueError) as error:
        told = f"no ROS master answers at {uri} ({error}): start `roscore`, or set ROS_MASTER_URI"
        raise VlaError(told) from error


class Node:
    """The process's rospy node; see ``RosNode``.

    Args:
        name: the node's, made unique. Counts for the first in a process.
    """

    def __init__(self, name: str) -> None:
        self._rospy = import_rospy()
        require_master()
        if not self._rospy.core.is_initialized():
            self._rospy.init_node(name, anonymous=True, disable_signals=True, disable_rosout=True)
        self._publishers: dict[str, Any] = {}
        self._subscriptions: list[Any] = []
        import rosgraph

        self._master, self._master_errors = rosgraph.Master(self._rospy.get_name()), rosgraph.MasterException
        self._graph: dict[str, int] | None = None
        self._asked = -math.inf

    def start(self) -> None:
        """Nothing: rospy receives from the first subscription on."""

    def publisher(self, name: str, topic: str, reliable: bool = True, depth: int = 1) -> Any:
        """See ``RosNode``: the newest alone, without waiting for a full packet."""
        self._publishers[topic] = self._rospy.Publisher(topic, kind(name), queue_size=depth, tcp_nodelay=True)
        return self._publishers[topic]

    def subscribe(
        self,
        name: str,
        topic: str,
        callback: Callable[[Any], None],
        depth: int = 5,
        reliable: bool = False,
        latched: bool = False,
    ) -> Any:
        """See ``RosNode``. A buffer that holds several pictures, or what comes piles up in the socket."""
        made = self._rospy.Subscriber(
            topic, kind(name), callback, queue_size=depth, buff_size=1 << 24, tcp_nodelay=True
        )
        self._subscriptions.append(made)
        return made

    def unsubscribe(self, subscription: Any) -> None:
        """See ``RosNode``."""
        subscription.unregister()
        self._subscriptions.remove(subscription)

    def listeners(self, topic: str) -> int:
        """See ``RosNode``. Who does not publish a topic asks the master, five times a second."""
        publisher = self._publishers.get(topic)
        if publisher is not None:
            return int(publisher.get_num_connections())
        now = time.monotonic()
        if now > self._asked + 0.2:
            self._asked = now
            try:
                _, subscribers, _ = self._master.getSystemState()
                self._graph = {self._rospy.resolve_name(name): len(nodes) for name, nodes in subscribers}
            except (OSError, ValueError, self._master_errors):  # nodes that have met go on without a master
                self._graph = None
        return 1 if self._graph is None else self._graph.get(self._rospy.resolve_name(topic), 0)

    def unfit(self, topic: str) -> str:
        """Nothing: there is no QoS."""
        return ""

    def time(self, seconds: float) -> Any:
        """See ``RosNode``."""
        return self._rospy.Time.from_sec(seconds)

    def duration(self, seconds: float) -> Any:
        """See ``RosNode``."""
        return self._rospy.Duration.from_sec(seconds)

    def octets(self, data: bytes) -> Any:
        """See ``RosNode``."""
        return data

    def close(self) -> None:
        """Let go of the topics; the process's node stays until its end."""
        for one in (*self._publishers.values(), *self._subscriptions):
            one.unregister()
        self._publishers.clear()
        self._subscriptions.clear()


class Ros1Robot(RosRobot):
    """See ``RosRobot``.

    Args:
        config: the robot.
        sends: whether this process commands it; see ``TopicRobot``.
        watches: whether it receives pictures.

    Raises:
        MissingExtraError: there is no rospy.
        VlaError: no master answers.
    """

    capabilities = Capabilities("ros1")

    def __init__(self, config: RobotConfig, sends: bool = False, watches: bool = True) -> None:
        super().__init__(config, Node("vla_control" if sends else "vla_policy"), sends, watches)
