"""A robot that is reached by topics, whoever carries them: what ROS 2, ROS 1 and rosbridge have in common."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vla.robots.adapters import adapters_of, require_finite
from vla.robots.config import RobotConfig
from vla.robots.inbox import Inbox
from vla.robots.io import Capabilities, Command, Counter, Joints, Picture
from vla.robots.messages import Message

FIND_S = 5.0  # to find the controller in


class TopicRobot:
    """See ``RobotIO``. A transport gives it what comes (``inbox``), and publishes what it is given.

    Args:
        config: the robot.
        sends: whether this process commands it. One that only watches can ``stop`` an arm that would run on by itself.
    """

    capabilities = Capabilities("topics")

    def __init__(self, config: RobotConfig, sends: bool) -> None:
        self.config, self.inbox = config, Inbox(config)
        self._adapters, self._sends = adapters_of(config), sends
        self._every = max(1, round(200 / config.command.rate_hz))
        self._sent, self._undecoded = 0, ""

    @property
    def _spoken(self) -> dict[str, str]:
        """The topics that this process publishes, and what listens there: all, or those that ``stop`` needs."""
        if self._sends:
            return self.config.command_topics
        rest = {message.topic for adapter in self._adapters for message in adapter.rest(None)}
        return {topic: kind for topic, kind in self.config.command_topics.items() if topic in rest}

    # --- what a transport does -----------------------------------------------------------------------------------

    def _publish(self, message: Message) -> None:
        """Send it off; never waits."""
        raise NotImplementedError

    def _unheard(self) -> str:
        """Why our commands do not arrive; empty where they do, or where nobody can tell."""
        raise NotImplementedError

    def _leave(self) -> None:
        """Let go of the connection, once what was published last is out."""
        raise NotImplementedError

    def _take_picture(self, camera: str, stamp: float, decode: Callable[[], np.ndarray]) -> None:
        """A camera's message; one that ``decode`` raises ValueError for makes the robot unfit to drive."""
        now = time.monotonic()
        try:
            image = decode()
        except ValueError as error:
            self._undecoded = f"camera '{camera}': {error}"
            return
        self.inbox.take_picture(camera, image, stamp, now)

    # --- RobotIO -------------------------------------------------------------------------------------------------

    def joints(self) -> Joints | None:
        """See ``RobotIO.joints``."""
        return self.inbox.joints()

    def pictures(self) -> dict[str, Picture]:
        """See ``RobotIO.pictures``."""
        return self.inbox.pictures()

    def watch(self) -> Counter:
        """See ``RobotIO.watch``."""
        return self.inbox.watch()

    def missing(self, since: float = -math.inf) -> list[str]:
        """See ``RobotIO.missing``."""
        return self.inbox.missing(since)

    def send(self, command: Command) -> None:
        """See ``RobotIO.send``."""
        require_finite(command)
        self._sent += 1
        if (self._sent - 1) % self._every:
            return
        joints = self.inbox.joints()
        for adapter in self._adapters:
            for message in adapter.messages(command, joints):
                self._publish(message)

    def stop(self) -> None:
        """See ``RobotIO.stop``."""
        joints = self.inbox.joints()
        for adapter in self._adapters:
            for message in adapter.rest(joints):
                for _ in range(3):  # it is the last chance
                    self._publish(message)

    def problem(self) -> str:
        """See ``RobotIO.problem``."""
        return self._undecoded or self.inbox.problem() or self._unheard()

    def estop(self) -> str:
        """See ``RobotIO.estop``."""
        return self.inbox.estop(time.monotonic())

    def close(self) -> None:
        """See ``RobotIO.close``."""
        try:
            if self._sends:  # who only watched may have watched what somebody else drives
                self.stop()
        finally:
            self._leave()


class Listeners:
    """Tells whether each command has somebody who takes it; looks 20 times a second, however often it is asked.

    Args:
        topics: of the commands.
        count: how many listen on a topic.
        unfit: why one who listens does not get what we send, or "".
    """

    def __init__(self, topics: Any, count: Callable[[str], int], unfit: Callable[[str], str]) -> None:
        self._topics, self._count, self._unfit = tuple(topics), count, unfit
        self._begun, self._heard = time.monotonic(), False
        self._look_again, self._deaf = 0.0, ""

    def problem(self) -> str:
        """Why our commands do not arrive, or ""."""
        now = time.monotonic()
        if now < self._look_again:
            return self._deaf
        self._look_again = now + 0.05
        deaf = [topic for topic in self._topics if not self._count(topic)]
        self._deaf = ""
        if not deaf:
            self._heard = True
            self._deaf = next(filter(None, map(self._unfit, self._topics)), "")
        elif self._heard:
            self._deaf = f"nobody listens on {deaf[0]} any more: its controller is gone"
        elif now - self._begun > FIND_S:
            self._deaf = f"nobody listens on {deaf[0]}: start its controller"
        return self._deaf
