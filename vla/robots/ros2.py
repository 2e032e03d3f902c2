"""A robot on ROS 2, by rclpy of whatever distribution is sourced. The only file that knows rclpy.

A node has a context and a thread of its own, and leaves the process's signals alone: rclpy's own handler would tear the
context down before the arm could be told to stop.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from typing import Any

from vla.contracts.errors import MissingExtraError
from vla.robots.config import RobotConfig
from vla.robots.io import Capabilities
from vla.robots.ros import RosRobot, kind


def import_rclpy() -> Any:
    """Rclpy. Raises MissingExtraError, with what to do, where there is none."""
    try:
        import rclpy
    except ImportError as error:
        raise MissingExtraError(
            f"no rclpy for this Python ({error}): source your ROS 2 (`. /opt/ros/jazzy/setup.bash`) and use an "
            "environment made with `--system-site-packages`; to try it without ROS, see docs/robots.md"
        ) from error
    return rclpy


class Node:
    """An rclpy node in a context of its own, spun by a thread of its own; see ``RosNode``.

    Args:
        name: the node's.
    """

    def __init__(self, name: str) -> None:
        rclpy = import_rclpy()
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(name, context=self.context, enable_rosout=False, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._running = True
        self._thread = threading.Thread(target=self._spin, name=f"{name} spins", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def _spin(self) -> None:
        while self._running and self.context.ok():
            self._executor.spin_once(timeout_sec=0.1)

    def publisher(self, name: str, topic: str, reliable: bool = True, depth: int = 1) -> Any:
        """See ``RosNode``: commands are RELIABLE, the newest alone."""
        return self.node.create_publisher(kind(name), topic, self._qos(reliable, depth))

    def subscribe(
        self,
        name: str,
        topic: str,
        callback: Callable[[Any], None],
        depth: int = 5,
        reliable: bool = False,
        latched: bool = False,
    ) -> Any:
        """See ``RosNode``: BEST_EFFORT, which fits any publisher; what comes late is of no use."""
        from rclpy.qos import DurabilityPolicy

        qos = self._qos(reliable, depth)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        return self.node.create_subscription(kind(name), topic, callback, qos)

    def unsubscribe(self, subscription: Any) -> None:
        """See ``RosNode``."""
        self.node.destroy_subscription(subscription)

    def listeners(self, topic: str) -> int:
        """See ``RosNode``; of any topic, whether this node publishes it or not."""
        return self.node.count_subscribers(topic)

    def unfit(self, topic: str) -> str:
        """Why somebody who listens on a topic does not get what ``publisher`` sends; empty where all do."""
        from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

        for listener in self.node.get_subscriptions_info_by_topic(topic):
            qos = listener.qos_profile
            if qos.durability not in (DurabilityPolicy.VOLATILE, DurabilityPolicy.SYSTEM_DEFAULT):
                wanted, ours = f"durability {qos.durability.name.lower()}", "volatile"
                return f"the QoS of {listener.node_name} on {topic} does not fit: it asks for {wanted}, ours is {ours}"
            if qos.reliability == ReliabilityPolicy.UNKNOWN:
                return f"the QoS of {listener.node_name} on {topic} cannot be told"
        return ""

    @staticmethod
    def _qos(reliable: bool, depth: int) -> Any:
        from rclpy.qos import QoSProfile, ReliabilityPolicy

        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        return QoSProfile(depth=depth, reliability=policy)

    def time(self, seconds: float) -> Any:
        """See ``RosNode``."""
        from builtin_interfaces.msg import Time

        return Time(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))

    def duration(self, seconds: float) -> Any:
        """See ``RosNode``."""
        from builtin_interfaces.msg import Duration

        return Duration(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))

    def octets(self, data: bytes) -> Any:
        """See ``RosNode``."""
        return array("B", data)

    def close(self) -> None:
        """Leave ROS."""
        if self._running:
            self._running = False
            if self._thread.is_alive():
                self._thread.join(2.0)
            self._executor.shutdown(timeout_sec=1.0)
            self.node.destroy_node()
            self.context.try_shutdown()


class Ros2Robot(RosRobot):
    """See ``RosRobot``.

    Args:
        config: the robot.
        sends: whether this process commands it; see ``TopicRobot``.
        watches: whether it receives pictures.
    """

    capabilities = Capabilities("ros2")

    def __init__(self, config: RobotConfig, sends: bool = False, watches: bool = True) -> None:
        super().__init__(config, Node("vla_control" if sends else "vla_policy"), sends, watches)
