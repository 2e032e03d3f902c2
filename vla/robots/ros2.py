"""A robot on ROS 2, by rclpy of whatever distribution is sourced. The only file that speaks to it, but its likeness.

A node has a context and a thread of its own, and leaves the process's signals alone: rclpy's own handler would tear the
context down before the arm could be told to stop.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any

from vla.contracts.errors import MissingExtraError
from vla.robots.adapters import Message, Trajectory, adapters_of, require_finite
from vla.robots.config import RobotConfig
from vla.robots.inbox import Inbox
from vla.robots.io import Capabilities, Command, Counter, Joints, Picture
from vla.robots.pictures import from_compressed, from_message

_FIND_S = 5.0  # to find the controller in


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
    """An rclpy node in a context of its own, spun by a thread of its own.

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

    def publisher(self, kind: Any, topic: str) -> Any:
        """RELIABLE, the newest alone."""
        return self.node.create_publisher(kind, topic, self._reliable())

    def subscribe(self, kind: Any, topic: str, callback: Any, depth: int = 5) -> None:
        """BEST_EFFORT, which fits any publisher; what comes late is of no use."""
        from rclpy.qos import QoSProfile, ReliabilityPolicy

        qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.node.create_subscription(kind, topic, callback, qos)

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
    def _reliable() -> Any:
        from rclpy.qos import QoSProfile, ReliabilityPolicy

        return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)

    def close(self) -> None:
        """Leave ROS."""
        if self._running:
            self._running = False
            if self._thread.is_alive():
                self._thread.join(2.0)
            self._executor.shutdown(timeout_sec=1.0)
            self.node.destroy_node()
            self.context.try_shutdown()


class Ros2Robot:
    """See ``RobotIO``.

    Args:
        config: the robot.
        sends: whether this process commands it; one that only watches makes no publisher.
        watches: whether it receives pictures.
    """

    capabilities = Capabilities("ros2")

    def __init__(self, config: RobotConfig, sends: bool = False, watches: bool = True) -> None:
        self.config, self._inbox = config, Inbox(config)
        self._node = Node("vla_control" if sends else "vla_policy")
        self._adapters = adapters_of(config) if sends else []
        self._every = max(1, round(200 / config.command.rate_hz))
        self._sent, self._publishers = 0, dict[str, Any]()
        self._begun, self._heard = time.monotonic(), False
        self._look_again, self._deaf = 0.0, ""
        self._undecoded = ""
        self._subscribe(watches)
        if sends:
            self._advertise()
        self._node.start()

    def _subscribe(self, watches: bool) -> None:
        from sensor_msgs.msg import CompressedImage, Image, JointState
        from std_msgs.msg import Bool

        node, config = self._node, self.config
        node.subscribe(JointState, config.state.topic, self._take_joints, depth=10)
        if config.estop:
            node.subscribe(Bool, config.estop.topic, self._take_estop)
        for name, camera in config.cameras.items() if watches else ():
            compressed = camera.topic.endswith("/compressed")
            take = self._take_compressed if compressed else self._take_image
            kind = CompressedImage if compressed else Image
            node.subscribe(kind, camera.topic, lambda message, name=name, take=take: take(name, message), depth=1)

    def _advertise(self) -> None:
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory

        for topic, adapter in self.config.command_topics.items():
            kind = JointTrajectory if adapter == "joint_trajectory" else Float64MultiArray
            self._publishers[topic] = self._node.publisher(kind, topic)

    # --- what comes ----------------------------------------------------------------------------------------------

    def _take_joints(self, message: Any) -> None:
        stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        self._inbox.take_joints(message.name, message.position, message.velocity, stamp, time.monotonic())

    def _take_estop(self, message: Any) -> None:
        self._inbox.take_estop(bool(message.data), time.monotonic())

    def _take_image(self, name: str, message: Any) -> None:
        now = time.monotonic()
        try:
            image = from_message(message.data, message.encoding, message.height, message.width, message.step)
        except ValueError as error:
            self._undecoded = f"camera '{name}': {error}"
            return
        self._inbox.take_picture(name, image, message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec, now)

    def _take_compressed(self, name: str, message: Any) -> None:
        now = time.monotonic()
        try:
            image = from_compressed(message.data)
        except ValueError as error:
            self._undecoded = f"camera '{name}': {error}"
            return
        self._inbox.take_picture(name, image, message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec, now)

    # --- RobotIO -------------------------------------------------------------------------------------------------

    def joints(self) -> Joints | None:
        """See ``RobotIO.joints``."""
        return self._inbox.joints()

    def pictures(self) -> dict[str, Picture]:
        """See ``RobotIO.pictures``."""
        return self._inbox.pictures()

    def watch(self) -> Counter:
        """See ``RobotIO.watch``."""
        return self._inbox.watch()

    def missing(self, since: float = -math.inf) -> list[str]:
        """The joints that were not reported after ``since``, ``time.monotonic`` seconds; by default, never."""
        return self._inbox.missing(since)

    def send(self, command: Command) -> None:
        """See ``RobotIO.send``."""
        require_finite(command)
        self._sent += 1
        if (self._sent - 1) % self._every:
            return
        joints = self._inbox.joints()
        for adapter in self._adapters:
            for message in adapter.messages(command, joints):
                self._publish(message)

    def _publish(self, message: Message) -> None:
        from builtin_interfaces.msg import Duration
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        publisher = self._publishers[message.topic]
        if isinstance(message, Trajectory):
            points = [
                JointTrajectoryPoint(
                    positions=point.positions,
                    velocities=point.velocities,
                    time_from_start=Duration(sec=int(point.time), nanosec=int(point.time % 1 * 1e9)),
                )
                for point in message.points
            ]
            publisher.publish(JointTrajectory(joint_names=message.joints, points=points))
        else:
            publisher.publish(Float64MultiArray(data=message.data))

    def stop(self) -> None:
        """See ``RobotIO.stop``."""
        joints = self._inbox.joints()
        for adapter in self._adapters:
            for message in adapter.rest(joints):
                for _ in range(3):  # it is the last chance
                    self._publish(message)

    def problem(self) -> str:
        """See ``RobotIO.problem``."""
        return self._undecoded or self._inbox.problem() or self._unheard()

    def _unheard(self) -> str:
        """Why our commands do not arrive; looked at 20 times a second."""
        now = time.monotonic()
        if now < self._look_again:
            return self._deaf
        self._look_again = now + 0.05
        deaf = [topic for topic in self.config.command_topics if not self._node.node.count_subscribers(topic)]
        self._deaf = ""
        if not deaf:
            self._heard = True
            self._deaf = next(filter(None, map(self._node.unfit, self.config.command_topics)), "")
        elif self._heard:
            self._deaf = f"nobody listens on {deaf[0]} any more: its controller is gone"
        elif now - self._begun > _FIND_S:
            self._deaf = f"nobody listens on {deaf[0]}: start its controller"
        return self._deaf

    def estop(self) -> str:
        """See ``RobotIO.estop``."""
        return self._inbox.estop(time.monotonic())

    def close(self) -> None:
        """See ``RobotIO.close``."""
        self.stop()
        if self._publishers:
            time.sleep(0.05)  # what was sent last leaves before the node does
        self._node.close()
