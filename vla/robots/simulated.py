"""A robot that is not there: an env's arm and desk in real time, with joint states, cameras and a controller.

Its servos, controller and clock go on whether anybody asks or not, as a real arm's do. ``vla.robots.sim`` runs it in a
process beside ``vla deploy``, ``vla.robots.sim_ros2`` puts it on ROS 2.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.contracts.abilities import DrivesJoints
from vla.robots.adapters import Floats, Message, Trajectory
from vla.robots.config import RobotConfig
from vla.robots.controllers import ForwardController, TrajectoryController

PERIOD = 1.0 / 200
STILL = 0.03  # rad/s, below which every joint counts as at rest
_SLIP_S = 0.1  # by which the physics may be behind before it gives up catching up


class SimulatedRobot:
    """The robot ``config`` tells of, played by an env.

    Args:
        config: whose joints, topics, cameras and adapters it has.
        env_name: an env that can be driven by joint targets.
        env_options: for the env.
        replaces: see ``TrajectoryController``.

    Attributes:
        time: seconds that the physics has played.
        slipped: seconds that it could not catch up with.
        result: of the last action's time; None before the first.
        refused: why the controller refused the last message that it did; empty where it took all.
        fault: what is broken on purpose: see ``break_``.
    """

    def __init__(
        self, config: RobotConfig, env_name: str, env_options: dict[str, Any] | None = None, replaces: bool = False
    ) -> None:
        from vla.registry import make_env

        self.config, self._replaces = config, replaces
        env: Any = make_env(env_name, **(env_options or {}))
        if not isinstance(env, DrivesJoints):
            raise VlaError(f"the env '{env_name}' cannot play a robot: it has no drive() for joint targets")
        self._env: Any = env
        wanted = {name: (c.height, c.width) for name, c in config.cameras.items()}
        found = {camera.name: (camera.height, camera.width) for camera in env.env_spec.cameras}
        if wanted != found:
            raise VlaError(f"{config.path} has the cameras {wanted}, and the env '{env_name}' has {found}")
        self.fault = ""

    def begin(self, seed: int, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Begin an episode of the env; returns its info, the instruction among it."""
        _, info = self._env.reset(seed=seed, options=options or None)
        q, _, opening = self._env.measured()
        if len(q) != len(self.config.joints):
            raise VlaError(f"{self.config.name} has {len(self.config.joints)} joints, and the env's arm has {len(q)}")
        adapter = self.config.command.adapter
        if adapter == "joint_trajectory":
            self._arm: Any = TrajectoryController(self.config.joints, q, self._replaces)
        else:
            self._arm = ForwardController(q, adapter == "forward_velocity")
        self.opening = opening
        self.time = self.slipped = self._moved = 0.0
        self.result: Any = None
        self.refused = ""
        self._zero = time.monotonic()
        return info

    def take(self, message: Message, stamp: float = 0.0) -> str:
        """A message for the arm's or the gripper's controller. Returns why it is refused, or ""."""
        if self.fault == "gone":
            return ""
        if self.fault == "rejects":
            self.refused = "told to refuse everything"
            return self.refused
        gripper = self.config.gripper
        if message.topic == self.config.command.topic:
            if isinstance(message, Trajectory) and isinstance(self._arm, TrajectoryController):
                points = [(p.positions, p.velocities, p.time) for p in message.points]
                self.refused = self._arm.take(message.joints, points, stamp, self.time, self._env.measured()[0])
            elif isinstance(message, Floats) and isinstance(self._arm, ForwardController):
                self.refused = self._arm.take(message.data, self.time)
        elif gripper and message.topic == gripper.topic:
            value = message.data[0] if isinstance(message, Floats) else message.points[-1].positions[0]
            if np.isfinite(value):
                self.opening = min(1.0, max(0.0, (value - gripper.closed) / (gripper.open - gripper.closed)))
        return self.refused

    def advance(self, now: float) -> int:
        """Play the physics up to ``now`` (``time.monotonic``); returns how many control periods that took.

        A machine that is too slow lets the robot's time slip against the clock on the wall, and counts it.
        """
        behind = now - self._zero - self.slipped - self.time
        if behind > _SLIP_S:
            self.slipped += behind - _SLIP_S
            behind = _SLIP_S
        ticks = int(behind / PERIOD)
        for _ in range(ticks):
            self.tick()
        return ticks

    def tick(self) -> None:
        """One control period."""
        q, _ = self._arm.sample(self.time + PERIOD)
        result = self._env.drive(q, self.opening)
        self.time += PERIOD
        self.result = result or self.result
        if np.abs(self._env.measured()[1]).max() > STILL:
            self._moved = self.time

    def measured(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Joint positions, rad, velocities, rad/s, (N,) each, and the gripper's opening."""
        return self._env.measured()

    def pictures(self) -> dict[str, np.ndarray]:
        """A picture from each camera, uint8 (height, width, 3)."""
        return self._env.observe().images

    @property
    def report(self) -> dict[str, Any]:
        """How the episode stands: what nobody on a real robot could know."""
        info = self.result.info if self.result else {}
        return {
            "time_s": round(self.time, 3),
            "slipped_s": round(self.slipped, 3),
            "still_s": round(self.time - self._moved, 3),
            "success": bool(info.get("success", False)),
            "progress": float(info.get("progress", 0.0)),
            "refused": self.refused,
            "fault": self.fault,
        }

    def close(self) -> None:
        """Free the env."""
        self._env.close()
