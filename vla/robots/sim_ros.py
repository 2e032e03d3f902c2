"""The simulated robot on either ROS: joint_states, cameras with camera_info, and the controllers' topics.

Beside what a real robot has there are three topics of its own: ``/sim/report`` (a JSON text: success, progress, …),
``/sim/reset`` (JSON: seed, instruction, …) and ``/sim/break`` (the name of a fault, for trying what happens then).
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.robots.messages import COMMAND_KINDS, Floats, Message, Point, Trajectory
from vla.robots.ros import RosNode, kind, seconds_of
from vla.robots.simulated import PERIOD, SimulatedRobot

# What can be broken, and what it stands for.
FAULTS = {
    "gone": "the controller is gone: its subscriptions are closed",
    "rejects": "the controller refuses every command",
    "silent joints": "no joint states any more",
    "frozen stamps": "joint states come on, with one stamp for ever",
    "missing joint": "the last joint is reported no more",
    "shuffled joints": "joints come in another order each time, in two parts: no fault, all must go on",
    "nan joints": "a joint is measured as NaN",
    "no scene": "the camera scene is silent",
    "late images": "pictures come a second late",
    "dropped images": "every second picture is lost: no fault, all must go on",
    "clock jump": "the robot's clock jumps an hour ahead",
    "estop": "the e-stop's topic says true",
    "": "all is mended",
}


class RosLikeness:
    """Publishes a simulated robot, and takes commands for it.

    Args:
        robot: which; its episode has begun.
        node: of either ROS; closed at the end.
        seed, options: of that episode.
        strict_qos: ask for commands with a QoS that ours do not have (durability transient local).
        instruction: told on ``/sim/report``.
    """

    def __init__(
        self, robot: SimulatedRobot, node: RosNode, seed: int, options: dict[str, Any], strict_qos: bool = False
    ) -> None:
        self.robot, self.config = robot, robot.config
        self._seed, self._options = seed, options
        self._node, self._strict = node, strict_qos
        self._inbox: deque[Callable[[], Any]] = deque()
        self._subscriptions: list[Any] = []
        self._shift = 0.0  # of the robot's clock, seconds
        self._frozen: Any = None
        self._late: deque[tuple[float, str, np.ndarray, Any]] = deque()
        self._frames, self._reset = 0, 0
        self._instruction = ""
        self._make_publishers()
        self._listen()
        self._listen_to_us()
        self._node.start()

    # --- topics --------------------------------------------------------------------------------------------------

    def _make_publishers(self) -> None:
        def sensor(name: str, topic: str, depth: int = 5) -> Any:
            return self._node.publisher(name, topic, reliable=False, depth=depth)

        self._joints = sensor("JointState", self.config.state.topic)
        self._images = {name: sensor("Image", camera.topic, 1) for name, camera in self.config.cameras.items()}
        self._infos = {
            name: sensor("CameraInfo", camera.topic.rpartition("/")[0] + "/camera_info")
            for name, camera in self.config.cameras.items()
        }
        self._report = self._node.publisher("String", "/sim/report")
        self._estop = self._node.publisher("Bool", self.config.estop.topic) if self.config.estop else None

    def _listen(self) -> None:
        for topic, adapter in self.config.command_topics.items():
            take = lambda message, topic=topic: self._take(topic, message)
            self._subscriptions.append(
                self._node.subscribe(COMMAND_KINDS[adapter], topic, take, 1, reliable=True, latched=self._strict)
            )

    def _listen_to_us(self) -> None:
        def on(topic: str, do: Callable[[str], None]) -> None:
            later = lambda message: self._inbox.append(lambda: do(message.data))
            self._node.subscribe("String", topic, later, 10, reliable=True)

        on("/sim/break", self.break_)
        on("/sim/reset", self._begin_again)

    def _take(self, topic: str, message: Any) -> None:
        start = 0.0
        if hasattr(message, "header"):  # in the robot's own time, which is what its controller goes by
            stamp = seconds_of(message.header.stamp)
            start = 0.0 if stamp == 0 else self.robot.time + stamp - self._now()
        told = command_of(topic, message)
        self._inbox.append(lambda: self.robot.take(told, start))

    # --- what goes on --------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return time.time() + self._shift

    def _stamp(self, now: float | None = None) -> Any:
        return self._node.time(self._now() if now is None else now)

    def break_(self, fault: str) -> None:
        """Have a fault from now on; see ``FAULTS``. Raises VlaError for one that is not known."""
        if fault not in FAULTS:
            raise VlaError(f"there is no fault '{fault}'; there are {', '.join(filter(None, FAULTS))}")
        before, self.robot.fault = self.robot.fault, fault
        self._frozen = self._stamp()
        self._shift = 3600.0 if fault == "clock jump" else 0.0
        if fault == "gone":
            for one in self._subscriptions:
                self._node.unsubscribe(one)
            self._subscriptions.clear()
        elif before == "gone":
            self._listen()

    def _begin_again(self, text: str) -> None:
        try:
            wanted = json.loads(text)
            self._seed = int(wanted.pop("seed", self._seed))
            self._options = dict(wanted)
            self.begin()
        except (ValueError, AttributeError, TypeError, VlaError) as error:
            self.robot.refused = f"/sim/reset: {error}"

    def begin(self) -> None:
        """Begin the episode."""
        self._instruction = str(self.robot.begin(self._seed, self._options)["instruction"])
        self._reset += 1

    def spin(self, running: Callable[[], bool]) -> None:
        """Go on, in real time, while ``running`` says so."""
        slowest = min(camera.rate_hz for camera in self.config.cameras.values())
        next_picture = next_report = time.monotonic()
        while running():
            while self._inbox:
                self._inbox.popleft()()
            now = time.monotonic()
            if self.robot.advance(now):
                self._publish_joints()
            if now >= next_picture:
                self._publish_pictures()
                next_picture = max(next_picture + 1.0 / slowest, time.monotonic())
            if now >= next_report:
                self._publish_report()
                next_report = now + 0.1
            time.sleep(max(0.0, PERIOD - (time.monotonic() - now)))

    def _publish_joints(self) -> None:
        fault = self.robot.fault
        if fault == "silent joints":
            return
        q, velocity, opening = self.robot.measured()
        names, position, speed = [*self.config.joints], [*q], [*velocity]
        gripper = self.config.gripper
        if gripper:
            names.append(gripper.joint)
            position.append(gripper.closed + opening * (gripper.open - gripper.closed))
            speed.append(0.0)
        order = sorted(range(len(names)), key=lambda place: names[place])
        parts = [order]
        if fault == "missing joint":
            parts = [[place for place in order if place != len(q) - 1]]
        elif fault == "nan joints":
            position[2] = float("nan")
        elif fault == "shuffled joints":
            mixed = [int(place) for place in np.random.default_rng(int(self.robot.time * 200)).permutation(len(names))]
            parts = [mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]]
        for number, part in enumerate(parts):
            stamp = self._frozen if fault == "frozen stamps" else self._stamp(self._now() + 1e-6 * number)
            message = kind("JointState")(
                name=[names[place] for place in part],
                position=[float(position[place]) for place in part],
                velocity=[float(speed[place]) for place in part],
            )
            message.header.stamp = stamp
            self._joints.publish(message)

    def _publish_pictures(self) -> None:
        fault = self.robot.fault
        self._frames += 1
        if fault == "dropped images" and self._frames % 2:
            return
        stamp, now = self._stamp(), time.monotonic()
        for name, image in self.robot.pictures().items():
            if not (fault == "no scene" and name == "scene"):
                self._late.append((now + (1.0 if fault == "late images" else 0.0), name, image, stamp))
        while self._late and self._late[0][0] <= time.monotonic():
            _, name, image, when = self._late.popleft()
            self._publish_picture(name, image, when)

    def _publish_picture(self, name: str, image: np.ndarray, stamp: Any) -> None:
        camera = self.config.cameras[name]
        height, width = image.shape[:2]
        message = kind("Image")(height=height, width=width, encoding="rgb8", step=3 * width)
        message.header.stamp, message.header.frame_id = stamp, f"{name}_optical_frame"
        # Not a list, which ROS 2 would look at byte by byte; ROS 1 takes bytes alone.
        message.data = self._node.octets(image.tobytes())
        self._images[name].publish(message)
        fx, fy, cx, cy = camera.intrinsics or (0.0, 0.0, 0.0, 0.0)
        info = kind("CameraInfo")(height=height, width=width, distortion_model="plumb_bob")
        info.header = message.header
        matrices = {
            "d": [0.0] * 5,
            "k": [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
            "p": [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
            "r": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        }
        for letter, values in matrices.items():  # capitals in ROS 1
            setattr(info, letter if hasattr(info, letter) else letter.upper(), values)
        self._infos[name].publish(info)

    def _publish_report(self) -> None:
        told = {**self.robot.report, "seed": self._seed, "instruction": self._instruction, "episode": self._reset}
        self._report.publish(kind("String")(data=json.dumps(told, ensure_ascii=False)))
        if self._estop:
            self._estop.publish(kind("Bool")(data=self.robot.fault == "estop"))

    def close(self) -> None:
        """Leave ROS."""
        self._node.close()


def command_of(topic: str, message: Any) -> Message:
    """A command as it was before it became a message of either ROS."""
    if hasattr(message, "points"):
        points = tuple(
            Point(tuple(p.positions), tuple(p.velocities), seconds_of(p.time_from_start)) for p in message.points
        )
        return Trajectory(topic, tuple(message.joint_names), points)
    return Floats(topic, tuple(message.data))
