"""The simulated robot in a process beside us, without any middleware: ``vla deploy --robot sim``.

It goes on by itself, as a real arm does. Shared memory takes the place of the wire; commands pass through the same
adapters and the same controllers as on ROS 2.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.contracts.errors import one_line
from vla.control.shared import Mailbox
from vla.robots.adapters import adapters_of, require_finite
from vla.robots.config import RobotConfig
from vla.robots.io import Capabilities, Command, Counter, Joints, Picture
from vla.robots.pictures import fit

_TEXT = 4096  # bytes of a report
_LINGERS_S = 1.0  # after its parent is gone: long enough to see that the arm rests


@dataclass(frozen=True)
class Episode:
    """What is played.

    Attributes:
        env: its name.
        seed, options: of ``reset``.
        replaces: see ``TrajectoryController``.
        trace: where the motion is written at the end: ``time`` (s, monotonic), ``q``, ``velocity``; None for nowhere.
    """

    env: str = "tidy_desk"
    seed: int = 0
    options: tuple[tuple[str, Any], ...] = ()
    replaces: bool = False
    trace: Path | None = None


@dataclass(frozen=True)
class Boxes:
    """What the processes share: commands and orders go to the robot, the rest comes from it."""

    commands: Mailbox
    orders: Mailbox
    joints: Mailbox
    report: Mailbox
    pictures: dict[str, Mailbox]

    @classmethod
    def make(cls, config: RobotConfig) -> Boxes:
        """New ones, for a robot."""
        n = len(config.joints)
        times = [("time", "f8")]
        command = [("q", "f8", n), ("velocity", "f8", n), ("gripper", "f8")]
        picture = {
            name: Mailbox([*times, ("image", "u1", (camera.height, camera.width, 3))])
            for name, camera in config.cameras.items()
        }
        text = [("text", f"S{_TEXT}")]
        return cls(
            Mailbox([*times, *command]), Mailbox([("quit", "i8"), *text]), Mailbox([*times, *command]),
            Mailbox([*times, *text]), picture,
        )  # fmt: skip

    def close(self) -> None:
        """Let go of them all."""
        for box in (self.commands, self.orders, self.joints, self.report, *self.pictures.values()):
            box.close()


class SimRobot:
    """See ``RobotIO``. Several processes may have one on the same boxes.

    Args:
        config: the robot.
        boxes: of the process that plays it.
        sends: whether this one commands it.
    """

    capabilities = Capabilities("sim")

    def __init__(self, config: RobotConfig, boxes: Boxes, sends: bool = False) -> None:
        self.config, self._boxes, self._sends = config, boxes, sends
        self._counters: list[Counter] = []
        self._joints: Joints | None = None
        self._pictures: dict[str, Picture] = {}
        self._lock = threading.Lock()  # who decides and who watches are threads of one process

    def joints(self) -> Joints | None:
        """See ``RobotIO.joints``."""
        box = self._boxes.joints
        with self._lock:
            if box.read():
                seen: Any = box.seen
                now = float(seen["time"])
                self._joints = Joints(seen["q"].copy(), seen["velocity"].copy(), float(seen["gripper"]), now, now)
                for one in self._counters:
                    one.tick(self.config.state.topic, now)
            return self._joints

    def pictures(self) -> dict[str, Picture]:
        """See ``RobotIO.pictures``."""
        with self._lock:
            for name, box in self._boxes.pictures.items():
                if box.read():
                    seen: Any = box.seen
                    now, camera = float(seen["time"]), self.config.cameras[name]
                    self._pictures[name] = Picture(fit(seen["image"], camera.resize), now, now)
                    for one in self._counters:
                        one.tick(camera.topic, now)
            return dict(self._pictures)

    def watch(self) -> Counter:
        """See ``RobotIO.watch``."""
        self._counters.append(Counter())
        return self._counters[-1]

    def missing(self, since: float = -math.inf) -> list[str]:
        """The joints that were not reported after ``since``, ``time.monotonic`` seconds; by default, never."""
        joints = self.joints()
        return [] if joints and joints.received > since else list(self.config.joints)

    def send(self, command: Command) -> None:
        """See ``RobotIO.send``."""
        require_finite(command)
        draft: Any = self._boxes.commands.draft
        draft["time"], draft["q"], draft["velocity"] = time.monotonic(), command.q, command.velocity
        draft["gripper"] = command.gripper
        self._boxes.commands.publish()

    def stop(self) -> None:
        """See ``RobotIO.stop``: what was sent last ends at rest, or the controller stays there."""

    def problem(self) -> str:
        """See ``RobotIO.problem``."""
        return ""

    def estop(self) -> str:
        """See ``RobotIO.estop``."""
        return ""

    def close(self) -> None:
        """See ``RobotIO.close``."""
        if self._sends:
            self._boxes.close()


class SimProcess:
    """Starts the process, and asks it how the episode stands.

    Args:
        config: the robot.
        episode: what is played.

    Attributes:
        info: of the env's ``reset``, once started.
    """

    def __init__(self, config: RobotConfig, episode: Episode) -> None:
        self.config = config
        self._boxes = Boxes.make(config)
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(config, episode, self._boxes, theirs), daemon=False)
        self._process.start()
        theirs.close()
        try:
            if not mine.poll(120.0):
                raise VlaError("the simulated robot did not start within 120 s")
            answer = mine.recv()
        except EOFError:
            answer = "its process ended"
        except BaseException:
            self.close()
            raise
        if isinstance(answer, str):
            self.close()
            raise VlaError(f"the simulated robot did not start: {answer}")
        self.info: dict[str, Any] = answer

    def robot(self) -> SimRobot:
        """For the policy's process."""
        return SimRobot(self.config, self._boxes)

    def make_robot(self) -> partial[SimRobot]:
        """For the control process."""
        return partial(SimRobot, self.config, self._boxes, True)

    def report(self) -> dict[str, Any]:
        """See ``SimulatedRobot.report``; empty before the first."""
        self._boxes.report.read()
        text = bytes(self._boxes.report.seen["text"]).rstrip(b"\0")
        return json.loads(text) if text else {}

    def break_(self, fault: str) -> None:
        """Have a fault from now on: ``silent joints``, ``nan joints``, ``rejects``, ``no scene``; "" mends it."""
        self._boxes.orders.draft["text"] = fault.encode()
        self._boxes.orders.publish()

    def close(self) -> None:
        """End the process."""
        self._boxes.orders.draft["quit"] = 1
        self._boxes.orders.publish()
        self._process.join(10.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._boxes.close()


def _main(config: RobotConfig, episode: Episode, boxes: Boxes, answers: Any) -> None:
    """The other process."""
    from vla.host.interrupt import leave_signals_to_parent

    leave_signals_to_parent()
    os.environ["OMP_NUM_THREADS"] = os.environ["LP_NUM_THREADS"] = "1"
    from vla.robots.simulated import SimulatedRobot

    try:
        robot = SimulatedRobot(config, episode.env, replaces=episode.replaces)
        info = robot.begin(episode.seed, dict(episode.options))
        info = {key: info[key] for key in ("instruction", "language", "kind", "category") if key in info}
    except BaseException as error:
        answers.send(one_line(error))
        raise SystemExit(1) from error
    answers.send(info)
    answers.close()
    _Playing(robot, boxes, episode.trace).run()
    robot.close()
    boxes.close()


class _Playing:
    """The robot's own loop."""

    def __init__(self, robot: Any, boxes: Boxes, trace: Path | None) -> None:
        self._robot, self._boxes, self._trace = robot, boxes, trace
        self._adapters = adapters_of(robot.config)
        self._moved: list[tuple[float, np.ndarray, np.ndarray]] = []

    def run(self) -> None:
        robot, boxes, parent = self._robot, self._boxes, os.getppid()
        period = 1.0 / min(camera.rate_hz for camera in robot.config.cameras.values())
        next_picture, orphaned = time.monotonic(), 0.0
        while not boxes.orders.seen["quit"]:
            now = time.monotonic()
            if os.getppid() != parent:
                orphaned = orphaned or now
                if now - orphaned > _LINGERS_S:
                    break
            if boxes.orders.read():
                robot.fault = bytes(boxes.orders.seen["text"]).rstrip(b"\0").decode()
            self._take()
            if robot.advance(now):
                self._tell_joints()
            if now >= next_picture:
                self._tell_pictures()
                next_picture = max(next_picture + period, time.monotonic())
            time.sleep(max(0.0, 0.005 - (time.monotonic() - now)))
        if self._trace is not None:
            times, q, velocity = map(np.array, zip(*self._moved, strict=True))
            np.savez(self._trace, time=times, q=q, velocity=velocity)

    def _take(self) -> None:
        if not self._boxes.commands.read():
            return
        seen: Any = self._boxes.commands.seen
        q, velocity, opening = self._robot.measured()
        now = Joints(q, velocity, opening, time.monotonic())
        command = Command(seen["q"].copy(), seen["velocity"].copy(), float(seen["gripper"]))
        for adapter in self._adapters:
            for message in adapter.messages(command, now):
                self._robot.take(message)

    def _tell_joints(self) -> None:
        q, velocity, opening = self._robot.measured()
        now, fault = time.monotonic(), self._robot.fault
        if self._trace is not None:
            self._moved.append((now, q, velocity))
        if fault == "silent joints":
            return
        draft: Any = self._boxes.joints.draft
        draft["time"], draft["q"], draft["velocity"], draft["gripper"] = now, q, velocity, opening
        if fault == "nan joints":
            draft["q"][2] = np.nan
        self._boxes.joints.publish()

    def _tell_pictures(self) -> None:
        now = time.monotonic()
        for name, image in self._robot.pictures().items():
            if self._robot.fault == "no scene" and name == "scene":
                continue
            box = self._boxes.pictures[name]
            box.draft["time"], box.draft["image"] = now, image
            box.publish()
        report = self._boxes.report
        report.draft["time"], report.draft["text"] = now, json.dumps(self._robot.report).encode()[:_TEXT]
        report.publish()
