"""What came from a robot, kept until it is asked for: joints by name, in whatever order and parts; pictures by camera.

It trusts nothing: a number that is none, stamps that stand still, and a clock that jumps make the robot unfit to drive
(``problem``) or its state old (``Joints.received``), whoever carries the messages.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

from vla.robots.config import CameraConfig, RobotConfig
from vla.robots.io import Counter, Joints, Picture
from vla.robots.pictures import fit

CLOCK_JUMP_S = 0.5  # by which a stamp may be farther from the time of receiving than the one before
_LATE_S = (
    10.0  # a stamp that is further behind is another clock's, rather than that of a message which was long under way
)


class _Stamps:
    """Tells new messages from repeated ones, late ones from others, and a clock that runs from one that jumps."""

    def __init__(self, what: str) -> None:
        self.what, self.stamp, self.offset, self.shortest = what, -math.inf, math.nan, math.inf
        self.wrong = ""

    def is_new(self, stamp: float, received: float) -> bool:
        """Whether the message is a new one. A stamp of 0 tells nothing, and is taken for new."""
        if stamp <= 0.0:
            return True
        if stamp == self.stamp:
            return False
        offset = received - stamp
        before, self.offset, self.stamp = self.offset, offset, stamp
        later, sooner = offset - before, self.shortest - offset
        self.shortest = min(self.shortest, offset)
        if CLOCK_JUMP_S < later < _LATE_S:
            self.wrong = f"{self.what} has come to be {later:.1f} s late"
        elif later > CLOCK_JUMP_S or CLOCK_JUMP_S < sooner < math.inf:  # messages that catch up are no sooner than any
            self.wrong = f"the clock of {self.what} jumped by {-later:+.2f} s"
        return True

    @property
    def late(self) -> float:
        """By how much the newest message was longer under way than the fastest, seconds."""
        return max(0.0, self.offset - self.shortest) if self.shortest < math.inf else 0.0


class Inbox:
    """The newest of everything that one robot reports. One thread may put in while others ask.

    Args:
        config: the robot.
    """

    def __init__(self, config: RobotConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        gripper = (config.gripper.joint,) if config.gripper else ()
        self._index = {name: place for place, name in enumerate((*config.joints, *gripper))}
        count = len(self._index)
        self._position, self._velocity = np.zeros(count), np.full(count, np.nan)
        self._received = np.full(count, -math.inf)
        self._joint_stamps = _Stamps(config.state.topic)
        self._camera_stamps = {name: _Stamps(camera.topic) for name, camera in config.cameras.items()}
        self._pictures: dict[str, Picture] = {}
        self._estop, self._estop_at = True, -math.inf
        self._bad = ""
        self._hooks: list[Counter] = []

    def watch(self) -> Counter:
        """See ``RobotIO.watch``."""
        counter = Counter()
        self._hooks.append(counter)
        return counter

    def take_joints(
        self,
        names: Sequence[str],
        position: Sequence[float],
        velocity: Sequence[float],
        stamp: float,
        received: float,
    ) -> None:
        """A JointState, or a part of one. Joints that are none of this robot's are left out."""
        for hook in self._hooks:
            hook.tick(self.config.state.topic, received)
        with self._lock:
            if len(position) != len(names) or len(velocity) not in (0, len(names)):
                self._bad = (
                    f"{self.config.state.topic} has {len(names)} names, {len(position)} positions and "
                    f"{len(velocity)} velocities"
                )
                return
            if not self._joint_stamps.is_new(stamp, received):
                return
            for place, name in enumerate(names):
                index = self._index.get(name)
                if index is None:
                    continue
                if not math.isfinite(position[place]):
                    self._bad = f"joint '{name}' was reported as {position[place]}"
                    continue
                self._position[index] = position[place]
                self._velocity[index] = velocity[place] if len(velocity) else math.nan
                self._received[index] = received

    def take_picture(self, camera: str, image: np.ndarray, stamp: float, received: float) -> None:
        """A camera's picture, uint8 (height, width, 3), RGB, as it was published."""
        wanted: CameraConfig = self.config.cameras[camera]
        for hook in self._hooks:
            hook.tick(wanted.topic, received)
        if image.shape != (wanted.height, wanted.width, 3):
            self._bad = (
                f"camera '{camera}' sends {image.shape[0]} x {image.shape[1]}, "
                f"and its file says {wanted.height} x {wanted.width}"
            )
            return
        if not self._camera_stamps[camera].is_new(stamp, received):
            return
        taken = received - self._camera_stamps[camera].late
        self._pictures[camera] = Picture(fit(image, wanted.resize), taken, stamp)

    def take_estop(self, pressed: bool, received: float) -> None:
        """A message of the e-stop's topic."""
        self._estop, self._estop_at = pressed, received

    def joints(self) -> Joints | None:
        """See ``RobotIO.joints``."""
        with self._lock:
            oldest = float(self._received.min())
            if oldest == -math.inf:
                return None
            n, gripper = len(self.config.joints), self.config.gripper
            opening = 1.0
            if gripper:
                opening = (self._position[n] - gripper.closed) / (gripper.open - gripper.closed)
            return Joints(
                self._position[:n].copy(),
                self._velocity[:n].copy(),
                min(1.0, max(0.0, float(opening))),
                oldest,
                max(0.0, self._joint_stamps.stamp),
            )

    def missing(self, since: float = -math.inf) -> list[str]:
        """See ``RobotIO.missing``; the gripper's counts as one."""
        return [name for name, index in self._index.items() if self._received[index] <= since]

    def pictures(self) -> dict[str, Picture]:
        """See ``RobotIO.pictures``."""
        return dict(self._pictures)

    def estop(self, now: float) -> str:
        """Why the e-stop counts as pressed at ``now``; empty where it does not, or there is none."""
        wanted = self.config.estop
        if wanted is None:
            return ""
        if now - self._estop_at > wanted.max_age_s:
            return f"the e-stop {wanted.topic} is silent"
        return f"the e-stop {wanted.topic} is pressed" if self._estop else ""

    def problem(self) -> str:
        """What came that no robot in order sends; empty where nothing did. It stays."""
        stamps = (self._joint_stamps, *self._camera_stamps.values())
        return self._bad or next((one.wrong for one in stamps if one.wrong), "")
