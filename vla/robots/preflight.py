"""Looked at before anything moves: does the agent fit the robot, is the robot alive, would the first chunk be sane."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.agent import GOLDEN_TOLERANCE, Agent
from vla.contracts import Observation, VlaError
from vla.robots.config import RobotConfig
from vla.robots.io import Joints, Picture, RobotIO
from vla.robots.state import Kinematics, observe

OK, WARN, FAIL = "ok", "warn", "fail"
_FIND_S = 6.0  # for topics to find each other in
_FIRST_STEP_M = 0.25  # how far the first action may be from the tool: the supervisor refuses more


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, ``ok``, ``warn`` or ``fail``, and what was found."""

    name: str
    status: str
    found: str


@dataclass
class Preflight:
    """Looks at a robot and an agent, moving nothing.

    Args:
        config: the robot's file.
        robot: it, watching.
        agent: what is to drive it.
        kinematics: of the arm.
        instruction: what it will be asked.
        speed: at which chunks are to be played, 1 being the speed of the demonstrations.
        seconds: to listen for.

    Attributes:
        observation: what the robot shows; None where it shows too little.
        infer_s: how long the second chunk took, the first being slower.
    """

    config: RobotConfig
    robot: RobotIO
    agent: Agent
    kinematics: Kinematics
    instruction: str
    speed: float
    seconds: float = 1.5
    observation: Observation | None = None
    infer_s: float = 0.0

    def run(self) -> Iterator[Check]:
        """The checks, one after the other."""
        self.agent.spec.require(self.config.spec, f"agent {self.agent.name}", f"robot {self.config.name}")
        yield Check(
            "agent and robot", OK, f"agent {self.agent.name} fits {self.config.name}: cameras, state, action, dt"
        )
        moved = self.agent.replay_golden_trace()
        status = OK if moved <= GOLDEN_TOLERANCE else FAIL
        yield Check("golden trace", status, f"differs by {moved:.1e}, and may by {GOLDEN_TOLERANCE:.0e}")
        yield from self._alive()
        joints, pictures = self.robot.joints(), self.robot.pictures()
        if joints is None or len(pictures) < len(self.config.cameras):
            return
        yield self._clock(joints, pictures)
        yield from self._posture(joints)
        self.observation = observe(self.kinematics, joints, pictures, self.instruction)
        yield from self._dry_chunk(self.observation)

    def _alive(self) -> Iterator[Check]:
        waited = time.monotonic() + _FIND_S
        cameras = set(self.config.cameras)
        while time.monotonic() < waited and not (self.robot.joints() and cameras <= set(self.robot.pictures())):
            time.sleep(0.02)
        counter, begun = self.robot.watch(), time.monotonic()
        while time.monotonic() - begun < self.seconds:
            self.robot.joints()
            self.robot.pictures()
            time.sleep(0.002)
        state, now = self.config.state, time.monotonic()
        joints = self.robot.joints()
        if joints is None:
            missing = ", ".join(self.robot.missing())
            what = f"no joint comes on {state.topic}" if len(self.robot.missing()) > 1 else f"{state.topic} lacks"
            yield Check("joints", FAIL, f"{what}: {missing}")
        else:
            yield self._rate("joints", state.topic, counter, state.rate_hz, now - joints.received, state.max_age_s)
        pictures = self.robot.pictures()
        for name, camera in self.config.cameras.items():
            if name not in pictures:
                yield Check(f"camera {name}", FAIL, f"nothing comes on {camera.topic}")
                continue
            age = now - pictures[name].received
            yield self._rate(f"camera {name}", camera.topic, counter, camera.rate_hz, age, camera.max_age_s)
        wrong = self.robot.problem() or self.robot.estop()
        yield Check("robot", FAIL if wrong else OK, wrong or "reports no fault, no e-stop is pressed")

    def _rate(self, name: str, topic: str, counter: Any, wanted: float, age: float, most: float) -> Check:
        rate, gap = counter.rate(topic), counter.gap.get(topic, age)
        found = f"{topic}: {rate:.0f} a second ({wanted:.0f} expected), longest silence {1e3 * gap:.0f} ms"
        if age > most:
            return Check(name, FAIL, f"{found}; the last is {age:.2f} s old, and may be {most} s")
        return Check(name, OK if rate >= 0.5 * wanted and gap < most else WARN, found)

    def _clock(self, joints: Joints, pictures: dict[str, Picture]) -> Check:
        now = time.time() - time.monotonic()
        stamps = {"joints": (joints.stamp, joints.received)}
        stamps |= {name: (picture.stamp, picture.received) for name, picture in pictures.items()}
        if self.robot.capabilities.name in ("sim", "replay"):
            return Check("clocks", OK, "a simulated or recorded robot has ours")
        without = [name for name, (stamp, _) in stamps.items() if stamp <= 0]
        if without:
            return Check("clocks", WARN, f"no stamps from {', '.join(without)}: messages sent twice can't be told")
        behind = {name: received + now - stamp for name, (stamp, received) in stamps.items()}
        text = ", ".join(f"{name} {1e3 * late:+.0f} ms" for name, late in behind.items())
        worst = max(map(abs, behind.values()))
        apart = max(behind.values()) - min(behind.values())
        if worst > 1.0:
            return Check("clocks", WARN, f"the robot's clock is another: {text}; only ages by our own clock are used")
        return Check("clocks", OK if apart < 0.2 else WARN, f"from stamp to here: {text}")

    def _posture(self, joints: Joints) -> Iterator[Check]:
        limits = self.config.limits
        low, high = np.array(limits.position_low), np.array(limits.position_high)
        outside = [
            f"{name} is at {value:.2f}, beyond {a:.2f} to {b:.2f}"
            for name, value, a, b in zip(self.config.joints, joints.q, low, high, strict=True)
            if not a <= value <= b
        ]
        yield Check("joint range", FAIL if outside else OK, "; ".join(outside) or "every joint is within its range")
        tool = self.kinematics.pose(joints.q)[:3]
        inside = (np.array(limits.workspace_low) <= tool).all() and (tool <= np.array(limits.workspace_high)).all()
        where = ", ".join(f"{value:.3f}" for value in tool)
        text = f"the tool is at ({where}) m"
        yield Check("workspace", OK if inside else FAIL, text if inside else f"{text}, outside: move it in by hand")

    def _dry_chunk(self, seen: Observation) -> Iterator[Check]:
        self.agent.act(seen, 0)
        begun = time.monotonic()
        actions = self.agent.act(seen, 0).actions
        self.infer_s = time.monotonic() - begun
        pace = (self.agent.execute or 8) * self.agent.spec.dt / self.speed
        text = f"{1e3 * self.infer_s:.0f} ms for a chunk of {len(actions)}; one is due every {1e3 * pace:.0f} ms"
        yield Check("inference", OK if self.infer_s < 0.5 * pace else WARN if self.infer_s < pace else FAIL, text)
        first = float(np.linalg.norm(actions[0, :3] - seen.state[:3]))
        steps = np.linalg.norm(np.diff(actions[:, :3], axis=0), axis=1) / self.agent.spec.dt * self.speed
        text = f"begins {100 * first:.1f} cm from the tool, moves at up to {steps.max():.2f} m/s"
        sane = np.isfinite(actions).all() and first < _FIRST_STEP_M
        yield Check("first chunk", OK if sane else FAIL, text)


def draw(file: Path, agent: Agent, seen: Observation, scale: int = 3) -> None:
    """Write a picture of each camera beside the one of the agent's golden trace, for people to compare."""
    from PIL import Image, ImageDraw

    if agent.golden is None:
        raise VlaError(f"agent {agent.name} has no golden trace to compare with")
    rows = []
    for camera in agent.spec.cameras:
        pair = (seen.images[camera.name], agent.golden[f"images.{camera.name}"].numpy())
        big = [np.kron(image, np.ones((scale, scale, 1), np.uint8)) for image in pair]
        rows.append(np.hstack([big[0], np.full((big[0].shape[0], 8, 3), 255, np.uint8), big[1]]))
    width = max(row.shape[1] for row in rows)
    sheet = Image.new("RGB", (width, sum(row.shape[0] + 18 for row in rows)), "white")
    top, pen = 0, ImageDraw.Draw(sheet)
    for camera, row in zip(agent.spec.cameras, rows, strict=True):
        pen.text((4, top + 3), f"{camera.name}: the robot (left), what the agent was trained on (right)", fill="black")
        sheet.paste(Image.fromarray(row), (0, top + 18))
        top += row.shape[0] + 18
    sheet.save(file)
