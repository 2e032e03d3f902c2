"""A deployment written down as a rosbag2 in MCAP: what came, what was told, what happened. ROS itself is not needed.

``vla bag import`` makes a dataset of it, and any ROS 2 tool plays it.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.contracts.errors import MissingExtraError
from vla.control.process import ControlProcess
from vla.robots.config import RobotConfig
from vla.robots.io import RobotIO

COMMAND, EVENTS = "/vla/command", "/vla/events"
_HZ = 100.0


def import_rosbags() -> Any:
    """Rosbags. Raises MissingExtraError where it is not installed."""
    try:
        import rosbags.highlevel
        import rosbags.rosbag2
        import rosbags.typesys
    except ImportError as error:
        raise MissingExtraError("bags need the package rosbags: pip install 'vla[bags]'") from error
    return rosbags


class BagRecorder:
    """Writes a bag from a thread of its own, while it is open.

    Args:
        folder: the bag, which ROS 2 wants to be a folder; it must not exist.
        config: the robot.
        robot: it, watching.
        control: what is told to it.
        instruction: what was asked; goes to the events.

    Raises:
        VlaError: the folder exists, or can't be made.
    """

    def __init__(
        self, folder: Path, config: RobotConfig, robot: RobotIO, control: ControlProcess, instruction: str
    ) -> None:
        rosbags = import_rosbags()
        if folder.exists():
            raise VlaError(f"--record {folder} is there already; name another, or delete it")
        self.config, self._robot, self._control = config, robot, control
        self._store = rosbags.typesys.get_typestore(rosbags.typesys.Stores.ROS2_JAZZY)
        plugin = rosbags.rosbag2.StoragePlugin.MCAP
        self._writer = rosbags.rosbag2.Writer(folder, version=9, storage_plugin=plugin)
        self._instruction, self._running = instruction, False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._record, name="records", daemon=True)
        self._last: dict[str, float] = {}
        self.failed = ""

    def __enter__(self) -> BagRecorder:
        try:
            self._writer.open()
        except OSError as error:
            raise VlaError(f"cannot record there: {error.strerror or error}") from error
        kinds = {self.config.state.topic: "sensor_msgs/msg/JointState", COMMAND: "sensor_msgs/msg/JointState"}
        kinds |= {self._picture_topic(name): "sensor_msgs/msg/CompressedImage" for name in self.config.cameras}
        kinds[EVENTS] = "std_msgs/msg/String"
        self._topics = {
            topic: (self._writer.add_connection(topic, kind, typestore=self._store), kind)
            for topic, kind in kinds.items()
        }
        self._running = True
        self._thread.start()
        self.event(f"instruction: {self._instruction}")
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        self._thread.join()
        with self._lock:
            self._writer.close()

    def event(self, text: str) -> None:
        """Note what happened now."""
        if not self.failed:
            self._write(EVENTS, time.monotonic(), self._store.types["std_msgs/msg/String"](data=text))

    def _picture_topic(self, name: str) -> str:
        topic = self.config.cameras[name].topic
        return topic if topic.endswith("/compressed") else f"{topic}/compressed"

    def _record(self) -> None:
        while self._running and not self.failed:
            begun = time.monotonic()
            try:
                self._joints()
                self._pictures()
            except VlaError:
                return  # the control process has ended
            except OSError as error:  # a full disk ends the recording, not the motion
                self.failed = f"the recording ended early: {error.strerror or error}"
            time.sleep(max(0.0, 1.0 / _HZ - (time.monotonic() - begun)))

    def _joints(self) -> None:
        joints, state, gripper = self._robot.joints(), self._control.state(), self.config.gripper
        names = [*self.config.joints, *([gripper.joint] if gripper else [])]

        def whole(values: np.ndarray, last: float) -> np.ndarray:
            return np.array([*values, *([last] if gripper else [])])

        def at(opening: float) -> float:
            return gripper.closed + opening * (gripper.open - gripper.closed) if gripper else 0.0

        if joints is not None and self._new(self.config.state.topic, joints.received):
            q, velocity = whole(joints.q, at(joints.gripper)), whole(joints.velocity, 0.0)
            self._write_joints(self.config.state.topic, joints.received, names, q, velocity)
        if state is not None and self._new(COMMAND, state.time):
            q, velocity = whole(state.command, at(state.command_gripper)), whole(state.command_velocity, 0.0)
            self._write_joints(COMMAND, state.time, names, q, velocity)

    def _pictures(self) -> None:
        import cv2

        for name, picture in self._robot.pictures().items():
            topic = self._picture_topic(name)
            if self._new(topic, picture.received):
                data = cv2.imencode(".png", picture.image[..., ::-1])[1].ravel()
                kind = self._store.types["sensor_msgs/msg/CompressedImage"]
                message = kind(header=self._header(picture.received, name), format="png", data=data)
                self._write(topic, picture.received, message)

    def _new(self, topic: str, when: float) -> bool:
        before, self._last[topic] = self._last.get(topic), when
        return before != when

    def _write_joints(self, topic: str, when: float, names: list[str], q: np.ndarray, velocity: np.ndarray) -> None:
        kind = self._store.types["sensor_msgs/msg/JointState"]
        message = kind(header=self._header(when, ""), name=names, position=q, velocity=velocity, effort=np.zeros(0))
        self._write(topic, when, message)

    def _header(self, when: float, frame: str) -> Any:
        types, nanoseconds = self._store.types, self._wall(when)
        stamp = types["builtin_interfaces/msg/Time"](sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)

    @staticmethod
    def _wall(when: float) -> int:
        """A time of ``time.monotonic`` as nanoseconds of the clock on the wall."""
        return int(1e9 * (time.time() - time.monotonic() + when))

    def _write(self, topic: str, when: float, message: Any) -> None:
        connection, kind = self._topics[topic]
        data = self._store.serialize_cdr(message, kind)
        with self._lock:
            self._writer.write(connection, self._wall(when), data)
